//! How the program ends before it serves, and what is printed outside of the log.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};

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
        let message = Some(error_line(&message.to_string()));
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

/// Some of gunicorn's messages begin with the word already.
pub(super) fn error_line(message: &str) -> String {
    let message = message.strip_prefix("Error: ").unwrap_or(message);
    format!("\nError: {message}\n")
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

/// To the standard error; words are kept whole where that is a terminal.
pub(super) fn complain(text: &str) {
    let mut stderr = io::stderr();
    let text = match terminal_width() {
        Some(width) if stderr.is_terminal() => wrapped(text, width),
        _ => text.to_owned(),
    };
    let _ = stderr.write_all(text.as_bytes());
}

/// Of the standard error's terminal.
fn terminal_width() -> Option<usize> {
    Python::attach(|py| {
        let size = py.import("os")?.call_method1("get_terminal_size", (2,))?;
        size.getattr("columns")?.extract()
    })
    .ok()
    .filter(|width| *width >= WIDTH_MIN)
}

/// Breaks lines that are too long between words. Indented lines, such as those of a traceback, stay as they are.
fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if line.starts_with(' ') || line.trim_end().chars().count() <= width {
            out.push_str(line);
            continue;
        }
        let mut column = 0;
        for word in line.trim_end().split(' ') {
            let length = word.chars().count();
            if column > 0 && column + 1 + length > width {
                out.push_str("\n  ");
                column = 2;
            } else if column > 0 {
                out.push(' ');
                column += 1;
            }
            out.push_str(word);
            column += length;
        }
        out.push_str(&line[line.trim_end().len()..]);
    }
    out
}

/// A narrower terminal is none that words fit in.
const WIDTH_MIN: usize = 20;

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

    #[test]
    fn the_word_error_is_written_once() {
        assert_eq!(
            error_line("Error: 'x' isn't writable"),
            "\nError: 'x' isn't writable\n"
        );
        assert_eq!(error_line("no such user"), "\nError: no such user\n");
    }

    #[test]
    fn lines_are_broken_between_words_only() {
        let text = "\nError: one two three\n  File \"a very long line of a traceback\"\nshort\n";
        assert_eq!(
            wrapped(text, 16),
            "\nError: one two\n  three\n  File \"a very long line of a traceback\"\nshort\n"
        );
        assert_eq!(
            wrapped("aaaaaaaaaaaaaaaaaaaaaaaaa b", 20),
            "aaaaaaaaaaaaaaaaaaaaaaaaa\n  b"
        );
    }
}
