//! A thread that reports the Python stacks of this worker when the arbiter requests them.
//!
//! It waits in a read without the GIL and takes it for the moment of an answer, so a worker whose threads all wait, in
//! C or for a lock, can still answer. While C code keeps the GIL it cannot; for that `faulthandler` is registered on a
//! signal, and writes without the interpreter.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::native_thread::{NativeThread, ThreadEnd};
use crate::fork_guard;

/// The thread, until it is stopped.
#[derive(Debug)]
pub struct StackReporter {
    requests: UnixStream,
    thread: NativeThread,
}

impl StackReporter {
    /// Answers what comes on `requests`; lets `faulthandler` write to `dump` at `dump_signal`.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        py: Python<'_>,
        requests: UnixStream,
        dump: OwnedFd,
        dump_signal: Option<i32>,
    ) -> io::Result<Self> {
        fork_guard::register(&dump);
        if let Some(signal) = dump_signal
            && let Err(error) = register_dump(py, dump, signal)
        {
            log::debug!("faulthandler: {}", super::traceback::format(py, &error));
        }
        let requested = requests.try_clone()?;
        fork_guard::register(&requests);
        fork_guard::register(&requested);
        let thread = NativeThread::spawn("ferricorn-stack", move || {
            // It ends when the arbiter closes its side, or with `stop`.
            let _ = answer_all(requested);
        })?;
        Ok(Self { requests, thread })
    }

    /// Ends the thread, before the interpreter ends.
    #[must_use]
    pub fn stop(self, py: Python<'_>) -> ThreadEnd {
        // It fails when the arbiter is gone, and then the thread has left.
        let _ = self.requests.shutdown(Shutdown::Both);
        self.thread.join(py)
    }
}

fn register_dump(py: Python<'_>, dump: OwnedFd, signal: i32) -> PyResult<()> {
    let options = PyDict::new(py);
    // For as long as the process lives: the signal may come at any time.
    options.set_item("file", dump.into_raw_fd())?;
    options.set_item("all_threads", true)?;
    options.set_item("chain", false)?;
    py.import("faulthandler")?
        .call_method("register", (signal,), Some(&options))?;
    fork_guard::note_installed_handler(signal);
    py.import("ferricorn._fork_guard")?
        .setattr("dump_signal", signal)
}

fn answer_all(mut stream: UnixStream) -> io::Result<()> {
    let mut request = [0; 4];
    loop {
        stream.read_exact(&mut request)?;
        let stacks = Python::attach(stacks);
        let length = u32::try_from(request.len() + stacks.len()).unwrap_or(u32::MAX);
        let frame = [&length.to_be_bytes()[..], &request, stacks.as_bytes()];
        stream.write_all(&frame.concat())?;
    }
}

/// As JSON; see `ferricorn._stacks`.
fn stacks(py: Python<'_>) -> String {
    let stacks = py
        .import("ferricorn._stacks")
        .and_then(|module| module.call_method0("as_json")?.extract());
    // A JSON string is no list of threads, but it reaches the operator.
    stacks.unwrap_or_else(|error: PyErr| format!("{:?}", super::traceback::format(py, &error)))
}
