//! The signals of a worker: Python handlers from before the import on, taken natively where the application left them.
//!
//! While the application is imported Python sees what gunicorn shows it: a callable for each signal of a worker, which
//! does what the signal is for. Applications chain such handlers. After the import a signal goes to the event loop
//! without Python when both Python and the kernel still have what was set before the import; any other handler, also
//! one of C code (`faulthandler.register`), stays as it is. How a worker with such a handler is told to stop is in
//! [`StopRequest`].

use std::collections::BTreeMap;
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::{io, thread};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{read, write};
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::faults::Faults;
use crate::arbiter::signals::{self, Disposition};
use crate::fork_guard;
use crate::python::fork_guard::register_wakeup;
use crate::python::traceback::{exit_code, format as traceback};
use crate::scoreboard::{Scoreboard, Slot};

/// What the event loop listens to.
const TAKEN: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGABRT,
    Signal::SIGUSR1,
];

/// A worker's signals and its wake-up descriptor, as they were before the application's code ran.
#[derive(Debug)]
pub(super) struct WorkerSignals {
    handlers: BTreeMap<Signal, (Py<PyAny>, Disposition)>,
    wakeups: OwnedFd,
    /// The interpreter keeps this number for as long as the process lives.
    wakeup_number: i32,
}

impl WorkerSignals {
    /// Before the application is imported: `worker` gets gunicorn's handlers.
    pub(super) fn init(py: Python<'_>, worker: &Py<PyAny>, faults: &Faults) -> PyResult<Self> {
        faults.around(py, || {
            worker.call_method0(py, "init_signals")?;
            if signals::take_rotation() {
                worker.call_method1(py, "handle_usr1", (Signal::SIGUSR1 as i32, py.None()))?;
            }
            // What is stuck in C while it boots must end; a Python handler would never run.
            Ok(signals::reset_to_default(&[Signal::SIGABRT])?)
        })?;
        let getsignal = py.import("signal")?.getattr("getsignal")?;
        let mut handlers = BTreeMap::new();
        for signal in TAKEN {
            let handler = getsignal.call1((signal as i32,))?.unbind();
            handlers.insert(signal, (handler, signals::disposition(signal)?));
        }
        let (read_end, write_end) = wakeup_pair()?;
        let wakeup_number = write_end.into_raw_fd();
        register_wakeup(py, wakeup_number)?;
        set_wakeup(py, wakeup_number)?;
        Ok(Self {
            handlers,
            wakeups: read_end,
            wakeup_number,
        })
    }

    /// After the import: takes what is still the server's. Returns the pipe of signals and the wake-up descriptor.
    pub(super) fn take(self, py: Python<'_>, faults: &Faults) -> PyResult<(OwnedFd, OwnedFd)> {
        let getsignal = py.import("signal")?.getattr("getsignal")?;
        let dumps_on_abort = faults.are_the_applications(py)?;
        // An application that has a wake-up descriptor of its own gets the numbers there only of signals that Python handles.
        let previous = set_wakeup(py, self.wakeup_number)?;
        let has_own_wakeup = previous >= 0 && previous != self.wakeup_number;
        let mut untouched = Vec::new();
        for (signal, (handler, disposition)) in &self.handlers {
            let is_same = getsignal.call1((*signal as i32,))?.is(handler)
                && signals::disposition(*signal)? == *disposition;
            let is_taken = match *signal {
                Signal::SIGABRT => is_same && !dumps_on_abort,
                _ => is_same && !has_own_wakeup,
            };
            if is_taken {
                untouched.push(*signal);
            }
        }
        let pipe = faults.around(py, || Ok(signals::install(&untouched)?))?;
        if has_own_wakeup {
            return Ok((pipe, forward(self.wakeups, previous)?));
        }
        Ok((pipe, self.wakeups))
    }
}

