//! A connection's way in: what the poll set has announced, and what was read and is not consumed.
//!
//! The socket is edge-triggered, so an edge that was not used up is remembered ([`Edge`]). A read that does not fill its
//! buffer has emptied the socket, and the next byte is a new edge. Only the end of the stream gives no further edge, so it
//! is read for when it was announced.

use std::io;

use super::events::InputEvent;
use super::spool::{BodyBudget, Spool};
use super::transport::Transport;

/// One connection reads at most this many bytes in one iteration of the loop, so that none starves the others.
/// In tests it is less than what a socket pair holds.
pub(super) const SHARE_BYTES: usize = if cfg!(test) { 64 * 1024 } else { 512 * 1024 };
/// How often one reads in one iteration what it forgets.
const DISCARDING_READS: usize = 8;

/// What is known of the socket's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    /// It is empty; the poll set announces more.
    Drained,
    /// There may be something.
    Ready,
    /// The client has closed its side, and what it sent before that is not all read.
    Ending,
    /// Everything is read, to the end of the stream.
    Ended,
}

/// Whether the client's input is still wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interest {
    Wanted,
    /// A request was given up before it was whole: the client may still be sending it.
    GivenUp,
}

/// What one read has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Bytes(usize),
    /// Nothing now.
    Blocked,
    /// The end of the stream.
    End,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ReadSide {
    /// Read and not yet consumed. Empty, and without memory, on an idle connection.
    buffer: Vec<u8>,
    edge: Edge,
    interest: Interest,
}

impl Default for ReadSide {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            edge: Edge::Drained,
            interest: Interest::Wanted,
        }
    }
}

impl ReadSide {
    /// The poll set has announced input.
    pub(super) fn on_edge(&mut self, event: InputEvent) {
        self.edge = match (event, self.edge) {
            (InputEvent::Nothing, edge) => edge,
            (InputEvent::Readable, Edge::Drained | Edge::Ready) => Edge::Ready,
            _ => Edge::Ending,
        };
    }

    /// Reading may bring something.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.edge, Edge::Ready | Edge::Ending)
    }

    /// The client has closed its side.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.edge, Edge::Ending | Edge::Ended)
    }

    /// Everything that the client has sent is read, and nothing more will come.
    pub(super) fn has_ended(&self) -> bool {
        self.edge == Edge::Ended
    }

    /// Bytes of the client may be unread, or may still come, when the connection closes.
    pub(super) fn may_have_unread(&self) -> bool {
        self.edge != Edge::Ended
            && (!self.buffer.is_empty() || self.is_ready() || self.interest == Interest::GivenUp)
    }

    /// The client's request is given up before it is whole.
    pub(super) fn give_up(&mut self) {
        self.interest = Interest::GivenUp;
    }

    /// Read and forget, until the client closes its side too. [`Input::Bytes`]: there may be more.
    pub(super) fn discard(
        &mut self,
        buffer: &mut [u8],
        transport: &mut Transport,
    ) -> io::Result<Input> {
        for _ in 0..DISCARDING_READS {
            match self.read(buffer, transport)? {
                Input::Bytes(_) => {}
                // Our own end waits for the socket.
                Input::End if transport.has_unsent() => return Ok(Input::Blocked),
                input => return Ok(input),
            }
        }
        Ok(Input::Bytes(0))
    }

    /// Read from the socket.
    ///
    /// # Errors
    /// The socket is broken.
    pub(super) fn read(&mut self, into: &mut [u8], transport: &mut Transport) -> io::Result<Input> {
        let (result, has_ended) = transport.read_with_end(into);
        if has_ended {
            self.on_edge(InputEvent::Closed);
        }
        let is_filled = matches!(result, Ok(len) if len == into.len());
        self.after_read(result, is_filled)
    }

    /// Read a body that is being received to where it stays; what the client has sent behind it is kept here.
    ///
    /// # Errors
    /// The socket is broken, or the system has no memory for so much.
    pub(super) fn read_body(
        &mut self,
        room: usize,
        left: usize,
        spool: &mut Spool,
        transport: &mut Transport,
        bodies: &mut BodyBudget,
    ) -> io::Result<Input> {
        debug_assert!(self.buffer.is_empty(), "what was read goes first");
        let mut may_have_more = false;
        let result = spool.read(room, left, transport, bodies).map(|read| {
            may_have_more = read.is_full || !read.beyond.is_empty();
            self.buffer = read.beyond;
            read.bytes
        });
        if transport.has_unannounced_end() {
            self.on_edge(InputEvent::Closed);
        }
        self.after_read(result, may_have_more)
    }

    fn after_read(&mut self, result: io::Result<usize>, may_have_more: bool) -> io::Result<Input> {
        let (edge, input) = match result {
            Ok(0) => (Edge::Ended, Input::End),
            Ok(len) if self.is_closed() => (Edge::Ending, Input::Bytes(len)),
            Ok(len) if may_have_more => (Edge::Ready, Input::Bytes(len)),
            Ok(len) => (Edge::Drained, Input::Bytes(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let edge = if self.is_closed() {
                    Edge::Ended
                } else {
                    Edge::Drained
                };
                (edge, Input::Blocked)
            }
            Err(error) => return Err(error),
        };
        self.edge = edge;
        Ok(input)
    }

    /// Whether nothing that was read waits to be consumed.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What was read and not yet consumed.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Keep bytes behind those that wait already.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Take what waits, to be consumed. The rest is to be given back.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Give back what was taken, less the first `consumed` bytes. Without a rest the memory goes too.
    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>, consumed: usize) {
        if consumed < buffer.len() {
            buffer.drain(..consumed);
            self.buffer = buffer;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    #[test]
    fn an_edge_is_used_up_by_a_read_that_does_not_fill_its_buffer() {
        let (mut transport, mut theirs) = Transport::pair();
        let mut side = ReadSide::default();
        assert!(!side.is_ready());
        theirs.write_all(b"abcdef").unwrap();
        side.on_edge(InputEvent::Readable);
        let mut four = [0; 4];
        let mut read = |side: &mut ReadSide| side.read(&mut four, &mut transport).unwrap();
        assert_eq!(read(&mut side), Input::Bytes(4));
        assert!(side.is_ready(), "there may be more");
        assert_eq!(read(&mut side), Input::Bytes(2));
        assert!(!side.is_ready());
        assert_eq!(read(&mut side), Input::Blocked);
    }

    #[test]
    fn the_end_of_the_stream_is_read_for_when_it_was_announced() {
        let (mut transport, mut theirs) = Transport::pair();
        let mut side = ReadSide::default();
        theirs.write_all(b"abc").unwrap();
        drop(theirs);
        side.on_edge(InputEvent::Closed);
        let mut buffer = [0; 64];
        let mut read = |side: &mut ReadSide| side.read(&mut buffer, &mut transport).unwrap();
        assert_eq!(read(&mut side), Input::Bytes(3));
        assert!(side.is_ready() && side.is_closed());
        assert_eq!(read(&mut side), Input::End);
        assert!(!side.is_ready() && side.is_closed() && !side.may_have_unread());
    }

    #[test]
    fn a_request_that_was_given_up_may_still_be_coming() {
        let mut side = ReadSide::default();
        assert!(!side.may_have_unread());
        side.give_up();
        assert!(side.may_have_unread());
    }

    #[test]
    fn what_is_not_consumed_stays() {
        let mut side = ReadSide::default();
        side.keep(b"abc");
        let taken = side.take();
        side.give_back(taken, 2);
        assert_eq!(side.buffered(), b"c");
        let taken = side.take();
        side.give_back(taken, 1);
        assert!(side.is_empty());
    }
}
