//! "Where are you?": a thread that tells the Python stacks of this worker when the arbiter asks.
//!
//! It sleeps in a read without the GIL and takes it for the moment of an answer, so a worker whose threads all wait, in
//! C or for a lock, can still tell. While C code keeps the GIL it cannot; for that `faulthandler` is registered on a
//! signal, and writes without the interpreter.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::gil::{Reason, release};

/// The thread, until it is stopped.
#[derive(Debug)]
pub struct StackTeller {
    questions: UnixStream,
    thread: JoinHandle<()>,
}

impl StackTeller {
    /// Answers what comes on `questions`; lets `faulthandler` write to `dump` at `dump_signal`.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        py: Python<'_>,
        questions: UnixStream,
        dump: OwnedFd,
        dump_signal: Option<i32>,
    ) -> io::Result<Self> {
        if let Some(signal) = dump_signal
            && let Err(error) = register_dump(py, dump, signal)
        {
            log::debug!("faulthandler: {}", super::traceback::format(py, &error));
        }
        let asked = questions.try_clone()?;
        let thread = std::thread::Builder::new()
            .name("ferricorn-stack".to_owned())
            .spawn(move || {
                // The end is the other side's, or `stop`.
                let _ = answer_all(asked);
            })?;
        Ok(Self { questions, thread })
    }

    /// Ends the thread, before the interpreter ends.
    pub fn stop(self, py: Python<'_>) {
        // It fails when the arbiter is gone, and then the thread has left.
        let _ = self.questions.shutdown(Shutdown::Both);
        if release(py, Reason::Heartbeat, || self.thread.join()).is_err() {
            log::error!("The thread that tells stacks panicked.");
        }
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
    Ok(())
}

fn answer_all(mut stream: UnixStream) -> io::Result<()> {
    let mut question = [0; 4];
    loop {
        stream.read_exact(&mut question)?;
        let stacks = Python::attach(stacks);
        let length = u32::try_from(question.len() + stacks.len()).unwrap_or(u32::MAX);
        let frame = [&length.to_be_bytes()[..], &question, stacks.as_bytes()];
        stream.write_all(&frame.concat())?;
    }
}

/// As JSON; see `ferricorn._stacks`.
fn stacks(py: Python<'_>) -> String {
    let told = py
        .import("ferricorn._stacks")
        .and_then(|module| module.call_method0("as_json")?.extract());
    // A JSON string is no list of threads, but it reaches the operator.
    told.unwrap_or_else(|error: PyErr| format!("{:?}", super::traceback::format(py, &error)))
}
