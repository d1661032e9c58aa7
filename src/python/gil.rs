//! The only place where the GIL is given away, and the list of reasons for it.

use pyo3::Python;

/// Why a thread that runs Python waits. Anything else that blocks while attached is a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no job for it.
    NextJob,
    /// The client is slower than the application.
    Window,
    /// A request body is still arriving.
    ArrivingBody,
    /// A large request body is read from its temporary file.
    SpooledBody,
    /// The heartbeat has beaten.
    Heartbeat,
    /// The process's main thread serves.
    MainThread,
}

/// Run `wait` without the GIL. On a free-threaded interpreter the thread is merely detached, so that a
/// stop-the-world pause need not wait for it.
pub fn handoff<T: Send>(py: Python<'_>, _reason: Reason, wait: impl FnOnce() -> T + Send) -> T {
    py.detach(wait)
}
