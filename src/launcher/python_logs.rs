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
    /// Until they are needed; none without an access log.
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

/// What the application has changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Touched {
    /// The logger of the access log.
    access: bool,
    /// The logger of the error log.
    error: bool,
    /// All loggers, as agents do, and there is an access log.
    patched: bool,
    /// Whether Python is given the exceptions of requests.
    pub(super) sees_exceptions: bool,
}

impl Touched {
    pub(super) fn new(access: bool, error: bool, patched: bool) -> Self {
        Self {
            access,
            error,
            patched,
            sees_exceptions: error || patched,
        }
    }

    /// As `log`, the built-in logger, and Python's logging are now.
    pub(super) fn look(py: Python<'_>, log: &Py<PyAny>) -> PyResult<Self> {
        let (access, error, patched, _): (bool, bool, bool, i64) =
            log.call_method0(py, "state")?.extract(py)?;
        Ok(Self::new(access, error, patched))
    }

    /// There is no access log to change.
    pub(super) fn without_access_log(self) -> Self {
        Self {
            access: false,
            patched: false,
            ..self
        }
    }

    /// Whether Python writes the access log.
    pub(super) fn has_access_log(self) -> bool {
        self.access || self.patched
    }

    /// The one line that says it.
    fn announce(self) {
        let names = [(self.error, ERROR), (self.access, ACCESS)];
        let names = names.into_iter().filter(|(is_touched, _)| *is_touched);
        let names: Vec<_> = names.map(|(_, name)| name).collect();
        if !names.is_empty() {
            let names = names.join(" and ");
            log::info!(
                "The application has configured {names}: their lines go through Python's logging from now on."
            );
        }
        if self.patched && !self.access {
            log::info!(
                "All of Python's loggers are patched: lines of {ACCESS} go through Python's logging from now on."
            );
        }
    }
}

/// Looks for what no logger can notice: a patch of a class.
pub(super) fn look(py: Python<'_>) {
    let announced = py.import("ferricorn._logger");
    if let Err(error) = announced.and_then(|module| module.call_method0("announce")) {
        log::error!(
            "Python's loggers cannot be inspected\n{}",
            traceback(py, &error)
        );
    }
}

/// The worker serves, with what was `touched` before: from now on a change of the access log's logger counts at once.
pub(super) fn serve(
    touched: Touched,
    is_python: Arc<AtomicBool>,
    app: Arc<WsgiApp>,
    hooks: Option<RequestHooks>,
) {
    touched.announce();
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
pub(super) fn changed(py: Python<'_>, touched: Touched, level: i64) {
    let mut relayed = None;
    let mut news = Touched::default();
    {
        let mut switch = switch();
        let Some(switch) = &mut *switch else { return };
        if touched.error && !std::mem::replace(&mut switch.has_error_log, true) {
            relayed = Some((switch.logs, switch.log.clone_ref(py)));
            // Before the worker serves it says so once, of both.
            news.error = switch.access.is_some();
        }
        if switch.has_error_log {
            switch.logs.set_level(level_of(level));
        }
        if let Some(access) = &mut switch.access {
            let late = access.app.late_logging();
            if touched.sees_exceptions {
                late.log_exceptions_through(switch.log.clone_ref(py));
            }
            if touched.has_access_log()
                && let Some(hooks) = access.hooks.take()
            {
                late.log_through(hooks);
                access.is_python.store(true, Ordering::Relaxed);
                news.access = touched.access;
                news.patched = touched.patched;
            }
        }
    }
    if let Some((logs, log)) = relayed {
        relay::install(logs, Some(log));
    }
    news.announce();
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

const ACCESS: &str = "gunicorn.access";
const ERROR: &str = "gunicorn.error";
