//! Responses as bytes: the head, the framing of the body, and the pages of refusals.
//!
//! Decides nothing about the connection; `exchange.rs` does and passes it in.

use super::error::Status;
use super::response::ResponseHead;
use super::version::Version;

/// What is known of a response's body when its head is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodySize {
    /// The whole body has this many bytes.
    Exact(u64),
    Unknown,
}

/// What the server adds to every response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseDefaults<'a> {
    /// Value of `Server`; empty: no such field.
    pub server: &'a [u8],
    /// Value of `Date`, an IMF-fixdate.
    pub date: &'a [u8],
}

/// How the body of a response is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEncoder {
    /// HEAD, 1xx, 204, 304: whatever the application sends stays here.
    NoBody,
    Length {
        remaining: u64,
    },
    Chunked {
        /// A size line is out and its bytes are being sent.
        open: bool,
    },
    /// To an HTTP/1.0 peer: the end of the connection is the end of the body.
    CloseDelimited,
}

impl BodyEncoder {
    /// How the response's body is delimited, and the Content-Length to add.
    fn choose(
        version: Version,
        is_head_request: bool,
        head: &ResponseHead,
        size: BodySize,
    ) -> (Self, Option<u64>) {
        let code = head.status_code();
        let never_has_body = (100..200).contains(&code) || matches!(code, 204 | 304);
        match (head.content_length(), size) {
            _ if never_has_body => (Self::NoBody, None),
            // An empty body of a HEAD does not tell the length of what GET would send.
            (None, BodySize::Exact(length)) if is_head_request && length > 0 => {
                (Self::NoBody, Some(length))
            }
            _ if is_head_request => (Self::NoBody, None),
            (Some(remaining), _) => (Self::Length { remaining }, None),
            (None, BodySize::Exact(remaining)) => (Self::Length { remaining }, Some(remaining)),
            (None, BodySize::Unknown) if version >= Version::HTTP_11 => {
                (Self::Chunked { open: false }, None)
            }
            (None, BodySize::Unknown) => (Self::CloseDelimited, None),
        }
    }

    /// Admits `len` bytes of body and writes what must stand before them; returns how many may be sent.
    pub(super) fn data(&mut self, len: usize, out: &mut Vec<u8>) -> usize {
        match self {
            Self::NoBody => 0,
            Self::Length { remaining } => {
                let admitted = usize::try_from(*remaining).unwrap_or(usize::MAX).min(len);
                *remaining -= admitted as u64;
                admitted
            }
            Self::Chunked { open } => {
                debug_assert!(!*open, "data_end ends each chunk");
                // A chunk of no bytes would end the body.
                if len > 0 {
                    write_chunk_size(len, out);
                    *open = true;
                }
                len
            }
            Self::CloseDelimited => len,
        }
    }

