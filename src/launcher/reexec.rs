//! The program from outside: executed again, and what its predecessor or systemd left in the environment.

use std::convert::Infallible;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;

use nix::unistd::Pid;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::arbiter::{Supervisor, TICKETS};
use crate::net::Listener;
use crate::net::inherit::{AdoptError, from_old_master, systemd_fds};

/// What was there before this program started.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    /// systemd's descriptors.
    pub(super) systemd: Vec<RawFd>,
    /// Those of the old master, whose successor this is, and that master.
    pub(super) sockets: Vec<Listener>,
    pub(super) old_master: Option<Pid>,
    pub(super) tickets: Option<OwnedFd>,
    pub(super) supervisor: Supervisor,
}

/// The sockets of the old master cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the sockets of the old master ({numbers})")]
pub(super) struct InheritError {
    numbers: String,
    source: AdoptError,
}

impl Inheritance {
    /// Takes the variables out of the environment, so that no child thinks they are meant for it.
    ///
    /// # Errors
    /// The sockets of the old master cannot be used.
    pub(super) fn take(py: Python<'_>) -> Result<Self, InheritError> {
        let take = |name: &str| -> Option<String> {
            let environ = py.import("os").ok()?.getattr("environ").ok()?;
            let value = environ
                .call_method1("pop", (name, PyString::new(py, "")))
                .ok()?;
            value
                .extract()
                .ok()
                .filter(|text: &String| !text.is_empty())
        };
        let (pid, fds, _names) = (
            take("LISTEN_PID"),
            take("LISTEN_FDS"),
            take("LISTEN_FDNAMES"),
        );
        let old_master = take("GUNICORN_PID").and_then(|pid| pid.trim().parse().ok());
        let sockets = match (old_master, take("GUNICORN_FD")) {
            (Some(_), Some(numbers)) => {
                from_old_master(&numbers).map_err(|source| InheritError { numbers, source })?
            }
            _ => Vec::new(),
        };
        let tickets = take(TICKETS).filter(|_| old_master.is_some());
        Ok(Self {
            tickets: tickets.and_then(|number| own_copy(number.parse().ok()?).ok()),
            systemd: systemd_fds(pid.as_deref(), fds.as_deref(), std::process::id()),
            sockets,
            old_master: old_master.map(Pid::from_raw),
            supervisor: supervisor(std::process::id()),
        })
    }

    /// Whether this is a successor: then it is in the background already if it is to be.
    pub(super) fn is_successor(&self) -> bool {
        self.old_master.is_some()
    }
}

/// Of a descriptor that survived the exec and must not survive another: it is closed.
fn own_copy(number: RawFd) -> std::io::Result<OwnedFd> {
    let file = std::fs::File::open(format!("/proc/self/fd/{number}"))?;
    nix::unistd::close(number)?;
    Ok(file.into())
}

/// These variables stay: the application, and a successor, may notify systemd as well.
fn supervisor(own_pid: u32) -> Supervisor {
    let filled = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let is_for_us = filled("WATCHDOG_PID").is_none_or(|pid| pid.trim().parse() == Ok(own_pid));
    Supervisor {
        notify_socket: filled("NOTIFY_SOCKET"),
        watchdog_usec: filled("WATCHDOG_USEC")
            .filter(|_| is_for_us)
            .and_then(|usec| usec.trim().parse().ok()),
    }
}

/// Runs the command line again, in place of this process. `sys.orig_argv` is what the interpreter was started with, so
/// `python -m ferricorn`, a console script and a program that embeds us are all repeated as they were.
pub(super) fn execute(
    py: Python<'_>,
    directory: &Path,
    variables: &[(String, String)],
) -> PyResult<Infallible> {
    let (os, sys) = (py.import("os")?, py.import("sys")?);
    for stream in ["stdout", "stderr"] {
        let stream = sys.getattr(stream)?;
        if !stream.is_none() {
            stream.call_method0("flush")?;
        }
    }
    os.call_method1("chdir", (directory,))?;
    let environment = os.getattr("environ")?.call_method0("copy")?;
    for (name, value) in variables {
        environment.set_item(name, value)?;
    }
    let program = sys.getattr("executable")?;
    let argv = sys.getattr("orig_argv")?.call_method0("copy")?;
    argv.set_item(0, &program)?;
    os.call_method1("execvpe", (program, argv, environment))?;
    unreachable!("execvpe returns only by raising")
}
