//! Forks of the server itself, with Python's calls around them.

use std::io;

use nix::unistd::Pid;
use pyo3::prelude::*;

use crate::arbiter::Forked;
use crate::fork_guard::{self, Succession};
use crate::logging::Log;
use crate::python::fork_guard::{after_fork_in_child, after_fork_in_parent, before_fork};

/// `os.fork`, as it was before gevent has patched it. Only then is the package's module for that imported.
pub(super) fn fork(py: Python<'_>, logs: Log) -> io::Result<Forked> {
    let fork = || -> PyResult<i32> {
        flush_streams(py)?;
        let modules = py.import("sys")?.getattr("modules")?;
        let is_patched = modules.contains("gevent.monkey")?;
        let module = py.import(if is_patched {
            "ferricorn._gevent"
        } else {
            "os"
        })?;
        fork_guard::own_fork(|| module.call_method0("fork"))?.extract()
    };
    match fork() {
        Ok(0) => {
            logs.forked();
            Ok(Forked::Child)
        }
        Ok(pid) => Ok(Forked::Parent(Pid::from_raw(pid))),
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

/// For Python the successor is the process that has forked, and goes on as that.
pub(super) fn fork_with_successor(
    py: Python<'_>,
    logs: Log,
    adopter: Pid,
    moved: impl FnOnce(Pid),
) -> io::Result<Succession> {
    flush_streams(py).map_err(|error| io::Error::other(error.to_string()))?;
    before_fork(py);
    let forked = fork_guard::fork_with_successor(adopter, moved);
    if forked.is_ok() {
        logs.forked();
    }
    match forked {
        Ok(Succession::Child { .. }) => after_fork_in_child(py),
        Ok(Succession::Successor { .. }) | Err(_) => after_fork_in_parent(py),
    }
    forked
}

/// What is buffered now would be written by the parent and by every child.
fn flush_streams(py: Python<'_>) -> PyResult<()> {
    for name in ["stdout", "stderr"] {
        let stream = py.import("sys")?.getattr(name)?;
        if !stream.is_none() {
            stream.call_method0("flush")?;
        }
    }
    Ok(())
}
