//! The body of a request as it arrives: counted, or chunked.

use super::chunked::{ChunkedDecoder, Piece};
use super::error::ParseError;
use super::framing::BodyLength;
use super::limits::Limits;

/// Decodes one body. A request's body always has one of these two ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug)]
pub(super) enum BodyDecoder {
    Length { remaining: u64 },
    Chunked(ChunkedDecoder),
}

impl BodyDecoder {
    pub(super) fn new(length: BodyLength) -> Self {
        match length {
            BodyLength::Empty => Self::Length { remaining: 0 },
            BodyLength::Known(remaining) => Self::Length { remaining },
            BodyLength::Chunked => Self::Chunked(ChunkedDecoder::default()),
        }
    }

    /// Reads from the start of `inbound`: how many bytes are done with, and what came out.
    pub(super) fn decode(
        &mut self,
        inbound: &[u8],
        limits: &Limits,
    ) -> Result<(usize, Piece), ParseError> {
        match self {
            Self::Length { remaining: 0 } => Ok((0, Piece::End)),
            Self::Length { .. } if inbound.is_empty() => Ok((0, Piece::NeedData)),
            Self::Length { remaining } => {
                let length = usize::try_from(*remaining)
                    .unwrap_or(usize::MAX)
                    .min(inbound.len());
                *remaining -= length as u64;
                Ok((length, Piece::Data(0..length)))
            }
            Self::Chunked(decoder) => decoder.decode(inbound, limits),
        }
    }

    /// Is this a state that a body of this length can be in?
    pub(super) fn fits(&self, length: BodyLength) -> bool {
        match (self, length) {
            (Self::Length { remaining }, BodyLength::Known(length)) => *remaining <= length,
            (Self::Length { remaining }, BodyLength::Empty) => *remaining == 0,
            (Self::Chunked(_), BodyLength::Chunked) => true,
            _ => false,
        }
    }
}
