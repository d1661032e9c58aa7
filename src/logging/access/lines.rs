//! gunicorn's form of the access log: text and `%(name)s`, with the conversions of Python's `%` operator that make
//! sense for them (`%(s)-5s`, `%(D)06d`, `%%`).

use std::cell::RefCell;
use std::io::Write as _;
use std::time::Duration;

use super::atoms::Atom;
use super::entry::AccessEntry;
use super::format_error::{BadConversion, FormatError};
use super::values::{
    environ_of_head, escape, escape_decoded, escape_joined, escape_or_dash, host_and_port,
    path_info, user,
};
use crate::logging::clock::LocalTime;

/// A compiled format.
#[derive(Debug)]
pub(super) struct LineForm {
    pieces: Vec<Piece>,
    /// Formatting a date costs more than the rest of the line, so its text is kept for the second.
    time: RefCell<LocalTime>,
}

#[derive(Debug)]
enum Piece {
    Text(Vec<u8>),
    Atom { atom: Atom, style: Style },
}

/// Flags, width and precision of a conversion such as `%(D)-8s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Style {
    left: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
}

impl LineForm {
    pub(super) fn compile(format: &str) -> Result<Self, FormatError> {
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
            let (piece, after) = parse_conversion(conversion)
                .map_err(|reason| FormatError::Format { position, reason })?;
            pieces.push(piece);
            rest = after;
        }
        push_text(&mut pieces, rest);
        Ok(Self {
            pieces,
            time: RefCell::new(LocalTime::access_log()),
        })
    }

    pub(super) fn atoms(&mut self) -> impl Iterator<Item = &mut Atom> {
        self.pieces.iter_mut().filter_map(|piece| match piece {
            Piece::Atom { atom, .. } => Some(atom),
            Piece::Text(_) => None,
        })
    }

    pub(super) fn write(&self, entry: &AccessEntry<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Atom { atom, style } => {
                    let start = out.len();
                    self.write_atom(atom, entry, out);
                    if *style != Style::default() {
                        style.apply(out, start);
                    }
                }
            }
        }
    }

    fn write_atom(&self, atom: &Atom, entry: &AccessEntry<'_>, out: &mut Vec<u8>) {
        let or_dash = |value: &[u8], out: &mut Vec<u8>| {
            escape_or_dash(Some(value).filter(|value| !value.is_empty()), out);
        };
        match atom {
            Atom::Status => number(entry.status.into(), out),
            Atom::BytesSent => number(entry.bytes_sent, out),
            Atom::BytesReceived => number_or_dash(entry.bytes_received, out),
            Atom::PeerPort => number_or_dash(entry.peer_port.map(u64::from), out),
            Atom::Seconds => number(entry.duration.as_secs(), out),
            Atom::Milliseconds => number(saturating(entry.duration.as_millis()), out),
            Atom::Microseconds => number(saturating(entry.duration.as_micros()), out),
            Atom::DecimalSeconds => decimal(entry.duration, out),
            Atom::QueueSeconds => decimal_or_dash(entry.queued, out),
            Atom::GilSeconds => decimal_or_dash(entry.gil_wait, out),
            Atom::Pid => {
                out.push(b'<');
                number(entry.pid.into(), out);
                out.push(b'>');
            }
            Atom::PidNumber => number(entry.pid.into(), out),
            Atom::Worker => number(entry.worker, out),
            Atom::Connection => {
                let (place, generation) = entry.connection;
                number(place.into(), out);
                out.push(b'.');
                number(generation.into(), out);
            }
            Atom::Dash => out.push(b'-'),
            Atom::Time => out.extend_from_slice(self.time.borrow_mut().at(entry.now.0).as_bytes()),
            Atom::RequestLine if entry.method.is_empty() => out.push(b'-'),
            Atom::RequestLine => {
                escape(entry.method, out);
                out.push(b' ');
                escape(entry.target, out);
                out.push(b' ');
                escape(entry.version.as_bytes(), out);
            }
            Atom::PeerAddress => escape(entry.peer.as_bytes(), out),
            Atom::User => escape_or_dash(user(entry.request).as_deref(), out),
            Atom::Method => or_dash(entry.method, out),
            Atom::Path => escape_decoded(path_info(entry), out),
            Atom::RawPath => escape(entry.path, out),
            Atom::Query => escape(entry.query, out),
            Atom::Scheme => out.extend_from_slice(scheme(entry).as_bytes()),
            Atom::TlsProtocol => out.extend_from_slice(tls(entry).0.as_bytes()),
            Atom::TlsCipher => out.extend_from_slice(tls(entry).1.as_bytes()),
            Atom::Version => escape(entry.version.as_bytes(), out),
            Atom::VersionNumber => escape(version_number(entry).as_bytes(), out),
            Atom::RequestId => or_dash(entry.request_id, out),
            Atom::TraceId => escape_or_dash(entry.trace.map(|(trace, _)| trace), out),
            Atom::SpanId => escape_or_dash(entry.trace.map(|(_, span)| span), out),
            Atom::Reason => or_dash(entry.reason.as_bytes(), out),
            Atom::ServerAddress => or_dash(host_and_port(entry).0, out),
            Atom::ServerPort => number_or_dash(host_and_port(entry).1.map(u64::from), out),
            Atom::RequestField(name) => escape_or_dash(entry.request.last(name), out),
            Atom::ResponseField(name) => escape_or_dash(entry.response.last(name), out),
            Atom::JoinedField(name) => escape_joined(entry.request, name, out),
            Atom::Environ { name, place } => match entry.environ.get(*place) {
                Some(value) => escape_or_dash(value.as_deref(), out),
                None => environ_of_head(name, entry, out),
            },
        }
    }
}

