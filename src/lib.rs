//! ferricorn: a WSGI HTTP server for UNIX with gunicorn's contract.
//!
//! # Layout
//!
//! An **arbiter** process binds the listeners and forks **workers**. In a worker one **event loop** owns every client
//! socket from accept to close; complete requests go as **jobs** to a fixed **pool** of threads that run the WSGI
//! application, and come back as **replies**.
//!
//! | module | holds |
//! | --- | --- |
//! | [`http`] | bytes to messages and back; no I/O, no clock, no Python |
//! | [`config`] | the table of settings, and where their values come from |
//! | [`net`] | addresses and listeners |
//! | [`pool`] | the contract between loop and threads: jobs, replies, the scheduling policy |
//! | [`worker`] | the event loop; no Python |
//! | `python` | everything that touches the interpreter |
//! | [`arbiter`] | the master process: fork, reap, signals, reload |
//! | [`control`] | the control interface: protocol, commands, tables |
//! | [`reloader`] | files that change, for `--reload` |
//! | [`fork_guard`] | what a child that the application forks must lose |
//! | [`scoreboard`] | counters that all processes share |
//! | [`tls`] | certificates, keys and session tickets; TLS configurations made of them |
//! | [`logging`] | the error log and the access log |
//! | `launcher` | joins the parts |
//!
//! # A request's walk
//!
//! `worker/event_loop` → `accept` → `connection` → `http1` → `http/exchange` → `head`, `fields`, `framing`, `chunked` →
//! `worker/spool` → `dispatch` → `pool/thread_pool` → `python/wsgi/app` → `environ`, `input` → the application → `start_response`, `body`
//! → `worker/deliver` → `connection` → `http1` → `http/exchange`, `encode` → `worker/write_side`. CONTRIBUTING.md has it step by step, with the
//! invariants.

pub mod arbiter;
pub mod config;
pub mod control;
pub mod fork_guard;
pub mod http;
#[cfg(feature = "python")]
pub mod launcher;
pub mod logging;
pub mod net;
pub mod pool;
#[cfg(feature = "python")]
pub mod python;
pub mod reloader;
pub mod scoreboard;
pub mod tls;
pub mod worker;

/// The extension module: the version, the calls that serve, and what the package's Python side needs.
#[cfg(feature = "python")]
#[pyo3::pymodule(gil_used = false)]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::launcher::api::{
        advice, check_setting, deliver_signal, is_forked_child, load_app, loggers_changed,
        memory_left, reopen_logs, reset_signal_handlers, run, serve, settings, write_access_log,
        write_error_log, write_metric, write_record,
    };
    use crate::python::interrupts::RequestTimeout;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("RequestTimeout", module.py().get_type::<RequestTimeout>())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
