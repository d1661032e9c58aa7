//! What Python sees of the master's signals: a callable for each, as under gunicorn, which does what the signal is for.
//!
//! The kernel hands the signals to the arbiter's loop without Python, until a hook sets a handler of its own. That one may
//! call the one before, as libraries do that chain handlers.

use pyo3::prelude::*;

use crate::arbiter::signals::{self, ARBITER_SIGNALS};

/// After `on_starting`, where gunicorn sets its own too.
pub(super) fn show(py: Python<'_>, arbiter: &Py<PyAny>) -> PyResult<()> {
    arbiter.call_method0(py, "init_signals")?;
    Ok(signals::retake(&ARBITER_SIGNALS)?)
}

/// In a child that was forked just now, where they have no meaning. What the kernel does about the signals is decided
/// after this.
pub(super) fn forget(py: Python<'_>, arbiter: &Py<PyAny>) -> PyResult<()> {
    arbiter.call_method0(py, "_forget_signals").map(drop)
}
