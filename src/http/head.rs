//! The head of a request: one owned buffer and the places of everything in it.
//!
//! [`parse_head`] is resumable. A head that arrives whole is tokenised at once; one that arrives in pieces has each
//! new byte searched once for line ends, with the limits applied on the way, and is tokenised when its end is
//! there. `httparse` finds the fields; what it tolerates beyond the rules of RFC 9112 is refused here and in `refusal.rs`.

use std::mem::MaybeUninit;

use super::error::{ParseError, quoted};
use super::fields::{FieldSpan, Span, is_named};
use super::framing::{Framing, FramingFields};
use super::limits::Limits;
use super::refusal::{self, RequestLine};
use super::target::is_same_authority;
use super::version::Version;

mod composed;

pub use self::composed::RequestParts;

/// A request's head. Reusable: `clear` keeps the capacity.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The head as received, and behind it what it implies.
    bytes: Vec<u8>,
    length: usize,
    fields: Vec<FieldSpan>,
    line: Span,
    method: Span,
    target: Span,
    path: Span,
    query: Span,
    version: Version,
    /// What a gateway says of the client's scheme; fields say it otherwise.
    scheme_is_https: Option<bool>,
}

impl RequestHead {
    /// How many bytes of memory it keeps when it is cleared.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.fields.capacity() * size_of::<FieldSpan>()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.length = 0;
        self.fields.clear();
        self.line = Span::default();
        self.method = Span::default();
        self.target = Span::default();
        self.path = Span::default();
        self.query = Span::default();
        self.version = Version::default();
        self.scheme_is_https = None;
    }

    pub fn method(&self) -> &[u8] {
        self.method.of(&self.bytes)
    }

    /// The request target as sent.
    pub fn target(&self) -> &[u8] {
        self.target.of(&self.bytes)
    }

    /// The path of the target, still percent-encoded.
    pub fn path(&self) -> &[u8] {
        self.path.of(&self.bytes)
    }

    /// What follows the `?`, without it.
    pub fn query(&self) -> &[u8] {
        self.query.of(&self.bytes)
    }

    /// Whether the client spoke https, if a gateway says that beside the fields (uwsgi).
    pub fn scheme_is_https(&self) -> Option<bool> {
        self.scheme_is_https
    }

    pub(super) fn set_scheme(&mut self, is_https: bool) {
        self.scheme_is_https = Some(is_https);
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Names as sent, values without surrounding white space, in the order of arrival.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields
            .iter()
            .map(|field| (field.name.of(&self.bytes), field.value.of(&self.bytes)))
    }

    /// The whole head as it was received, with the blank line at its end.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The fields again, the last one first.
    pub(super) fn fields_from_last(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields
            .iter()
            .rev()
            .map(|field| (field.name.of(&self.bytes), field.value.of(&self.bytes)))
    }

    /// Forgets the fields that `keep` does not want.
    pub(super) fn retain_fields(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let bytes = &self.bytes;
        self.fields
            .retain(|field| keep(field.name.of(bytes), field.value.of(bytes)));
    }

    /// The first field of this name.
    pub fn field(&self, lowercase_name: &[u8]) -> Option<&[u8]> {
        self.fields()
            .find(|(name, _)| is_named(name, lowercase_name))
            .map(|(_, value)| value)
    }

    /// The request line without its CRLF.
    pub fn request_line(&self) -> &[u8] {
        self.line.of(&self.bytes)
    }

    /// The start of a head that was refused, so that its log line can show what was sent.
    pub(super) fn keep_refused(&mut self, input: &[u8], limits: &Limits) {
        self.clear();
        let shown = &input[..input.len().min(limits.request_line_bytes_max)];
        let end = shown
            .iter()
            .position(|byte| b"\r\n".contains(byte))
            .unwrap_or(shown.len());
        self.bytes.extend_from_slice(&shown[..end]);
        self.length = end;
        self.line = Span::new(0, end);
        if let Ok(line) = RequestLine::parse(&shown[..end], &limits.rules) {
            self.set_request_line(&line, end);
        }
    }

    fn set_request_line(&mut self, line: &RequestLine, line_end: usize) {
        self.line = Span::new(0, line_end);
        self.method = Span::new(0, line.method_end);
        self.target = Span::new(line.target_start(), line.target_end);
        let at = line.target_start();
        self.path = Span::new(at + line.parts.path.0, at + line.parts.path.1);
        self.query = Span::new(at + line.parts.query.0, at + line.parts.query.1);
        self.version = line.version;
    }

    /// RFC 9112 section 3.2.2: the authority of an absolute target counts, not `Host`. One that names another place is
    /// refused: of two readers each could believe another.
    fn replace_host(&mut self, authority: (usize, usize)) -> Result<(), ParseError> {
        let target = self.target();
        let (scheme, value) = (
            &target[..authority.0 - "://".len()],
            &target[authority.0..authority.1],
        );
        let start = self.target.start();
        let span = Span::new(start + authority.0, start + authority.1);
        let place = self.fields().position(|(name, _)| is_named(name, b"host"));
        match place {
            Some(place) => {
                let host = self.fields[place].value.of(&self.bytes);
                if !is_same_authority(scheme, value, host) {
                    return Err(ParseError::Field(quoted(b"HOST")));
                }
                self.fields[place].value = span;
            }
            // Only HTTP/1.0 does without.
            None => {
                self.bytes.extend_from_slice(b"Host");
                self.fields.push(FieldSpan {
                    name: Span::new(self.length, self.length + 4),
                    value: span,
                });
            }
        }
        Ok(())
    }

    /// Takes over a head that httparse has tokenised, if it also keeps our rules.
    fn accept(
        &mut self,
        bytes: &[u8],
        tokens: &[httparse::Header<'_>],
        limits: &Limits,
    ) -> Result<Framing, ParseError> {
        let end = bytes.len();
        let place = |text: &[u8]| text.as_ptr() as usize - bytes.as_ptr() as usize;
        // The blank line's start is where a next field would be.
        let blank = end - 2;
        let fields_start = tokens
            .first()
            .map_or(blank, |token| place(token.name.as_bytes()));
        let line_end = fields_start - 2;
        if line_end > limits.request_line_bytes_max {
            return Err(refusal::line_too_large(line_end, limits));
        }
        // RFC 9112 section 2.2 lets a recipient take a bare LF for a line end. Not all do, so it is refused here.
        // Fields hold no line ends, so the byte before each LF is all there is to look at.
        if bytes[line_end] != b'\r' {
            return Err(refusal::bare_line_feed(0));
        }
        let line = RequestLine::parse(&bytes[..line_end], &limits.rules)?;
        if end > limits.head_bytes_max {
            return Err(ParseError::HeadTooLarge);
        }
        if tokens.len() > limits.fields_max {
            return Err(ParseError::TooManyFields);
        }
        self.clear();
        self.fields.reserve(tokens.len());
        let mut framing = FramingFields::default();
        let mut ends = tokens[tokens.len().min(1)..]
            .iter()
            .map(|token| place(token.name.as_bytes()))
            .chain([blank]);
        for token in tokens {
            let start = place(token.name.as_bytes());
            let next = ends.next().unwrap_or(blank);
            if bytes[next - 2] != b'\r' {
                return Err(refusal::bare_line_feed(1));
            }
            if next - start > limits.field_bytes_max {
                return Err(ParseError::FieldTooLarge);
            }
            // An empty value is not always a part of `bytes`.
            let value_start = if token.value.is_empty() {
                start
            } else {
                place(token.value)
            };
            self.fields.push(FieldSpan {
                name: Span::new(start, start + token.name.len()),
                value: Span::new(value_start, value_start + token.value.len()),
            });
            framing.note(token.name.as_bytes(), token.value)?;
        }
        if bytes[blank] != b'\r' {
            return Err(refusal::bare_line_feed(1));
        }
        self.bytes.extend_from_slice(bytes);
        self.length = end;
        self.set_request_line(&line, line_end);
        if let Some(authority) = line.parts.authority {
            self.replace_host(authority)?;
        }
        if limits.rules.casefold_method {
            self.bytes[..line.method_end].make_ascii_uppercase();
        }
        framing.decide(self.method.of(&self.bytes), self.version, limits)
    }
}

