//! The only place where the GIL is released, and the list of reasons for it.
#![expect(
    unsafe_code,
    reason = "PyO3 has no call that asks whether this thread is attached"
)]

use pyo3::ffi;
use pyo3::prelude::*;

/// Why a thread that runs Python waits. Anything else that blocks while attached is a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no job for it.
    NextJob,
    /// The client is slower than the application.
    Window,
    /// A request body is still arriving.
    StreamingBody,
    /// A large request body is read from its temporary file.
    SpooledBody,
    /// A response that clients leave no memory for is written to a temporary file.
    UnsentResponse,
    /// The heartbeat waits for its next time or a task.
    Heartbeat,
    /// A thread of the server is about to end.
    ThreadEnd,
    /// The process's main thread serves.
    MainThread,
}

/// Run `wait` without the GIL. On a free-threaded interpreter the thread is merely detached, so that a
/// stop-the-world pause need not wait for it.
pub fn release<T: Send>(py: Python<'_>, _reason: Reason, wait: impl FnOnce() -> T + Send) -> T {
    py.detach(wait)
}

/// Whether threads run Python side by side: the interpreter is free-threaded, and no extension has brought the GIL back.
pub fn has_no_gil(py: Python<'_>) -> bool {
    let is_enabled = py
        .import("sys")
        .and_then(|sys| match sys.getattr_opt("_is_gil_enabled")? {
            Some(ask) => ask.call0()?.is_truthy(),
            None => Ok(true),
        });
    !is_enabled.unwrap_or(true)
}

/// Whether the calling thread is attached to the interpreter, so that it may call into it without waiting.
pub fn is_attached() -> bool {
    // SAFETY: the call reads a thread-local, on any thread and at any time.
    unsafe { ffi::PyGILState_Check() == 1 }
}
