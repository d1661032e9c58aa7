//! What `ferricorn._core` offers to the Python side of the package.

use std::ffi::OsString;

use nix::sys::signal::Signal;
use pyo3::exceptions::{PyAttributeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::python_logs::{self, Touched};
use crate::arbiter::signals;
use crate::config::settings::{Kind, Setting, all, find};
use crate::config::{self, LogLevel};
use crate::control;
use crate::fork_guard;
use crate::logging::Log;
use crate::logging::statsd::Metric;
use crate::python::config_file;
use crate::python::hooks::{Hooks, to_python};
use crate::python::loader;

/// Serve with the command line `argv`; returns the exit code, in the master and in each worker.
#[pyfunction]
pub(crate) fn run(py: Python<'_>, argv: Vec<OsString>) -> i32 {
    super::run(py, argv)
}

/// Serve an application that brings its own settings (a `BaseApplication`); returns as `run` does.
#[pyfunction]
pub(crate) fn serve(py: Python<'_>, application: Py<PyAny>) -> i32 {
    super::run_application(py, application)
}

/// What figures say about workers and threads. `load` has the fields of `control::Load`.
#[pyfunction]
pub(crate) fn advice(load: &Bound<'_, PyAny>) -> PyResult<String> {
    let seconds = |name: &str| load.getattr(name)?.extract::<f64>();
    let count = |name: &str| load.getattr(name)?.extract::<u64>();
    Ok(control::advice(&control::Load {
        seconds: seconds("seconds")?,
        cores: count("cores")?,
        workers: count("workers")?,
        threads: count("threads")?,
        requests: count("requests")?,
        queue_s: seconds("queue_s")?,
        gil_s: seconds("gil_s")?,
        service_s: seconds("service_s")?,
        cpu_s: seconds("cpu_s")?,
        worker_bytes: count("worker_bytes")?,
        memory_left: load
            .getattr("memory_left")?
            .extract::<Option<u64>>()?
            .unwrap_or(u64::MAX),
    }))
}

/// What a process may still take of the machine's memory and of its cgroups'; none where that is not to be found out.
#[pyfunction]
pub(crate) fn memory_left(pid: u32) -> Option<u64> {
    config::memory_left(pid)
}

/// Every row of the table of settings.
#[pyfunction]
pub(crate) fn settings(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let rows = PyList::empty(py);
    let environment = config::Environment::of_process().settings();
    for setting in all() {
        let row = PyDict::new(py);
        row.set_item("name", setting.name)?;
        row.set_item("section", setting.section.title())?;
        row.set_item("flags", setting.flags)?;
        row.set_item("kind", kind(setting))?;
        row.set_item("const", bare(setting))?;
        row.set_item("doc", setting.doc)?;
        let given = environment.get(setting.name).cloned();
        let value = given.unwrap_or_else(|| setting.default_value());
        // A variable that makes no sense is the server's to complain about, when it starts.
        let value = config::check(setting, &value).unwrap_or_else(|_| setting.default_value());
        row.set_item("default", to_python(py, &value)?)?;
        rows.append(row)?;
    }
    Ok(rows)
}

fn kind(setting: &Setting) -> &'static str {
    match setting.kind {
        Kind::Bool { .. } => "switch",
        Kind::Texts | Kind::Files => "list",
        kind if kind.is_hook() => "hook",
        _ => "value",
    }
}

/// What a flag without a value means, if that is allowed.
fn bare(setting: &Setting) -> Option<&'static str> {
    match setting.kind {
        Kind::Bool { cli: true } => Some("True"),
        Kind::Bool { cli: false } => Some("False"),
        Kind::ProxyProtocol => Some("auto"),
        _ => None,
    }
}

/// A setting's value as the server takes it, or `ValueError` with gunicorn's message.
#[pyfunction]
pub(crate) fn check_setting<'py>(
    name: &str,
    value: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let Some(setting) = find(name) else {
        let message = format!("No configuration setting for: {name}");
        return Err(PyAttributeError::new_err(message));
    };
    if value.is_none() && setting.kind.is_hook() {
        return Ok(value);
    }
    let mut hooks = Hooks::default();
    let checked = config_file::read(setting, &value, &mut hooks)
        .map_err(|error| error.to_string())
        .and_then(|value| config::check(setting, &value).map_err(|error| error.to_string()))
        .map_err(PyValueError::new_err)?;
    match hooks.object(setting.name) {
        Some(object) => Ok(object.clone_ref(py).into_bound(py)),
        None => to_python(py, &checked),
    }
}

/// The application that `MODULE[:VARIABLE]` names.
#[pyfunction]
pub(crate) fn load_app(py: Python<'_>, uri: &str) -> PyResult<Py<PyAny>> {
    loader::load_app(py, uri).map_err(|error| error.into_exception(py))
}

/// The application has changed a logger of the server's: `access` and `error` say which of the two is Python's now,
/// `patched` whether code is in all of Python's loggers.
#[pyfunction]
pub(crate) fn loggers_changed(
    py: Python<'_>,
    access: bool,
    error: bool,
    patched: bool,
    level: i64,
) {
    python_logs::changed(py, Touched::new(access, error, patched), level);
}

/// Whether this process is a child that the application has forked.
#[pyfunction]
pub(crate) fn is_forked_child() -> bool {
    fork_guard::is_child()
}

/// Puts the default in the place of the server's signal handlers, in a child that the application has forked.
#[pyfunction]
pub(crate) fn reset_signal_handlers() {
    if fork_guard::is_child() {
        fork_guard::reset_handlers();
    }
}

/// A record that Python's `gunicorn.error` has let through.
#[pyfunction]
pub(crate) fn write_record(level: i64, text: &str) {
    let level = match level {
        50.. => LogLevel::Critical,
        40.. => LogLevel::Error,
        30.. => LogLevel::Warning,
        20.. => LogLevel::Info,
        _ => LogLevel::Debug,
    };
    Log::of_process().write_line(level, text);
}

/// A metric for statsd: `mtype` is gauge, counter, histogram or timer. Nothing when there is no statsd.
#[pyfunction]
pub(crate) fn write_metric(mtype: &str, metric: &str, value: &str) {
    if let Some(kind) = Metric::named(mtype) {
        Log::of_process().metric(kind, metric, value);
    }
}

/// Text for the error log, as it is.
#[pyfunction]
pub(crate) fn write_error_log(text: &str) -> usize {
    Log::of_process().write_raw(text);
    text.chars().count()
}

/// Text for the access log, as it is.
#[pyfunction]
pub(crate) fn write_access_log(text: &str) -> usize {
    Log::of_process().write_access(text.as_bytes());
    text.chars().count()
}

/// Puts a signal before the event loop of this worker as if it had come; false when there is no loop yet.
#[pyfunction]
pub(crate) fn deliver_signal(number: i32) -> bool {
    Signal::try_from(number).is_ok_and(signals::deliver)
}

/// Open the files of both logs anew.
#[pyfunction]
pub(crate) fn reopen_logs() {
    if let Err(error) = Log::of_process().reopen() {
        log::error!("{error}");
    }
}
