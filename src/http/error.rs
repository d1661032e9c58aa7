//! Errors: whose fault they are, and how they are worded.
//!
//! [`ParseError`] is the peer's fault: it becomes an error page and a log line, and the connection closes.
//! [`ResponseError`] is the application's fault: it becomes a 500 and a line in the error log.

use std::fmt::Write;

use super::limits::RESPONSE_HEAD_BYTES_MAX;

/// A status code with its registered reason phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: u16,
    pub reason: &'static str,
}

macro_rules! statuses {
    ($($name:ident = $code:literal $reason:literal;)*) => {
        impl Status {
            $(pub const $name: Self = Self { code: $code, reason: $reason };)*
        }
    };
}

statuses! {
    OK = 200 "OK";
    BAD_REQUEST = 400 "Bad Request";
    UNAUTHORIZED = 401 "Unauthorized";
    FORBIDDEN = 403 "Forbidden";
    NOT_FOUND = 404 "Not Found";
    METHOD_NOT_ALLOWED = 405 "Method Not Allowed";
    REQUEST_TIMEOUT = 408 "Request Timeout";
    CONFLICT = 409 "Conflict";
    CONTENT_TOO_LARGE = 413 "Content Too Large";
    URI_TOO_LONG = 414 "URI Too Long";
    UNSUPPORTED_MEDIA_TYPE = 415 "Unsupported Media Type";
    EXPECTATION_FAILED = 417 "Expectation Failed";
    MISDIRECTED_REQUEST = 421 "Misdirected Request";
    HEADERS_TOO_LARGE = 431 "Request Header Fields Too Large";
    INTERNAL_SERVER_ERROR = 500 "Internal Server Error";
    NOT_IMPLEMENTED = 501 "Not Implemented";
    SERVICE_UNAVAILABLE = 503 "Service Unavailable";
    GATEWAY_TIMEOUT = 504 "Gateway Timeout";
    VERSION_NOT_SUPPORTED = 505 "HTTP Version Not Supported";
    INSUFFICIENT_STORAGE = 507 "Insufficient Storage";
}

/// The peer sent what the server refuses. `Display` is the line for the log; [`ParseError::page_message`] is the text of
/// the error page. Quoted parts come from the peer and are escaped and shortened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("Invalid HTTP request line: {0}")]
    RequestLine(String),
    #[error("Invalid HTTP method: {0}")]
    Method(String),
    #[error("Invalid HTTP Version: {0}")]
    Version(String),
    #[error("Invalid HTTP Version: {0}")]
    VersionUnsupported(String),
    #[error("Request Line is too large ({size} > {max})")]
    RequestLineTooLarge { size: usize, max: usize },
    #[error("limit request headers fields")]
    TooManyFields,
    #[error("limit request headers fields size")]
    FieldTooLarge,
    #[error("max buffer headers")]
    HeadTooLarge,
    #[error("Invalid HTTP Header: {0}")]
    Field(String),
    #[error("Invalid HTTP header name: {0}")]
    FieldName(String),
    #[error("Obsolete line folding is unacceptable: {0}")]
    Folding(String),
    /// Trusted fields of which only one can be true; names what they are about.
    #[error("Contradictory {0} headers")]
    Contradictory(&'static str),
    /// The proxy's idea of where the application is mounted does not fit its own request.
    #[error(
        "Configuration problem: Request path {path} does not start with SCRIPT_NAME {script_name}"
    )]
    ScriptName { path: String, script_name: String },
    #[error("Invalid PROXY line: {0}")]
    ProxyLine(String),
    #[error("Invalid PROXY header: {0}")]
    ProxyHeader(&'static str),
    /// A PROXY header from a peer that may not send one (`proxy_allow_ips`).
    #[error("Proxy request from '{0}' not allowed")]
    ProxyForbidden(String),
    #[error("Invalid uWSGI header: {0}")]
    UwsgiHeader(&'static str),
    #[error("Unsupported uWSGI modifier1: {0}")]
    UwsgiModifier(u8),
    /// A uwsgi request from a peer that may not send one (`uwsgi_allow_ips`).
    #[error("uWSGI request from '{0}' not allowed")]
    UwsgiForbidden(String),
    #[error("Missing HTTP Header: 'HOST'")]
    HostMissing,
    #[error("Unsupported transfer coding: {0}")]
    TransferCoding(String),
    #[error("Unable to comply with expectation: {0}")]
    Expectation(String),
    #[error("Request body is too large (limit {max})")]
    BodyTooLarge { max: u64 },
    #[error("Invalid chunk size: {0}")]
    ChunkSize(String),
    #[error("Invalid chunk terminator is not '\\r\\n': {0}")]
    ChunkTerminator(String),
    #[error("Invalid chunk extension: {0}")]
    ChunkExtension(&'static str),
}

impl ParseError {
    /// The status that answers this error.
    pub fn status(&self) -> Status {
        match self {
            Self::RequestLineTooLarge { .. } => Status::URI_TOO_LONG,
            Self::TooManyFields | Self::FieldTooLarge | Self::HeadTooLarge => {
                Status::HEADERS_TOO_LARGE
            }
            Self::BodyTooLarge { .. } => Status::CONTENT_TOO_LARGE,
            Self::Expectation(_) => Status::EXPECTATION_FAILED,
            Self::TransferCoding(_) | Self::UwsgiModifier(_) => Status::NOT_IMPLEMENTED,
            Self::VersionUnsupported(_) => Status::VERSION_NOT_SUPPORTED,
            Self::ScriptName { .. } => Status::INTERNAL_SERVER_ERROR,
            Self::ProxyForbidden(_) | Self::UwsgiForbidden(_) => Status::FORBIDDEN,
            _ => Status::BAD_REQUEST,
        }
    }

    /// The text of the error page, in the words gunicorn's users know.
    pub fn page_message(&self) -> String {
        match self {
            Self::RequestLine(_) => format!("Invalid Request Line '{self}'"),
            Self::Method(_) => format!("Invalid Method '{self}'"),
            Self::Version(_) | Self::VersionUnsupported(_) => {
                format!("Invalid HTTP Version '{self}'")
            }
            Self::TooManyFields | Self::FieldTooLarge | Self::HeadTooLarge => {
                format!("Error parsing headers: '{self}'")
            }
            Self::ProxyLine(_) | Self::ProxyHeader(_) => format!("'{self}'"),
            Self::ProxyForbidden(_) | Self::UwsgiForbidden(_) => "Request forbidden".to_owned(),
            _ => self.to_string(),
        }
    }
}

/// The application gave what cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    #[error("Invalid status {0}")]
    Status(String),
    #[error("Invalid response header name from the application: {0}")]
    FieldName(String),
    /// Only the name: the value may be a secret.
    #[error("Invalid response header from the application: {0}")]
    FieldValue(String),
    #[error("Hop-by-hop response header from the application: {0}")]
    HopByHop(String),
    #[error("Invalid Content-Length from the application: {0}")]
    ContentLength(String),
    #[error(
        "Response head of {0} bytes from the application: at most {RESPONSE_HEAD_BYTES_MAX} are sent"
    )]
    TooLong(usize),
}

