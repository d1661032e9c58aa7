//! The poll set's tokens: what an event is of.

use mio::Token;

use crate::pool::ConnId;

/// The pool's waker.
pub(super) const WAKER: Token = Token(0);
const FIRST_DESCRIPTOR: usize = 1;
const FIRST_LISTENER: usize = 16;
const FIRST_CONNECTION: usize = 1024;
/// Half of a connection's token names its slot, the other half its generation.
const SLOT_BITS: u32 = usize::BITS / 2;
const SLOT_MASK: usize = (1 << SLOT_BITS) - 1;

/// What an event is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Waker,
    /// A descriptor that another part of the process writes to, by its number.
    Descriptor(usize),
    Listener(usize),
    /// A client socket, whose connection is found with [`slot_of`].
    Connection(Token),
}

/// See [`Source`].
pub(super) fn source_of(token: Token) -> Source {
    match token.0 {
        0 => Source::Waker,
        FIRST_DESCRIPTOR..FIRST_LISTENER => Source::Descriptor(token.0 - FIRST_DESCRIPTOR),
        FIRST_LISTENER..FIRST_CONNECTION => Source::Listener(token.0 - FIRST_LISTENER),
        _ => Source::Connection(token),
    }
}

pub(super) fn of_descriptor(number: usize) -> Token {
    Token(FIRST_DESCRIPTOR + number)
}

pub(super) fn of_listener(number: usize) -> Token {
    Token(FIRST_LISTENER + number)
}

/// The token of a connection's socket.
pub(super) fn of_connection(id: ConnId) -> Token {
    let generation = (id.generation as usize) << SLOT_BITS;
    Token(generation | (FIRST_CONNECTION + id.slot as usize))
}

/// The slot of the connection that a token means.
pub(super) fn slot_of(token: Token) -> Option<usize> {
    (token.0 & SLOT_MASK).checked_sub(FIRST_CONNECTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_found_by_its_token() {
        assert_eq!(source_of(WAKER), Source::Waker);
        assert_eq!(source_of(of_descriptor(2)), Source::Descriptor(2));
        assert_eq!(source_of(of_listener(0)), Source::Listener(0));
        for (slot, generation) in [(0, 0), (7, 1), (9_999, u32::MAX)] {
            let token = of_connection(ConnId { slot, generation });
            assert_eq!(source_of(token), Source::Connection(token));
            assert_eq!(slot_of(token), Some(slot as usize));
        }
    }
}