    pub(super) fn data_end(&mut self, out: &mut Vec<u8>) {
        if let Self::Chunked { open } = self {
            if std::mem::take(open) {
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Ends the body; returns how many bytes are missing from it.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> u64 {
        match self {
            Self::Length { remaining } => *remaining,
            Self::Chunked { .. } => {
                self.data_end(out);
                out.extend_from_slice(b"0\r\n\r\n");
                0
            }
            Self::NoBody | Self::CloseDelimited => 0,
        }
    }
}

/// What the exchange knows of a response beside its head.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadPlan {
    /// Of the request.
    pub(super) version: Version,
    pub(super) is_head_request: bool,
    pub(super) size: BodySize,
    /// The connection closes behind the response, whatever delimits its body.
    pub(super) closes: bool,
}

/// Status line, `Server`, `Date`, `Connection`, `Transfer-Encoding`, the application's fields: gunicorn's order. Returns
/// how the body is delimited that follows.
pub(super) fn write_head(
    head: &ResponseHead,
    plan: HeadPlan,
    defaults: &ResponseDefaults<'_>,
    out: &mut Vec<u8>,
) -> BodyEncoder {
    let (encoder, added_length) =
        BodyEncoder::choose(plan.version, plan.is_head_request, head, plan.size);
    let fields = head.field_bytes();
    out.reserve(fields.len() + head.status().len() + defaults.server.len() + HEAD_OVERHEAD);
    out.extend_from_slice(match plan.version < Version::HTTP_11 {
        true => b"HTTP/1.0 ",
        false => b"HTTP/1.1 ",
    });
    out.extend_from_slice(head.status());
    if head.status().len() == 3 {
        // RFC 9112 section 4: the space stays when the reason is empty.
        out.push(b' ');
    }
    out.extend_from_slice(b"\r\n");
    let server = if head.has_server() {
        b""
    } else {
        defaults.server
    };
    let date = if head.has_date() { b"" } else { defaults.date };
    write_defaults(server, date, out);
    out.extend_from_slice(b"Connection: ");
    let closes = plan.closes || encoder == BodyEncoder::CloseDelimited;
    out.extend_from_slice(connection(head, closes));
    out.extend_from_slice(b"\r\n");
    if matches!(encoder, BodyEncoder::Chunked { .. }) {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    match head.content_length_line() {
        Some(line) if omits_content_length(head.status_code()) => {
            out.extend_from_slice(&fields[..line.start]);
            out.extend_from_slice(&fields[line.end..]);
        }
        _ => out.extend_from_slice(fields),
    }
    if let Some(length) = added_length {
        write_content_length(length, out);
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

/// The value of `Connection`.
fn connection(head: &ResponseHead, closes: bool) -> &'static [u8] {
    match (head.upgrades(), closes) {
        (true, false) => b"upgrade",
        (true, true) if head.status_code() == 101 => b"upgrade",
        (true, true) => b"upgrade, close",
        (false, false) => b"keep-alive",
        (false, true) => b"close",
    }
}

/// RFC 9110 section 8.6: never in 1xx and 204.
fn omits_content_length(code: u16) -> bool {
    (100..200).contains(&code) || code == 204
}

/// `100 Continue`: the body is wanted.
pub fn write_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// An interim response: its status and its fields, without a Content-Length (RFC 9110 section 8.6) and without what
/// the server says of itself in the final one.
pub(super) fn write_interim(head: &ResponseHead, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status());
    out.extend_from_slice(b"\r\n");
    let fields = head.field_bytes();
    let line = head.content_length_line().unwrap_or(0..0);
    out.extend_from_slice(&fields[..line.start]);
    out.extend_from_slice(&fields[line.end..]);
    out.extend_from_slice(b"\r\n");
}

/// gunicorn's page for an error.
pub fn error_page(status: Status, message: &str) -> String {
    let reason = status.reason;
    let message = escape_html(message);
    format!(
        "<html>\n  <head>\n    <title>{reason}</title>\n  </head>\n  <body>\n    <h1><p>{reason}</p></h1>\n    {message}\n  </body>\n</html>\n"
    )
}

/// A whole refusal: gunicorn's page, and always the end of the connection. `omits_body` for HEAD.
pub fn write_error_page(
    status: Status,
    message: &str,
    omits_body: bool,
    defaults: &ResponseDefaults<'_>,
    out: &mut Vec<u8>,
) {
    let reason = status.reason;
    let page = error_page(status, message);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status.code).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    write_defaults(defaults.server, defaults.date, out);
    out.extend_from_slice(b"Connection: close\r\nContent-Type: text/html\r\n");
    write_content_length(page.len() as u64, out);
    out.extend_from_slice(b"\r\n");
    if !omits_body {
        out.extend_from_slice(page.as_bytes());
    }
}

fn write_defaults(server: &[u8], date: &[u8], out: &mut Vec<u8>) {
    if !server.is_empty() {
        out.extend_from_slice(b"Server: ");
        out.extend_from_slice(server);
        out.extend_from_slice(b"\r\n");
    }
    if !date.is_empty() {
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_content_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Hexadecimal, without leading zeros, and CRLF.
fn write_chunk_size(len: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[len >> (place * 4) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#x27;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Room for everything in a head that is not counted exactly, so that it is reserved at once.
const HEAD_OVERHEAD: usize = 192;

#[cfg(test)]
mod tests;
