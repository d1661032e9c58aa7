//! `access_log_format = "json"`: one object per line, numbers as numbers, what is not known left out.
//!
//! Names are OpenTelemetry's semantic conventions for HTTP where they have one, `ferricorn.` where they have none.
//! `access_log_fields` chooses among them; `name=field` gives a field another name.

use std::cell::RefCell;
use std::time::Duration;

use super::atoms::Atom;
use super::entry::{AccessEntry, Fields};
use super::format_error::FormatError;
use super::lines::{decimal, number, scheme, version_number};
use super::values::{environ_of_head, host_and_port, json_text, user};
use crate::logging::clock::UtcTime;

/// The fields of a line, in their order.
#[derive(Debug)]
pub(super) struct JsonForm {
    fields: Vec<Field>,
    time: RefCell<UtcTime>,
}

#[derive(Debug)]
struct Field {
    /// `"name":`, ready to be written.
    key: Vec<u8>,
    atom: Atom,
}

impl JsonForm {
    /// No names are the usual ones.
    pub(super) fn new(names: &[String]) -> Result<Self, FormatError> {
        let usual: Vec<String> = USUAL.iter().map(|name| (*name).to_owned()).collect();
        let names = if names.is_empty() { &usual } else { names };
        let fields = names.iter().map(|name| Field::named(name));
        Ok(Self {
            fields: fields.collect::<Result<_, _>>()?,
            time: RefCell::new(UtcTime::default()),
        })
    }

    pub(super) fn atoms(&mut self) -> impl Iterator<Item = &mut Atom> {
        self.fields.iter_mut().map(|field| &mut field.atom)
    }

    pub(super) fn write(&self, entry: &AccessEntry<'_>, out: &mut Vec<u8>) {
        out.push(b'{');
        let first = out.len();
        for field in &self.fields {
            let before = out.len();
            if before > first {
                out.push(b',');
            }
            out.extend_from_slice(&field.key);
            if self.write_value(&field.atom, entry, out).is_none() {
                out.truncate(before);
            }
        }
        out.push(b'}');
    }

    /// `None`: the exchange has no such thing.
    fn write_value(&self, atom: &Atom, entry: &AccessEntry<'_>, out: &mut Vec<u8>) -> Option<()> {
        let text =
            |value: &[u8], out: &mut Vec<u8>| (!value.is_empty()).then(|| json_text(value, out));
        match atom {
            Atom::Time => {
                let (seconds, nanos) = entry.now;
                out.push(b'"');
                self.time.borrow_mut().write(seconds, nanos, out);
                out.push(b'"');
            }
            Atom::Status => number(entry.status.into(), out),
            Atom::BytesSent => number(entry.bytes_sent, out),
            Atom::BytesReceived => number(entry.bytes_received?, out),
            Atom::PeerPort => number(entry.peer_port?.into(), out),
            Atom::PidNumber => number(entry.pid.into(), out),
            Atom::Worker => number(entry.worker, out),
            Atom::DecimalSeconds => seconds(entry.duration, out),
            Atom::QueueSeconds => seconds(entry.queued?, out),
            Atom::GilSeconds => seconds(entry.gil_wait?, out),
            Atom::ServerPort => number(host_and_port(entry).1?.into(), out),
            Atom::ServerAddress => text(host_and_port(entry).0, out)?,
            Atom::PeerAddress => text(entry.peer.as_bytes(), out)?,
            Atom::User => text(&user(entry.request)?, out)?,
            Atom::Method => text(entry.method, out)?,
            Atom::RawPath => text(entry.path, out)?,
            Atom::Query => text(entry.query, out)?,
            Atom::VersionNumber => text(version_number(entry).as_bytes(), out)?,
            Atom::Scheme => text(scheme(entry).as_bytes(), out)?,
            Atom::TlsProtocol => text(entry.tls?.0.trim_start_matches("TLSv").as_bytes(), out)?,
            Atom::TlsCipher => text(entry.tls?.1.as_bytes(), out)?,
            Atom::Connection => {
                let (place, generation) = entry.connection;
                text(format!("{place}.{generation}").as_bytes(), out)?;
            }
            Atom::RequestId => text(entry.request_id, out)?,
            Atom::TraceId => text(entry.trace?.0, out)?,
            Atom::SpanId => text(entry.trace?.1, out)?,
            Atom::Reason => text(entry.reason.as_bytes(), out)?,
            Atom::JoinedField(name) => text(entry.request.last(name)?, out)?,
            Atom::RequestField(name) => list(entry.request, name, out)?,
            Atom::ResponseField(name) => list(entry.response, name, out)?,
            Atom::Environ { name, place } => match entry.environ.get(*place) {
                Some(value) => json_text(value.as_deref()?, out),
                None => {
                    let mut value = Vec::new();
                    environ_of_head(name, entry, &mut value);
                    (value != b"-").then(|| json_text(&value, out))?;
                }
            },
            // Not among the fields.
            Atom::Dash
            | Atom::RequestLine
            | Atom::Path
            | Atom::Version
            | Atom::Seconds
            | Atom::Milliseconds
            | Atom::Microseconds
            | Atom::Pid => return None,
        }
        Some(())
    }
}

