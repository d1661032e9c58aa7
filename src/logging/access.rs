//! The access log's line: `access_log_format` compiled once, written per exchange without Python.
//!
//! All of gunicorn's atoms: `h l u t r m U q H s B b f a T D M L p {x}i {x}o {x}e`, with the conversions of
//! Python's `%` operator that make sense for them (`%(s)-5s`, `%(D)06d`, `%%`).
//!
//! Invariant: what a client sent never ends a line or a quoted value. Quotes and backslashes get a backslash,
//! control and non-ASCII bytes become `\xHH`.
//!
//! The event loop owns the format and calls it on its own thread.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::Duration;

use super::clock::LocalTime;

/// Looks up header fields by lower-case name; `None` and absent both show as `-`.
pub trait Fields {
    fn field(&self, lowercase_name: &[u8]) -> Option<&[u8]>;
}

/// No fields at all: of a request or response that never came to be.
impl Fields for () {
    fn field(&self, _: &[u8]) -> Option<&[u8]> {
        None
    }
}

/// One finished exchange, as the event loop knows it.
#[derive(Clone, Copy)]
#[expect(
    missing_debug_implementations,
    reason = "borrows trait objects that have none"
)]
pub struct AccessEntry<'a> {
    /// The peer's address without its port; empty for unix sockets, as gunicorn.
    pub peer: &'a str,
    /// Empty when not even a request line was understood; the line then shows `-`.
    pub method: &'a [u8],
    /// The target as sent.
    pub target: &'a [u8],
    /// The path as sent; `%(U)s` shows it decoded.
    pub path: &'a [u8],
    pub query: &'a [u8],
    /// `HTTP/1.1`
    pub version: &'a str,
    pub request: &'a dyn Fields,
    pub status: u16,
    pub response: &'a dyn Fields,
    /// Bytes of the body that were sent.
    pub bytes_sent: u64,
    pub duration: Duration,
    /// Seconds since the epoch.
    pub now: i64,
    pub pid: u32,
}

/// The operator's mistake in `access_log_format`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid access_log_format at {position}: {reason}")]
pub struct FormatError {
    position: usize,
    reason: String,
}

/// A compiled `access_log_format`.
#[derive(Debug)]
pub struct AccessFormat {
    pieces: Vec<Piece>,
    /// Formatting a date costs more than the rest of the line, so its text is kept for the second.
    time: RefCell<LocalTime>,
}

#[derive(Debug)]
enum Piece {
    Text(Vec<u8>),
    Atom { atom: Atom, style: Style },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Atom {
    PeerAddress,
    Dash,
    User,
    Time,
    RequestLine,
    Method,
    Path,
    Query,
    Version,
    Status,
    Bytes,
    Seconds,
    Milliseconds,
    Microseconds,
    DecimalSeconds,
    Pid,
    RequestField(Vec<u8>),
    ResponseField(Vec<u8>),
    Environ(Vec<u8>),
}

/// Flags, width and precision of a conversion such as `%(D)-8s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Style {
    left: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
}

