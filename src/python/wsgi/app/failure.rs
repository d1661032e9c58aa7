//! Requests that fail: what the log gets, and the reply that lets the loop answer.
//!
//! Runs on pool threads and in requests' greenlets, attached.

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::pool::{Job, PoolThread, Reply};
use crate::python::interrupts::RequestTimeout;
use crate::python::traceback;
use crate::python::wsgi::start_response::StartResponse;

/// A custom logger, which is given exceptions as such.
type Logger<'a> = Option<&'a Py<PyAny>>;

/// The application has hijacked the socket, and its call has ended with `error`. `StopIteration` is gunicorn's word for
/// "there is no response", so it is not a failure.
#[cold]
pub(super) fn end_hijacked(
    py: Python<'_>,
    logger: Logger<'_>,
    thread: &PoolThread,
    job: Box<Job>,
    error: &PyErr,
) {
    if !error.is_instance_of::<PyStopIteration>(py) {
        log_failure(py, logger, Some(&job), error);
    }
    thread.pool().send(Reply::End(job));
}

/// Whether the application, which has the client's socket, has ended otherwise than by saying that there is no response.
pub(super) fn has_failed_on_its_socket(
    called: &PyResult<Bound<'_, PyAny>>,
    start: &Bound<'_, StartResponse>,
) -> bool {
    match called {
        Ok(_) => start.get().is_hijacked_and_answered(),
        Err(error) => !error.is_instance_of::<PyStopIteration>(start.py()),
    }
}

/// The application failed. Its traceback goes to the log. The loop does the rest: it knows what the client has seen.
#[cold]
pub(super) fn fail(
    py: Python<'_>,
    logger: Logger<'_>,
    thread: &PoolThread,
    job: Option<Box<Job>>,
    error: &PyErr,
) {
    log_failure(py, logger, job.as_deref(), error);
    if let Some(job) = job {
        thread.pool().send(Reply::Abort(job));
    }
}

/// All of the response was sent, and `close()` of the result raised: that costs the client nothing.
#[cold]
pub(super) fn end_sent(
    py: Python<'_>,
    logger: Logger<'_>,
    thread: &PoolThread,
    job: Box<Job>,
    error: &PyErr,
) {
    log_failure(py, logger, Some(&job), error);
    // A request that timed out was answered, or broken off, when its time was over.
    let reply = match error.is_instance_of::<RequestTimeout>(py) {
        true => Reply::Abort(job),
        false => Reply::End(job),
    };
    thread.pool().send(reply);
}

/// The log gets the traceback; a job names its request.
#[cold]
pub(super) fn log_failure(py: Python<'_>, logger: Logger<'_>, job: Option<&Job>, error: &PyErr) {
    if error.is_instance_of::<RequestTimeout>(py) {
        // The stack was logged when the time was over.
        log::warn!("A request that had timed out has ended.");
        return;
    }
    let message = match job {
        Some(job) => format!("Error handling request {}", named(job)),
        None => "Error after the response was sent".to_owned(),
    };
    if let Some(logger) = logger
        && log_exception(py, logger, &message, error).is_ok()
    {
        return;
    }
    log::error!("{message}\n{}", traceback::format(py, error));
}

/// A custom logger may use more of an exception than its text.
fn log_exception(py: Python<'_>, logger: &Py<PyAny>, message: &str, error: &PyErr) -> PyResult<()> {
    let named = PyDict::new(py);
    // Up to Python 3.11 the value does not know its traceback before it is raised again.
    let raised = (error.get_type(py), error.value(py), error.traceback(py));
    named.set_item("exc_info", raised)?;
    // The message is an argument, so that a `%` in it is not a format.
    logger.call_method(py, "exception", ("%s", message), Some(&named))?;
    Ok(())
}

pub(super) fn named(job: &Job) -> String {
    let (method, target) = (job.head.method(), job.head.target());
    format!("{} {}", method.escape_ascii(), target.escape_ascii())
}
