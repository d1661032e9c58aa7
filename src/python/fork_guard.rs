//! Python's part of what keeps a child of the application apart from the server; see `src/fork_guard`.
//!
//! The application's code is called in few places. Each of them calls [`end_child`] when control comes back: a child that
//! returns from a view, raises, or calls `sys.exit` ends there. It would otherwise go on as a copy of the thread that
//! forked it, take jobs and answer on clients' sockets.
#![expect(unsafe_code, reason = "the interpreter's calls around a fork")]

use std::os::fd::RawFd;
use std::sync::Once;

use pyo3::ffi;
use pyo3::prelude::*;

use super::traceback;
use crate::fork_guard::{self, is_child};

/// This process begins to serve: children of the application lose what is registered, and what Python has of it.
///
/// # Errors
/// The package is not whole.
pub fn install(py: Python<'_>) -> PyResult<()> {
    static ONCE: Once = Once::new();
    fork_guard::install();
    let mut installed = Ok(());
    ONCE.call_once(|| {
        installed = module(py)
            .and_then(|module| module.call_method0("install"))
            .map(drop)
    });
    installed
}

/// The interpreter writes the numbers of signals to this descriptor: not in a child, where the number may become that of
/// the application's next file.
///
/// # Errors
/// The package is not whole.
pub fn register_wakeup(py: Python<'_>, descriptor: RawFd) -> PyResult<()> {
    module(py)?.setattr("wakeup_fd", descriptor)
}

/// On the main thread: the interpreter writes to the descriptor again, if the application has taken it out. One that the
/// application has set stays.
///
/// # Errors
/// The package is not whole.
pub fn restore_wakeup(py: Python<'_>) -> PyResult<()> {
    module(py)?.call_method0("restore_wakeup").map(drop)
}

/// Ends this process if it is a child that the application has forked: its code has come back to the server's, with
/// this error if it raised.
#[inline]
pub fn end_child(py: Python<'_>, raised: Option<&PyErr>) {
    if is_child() {
        end(py, raised);
    }
}

#[cold]
fn end(py: Python<'_>, raised: Option<&PyErr>) -> ! {
    if let Err(error) = module(py).and_then(|module| module.call_method0("await_end")) {
        log::error!("{}", traceback::format(py, &error));
    }
    let is_exit = raised.is_some_and(|error| {
        error.is_instance_of::<pyo3::exceptions::PySystemExit>(py)
            || error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py)
    });
    if let Some(error) = raised.filter(|_| !is_exit) {
        log::error!(
            "Exception in a process that the application forked\n{}",
            traceback::format(py, error)
        );
    }
    log::warn!(
        "Process {} was forked by the application and has returned into the server's code; ending it.",
        std::process::id()
    );
    let value = raised.map(|error| error.value(py).clone());
    let ended = module(py).and_then(|module| module.call_method1("end", (value,)));
    log::error!("os._exit failed: {ended:?}");
    std::process::abort()
}

/// The interpreter is about to be forked by other means than `os.fork`: handlers run, its locks are taken.
pub fn before_fork(_py: Python<'_>) {
    // SAFETY: the GIL is held, and one of the two calls below follows in each process.
    unsafe { ffi::PyOS_BeforeFork() }
}

/// After [`before_fork`], in the process that goes on.
pub fn after_fork_in_parent(_py: Python<'_>) {
    // SAFETY: the GIL is held, and `before_fork` was called on this thread.
    unsafe { ffi::PyOS_AfterFork_Parent() }
}

/// After [`before_fork`], in the new process.
pub fn after_fork_in_child(_py: Python<'_>) {
    // SAFETY: the GIL is held by the one thread of this process, which has called `before_fork`.
    unsafe { ffi::PyOS_AfterFork_Child() }
}

fn module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("ferricorn._fork_guard")
}