impl AccessFormat {
    /// Compiles a format. An unknown atom is no mistake: gunicorn shows `-` for it.
    ///
    /// # Errors
    /// When it is not a format that Python's `%` would take with a dictionary.
    pub fn compile(format: &str) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        let mut rest = format;
        while let Some(start) = rest.find('%') {
            push_text(&mut pieces, &rest[..start]);
            let position = format.len() - rest.len() + start;
            let conversion = &rest[start + 1..];
            if let Some(after) = conversion.strip_prefix('%') {
                push_text(&mut pieces, "%");
                rest = after;
                continue;
            }
            let (piece, after) =
                parse_conversion(conversion).map_err(|reason| FormatError { position, reason })?;
            pieces.push(piece);
            rest = after;
        }
        push_text(&mut pieces, rest);
        Ok(Self {
            pieces,
            time: RefCell::new(LocalTime::access_log()),
        })
    }

    /// Appends the line, with its newline.
    pub fn write(&self, entry: &AccessEntry<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Atom { atom, style } => {
                    let start = out.len();
                    self.write_atom(atom, entry, out);
                    style.apply(out, start);
                }
            }
        }
        out.push(b'\n');
    }

    fn write_atom(&self, atom: &Atom, entry: &AccessEntry<'_>, out: &mut Vec<u8>) {
        let mut number = |value: u128| {
            let _ = write!(out, "{value}");
        };
        match atom {
            Atom::Status => number(u128::from(entry.status)),
            Atom::Bytes => number(u128::from(entry.bytes_sent)),
            Atom::Seconds => number(u128::from(entry.duration.as_secs())),
            Atom::Milliseconds => number(entry.duration.as_millis()),
            Atom::Microseconds => number(entry.duration.as_micros()),
            Atom::DecimalSeconds => {
                let (seconds, micros) = (entry.duration.as_secs(), entry.duration.subsec_micros());
                let _ = write!(out, "{seconds}.{micros:06}");
            }
            Atom::Pid => {
                let _ = write!(out, "<{}>", entry.pid);
            }
            Atom::Dash => out.push(b'-'),
            Atom::Time => out.extend_from_slice(self.time.borrow_mut().at(entry.now).as_bytes()),
            Atom::PeerAddress => escape(entry.peer.as_bytes(), out),
            Atom::User => escape_or_dash(user(entry.request).as_deref(), out),
            Atom::RequestLine if entry.method.is_empty() => out.push(b'-'),
            Atom::RequestLine => {
                escape(entry.method, out);
                out.push(b' ');
                escape(entry.target, out);
                out.push(b' ');
                escape(entry.version.as_bytes(), out);
            }
            Atom::Method if entry.method.is_empty() => out.push(b'-'),
            Atom::Method => escape(entry.method, out),
            Atom::Path => escape(&percent_decoded(entry.path), out),
            Atom::Query => escape(entry.query, out),
            Atom::Version => escape(entry.version.as_bytes(), out),
            Atom::RequestField(name) => escape_or_dash(entry.request.field(name), out),
            Atom::ResponseField(name) => escape_or_dash(entry.response.field(name), out),
            Atom::Environ(name) => write_environ(name, entry, out),
        }
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if let Some(Piece::Text(last)) = pieces.last_mut() {
        last.extend_from_slice(text.as_bytes());
    } else if !text.is_empty() {
        pieces.push(Piece::Text(text.as_bytes().to_vec()));
    }
}

/// `conversion` is what follows a `%`. Returns the piece and what follows it.
fn parse_conversion(conversion: &str) -> Result<(Piece, &str), String> {
    let (name, mut rest) = conversion
        .strip_prefix('(')
        .and_then(|inside| inside.split_once(')'))
        .ok_or("expected '%(name)s'")?;
    let mut style = Style::default();
    while let Some(flag @ ('-' | '0' | '+' | ' ' | '#')) = rest.chars().next() {
        style.left |= flag == '-';
        style.zeros |= flag == '0';
        rest = &rest[1..];
    }
    (style.width, rest) = parse_number(rest)?;
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = parse_number(after)?;
        style.precision = Some(precision);
        rest = after;
    }
    let atom = Atom::named(name);
    match rest.chars().next() {
        Some('s') => style.zeros = false,
        Some('d' | 'i' | 'u') if atom.is_number() => style.precision = None,
        Some(other) => return Err(format!("conversion '{other}' does not fit '{name}'")),
        None => return Err("the conversion's letter is missing".to_owned()),
    }
    Ok((Piece::Atom { atom, style }, &rest[1..]))
}

fn parse_number(text: &str) -> Result<(usize, &str), String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number = match &text[..digits] {
        "" => 0,
        number => number
            .parse()
            .ok()
            .filter(|width| *width <= WIDTH_MAX)
            .ok_or_else(|| format!("{number} is too wide"))?,
    };
    Ok((number, &text[digits..]))
}

impl Atom {
    fn named(name: &str) -> Self {
        match name {
            "h" => Self::PeerAddress,
            "u" => Self::User,
            "t" => Self::Time,
            "r" => Self::RequestLine,
            "m" => Self::Method,
            "U" => Self::Path,
            "q" => Self::Query,
            "H" => Self::Version,
            "s" => Self::Status,
            "b" | "B" => Self::Bytes,
            "f" => Self::RequestField(b"referer".to_vec()),
            "a" => Self::RequestField(b"user-agent".to_vec()),
            "T" => Self::Seconds,
            "D" => Self::Microseconds,
            "M" => Self::Milliseconds,
            "L" => Self::DecimalSeconds,
            "p" => Self::Pid,
            _ => Self::named_in_braces(name).unwrap_or(Self::Dash),
        }
    }

