//! How the program ends before it serves, and what is printed outside of the log.

use std::error::Error;
use std::io::{self, Write as _};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::python::traceback::format as traceback;

/// With a line for the operator, unless all was printed.
pub(super) struct Ending {
    pub(super) code: i32,
    pub(super) message: Option<String>,
}

impl Ending {
    pub(super) fn refused(message: impl std::fmt::Display) -> Self {
        let message = Some(format!("\nError: {message}\n"));
        Self { code: 1, message }
    }

    /// A `RuntimeError` is the operator's to mend, so its text is enough; another exception has its traceback.
    pub(super) fn raised(py: Python<'_>, error: &PyErr) -> Self {
        if error.is_instance_of::<PyRuntimeError>(py) {
            Self::refused(error.value(py))
        } else {
            Self::refused(traceback(py, error))
        }
    }
}

/// An error with all that caused it, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The terminal may be gone; there is nothing else to print to.
pub(super) fn print(text: &str) {
    let mut stdout = io::stdout();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

pub(super) fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot use the socket")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_chain_names_every_cause() {
        let error = Outer(io::Error::other("it is gone"));
        assert_eq!(chain(&error), "cannot use the socket: it is gone");
    }
}
