//! The built-in logs in Python's hands: an application has changed `gunicorn.error` or `gunicorn.access`.
//!
//! `ferricorn._logger` watches the two loggers. While they are as the server has made them, lines are written without
//! Python. From the first change on they go through the logger, in the process that has changed it and in those that it
//! forks; there is no way back. The interpreter calls by name, so the state stands for the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

use super::relay;
use crate::config::LogLevel;
use crate::logging::Log;
use crate::python::heartbeat::post;
use crate::python::traceback::format as traceback;
use crate::python::wsgi::{RequestHooks, WsgiApp};

/// What there is to switch.
struct Switch {
    logs: Log,
    log: Py<PyAny>,
    has_error_log: bool,
    access: Option<AccessSwitch>,
}

/// A worker's access log.
struct AccessSwitch {
    is_python: Arc<AtomicBool>,
    app: Arc<WsgiApp>,
    /// Until they are needed.
    hooks: Option<RequestHooks>,
}

static SWITCH: Mutex<Option<Switch>> = Mutex::new(None);

fn switch() -> MutexGuard<'static, Option<Switch>> {
    SWITCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `log` is the built-in logger of this process, or `None` when another one was configured.
pub(super) fn watch(py: Python<'_>, logs: Log, log: Option<&Py<PyAny>>) -> PyResult<()> {
    *switch() = log.map(|log| Switch {
        logs,
        log: log.clone_ref(py),
        has_error_log: false,
        access: None,
    });
    // What a configuration file has changed was changed before.
    py.import("ferricorn._logger")?.call_method0("announce")?;
    Ok(())
}

/// Which of the two are Python's: access log, error log.
pub(super) fn touched(py: Python<'_>, log: &Py<PyAny>) -> PyResult<(bool, bool)> {
    let (access, error, _): (bool, bool, i64) = log.call_method0(py, "state")?.extract(py)?;
    Ok((access, error))
}

/// Whether an agent that is in all of Python's loggers is to see the exceptions of requests.
pub(super) fn are_patched(py: Python<'_>) -> PyResult<bool> {
    let module = py.import("ferricorn._logger")?;
    module.call_method0("is_logging_patched")?.extract()
}

/// The worker serves: from now on a change of the access log's logger counts at once.
pub(super) fn serve(is_python: Arc<AtomicBool>, app: Arc<WsgiApp>, hooks: Option<RequestHooks>) {
    if let Some(switch) = &mut *switch() {
        switch.access = Some(AccessSwitch {
            is_python,
            app,
            hooks,
        });
    }
}

/// The worker has served. What is kept for a switch would keep the application's objects from their finalizers.
pub(super) fn served() {
    let access = switch().as_mut().and_then(|switch| switch.access.take());
    drop(access);
}

/// Something about the loggers is different.
pub(super) fn changed(py: Python<'_>, access: bool, error: bool, level: i64) {
    let mut relayed = None;
    let mut names = Vec::new();
    {
        let mut switch = switch();
        let Some(switch) = &mut *switch else { return };
        if error && !std::mem::replace(&mut switch.has_error_log, true) {
            relayed = Some((switch.logs, switch.log.clone_ref(py)));
            // Before the worker serves it says so once, of both.
            if let Some(access) = &switch.access {
                access
                    .app
                    .late_logging()
                    .log_exceptions_through(switch.log.clone_ref(py));
                names.push(ERROR);
            }
        }
        if switch.has_error_log {
            switch.logs.set_level(level_of(level));
        }
        if access && let Some(access) = &mut switch.access {
            if let Some(hooks) = access.hooks.take() {
                access.app.late_logging().log_through(hooks);
            }
            if !access.is_python.swap(true, Ordering::Relaxed) {
                names.push(ACCESS);
            }
        }
    }
    if let Some((logs, log)) = relayed {
        relay::install(logs, Some(log));
    }
    announce(&names);
}

/// The one line that says it.
pub(super) fn announce(names: &[&str]) {
    if !names.is_empty() {
        let names = names.join(" and ");
        log::info!("The application has changed {names}: such lines go through Python's logging.");
    }
}

/// Finished lines of the access log for Python's logger.
pub(super) fn write_access(log: &Arc<Py<PyAny>>, lines: &[u8]) {
    let lines = String::from_utf8_lossy(lines).into_owned();
    let log = Arc::clone(log);
    post(Box::new(move |py| {
        let written = log.getattr(py, "access_log").and_then(|logger| {
            for line in lines.lines() {
                logger.call_method1(py, "info", ("%s", line))?;
            }
            Ok(())
        });
        if let Err(error) = written {
            log::error!("The access log failed\n{}", traceback(py, &error));
        }
    }));
}

fn level_of(level: i64) -> LogLevel {
    match level {
        50.. => LogLevel::Critical,
        40.. => LogLevel::Error,
        30.. => LogLevel::Warning,
        20.. => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}

pub(super) const ACCESS: &str = "gunicorn.access";
pub(super) const ERROR: &str = "gunicorn.error";
