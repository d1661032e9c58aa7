//! The uwsgi protocol's packet (uWSGI's documentation, "The uwsgi Protocol"): a request's head as nginx's `uwsgi_pass` sends it.
//!
//! Four bytes, then variables: modifier 1, the size of the variables in two bytes (little-endian), modifier 2. A name and a value
//! have two bytes of length each. The body follows, `CONTENT_LENGTH` bytes of it. The packet becomes a head as HTTP/1 would have
//! sent it, under the same limits, so that nothing behind this file knows the difference. A connection carries one request.

use super::error::{ParseError, quoted};
use super::framing::Framing;
use super::head::{RequestHead, RequestParts};
use super::limits::Limits;
use super::target::percent_decode;
use super::version::Version;

/// As in gunicorn: more variables than this are refused.
const VARIABLES_MAX: usize = 1000;
const HEADER_BYTES: usize = 4;

/// Parses the packet at the start of `input`. Returns its length and what it says of the body; `None` until it is whole.
///
/// # Errors
/// It is malformed, or over a limit.
pub fn parse_packet(
    input: &[u8],
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Option<(usize, Framing)>, ParseError> {
    let Some(&modifier) = input.first() else {
        return Ok(None);
    };
    if modifier != 0 {
        return Err(ParseError::UwsgiModifier(modifier));
    }
    let Some(&[_, low, high, _]) = input.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = HEADER_BYTES + usize::from(u16::from_le_bytes([low, high]));
    if length > limits.head_bytes_max {
        return Err(ParseError::HeadTooLarge);
    }
    let Some(block) = input.get(HEADER_BYTES..length) else {
        return Ok(None);
    };
    head.clear();
    let framing = Variables::read(block)?.compose(limits, head)?;
    Ok(Some((length, framing)))
}

/// The variables of one packet that make a head.
#[derive(Debug, Default)]
struct Variables<'a> {
    method: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    query: &'a [u8],
    request_uri: &'a [u8],
    is_https: Option<bool>,
    /// Lower-case names with `-`, as fields have them.
    fields: Vec<(Vec<u8>, &'a [u8])>,
}

impl<'a> Variables<'a> {
    fn read(mut block: &'a [u8]) -> Result<Self, ParseError> {
        let mut variables = Self::default();
        let mut count = 0;
        while !block.is_empty() {
            count += 1;
            if count > VARIABLES_MAX {
                return Err(ParseError::UwsgiHeader("too many variables"));
            }
            let name = take_text(&mut block, "truncated key size", "truncated key")?;
            let value = take_text(&mut block, "truncated value size", "truncated value")?;
            variables.note(name, value);
        }
        Ok(variables)
    }

    /// Of a variable that comes twice the last counts; of a field both do, and the head's rules decide.
    fn note(&mut self, name: &[u8], value: &'a [u8]) {
        match name {
            b"REQUEST_METHOD" => self.method = Some(value),
            b"PATH_INFO" => self.path = Some(value),
            b"QUERY_STRING" => self.query = value,
            b"REQUEST_URI" => self.request_uri = value,
            b"HTTPS" => {
                let is_on = ["on", "1", "true"]
                    .iter()
                    .any(|on| value.eq_ignore_ascii_case(on.as_bytes()));
                self.is_https = Some(is_on);
            }
            // nginx sends both empty where the client has sent none.
            b"CONTENT_TYPE" | b"CONTENT_LENGTH" if value.is_empty() => {}
            b"CONTENT_TYPE" => self.fields.push((b"content-type".to_vec(), value)),
            b"CONTENT_LENGTH" => self.fields.push((b"content-length".to_vec(), value)),
            // nginx sends these as well; what stands above counts.
            b"HTTP_CONTENT_TYPE" | b"HTTP_CONTENT_LENGTH" => {}
            _ => {
                if let Some(name) = name.strip_prefix(b"HTTP_") {
                    let dashed = |&byte: &u8| match byte {
                        b'_' => b'-',
                        byte => byte.to_ascii_lowercase(),
                    };
                    self.fields.push((name.iter().map(dashed).collect(), value));
                }
            }
        }
    }

    fn compose(&self, limits: &Limits, head: &mut RequestHead) -> Result<Framing, ParseError> {
        let path = self.target();
        let parts = RequestParts {
            method: self.method.unwrap_or(b"GET"),
            scheme: b"",
            authority: b"",
            path: &path,
            version: Version::HTTP_11,
        };
        let fields = || {
            self.fields
                .iter()
                .map(|(name, value)| (&name[..], *value))
                // Two statements of the length were a way to smuggle; the gateway has decoded what it had to.
                .filter(|(name, _)| *name != b"transfer-encoding")
        };
        if self.fields.iter().any(|(name, _)| name.is_empty()) {
            return Err(ParseError::Field(quoted(b"HTTP_")));
        }
        let framing = head.compose(&parts, fields, limits)?;
        head.set_scheme(self.is_https.unwrap_or(false));
        Ok(Framing {
            // The end of the connection delimits a response: nginx knows no chunks here.
            keep_alive: false,
            // The gateway answers it.
            expects_continue: false,
            ..framing
        })
    }

    /// The target as the client sent it, if that is what the variables say; else made of the decoded path, which a rewrite
    /// may have changed.
    fn target(&self) -> Vec<u8> {
        let path = self.path.filter(|path| !path.is_empty()).unwrap_or(b"/");
        let (sent, query) = match memchr::memchr(b'?', self.request_uri) {
            Some(at) => (&self.request_uri[..at], &self.request_uri[at + 1..]),
            None => (self.request_uri, &b""[..]),
        };
        let mut decoded = Vec::with_capacity(path.len());
        percent_decode(sent, &mut decoded);
        if decoded == path && query == self.query {
            return self.request_uri.to_vec();
        }
        let mut target = Vec::with_capacity(path.len() + 1 + self.query.len());
        for &byte in path {
            match byte {
                b'%' | b'?' | b'#' => push_encoded(byte, &mut target),
                byte if byte.is_ascii_graphic() => target.push(byte),
                byte => push_encoded(byte, &mut target),
            }
        }
        if !self.query.is_empty() {
            target.push(b'?');
            target.extend_from_slice(self.query);
        }
        target
    }
}

fn push_encoded(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[
        b'%',
        DIGITS[usize::from(byte >> 4)],
        DIGITS[usize::from(byte & 15)],
    ]);
}

