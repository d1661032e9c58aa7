//! The error log in Python's hands: with a `logger_class` or `logconfig`, what Rust logs goes through that logger.
//!
//! A thread that is attached to the interpreter calls the logger itself. The event loop never attaches: its lines are
//! handed to the heartbeat's thread, in order. Where requests are greenlets the hub's thread alone calls the logger, whose
//! locks are the library's. When none of this is possible the line is written by the server itself.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::config::LogLevel;
use crate::logging::{Log, Relay};
use crate::python::gil::is_attached;
use crate::python::green;
use crate::python::heartbeat::{post, post_promptly};
use crate::python::traceback::format as traceback;
use crate::worker::AccessRelay;

/// Lets `log` take the error log's records; `None` takes that back.
pub(super) fn install(logs: Log, log: Option<Py<PyAny>>) {
    logs.set_relay(log.map(|log| relay(logs, log)));
}

fn relay(logs: Log, log: Py<PyAny>) -> Relay {
    let log = Arc::new(log);
    Arc::new(move |level, text, is_raw| {
        let text = text.to_string();
        if is_attached() && !green::is_elsewhere() {
            Python::attach(|py| log_through(py, logs, &log, level, &text, is_raw))
        } else {
            let log = Arc::clone(&log);
            post_promptly(Box::new(move |py| {
                if !log_through(py, logs, &log, level, &text, is_raw) {
                    logs.write_line(level, &text);
                }
            }))
        }
    })
}

/// The access log of requests that were answered without the application: also for the heartbeat's thread.
pub(super) fn access(log: Py<PyAny>) -> AccessRelay {
    let log = Arc::new(log);
    Box::new(move |job, status, sent, duration| {
        let head = &job.head;
        let version = head.version();
        let text = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| char::from(*byte))
                .collect::<String>()
        };
        let method = Some(text(head.method())).filter(|method| !method.is_empty());
        let line = (
            method.unwrap_or_else(|| "-".to_owned()),
            text(head.target()),
            text(head.path()),
            text(head.query()),
            (version.major(), version.minor()),
        );
        let headers: Vec<_> = head
            .fields()
            .map(|(name, value)| (text(&name.to_ascii_uppercase()), text(value)))
            .collect();
        let peer = job.peer.ip().map_or_else(String::new, |ip| ip.to_string());
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let log = Arc::clone(&log);
        post(Box::new(move |py| {
            let logged = log.getattr(py, "cfg").and_then(|cfg| {
                let arguments = (&*log, cfg, line, peer, headers, status, sent, micros);
                py.import("ferricorn._objects")?
                    .call_method1("access", arguments)?;
                Ok(())
            });
            if let Err(error) = logged {
                log::error!("The access log failed\n{}", traceback(py, &error));
            }
        }));
    })
}

/// False when the logger raised: that is logged, and the text is still to be written.
fn log_through(
    py: Python<'_>,
    logs: Log,
    log: &Py<PyAny>,
    level: LogLevel,
    text: &str,
    is_raw: bool,
) -> bool {
    let logged = if is_raw {
        py.import("ferricorn._objects")
            .and_then(|host| host.call_method1("write_errors", (log, text)))
            .map(drop)
    } else {
        let method = match level {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warning => "warning",
            LogLevel::Error => "error",
            LogLevel::Critical => "critical",
        };
        log.call_method1(py, method, (text,)).map(drop)
    };
    if let Err(error) = &logged {
        let trace = traceback(py, error);
        logs.write_line(LogLevel::Error, &format!("The logger failed\n{trace}"));
    }
    logged.is_ok()
}
