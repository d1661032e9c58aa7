//! The chunked transfer coding, received (RFC 9112 section 7.1).
//!
//! A state enum fed with whatever has arrived. Sizes and extensions are read byte by byte and consumed at once;
//! trailer lines are consumed when whole, then dropped. Only CRLF ends a line, only hexadecimal digits make a
//! size, and every line, the trailer section and the sum of the chunks are bounded.

use std::ops::Range;

use super::error::{ParseError, quoted};
use super::fields::{is_field_value, is_field_value_byte, is_named, is_token, is_token_byte};
use super::limits::Limits;

/// The outcome of a call of [`ChunkedDecoder::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    NeedData,
    /// Body bytes, as a range of the bytes given. Never empty.
    Data(Range<usize>),
    End,
}

/// Where the decoder stands. Named by what the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    SizeStart,
    Size,
    /// White space after the size: only an extension may follow.
    SpaceBeforeExtension,
    ExtensionStart,
    ExtensionName,
    SpaceAfterName,
    ExtensionValueStart,
    ExtensionValue,
    ExtensionQuoted,
    ExtensionQuotedPair,
    ExtensionQuotedEnd,
    SpaceAfterValue,
    SizeLineFeed,
    Data,
    DataCarriageReturn,
    DataLineFeed,
    Trailers,
    Done,
}

/// Decodes one body.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkedDecoder {
    /// Of the chunk: the size as far as it is known, then what is missing.
    remaining: u64,
    /// Sum of the sizes of the chunks begun.
    total: u64,
    /// Bytes of the size line so far; in the trailers, bytes consumed of them.
    line_bytes: u32,
    /// In the trailers: bytes of the unfinished line already searched for its end.
    scanned: u32,
    trailers: u16,
    phase: Phase,
}

impl ChunkedDecoder {
    /// Reads from the start of `input`; returns how many bytes are done with and what came out. Data is to be
    /// used before the next call; the bytes not consumed are to be given again, with more behind them.
    pub fn decode(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, Piece), ParseError> {
        let mut at = 0;
        while at < input.len() {
            match self.phase {
                Phase::Data => {
                    let length = usize::try_from(self.remaining)
                        .unwrap_or(usize::MAX)
                        .min(input.len() - at);
                    self.remaining -= length as u64;
                    if self.remaining == 0 {
                        self.phase = Phase::DataCarriageReturn;
                    }
                    return Ok((at + length, Piece::Data(at..at + length)));
                }
                Phase::DataCarriageReturn | Phase::DataLineFeed => {
                    self.end_chunk(input[at])?;
                    at += 1;
                }
                Phase::Trailers => {
                    let (length, piece) = self.read_trailers(&input[at..], limits)?;
                    return Ok((at + length, piece));
                }
                Phase::Done => return Ok((at, Piece::End)),
                _ => {
                    self.read_size_line(input[at], limits)?;
                    at += 1;
                }
            }
        }
        let piece = match self.phase {
            Phase::Done => Piece::End,
            _ => Piece::NeedData,
        };
        Ok((at, piece))
    }

    /// Nothing of the body has arrived.
    pub fn is_untouched(&self) -> bool {
        self.phase == Phase::SizeStart && self.total == 0
    }

    fn end_chunk(&mut self, byte: u8) -> Result<(), ParseError> {
        self.phase = match (self.phase, byte) {
            (Phase::DataCarriageReturn, b'\r') => Phase::DataLineFeed,
            (Phase::DataLineFeed, b'\n') => Phase::SizeStart,
            _ => return Err(ParseError::ChunkTerminator(quoted(&[byte]))),
        };
        Ok(())
    }

