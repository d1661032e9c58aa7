//! A head that comes in parts (RFC 9113 section 8.3): method, path, authority and fields, as HPACK has decoded them.
//!
//! It is kept as the text that HTTP/1 would have sent, so that nothing behind this file knows the difference. The rules and
//! limits are those of HTTP/1; the longest request line bounds the path alone, as in gunicorn.

use super::{FieldSpan, RequestHead, Span};
use crate::http::error::{ParseError, quoted};
use crate::http::fields::{is_field_value, is_named, is_token, trim_ows};
use crate::http::framing::{Framing, FramingFields};
use crate::http::limits::Limits;
use crate::http::refusal::{check_method, line_too_large};
use crate::http::target::{is_host, is_same_authority, split_target};
use crate::http::version::Version;

/// What a request says beside its fields.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    pub method: &'a [u8],
    /// Empty if unknown.
    pub scheme: &'a [u8],
    /// Empty if there is none.
    pub authority: &'a [u8],
    pub path: &'a [u8],
    /// The one that its line shows.
    pub version: Version,
}

impl RequestHead {
    /// Fills the head. What is known of a refused one is kept for its log line.
    /// `fields` gives them from the first on.
    pub fn compose<'a, I: Iterator<Item = (&'a [u8], &'a [u8])>>(
        &mut self,
        parts: &RequestParts<'a>,
        fields: impl Fn() -> I,
        limits: &Limits,
    ) -> Result<Framing, ParseError> {
        self.clear();
        self.push_request_line(parts, limits)?;
        let mut framing = FramingFields::default();
        let (mut count, mut host, mut has_cookie) = (0, None, false);
        for (name, value) in fields() {
            // The crumbs of a cookie are one field.
            count += usize::from(!(has_cookie && name == b"cookie"));
            if count > limits.fields_max {
                return Err(ParseError::TooManyFields);
            }
            if name.len() + value.len() + 2 > limits.field_bytes_max {
                return Err(ParseError::FieldTooLarge);
            }
            // RFC 9113 section 8.2.1: white space at either end is malformed.
            if !is_token(name) || !is_field_value(value) || trim_ows(value).len() < value.len() {
                return Err(ParseError::Field(quoted(name)));
            }
            framing.note(name, value)?;
            match name {
                b"host" => host = Some(value),
                b"cookie" if has_cookie => {}
                b"cookie" => {
                    has_cookie = true;
                    self.push_cookies(fields());
                }
                _ => self.push_field(name, |bytes| bytes.extend_from_slice(value)),
            }
        }
        // The authority counts, and stands last, as in gunicorn.
        match (parts.authority, host) {
            (b"", None) => {}
            (b"", Some(host)) => self.push_host(host),
            (authority, host) => {
                let is_other = |host| !is_same_authority(parts.scheme, authority, host);
                if !is_host(authority) || host.is_some_and(is_other) {
                    return Err(ParseError::Field(quoted(b"HOST")));
                }
                self.push_host(authority);
            }
        }
        self.bytes.extend_from_slice(b"\r\n");
        self.length = self.bytes.len();
        framing.decide_framed(limits)
    }

    fn push_request_line(
        &mut self,
        parts: &RequestParts<'_>,
        limits: &Limits,
    ) -> Result<(), ParseError> {
        let (method, path) = (parts.method, parts.path);
        let shown = path.len().min(limits.request_line_bytes_max);
        self.bytes.extend_from_slice(method);
        self.bytes.push(b' ');
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&path[..shown]);
        self.target = Span::new(start, start + shown);
        self.path = self.target;
        self.method = Span::new(0, method.len());
        self.version = parts.version;
        self.bytes.push(b' ');
        self.bytes
            .extend_from_slice(parts.version.as_str().as_bytes());
        self.line = Span::new(0, self.bytes.len());
        self.bytes.extend_from_slice(b"\r\n");
        self.length = self.bytes.len();
        if shown < path.len() {
            return Err(line_too_large(path.len(), limits));
        }
        check_method(method, &limits.rules)?;
        if limits.rules.casefold_method {
            self.bytes[..method.len()].make_ascii_uppercase();
        }
        // RFC 9113 section 8.3.1: the path begins with a slash, or is the asterisk of OPTIONS. CONNECT has an authority instead.
        let has_form = path.first() == Some(&b'/') || path == b"*" || method == b"CONNECT";
        let found = split_target(self.method.of(&self.bytes), path).filter(|_| has_form);
        let Some(target) = found else {
            return Err(ParseError::RequestLine(quoted(self.request_line())));
        };
        self.path = Span::new(start + target.path.0, start + target.path.1);
        self.query = Span::new(start + target.query.0, start + target.query.1);
        Ok(())
    }

    fn push_field(&mut self, name: &[u8], push_value: impl FnOnce(&mut Vec<u8>)) {
        let name_start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        let value_start = self.bytes.len();
        push_value(&mut self.bytes);
        self.fields.push(FieldSpan {
            name: Span::new(name_start, name_start + name.len()),
            value: Span::new(value_start, self.bytes.len()),
        });
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn push_host(&mut self, value: &[u8]) {
        self.push_field(b"host", |bytes| bytes.extend_from_slice(value));
    }

    /// RFC 9113 section 8.2.3: a cookie's crumbs become one field again.
    fn push_cookies<'a>(&mut self, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        let crumbs = fields.filter(|(name, _)| is_named(name, b"cookie"));
        self.push_field(b"cookie", |bytes| {
            for (number, (_, crumb)) in crumbs.enumerate() {
                if number > 0 {
                    bytes.extend_from_slice(b"; ");
                }
                bytes.extend_from_slice(crumb);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::BodyLength;

    const GET: RequestParts<'static> = RequestParts {
        method: b"GET",
        scheme: b"http",
        authority: b"a.example",
        path: b"/x?y=1",
        version: Version::HTTP_2,
    };

    fn compose(
        parts: RequestParts<'static>,
        fields: &[(&'static str, &'static str)],
    ) -> Result<(RequestHead, Framing), ParseError> {
        let mut head = RequestHead::default();
        let fields = || {
            fields
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        };
        let framing = head.compose(&parts, fields, &Limits::new(20, 4, 40, 100))?;
        Ok((head, framing))
    }

    #[test]
    fn a_composed_head_reads_as_one_that_came_as_text() {
        let fields = [("accept", "*/*"), ("content-length", "7")];
        let (head, framing) = compose(GET, &fields).unwrap();
        assert_eq!(
            (head.method(), head.target(), head.path(), head.query()),
            (&b"GET"[..], &b"/x?y=1"[..], &b"/x"[..], &b"y=1"[..])
        );
        assert_eq!(head.request_line(), b"GET /x?y=1 HTTP/2.0");
        assert_eq!(head.version().as_str(), "HTTP/2.0");
        assert_eq!(framing.length, BodyLength::Known(7));
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(fields[2], (&b"host"[..], &b"a.example"[..]));
        assert!(head.bytes().ends_with(b"host: a.example\r\n\r\n"));
    }

    #[test]
    fn crumbs_are_one_cookie() {
        let fields = [("cookie", "a=1"), ("accept", "x"), ("cookie", "b=2")];
        let (head, _) = compose(GET, &fields).unwrap();
        assert_eq!(head.field(b"cookie"), Some(&b"a=1; b=2"[..]));
        assert_eq!(head.fields().count(), 3);
        let (head, _) = compose(GET, &[("cookie", "a=1"); 9]).unwrap();
        assert_eq!(head.fields().count(), 2, "they count as one");
    }

    #[test]
    fn host_and_authority_name_the_same_place_or_the_request_is_refused() {
        let host = |parts, fields: &[_]| {
            compose(parts, fields).map(|(head, _)| head.field(b"host").map(<[u8]>::to_vec))
        };
        let bare = RequestParts {
            authority: b"",
            ..GET
        };
        assert_eq!(host(bare, &[]), Ok(None));
        assert_eq!(host(bare, &[("host", "b")]), Ok(Some(b"b".to_vec())));
        let same = host(GET, &[("host", "A.example:80")]);
        assert_eq!(same, Ok(Some(b"a.example".to_vec())));
        for fields in [&[("host", "b")][..], &[("host", "b"), ("host", "b")]] {
            assert!(matches!(host(GET, fields), Err(ParseError::Field(_))));
        }
        let odd = RequestParts {
            authority: b"user@a",
            ..GET
        };
        assert!(host(odd, &[]).is_err());
    }

    #[test]
    fn limits_answer_with_their_status() {
        let code = |parts, fields: &[_]| compose(parts, fields).unwrap_err().status().code;
        let long = RequestParts {
            path: b"/0123456789012345678901",
            ..GET
        };
        assert_eq!(code(long, &[]), 414);
        assert_eq!(code(GET, &[("a", "b"); 5]), 431);
        let large = [("a", "0123456789012345678901234567890123456789")];
        assert_eq!(code(GET, &large), 431);
        assert_eq!(code(GET, &[("content-length", "101")]), 413);
        assert_eq!(code(GET, &[("expect", "miracles")]), 417);
        for value in [" a", "a\t"] {
            assert_eq!(code(GET, &[("a", value)]), 400);
        }
        for path in ["", "x", "http://a/", "*", "/a b"] {
            let path = path.as_bytes();
            assert_eq!(code(RequestParts { path, ..GET }, &[]), 400);
        }
        let lower = RequestParts {
            method: b"get",
            ..GET
        };
        assert_eq!(code(lower, &[]), 400);
    }

    #[test]
    fn a_refused_head_shows_its_line() {
        let mut head = RequestHead::default();
        let long = RequestParts {
            path: b"/0123456789012345678901",
            ..GET
        };
        let limits = Limits::new(10, 4, 40, 100);
        assert!(head.compose(&long, std::iter::empty, &limits).is_err());
        assert_eq!(head.request_line(), b"GET /012345678 HTTP/2.0");
    }
}
