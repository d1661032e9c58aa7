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
mod entry;
mod filter;
mod format_error;
mod json;
mod lines;
mod values;

pub use self::entry::{AccessEntry, Fields};
pub use self::filter::AccessFilter;
pub use self::format_error::{BadConversion, FormatError};

use self::atoms::Atom;
use self::json::JsonForm;
use self::lines::LineForm;

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
