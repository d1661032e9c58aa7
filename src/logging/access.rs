//! The access log's line: `access_log_format` compiled once, written per exchange without Python.
//!
//! Two forms: gunicorn's (`lines.rs`), and with the word `json` an object per line (`json.rs`). What they can show is
//! one list, `Atom`. `filter.rs` decides which exchanges are worth a line.
//!
//! Invariant: what a client sent never ends a line or a quoted value. In gunicorn's form quotes and backslashes get a
//! backslash, control and non-ASCII bytes become `\xHH`; in JSON every such character becomes `\uHHHH`.
//!
//! The event loop owns the format and calls it on its own thread.

mod atoms;
mod filter;
mod json;
mod lines;
mod values;

use std::time::Duration;

pub use self::filter::AccessFilter;

use self::atoms::Atom;
use self::json::JsonForm;
use self::lines::LineForm;
use crate::http::{RequestHead, ResponseHead};

/// Looks up header fields by lower-case name, in the order of their arrival.
pub trait Fields {
    fn each<'a>(&'a self, lowercase_name: &[u8], found: &mut dyn FnMut(&'a [u8]));

    /// The last field of the name, which is the one that gunicorn shows.
    fn last(&self, lowercase_name: &[u8]) -> Option<&[u8]> {
        let mut last = None;
        self.each(lowercase_name, &mut |value| last = Some(value));
        last
    }
}

/// No fields at all: of a request or response that never came to be.
impl Fields for () {
    fn each<'a>(&'a self, _: &[u8], _: &mut dyn FnMut(&'a [u8])) {}
}

impl Fields for RequestHead {
    fn each<'a>(&'a self, lowercase_name: &[u8], found: &mut dyn FnMut(&'a [u8])) {
        for (name, value) in self.fields() {
            if name.eq_ignore_ascii_case(lowercase_name) {
                found(value);
            }
        }
    }
}

impl Fields for ResponseHead {
    fn each<'a>(&'a self, lowercase_name: &[u8], found: &mut dyn FnMut(&'a [u8])) {
        for (name, value) in self.fields() {
            if name.eq_ignore_ascii_case(lowercase_name) {
                found(value);
            }
        }
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
    pub peer_port: Option<u16>,
    /// Empty when not even a request line was understood; the line then shows `-`.
    pub method: &'a [u8],
    /// The target as sent.
    pub target: &'a [u8],
    /// The path as sent.
    pub path: &'a [u8],
    /// Where the application is mounted: the start of the path that `%(U)s` does not show.
    pub script_name: &'a [u8],
    pub query: &'a [u8],
    /// `HTTP/1.1`
    pub version: &'a str,
    pub is_https: bool,
    /// Address and port of the listener; both empty for unix sockets.
    pub server: (&'a str, &'a str),
    pub request: &'a dyn Fields,
    pub status: u16,
    pub response: &'a dyn Fields,
    /// The environ's values that the format asks for, in the order of [`AccessFormat::environ_keys`]. Empty when the
    /// application was not called.
    pub environ: &'a [Option<Box<[u8]>>],
    /// Length of the request's body, when it is known.
    pub bytes_received: Option<u64>,
    /// Bytes of the body that were sent.
    pub bytes_sent: u64,
    pub duration: Duration,
    /// Until a thread took the request.
    pub queued: Option<Duration>,
    /// How much of that a thread waited for the GIL.
    pub gil_wait: Option<Duration>,
    /// Seconds since the epoch, and what is over.
    pub now: (i64, u32),
    pub pid: u32,
    /// The worker's number.
    pub worker: u64,
    /// Place and generation: together unique in a worker.
    pub connection: (u32, u32),
    /// The request's name, from the client or made.
    pub request_id: &'a [u8],
    /// Ids of trace and calling span, if the client sent them.
    pub trace: Option<(&'a [u8], &'a [u8])>,
    /// Why the request was refused, cut or not answered; empty if it was answered.
    pub reason: &'a str,
}

/// The operator's mistake in `access_log_format` or `access_log_fields`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("invalid access_log_format at {position}: {reason}")]
    Format {
        position: usize,
        reason: BadConversion,
    },
    #[error("access_log_fields has no field {0:?}")]
    Field(String),
}

/// A `%` that begins no conversion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConversion {
    #[error("expected '%(name)s'")]
    Form,
    #[error("conversion '{letter}' does not fit '{name}'")]
    Letter { letter: char, name: String },
    #[error("the conversion's letter is missing")]
    NoLetter,
    #[error("{0} is too wide")]
    TooWide(String),
}

/// A compiled `access_log_format`.
#[derive(Debug)]
pub struct AccessFormat {
    form: Form,
    environ_keys: Vec<String>,
    shows_request_id: bool,
    shows_trace: bool,
}

#[derive(Debug)]
enum Form {
    Lines(LineForm),
    Json(JsonForm),
}

impl AccessFormat {
    /// Compiles a format; `json` has its usual fields.
    ///
    /// # Errors
    /// When it is not a format that Python's `%` would take with a dictionary.
    pub fn compile(format: &str) -> Result<Self, FormatError> {
        Self::with_fields(format, &[])
    }

    /// As `compile`, with the fields that JSON is to have; none are the usual ones.
    ///
    /// # Errors
    /// When there is no such field, or as `compile`.
    pub fn with_fields(format: &str, fields: &[String]) -> Result<Self, FormatError> {
        // Both lists are checked: `access_log_fields` may wait for the day of `json`.
        let json = JsonForm::new(fields)?;
        let mut form = match format {
            JSON => Form::Json(json),
            format => Form::Lines(LineForm::compile(format)?),
        };
        let mut atoms: Vec<&mut Atom> = match &mut form {
            Form::Lines(lines) => lines.atoms().collect(),
            Form::Json(json) => json.atoms().collect(),
        };
        let mut environ_keys = Vec::new();
        for atom in &mut atoms {
            if let Atom::Environ { name, place } = atom {
                *place = environ_keys.len();
                environ_keys.push(name.clone());
            }
        }
        let shows = |wanted: Atom| atoms.iter().any(|atom| **atom == wanted);
        let shows_request_id = shows(Atom::RequestId);
        let shows_trace = shows(Atom::TraceId) || shows(Atom::SpanId);
        Ok(Self {
            form,
            environ_keys,
            shows_request_id,
            shows_trace,
        })
    }

    /// What the format wants to know of the environ once the application was called with it.
    pub fn environ_keys(&self) -> &[String] {
        &self.environ_keys
    }

    /// Whether requests need a name.
    pub fn shows_request_id(&self) -> bool {
        self.shows_request_id
    }

    /// Whether their place in a trace is wanted.
    pub fn shows_trace(&self) -> bool {
        self.shows_trace
    }

    /// Appends the line, with its newline.
    pub fn write(&self, entry: &AccessEntry<'_>, out: &mut Vec<u8>) {
        match &self.form {
            Form::Lines(lines) => lines.write(entry, out),
            Form::Json(json) => json.write(entry, out),
        }
        out.push(b'\n');
    }
}

/// The `access_log_format` that is not gunicorn's.
const JSON: &str = "json";

#[cfg(test)]
mod tests;