/// Peer's bytes for a message: in quotes, control and non-ASCII bytes escaped, shortened. One line by construction.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(QUOTED_BYTES_MAX)];
    let mark = if shown.contains(&b'\'') && !shown.contains(&b'"') {
        b'"'
    } else {
        b'\''
    };
    let mut text = String::with_capacity(shown.len() + 8);
    text.push(char::from(mark));
    for &byte in shown {
        match byte {
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\\' => text.push_str("\\\\"),
            _ if byte == mark => {
                text.push('\\');
                text.push(char::from(mark));
            }
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    if shown.len() < bytes.len() {
        text.push_str("...");
    }
    text.push(char::from(mark));
    text
}

/// Longer quotations only help a peer that wants to fill the log.
const QUOTED_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotation_stays_on_one_line_and_is_bounded() {
        assert_eq!(quoted(b"a\r\n\x00\xff'"), "\"a\\r\\n\\x00\\xff'\"");
        assert_eq!(quoted(b"it's \"x\""), "'it\\'s \"x\"'");
        assert_eq!(quoted(b"back\\slash"), "'back\\\\slash'");
        assert!(quoted(&[b'a'; 4000]).len() < 140);
    }

    #[test]
    fn every_error_has_its_status_and_page() {
        let cases = [
            (
                ParseError::RequestLine("'x'".into()),
                400,
                "Invalid Request Line 'Invalid HTTP request line: 'x''",
            ),
            (
                ParseError::Method("'get'".into()),
                400,
                "Invalid Method 'Invalid HTTP method: 'get''",
            ),
            (
                ParseError::Version("'x'".into()),
                400,
                "Invalid HTTP Version 'Invalid HTTP Version: 'x''",
            ),
            (
                ParseError::VersionUnsupported("(2, 0)".into()),
                505,
                "Invalid HTTP Version 'Invalid HTTP Version: (2, 0)'",
            ),
            (
                ParseError::RequestLineTooLarge { size: 9, max: 5 },
                414,
                "Request Line is too large (9 > 5)",
            ),
            (
                ParseError::TooManyFields,
                431,
                "Error parsing headers: 'limit request headers fields'",
            ),
            (
                ParseError::FieldTooLarge,
                431,
                "Error parsing headers: 'limit request headers fields size'",
            ),
            (
                ParseError::HeadTooLarge,
                431,
                "Error parsing headers: 'max buffer headers'",
            ),
            (
                ParseError::BodyTooLarge { max: 3 },
                413,
                "Request body is too large (limit 3)",
            ),
            (
                ParseError::Expectation("'foo'".into()),
                417,
                "Unable to comply with expectation: 'foo'",
            ),
            (
                ParseError::TransferCoding("'foo'".into()),
                501,
                "Unsupported transfer coding: 'foo'",
            ),
            (
                ParseError::ChunkSize("'zz'".into()),
                400,
                "Invalid chunk size: 'zz'",
            ),
        ];
        for (error, code, message) in cases {
            assert_eq!(error.status().code, code, "{error:?}");
            assert_eq!(error.page_message(), message);
        }
    }
}
