//! The poll set's events: of what each is ([`Event`]), by the token that was registered.

use mio::Token;
use mio::event::Event as PollEvent;

use crate::pool::ConnId;

/// The pool's waker.
pub(super) const WAKER: Token = Token(0);
const FIRST_DESCRIPTOR: usize = 1;
const FIRST_LISTENER: usize = 16;
const FIRST_CONNECTION: usize = 1024;
/// Half of a connection's token names its slot, the other half its generation.
const SLOT_BITS: u32 = usize::BITS / 2;
const SLOT_MASK: usize = (1 << SLOT_BITS) - 1;

/// Every reason why the loop moves something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Replies of the pool.
    Woken,
    Descriptor(Descriptor),
    /// Connections wait at the listener of this number.
    Accept(usize),
    /// News of a client socket, whose connection is found with [`slot_of`].
    Connection(Token, SocketEvent),
}

/// Descriptors that other parts of the process, or other workers, write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Descriptor {
    /// One byte per signal to the worker: its number.
    Signals = 0,
    /// Bytes that say that the interpreter has something pending (its wake-up descriptor).
    Interrupts = 1,
    /// The channel from peer workers (`peer_workers.rs` reads it).
    Peers = 2,
    /// What workers that are gone have left (`takeover.rs` reads it).
    Left = 3,
}

impl Descriptor {
    pub(super) fn of(index: usize) -> Self {
        match index {
            0 => Self::Signals,
            1 => Self::Interrupts,
            2 => Self::Peers,
            _ => Self::Left,
        }
    }
}

/// What is announced of a client socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketEvent {
    pub(super) input: InputEvent,
    /// The socket takes bytes again.
    pub(super) is_writable: bool,
    /// Both directions are gone.
    pub(super) is_broken: bool,
}

/// What is announced of a socket's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputEvent {
    Nothing,
    /// Bytes have arrived.
    Readable,
    /// The client has closed its side; there may be bytes before the end.
    Closed,
}

impl Event {
    pub(super) fn of(event: &PollEvent) -> Self {
        let socket = SocketEvent {
            input: match (event.is_read_closed(), event.is_readable()) {
                (true, _) => InputEvent::Closed,
                (false, true) => InputEvent::Readable,
                (false, false) => InputEvent::Nothing,
            },
            is_writable: event.is_writable(),
            is_broken: event.is_error() || event.is_write_closed(),
        };
        Self::with_token(event.token(), socket)
    }

    fn with_token(token: Token, socket: SocketEvent) -> Self {
        match token.0 {
            0 => Self::Woken,
            FIRST_DESCRIPTOR..FIRST_LISTENER => {
                Self::Descriptor(Descriptor::of(token.0 - FIRST_DESCRIPTOR))
            }
            FIRST_LISTENER..FIRST_CONNECTION => Self::Accept(token.0 - FIRST_LISTENER),
            _ => Self::Connection(token, socket),
        }
    }
}

pub(super) fn of_descriptor(descriptor: Descriptor) -> Token {
    Token(FIRST_DESCRIPTOR + descriptor as usize)
}

pub(super) fn of_listener(number: usize) -> Token {
    Token(FIRST_LISTENER + number)
}

/// The token of a connection's socket.
pub(super) fn of_connection(id: ConnId) -> Token {
    Token((id.generation as usize) << SLOT_BITS | (FIRST_CONNECTION + id.slot as usize))
}

/// The token of the application's side of a hijacked TLS connection: that of no connection's socket.
pub(super) fn of_bridge(id: ConnId) -> Token {
    Token(of_connection(id).0 | 1 << (SLOT_BITS - 1))
}

/// The slot of the connection that a token means.
pub(super) fn slot_of(token: Token) -> Option<usize> {
    (token.0 & SLOT_MASK).checked_sub(FIRST_CONNECTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_known_by_its_token() {
        let socket = SocketEvent {
            input: InputEvent::Readable,
            is_writable: false,
            is_broken: false,
        };
        let event = |token| Event::with_token(token, socket);
        assert_eq!(event(WAKER), Event::Woken);
        for descriptor in [
            Descriptor::Signals,
            Descriptor::Interrupts,
            Descriptor::Peers,
            Descriptor::Left,
        ] {
            let token = of_descriptor(descriptor);
            assert_eq!(event(token), Event::Descriptor(descriptor));
        }
        assert_eq!(event(of_listener(0)), Event::Accept(0));
        for (slot, generation) in [(0, 0), (7, 1), (9_999, u32::MAX)] {
            let token = of_connection(ConnId::new(slot, generation));
            assert_eq!(event(token), Event::Connection(token, socket));
            assert_eq!(slot_of(token), Some(slot as usize));
            let bridge = of_bridge(ConnId::new(slot, generation));
            assert!(bridge != token && slot_of(bridge) != slot_of(token));
        }
    }
}