fn wakeup_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = UnixStream::pair()?;
    read_end.set_nonblocking(true)?;
    write_end.set_nonblocking(true)?;
    fork_guard::register(&read_end);
    fork_guard::register(&write_end);
    Ok((read_end.into(), write_end.into()))
}

/// Returns the descriptor that was set before, or -1.
fn set_wakeup(py: Python<'_>, number: i32) -> PyResult<i32> {
    let options = PyDict::new(py);
    options.set_item("warn_on_full_buffer", false)?;
    py.import("signal")?
        .call_method("set_wakeup_fd", (number,), Some(&options))?
        .extract()
}

/// The application has a wake-up descriptor of its own: what the interpreter writes goes there too.
fn forward(wakeups: OwnedFd, application: i32) -> io::Result<OwnedFd> {
    let (read_end, write_end) = wakeup_pair()?;
    UnixStream::from(wakeups.try_clone()?).set_nonblocking(false)?;
    let _blocked = signals::Blocked::new()?;
    thread::Builder::new()
        .name("ferricorn-wake".to_owned())
        .spawn(move || {
            let mut bytes = [0; 64];
            loop {
                let count = match read(&wakeups, &mut bytes) {
                    Ok(0) => return,
                    Ok(count) => count,
                    Err(Errno::EINTR) => continue,
                    Err(_) => return,
                };
                signals::write_to_number(application, &bytes[..count]);
                let _ = write(&write_end, &bytes[..count]);
            }
        })?;
    Ok(read_end)
}

/// The arbiter's other way to say "stop": it notes on the worker's slot which signal it has sent. A worker whose
/// application keeps that signal from the event loop is stopped by the note.
#[derive(Debug, Default)]
pub(super) struct StopRequest {
    /// The signal that was delivered last.
    delivered: AtomicI32,
}

impl StopRequest {
    /// Looks at the slot, now and then.
    pub(super) fn check(&self, slot: Slot<'_>) {
        let Some(signal) = slot
            .stop_signal()
            .and_then(|one| Signal::try_from(one).ok())
        else {
            return;
        };
        if self.delivered.swap(signal as i32, Ordering::Relaxed) != signal as i32 {
            let _ = signals::deliver(signal);
        }
    }
}

/// A handler of the application raised `SystemExit`: the worker leaves in order, with this exit code.
#[derive(Debug)]
pub(super) struct RequestedExit(AtomicI32);

impl Default for RequestedExit {
    fn default() -> Self {
        Self(AtomicI32::new(NO_CODE))
    }
}

impl RequestedExit {
    /// What an exception out of a handler means.
    pub(super) fn on_exception(&self, py: Python<'_>, error: &PyErr) {
        let code = if error.is_instance_of::<PySystemExit>(py) {
            exit_code(py, error)
        } else if error.is_instance_of::<PyKeyboardInterrupt>(py) {
            EXIT_INTERRUPTED
        } else {
            log::error!("Exception in a signal handler\n{}", traceback(py, error));
            return;
        };
        log::info!("A signal handler of the application ended this worker.");
        self.0.store(code, Ordering::Relaxed);
        let _ = signals::deliver(Signal::SIGTERM);
    }

    /// The exit code of a worker whose own is `code`.
    pub(super) fn code_after(&self, code: i32) -> i32 {
        match (code, self.0.load(Ordering::Relaxed)) {
            (0, NO_CODE) => 0,
            (0, requested) => requested,
            (code, _) => code,
        }
    }
}

const NO_CODE: i32 = -1;
/// What a shell makes of SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// The look that the heartbeat takes at the slot of worker `index`.
pub(super) fn watch_slot(scoreboard: &Arc<Scoreboard>, index: usize) -> impl Fn() + Send + use<> {
    let scoreboard = Arc::clone(scoreboard);
    let request = StopRequest::default();
    move || request.check(scoreboard.slot(index))
}

/// For threads of the server's own: a signal is for the main thread, or for the thread of the application that waits for it.
pub(super) fn without_signals<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let _blocked = signals::Blocked::new()?;
    start()
}