fn seconds(duration: Duration, out: &mut Vec<u8>) {
    decimal(duration, out);
}

/// Header fields are lists of text, because a name may occur more than once.
fn list(fields: &dyn Fields, lowercase_name: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    fields.each(lowercase_name, &mut |value| {
        out.push(if out.len() == start { b'[' } else { b',' });
        json_text(value, out);
    });
    (out.len() > start).then(|| out.push(b']'))
}

impl Field {
    fn named(text: &str) -> Result<Self, FormatError> {
        let (name, field) = text.split_once('=').unwrap_or((text, text));
        let atom = atom_of(field.trim()).ok_or_else(|| FormatError::Field(field.to_owned()))?;
        let mut key = Vec::new();
        json_text(name.trim().as_bytes(), &mut key);
        key.push(b':');
        Ok(Self { key, atom })
    }
}

fn atom_of(field: &str) -> Option<Atom> {
    Some(match field {
        "timestamp" => Atom::Time,
        "trace_id" => Atom::TraceId,
        "span_id" => Atom::SpanId,
        "client.address" => Atom::PeerAddress,
        "client.port" => Atom::PeerPort,
        "server.address" => Atom::ServerAddress,
        "server.port" => Atom::ServerPort,
        "user.name" => Atom::User,
        "user_agent.original" => Atom::JoinedField(b"user-agent".to_vec()),
        "http.request.method" => Atom::Method,
        "url.scheme" => Atom::Scheme,
        "tls.protocol.version" => Atom::TlsProtocol,
        "tls.cipher" => Atom::TlsCipher,
        "url.path" => Atom::RawPath,
        "url.query" => Atom::Query,
        "network.protocol.version" => Atom::VersionNumber,
        "http.response.status_code" => Atom::Status,
        "http.request.body.size" => Atom::BytesReceived,
        "http.response.body.size" => Atom::BytesSent,
        "http.server.request.duration" => Atom::DecimalSeconds,
        "process.pid" => Atom::PidNumber,
        "ferricorn.queue.duration" => Atom::QueueSeconds,
        "ferricorn.gil.duration" => Atom::GilSeconds,
        "ferricorn.worker" => Atom::Worker,
        "ferricorn.connection" => Atom::Connection,
        "ferricorn.request.id" => Atom::RequestId,
        "ferricorn.reason" => Atom::Reason,
        field => return atom_with_name(field),
    })
}

fn atom_with_name(field: &str) -> Option<Atom> {
    let name = |prefix| {
        let name = field.strip_prefix(prefix)?;
        (!name.is_empty()).then_some(name)
    };
    let lowercase = |name: &str| name.to_ascii_lowercase().into_bytes();
    name("http.request.header.")
        .map(|name| Atom::RequestField(lowercase(name)))
        .or_else(|| name("http.response.header.").map(|name| Atom::ResponseField(lowercase(name))))
        .or_else(|| name("environ.").map(Atom::environ))
}

/// What there is without `access_log_fields`.
const USUAL: [&str; 20] = [
    "timestamp",
    "client.address",
    "user.name",
    "http.request.method",
    "url.scheme",
    "url.path",
    "url.query",
    "network.protocol.version",
    "http.response.status_code",
    "http.request.body.size",
    "http.response.body.size",
    "http.server.request.duration",
    "ferricorn.queue.duration",
    "user_agent.original",
    "http.request.header.referer",
    "process.pid",
    "ferricorn.request.id",
    "trace_id",
    "span_id",
    "ferricorn.reason",
];