    fn named_in_braces(name: &str) -> Option<Self> {
        let (inner, kind) = name.strip_prefix('{')?.rsplit_once('}')?;
        let name = inner.to_ascii_lowercase().into_bytes();
        match kind {
            "i" => Some(Self::RequestField(name)),
            "o" => Some(Self::ResponseField(name)),
            "e" => Some(Self::Environ(name)),
            _ => None,
        }
    }

    fn is_number(&self) -> bool {
        matches!(
            self,
            Self::Bytes | Self::Seconds | Self::Milliseconds | Self::Microseconds
        )
    }
}

impl Style {
    /// Cuts and pads what was written since `start`.
    fn apply(self, out: &mut Vec<u8>, start: usize) {
        if let Some(precision) = self.precision {
            out.truncate(out.len().min(start.saturating_add(precision)));
        }
        let missing = self.width.saturating_sub(out.len() - start);
        if self.left {
            out.resize(out.len() + missing, b' ');
        } else if missing > 0 {
            let padding = if self.zeros { b'0' } else { b' ' };
            out.splice(start..start, std::iter::repeat_n(padding, missing));
        }
    }
}

/// The environ as far as the request's head determines it; the application's own keys are not seen here.
fn write_environ(lowercase_name: &[u8], entry: &AccessEntry<'_>, out: &mut Vec<u8>) {
    match lowercase_name {
        b"request_method" => escape_or_dash(Some(entry.method), out),
        b"raw_uri" => escape_or_dash(Some(entry.target), out),
        b"path_info" => escape(&percent_decoded(entry.path), out),
        b"query_string" => escape(entry.query, out),
        b"server_protocol" => escape(entry.version.as_bytes(), out),
        b"remote_addr" => escape(entry.peer.as_bytes(), out),
        b"content_type" => escape_or_dash(entry.request.field(b"content-type"), out),
        b"content_length" => escape_or_dash(entry.request.field(b"content-length"), out),
        name => {
            let field = name.strip_prefix(b"http_").map(|field| {
                let mut field = field.to_vec();
                field
                    .iter_mut()
                    .filter(|byte| **byte == b'_')
                    .for_each(|byte| *byte = b'-');
                field
            });
            escape_or_dash(field.and_then(|field| entry.request.field(&field)), out);
        }
    }
}

/// The name of HTTP Basic authentication.
fn user(request: &dyn Fields) -> Option<Vec<u8>> {
    let value = request.field(b"authorization")?;
    let (scheme, credentials) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = base64_decoded(credentials.trim_ascii())?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    decoded.truncate(colon);
    (!decoded.is_empty()).then_some(decoded)
}

fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let text = text
        .strip_suffix(b"==")
        .or(text.strip_suffix(b"="))
        .unwrap_or(text);
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in text {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count & 0xff) as u8);
        }
    }
    Some(decoded)
}

fn percent_decoded(path: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if !path.contains(&b'%') {
        return path.into();
    }
    let hex = |byte: &u8| (*byte as char).to_digit(16);
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                let value = hex(high).unwrap_or(0) << 4 | hex(low).unwrap_or(0);
                decoded.push(value as u8);
                rest = after;
            }
            _ => decoded.push(*first),
        }
    }
    decoded.into()
}

fn escape_or_dash(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        Some(value) => escape(value, out),
        None => out.push(b'-'),
    }
}

fn escape(value: &[u8], out: &mut Vec<u8>) {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    // Nearly every value is plain, and then one copy does.
    let first = value
        .iter()
        .position(|byte| !plain(byte))
        .unwrap_or(value.len());
    out.extend_from_slice(&value[..first]);
    for byte in &value[first..] {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            byte if plain(byte) => out.push(*byte),
            byte => {
                let _ = write!(out, "\\x{byte:02X}");
            }
        }
    }
}

const WIDTH_MAX: usize = 1000;

#[cfg(test)]
mod tests;