/// Two bytes of length, little-endian, and as many bytes.
fn take_text<'a>(
    block: &mut &'a [u8],
    no_size: &'static str,
    no_text: &'static str,
) -> Result<&'a [u8], ParseError> {
    let (size, rest) = block
        .split_first_chunk::<2>()
        .ok_or(ParseError::UwsgiHeader(no_size))?;
    let (text, rest) = rest
        .split_at_checked(usize::from(u16::from_le_bytes(*size)))
        .ok_or(ParseError::UwsgiHeader(no_text))?;
    *block = rest;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::BodyLength;

    fn packet(variables: &[(&str, &[u8])]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in variables {
            for text in [name.as_bytes(), value] {
                block.extend_from_slice(&u16::try_from(text.len()).unwrap().to_le_bytes());
                block.extend_from_slice(text);
            }
        }
        let size = u16::try_from(block.len()).unwrap().to_le_bytes();
        [&[0, size[0], size[1], 0][..], &block].concat()
    }

    fn parse(bytes: &[u8]) -> Result<Option<(RequestHead, Framing)>, ParseError> {
        let mut head = RequestHead::default();
        let parsed = parse_packet(bytes, &Limits::default(), &mut head)?;
        Ok(parsed.map(|(_, framing)| (head, framing)))
    }

    const USUAL: &[(&str, &[u8])] = &[
        ("QUERY_STRING", b"q=1"),
        ("REQUEST_METHOD", b"POST"),
        ("CONTENT_TYPE", b""),
        ("CONTENT_LENGTH", b"7"),
        ("REQUEST_URI", b"/a%20b?q=1"),
        ("PATH_INFO", b"/a b"),
        ("SERVER_PROTOCOL", b"HTTP/1.1"),
        ("HTTPS", b"on"),
        ("HTTP_CONTENT_LENGTH", b"7"),
        ("HTTP_HOST", b"x.example"),
        ("HTTP_X_FORWARDED_FOR", b"192.0.2.1"),
    ];

    #[test]
    fn a_packet_reads_as_a_head_that_came_as_text() {
        let (head, framing) = parse(&packet(USUAL)).unwrap().unwrap();
        assert_eq!(head.request_line(), b"POST /a%20b?q=1 HTTP/1.1");
        assert_eq!((head.path(), head.query()), (&b"/a%20b"[..], &b"q=1"[..]));
        assert_eq!(head.field(b"x-forwarded-for"), Some(&b"192.0.2.1"[..]));
        assert_eq!(head.field(b"host"), Some(&b"x.example"[..]));
        assert_eq!(head.field(b"content-type"), None);
        assert_eq!(head.scheme_is_https(), Some(true));
        assert_eq!(framing.length, BodyLength::Known(7));
        assert!(!framing.keep_alive && !framing.expects_continue);
    }

    #[test]
    fn a_packet_is_whole_or_awaited() {
        let whole = packet(USUAL);
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]).map(|found| found.is_none()), Ok(true));
        }
        let more = [&whole[..], b"the body"].concat();
        let mut head = RequestHead::default();
        let parsed = parse_packet(&more, &Limits::default(), &mut head).unwrap();
        assert_eq!(parsed.unwrap().0, whole.len());
    }

    #[test]
    fn a_rewritten_path_counts_and_is_encoded() {
        let rewritten = [
            ("REQUEST_URI", &b"/old"[..]),
            ("PATH_INFO", b"/n?w/100%/\xe9"),
            ("QUERY_STRING", b"a=b"),
        ];
        let (head, _) = parse(&packet(&rewritten)).unwrap().unwrap();
        assert_eq!(head.target(), b"/n%3Fw/100%25/%E9?a=b");
        let (head, framing) = parse(&packet(&[])).unwrap().unwrap();
        assert_eq!(head.request_line(), b"GET / HTTP/1.1");
        assert_eq!(framing.length, BodyLength::Empty);
    }

    #[test]
    fn what_is_malformed_is_refused_with_its_status() {
        let refused = |bytes: &[u8]| {
            let error = parse(bytes).unwrap_err();
            (error.status().code, error.to_string())
        };
        assert_eq!(
            refused(b"GET / HTTP/1.1\r\n"),
            (501, "Unsupported uWSGI modifier1: 71".to_owned())
        );
        for (block, why) in [
            (&b"\x01"[..], "truncated key size"),
            (b"\x02\0a", "truncated key"),
            (b"\x01\0a\x01", "truncated value size"),
            (b"\x01\0a\x02\0b", "truncated value"),
        ] {
            let size = u8::try_from(block.len()).unwrap();
            let bytes = [&[0, size, 0, 0][..], block].concat();
            let message = format!("Invalid uWSGI header: {why}");
            assert_eq!(refused(&bytes), (400, message));
        }
        let many = vec![("A", &b""[..]); 1001];
        assert_eq!(refused(&packet(&many)).0, 400);
        let code = |name, value| refused(&packet(&[(name, value)])).0;
        assert_eq!(code("CONTENT_LENGTH", b"-1"), 400);
        assert_eq!(code("HTTP_A", b"b\r\nc"), 400);
        assert_eq!(code("HTTP_", b"b"), 400);
        assert_eq!(code("PATH_INFO", b"no/slash"), 400);
        assert_eq!(code("REQUEST_METHOD", b"get"), 400);
        let twice = [("CONTENT_LENGTH", &b"1"[..]), ("CONTENT_LENGTH", b"2")];
        assert_eq!(refused(&packet(&twice)).0, 400);
    }
}
