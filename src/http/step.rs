//! The outcome of giving bytes to an exchange.

use std::ops::Range;

use super::chunked::Piece;

/// The outcome of one call of `Exchange::receive` or `receive_streamed_body`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes that were consumed; the rest is to be given again.
    pub consumed: usize,
    pub received: Received,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing more can be made of these bytes; call again when there are more.
    NeedData,
    /// The head is whole. Call again for the body.
    Head,
    /// The head is whole, and the request with it: there is no body.
    Whole,
    /// Bytes of the body, as a range of the bytes given.
    Data(Range<usize>),
    /// The body is whole, and the request with it.
    End,
}

/// A step of a body's decoder.
pub(super) fn step(consumed: usize, piece: Piece) -> Step {
    let received = match piece {
        Piece::NeedData => Received::NeedData,
        Piece::Data(range) => Received::Data(range),
        Piece::End => Received::End,
    };
    Step { consumed, received }
}

/// Nothing came of the bytes.
pub(super) fn need_data(consumed: usize) -> Step {
    Step {
        consumed,
        received: Received::NeedData,
    }
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    KeepAlive,
    Close,
    /// Fewer bytes than the declared Content-Length; the connection closes so that the peer can tell.
    Short {
        missing: u64,
    },
}

/// A response whose whole body was at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeResponse {
    /// How many bytes of the body follow the head.
    pub taken: u64,
    pub finish: Finish,
}