    /// `chunk-size [ chunk-ext ] CRLF`, one byte.
    fn read_size_line(&mut self, byte: u8, limits: &Limits) -> Result<(), ParseError> {
        self.line_bytes += 1;
        if self.line_bytes as usize > limits.field_bytes_max {
            return Err(ParseError::ChunkSize(quoted(b"line too long")));
        }
        self.phase = match (self.phase, byte) {
            (Phase::SizeStart | Phase::Size, _) if byte.is_ascii_hexdigit() => {
                // RFC 9112 section 7.1: a recipient must keep clear of overflow.
                if self.remaining > CHUNK_BYTES_MAX >> 4 {
                    return Err(ParseError::ChunkSize(quoted(b"too large")));
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.remaining = self.remaining << 4 | u64::from(digit);
                Phase::Size
            }
            (Phase::Size, b'\r') => Phase::SizeLineFeed,
            (Phase::Size | Phase::SpaceBeforeExtension, b';') => Phase::ExtensionStart,
            (Phase::Size | Phase::SpaceBeforeExtension, b' ' | b'\t') => {
                Phase::SpaceBeforeExtension
            }
            (Phase::SizeLineFeed, b'\n') => return self.begin_chunk(limits),
            (
                Phase::SizeStart | Phase::Size | Phase::SpaceBeforeExtension | Phase::SizeLineFeed,
                _,
            ) => {
                return Err(ParseError::ChunkSize(quoted(&[byte])));
            }
            (phase, byte) => next_in_extension(phase, byte)?,
        };
        Ok(())
    }

    fn begin_chunk(&mut self, limits: &Limits) -> Result<(), ParseError> {
        self.line_bytes = 0;
        if self.remaining == 0 {
            self.phase = Phase::Trailers;
            return Ok(());
        }
        self.total = self.total.saturating_add(self.remaining);
        match limits.body_bytes_max {
            Some(max) if self.total > max => Err(ParseError::BodyTooLarge { max }),
            _ => {
                self.phase = Phase::Data;
                Ok(())
            }
        }
    }

    /// Whole trailer lines up to the empty one. They are checked as fields are, and dropped (RFC 9112 section 7.1.2).
    fn read_trailers(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<(usize, Piece), ParseError> {
        let mut at = 0;
        while let Some(found) = memchr::memchr(b'\n', &input[at + self.scanned as usize..]) {
            let line = &input[at..at + self.scanned as usize + found + 1];
            self.scanned = 0;
            at += line.len();
            let Some(content) = line.strip_suffix(b"\r\n") else {
                return Err(ParseError::Field(quoted(b"bare LF as line terminator")));
            };
            if content.is_empty() {
                self.phase = Phase::Done;
                return Ok((at, Piece::End));
            }
            self.line_bytes = self.line_bytes.saturating_add(line.len() as u32);
            self.trailers = self.trailers.saturating_add(1);
            if line.len() > limits.field_bytes_max {
                return Err(ParseError::FieldTooLarge);
            }
            if usize::from(self.trailers) > limits.fields_max {
                return Err(ParseError::TooManyFields);
            }
            if self.line_bytes as usize > limits.head_bytes_max {
                return Err(ParseError::HeadTooLarge);
            }
            check_trailer(content)?;
        }
        let pending = input.len() - at;
        if pending > limits.field_bytes_max {
            return Err(ParseError::FieldTooLarge);
        }
        self.scanned = pending as u32;
        Ok((at, Piece::NeedData))
    }
}

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` (RFC 9112 section 7.1.1). Unknown extensions
/// are ignored, but only well-formed ones: a reader that splits lines elsewhere must not find one in them.
fn next_in_extension(phase: Phase, byte: u8) -> Result<Phase, ParseError> {
    Ok(match (phase, byte) {
        (Phase::ExtensionStart | Phase::ExtensionName, _) if is_token_byte(byte) => {
            Phase::ExtensionName
        }
        (Phase::ExtensionStart, b' ' | b'\t') => Phase::ExtensionStart,
        (Phase::ExtensionName | Phase::SpaceAfterName, b' ' | b'\t') => Phase::SpaceAfterName,
        (Phase::ExtensionName | Phase::SpaceAfterName, b'=') => Phase::ExtensionValueStart,
        (Phase::ExtensionValueStart | Phase::ExtensionValue, _) if is_token_byte(byte) => {
            Phase::ExtensionValue
        }
        (Phase::ExtensionValueStart, b' ' | b'\t') => Phase::ExtensionValueStart,
        (Phase::ExtensionValueStart, b'"') => Phase::ExtensionQuoted,
        (Phase::ExtensionQuoted, b'\\') => Phase::ExtensionQuotedPair,
        (Phase::ExtensionQuoted, b'"') => Phase::ExtensionQuotedEnd,
        (Phase::ExtensionQuoted | Phase::ExtensionQuotedPair, _) if is_field_value_byte(byte) => {
            Phase::ExtensionQuoted
        }
        (
            Phase::ExtensionValue | Phase::ExtensionQuotedEnd | Phase::SpaceAfterValue,
            b' ' | b'\t',
        ) => Phase::SpaceAfterValue,
        (
            Phase::ExtensionName
            | Phase::SpaceAfterName
            | Phase::ExtensionValue
            | Phase::ExtensionQuotedEnd
            | Phase::SpaceAfterValue,
            b';',
        ) => Phase::ExtensionStart,
        // White space that no extension follows is refused, after a size too.
        (Phase::ExtensionName | Phase::ExtensionValue | Phase::ExtensionQuotedEnd, b'\r') => {
            Phase::SizeLineFeed
        }
        (_, b'\n') => return Err(ParseError::ChunkExtension("bare LF not allowed")),
        (_, b'\r') => return Err(ParseError::ChunkExtension("bare CR not allowed")),
        _ => return Err(ParseError::ChunkExtension("invalid chunk extension")),
    })
}

fn check_trailer(content: &[u8]) -> Result<(), ParseError> {
    if let Some(b' ' | b'\t') = content.first() {
        return Err(ParseError::Folding(quoted(b"")));
    }
    let Some(colon) = memchr::memchr(b':', content) else {
        return Err(ParseError::Field(quoted(content)));
    };
    let name = &content[..colon];
    // RFC 9110 section 6.5.1: what routes, frames or authenticates has no place behind the body.
    if !is_token(name)
        || FORBIDDEN_TRAILERS
            .iter()
            .any(|forbidden| is_named(name, forbidden))
    {
        return Err(ParseError::FieldName(quoted(name)));
    }
    match is_field_value(&content[colon + 1..]) {
        true => Ok(()),
        false => Err(ParseError::Field(quoted(&name.to_ascii_uppercase()))),
    }
}

const FORBIDDEN_TRAILERS: [&[u8]; 6] = [
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"trailer",
    b"authorization",
    b"te",
];

/// Sums of sizes stay far from overflow, also for a reader that takes a length for a signed number.
const CHUNK_BYTES_MAX: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests;