/// How far the search for the end of a head has come. Offsets count from the head's first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadScan {
    /// Bytes searched.
    scanned: u32,
    /// Start of the line being received; `line_start <= scanned`.
    line_start: u32,
    /// Whole lines seen.
    lines: u32,
}

/// Reads a head from the start of `input`. `None`: it is not whole yet; call again with the same bytes and more.
/// Else its length and what it says. `input` must not be empty.
pub fn parse_head(
    input: &[u8],
    scan: &mut HeadScan,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Option<(usize, Framing)>, ParseError> {
    if scan.scanned == 0 {
        if let [b'\r' | b'\n', _, ..] | b"\n" = input {
            // httparse would skip any number of empty lines.
            return Err(ParseError::RequestLine(quoted(b"")));
        }
        let mut tokens = [const { MaybeUninit::uninit() }; TOKENS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(input, &mut tokens) {
            Ok(httparse::Status::Complete(end)) => {
                let framing = head.accept(&input[..end], request.headers, limits)?;
                return Ok(Some((end, framing)));
            }
            Ok(httparse::Status::Partial) => {}
            // Refuse now what no further byte can repair; otherwise it is one of the settings' leniencies, or a head
            // with many fields, and is read when it is whole.
            Err(_) => {
                if let Some(error) = refusal::find(input, limits) {
                    return Err(error);
                }
            }
        }
    }
    let Some(end) = scan.advance(input, limits)? else {
        return Ok(None);
    };
    let bytes = &input[..end];
    let mut tokens = [const { MaybeUninit::uninit() }; TOKENS];
    let mut request = httparse::Request::new(&mut []);
    let framing = match request.parse_with_uninit_headers(bytes, &mut tokens) {
        Ok(httparse::Status::Complete(length)) if length == end => {
            head.accept(bytes, request.headers, limits)?
        }
        _ => parse_unusual(bytes, scan.lines as usize, limits, head)?,
    };
    Ok(Some((end, framing)))
}

/// A whole head that the usual path cannot read: very many fields, HTTP/1.2, a leniency, or plainly wrong.
fn parse_unusual(
    bytes: &[u8],
    lines: usize,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Framing, ParseError> {
    if let Some(error) = refusal::find(bytes, limits) {
        return Err(error);
    }
    let mended;
    let bytes = if limits.rules.permit_obsolete_folding || limits.rules.strip_header_spaces {
        mended = refusal::mend(bytes);
        &mended[..]
    } else {
        bytes
    };
    let fields_start = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
    let mut tokens = vec![httparse::EMPTY_HEADER; lines];
    match httparse::parse_headers(&bytes[fields_start..], &mut tokens) {
        Ok(httparse::Status::Complete((length, tokens)))
            if fields_start + length == bytes.len() =>
        {
            head.accept(bytes, tokens, limits)
        }
        _ => Err(refusal::unreadable()),
    }
}

impl HeadScan {
    /// Searches what has not been searched. The end of the head, if it is there.
    fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, ParseError> {
        let from = self.scanned as usize;
        debug_assert!(self.line_start <= self.scanned && from <= input.len());
        for found in memchr::memchr_iter(b'\n', &input[from..]) {
            let line_start = self.line_start as usize;
            let next = from + found + 1;
            let line = &input[line_start..next];
            let Some(content) = line.strip_suffix(b"\r\n") else {
                return Err(refusal::bare_line_feed(self.lines));
            };
            match self.lines {
                0 if content.len() > limits.request_line_bytes_max => {
                    return Err(refusal::line_too_large(content.len(), limits));
                }
                0 => {
                    RequestLine::parse(content, &limits.rules)?;
                }
                _ if content.is_empty() => return Ok(Some(next)),
                _ if line.len() > limits.field_bytes_max => return Err(ParseError::FieldTooLarge),
                count if count as usize > limits.fields_max => {
                    return Err(ParseError::TooManyFields);
                }
                _ => {}
            }
            self.lines += 1;
            self.line_start = next as u32;
        }
        let pending = input.len() - self.line_start as usize;
        if self.lines == 0 {
            // The last byte may be the CR of the line's end.
            if pending > limits.request_line_bytes_max + 1 {
                return Err(refusal::line_too_large(pending, limits));
            }
        } else if pending > limits.field_bytes_max {
            return Err(ParseError::FieldTooLarge);
        }
        if input.len() > limits.head_bytes_max {
            return Err(ParseError::HeadTooLarge);
        }
        self.scanned = input.len() as u32;
        Ok(None)
    }
}

/// Enough for all but one request in a million; the rest take a slower way.
const TOKENS: usize = 128;

#[cfg(test)]
mod tests;