pub(super) fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn number_or_dash(value: Option<u64>, out: &mut Vec<u8>) {
    match value {
        Some(value) => number(value, out),
        None => out.push(b'-'),
    }
}

pub(super) fn saturating(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn decimal_or_dash(duration: Option<Duration>, out: &mut Vec<u8>) {
    match duration {
        Some(duration) => decimal(duration, out),
        None => out.push(b'-'),
    }
}

/// Seconds with six places.
pub(super) fn decimal(duration: Duration, out: &mut Vec<u8>) {
    // A write to a Vec cannot fail.
    let _ = write!(
        out,
        "{}.{:06}",
        duration.as_secs(),
        duration.subsec_micros()
    );
}

pub(super) fn scheme(entry: &AccessEntry<'_>) -> &'static str {
    if entry.is_https { "https" } else { "http" }
}

/// Version and cipher.
fn tls(entry: &AccessEntry<'_>) -> (&'static str, &'static str) {
    entry.tls.unwrap_or(("-", "-"))
}

pub(super) fn version_number<'a>(entry: &AccessEntry<'a>) -> &'a str {
    entry.version.strip_prefix("HTTP/").unwrap_or_default()
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if let Some(Piece::Text(last)) = pieces.last_mut() {
        last.extend_from_slice(text.as_bytes());
    } else if !text.is_empty() {
        pieces.push(Piece::Text(text.as_bytes().to_vec()));
    }
}

/// `conversion` is what follows a `%`. Returns the piece and what follows it.
fn parse_conversion(conversion: &str) -> Result<(Piece, &str), BadConversion> {
    let (name, mut rest) = conversion
        .strip_prefix('(')
        .and_then(|inside| inside.split_once(')'))
        .ok_or(BadConversion::Form)?;
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
        Some(letter) => {
            let name = name.to_owned();
            return Err(BadConversion::Letter { letter, name });
        }
        None => return Err(BadConversion::NoLetter),
    }
    Ok((Piece::Atom { atom, style }, &rest[1..]))
}

fn parse_number(text: &str) -> Result<(usize, &str), BadConversion> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number = match &text[..digits] {
        "" => 0,
        number => number
            .parse()
            .ok()
            .filter(|width| *width <= WIDTH_MAX)
            .ok_or_else(|| BadConversion::TooWide(number.to_owned()))?,
    };
    Ok((number, &text[digits..]))
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

const WIDTH_MAX: usize = 1000;
