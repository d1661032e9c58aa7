//! The body of a request as it arrives: counted, or chunked.

use super::chunked::{ChunkedDecoder, Piece};
use super::error::ParseError;
use super::framing::{BodyLength, Framing};
use super::limits::Limits;
use super::step::{Step, step};

/// The body of a request while it arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct IncomingBody {
    decoder: BodyDecoder,
    expectation: Expectation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expectation {
    /// The peer waits for `100 Continue`, and nothing of the body has arrived.
    Continue,
    Nothing,
}

impl IncomingBody {
    pub(super) fn new(framing: &Framing, more_has_arrived: bool) -> Self {
        Self {
            decoder: BodyDecoder::new(framing.length),
            expectation: match framing.expects_continue && !more_has_arrived {
                true => Expectation::Continue,
                false => Expectation::Nothing,
            },
        }
    }

    pub(super) fn receive(&mut self, input: &[u8], limits: &Limits) -> Result<Step, ParseError> {
        let (consumed, piece) = self.decoder.decode(input, limits)?;
        if consumed > 0 || piece == Piece::End {
            self.expectation = Expectation::Nothing;
        }
        Ok(step(consumed, piece))
    }

    pub(super) fn take_counted(&mut self, len: u64) {
        if let BodyDecoder::Length { remaining } = &mut self.decoder
            && len > 0
        {
            debug_assert!(len <= *remaining, "more than the body has");
            *remaining = remaining.saturating_sub(len);
            self.expectation = Expectation::Nothing;
        }
    }

    /// The peer waits for `100 Continue`, and nothing of the body has arrived.
    pub(super) fn wants_continue(&self) -> bool {
        self.expectation == Expectation::Continue
    }

    /// Clears the expectation. Returns whether the peer waited.
    pub(super) fn take_expectation(&mut self) -> bool {
        let expected = std::mem::replace(&mut self.expectation, Expectation::Nothing);
        expected == Expectation::Continue
    }

    /// How many bytes are still to come, when the length was declared.
    pub(super) fn counted_left(&self) -> Option<u64> {
        match self.decoder {
            BodyDecoder::Length { remaining } => Some(remaining),
            BodyDecoder::Chunked(_) => None,
        }
    }

    /// Whether a body of this length can be in this state.
    pub(super) fn fits(&self, length: BodyLength) -> bool {
        self.decoder.fits(length)
    }
}

/// Decodes one body. A request's body always has one of these two ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug)]
enum BodyDecoder {
    Length { remaining: u64 },
    Chunked(ChunkedDecoder),
}

impl BodyDecoder {
    fn new(length: BodyLength) -> Self {
        match length {
            BodyLength::Empty => Self::Length { remaining: 0 },
            BodyLength::Known(remaining) => Self::Length { remaining },
            BodyLength::Chunked => Self::Chunked(ChunkedDecoder::default()),
        }
    }

    /// Reads from the start of `input`: how many bytes are done with, and what came out.
    fn decode(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, Piece), ParseError> {
        match self {
            Self::Length { remaining: 0 } => Ok((0, Piece::End)),
            Self::Length { .. } if input.is_empty() => Ok((0, Piece::NeedData)),
            Self::Length { remaining } => {
                let length = usize::try_from(*remaining)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                *remaining -= length as u64;
                Ok((length, Piece::Data(0..length)))
            }
            Self::Chunked(decoder) => decoder.decode(input, limits),
        }
    }

    fn fits(&self, length: BodyLength) -> bool {
        match (self, length) {
            (Self::Length { remaining }, BodyLength::Known(length)) => *remaining <= length,
            (Self::Length { remaining }, BodyLength::Empty) => *remaining == 0,
            (Self::Chunked(_), BodyLength::Chunked) => true,
            _ => false,
        }
    }
}
