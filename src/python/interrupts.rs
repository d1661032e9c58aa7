//! Ending a request that runs too long: its stack goes to the log, and an exception is raised in its thread.
//!
//! The event loop says which one ([`TimedOutRequest`]); the work is done by the heartbeat's thread, which may wait for the GIL.
//! The exception takes effect when its thread next runs Python code. It must never hit the next request of that
//! thread, so both sides agree under a lock: the exception is raised only while the job is in hand, and at the job's
//! end the thread takes back one that has not yet taken effect.
#![expect(
    unsafe_code,
    reason = "PyO3 has no safe name for PyThreadState_SetAsyncExc"
)]

use std::os::raw::c_long;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::ffi;
use pyo3::prelude::*;

use crate::pool::TimedOutRequest;

use super::traceback;

pyo3::create_exception!(
    ferricorn,
    RequestTimeout,
    pyo3::exceptions::PyBaseException,
    "Raised in the thread of a request that runs longer than request_timeout.\n\n\
     It derives from BaseException, as asyncio.CancelledError and SystemExit do: `except Exception` in a retry loop \
     or an error page must not swallow it. `finally` and context managers run as usual. The client has its answer \
     already."
);

/// What the threads of a worker have in hand, and how they are called.
#[derive(Debug)]
pub struct Interrupts {
    seats: Box<[Mutex<InHand>]>,
}

#[derive(Debug, Default)]
struct InHand {
    /// `threading.get_ident()` of the seat's thread.
    ident: c_long,
    /// The job; 0 is none.
    token: u64,
    /// The exception was raised for it.
    is_interrupted: bool,
}

impl Interrupts {
    /// For a pool of `threads`.
    pub fn new(threads: usize) -> Self {
        Self {
            seats: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    fn seat(&self, seat: usize) -> MutexGuard<'_, InHand> {
        // Nothing that runs under the lock can panic.
        self.seats[seat]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread has this seat.
    pub(super) fn enter(&self, py: Python<'_>, seat: usize) -> PyResult<()> {
        let ident = py.import("threading")?.call_method0("get_ident")?;
        self.seat(seat).ident = ident.extract()?;
        Ok(())
    }

    /// The thread begins a job.
    pub(super) fn begin(&self, seat: usize, token: u64) {
        self.seat(seat).token = token;
    }

    /// The thread has done with its job: an exception that is still on its way is taken back.
    pub(super) fn end(&self, py: Python<'_>, seat: usize) {
        let mut in_hand = self.seat(seat);
        in_hand.token = 0;
        if std::mem::take(&mut in_hand.is_interrupted) {
            set_async_exception(py, in_hand.ident, std::ptr::null_mut());
        }
    }

    /// On the heartbeat's thread: log where the job is, and raise the exception there.
    pub fn interrupt(&self, py: Python<'_>, overrun: &TimedOutRequest) {
        let ident = self.seat(overrun.thread).ident;
        let stack = told_stack(py, ident);
        let others = self.other_stacks(py, overrun.thread);
        let mut in_hand = self.seat(overrun.thread);
        if in_hand.token != overrun.token {
            drop(in_hand);
            log::info!("It has ended meanwhile: {}", overrun.request);
            return;
        }
        in_hand.is_interrupted = true;
        let class = py.get_type::<RequestTimeout>();
        set_async_exception(py, ident, class.as_ptr());
        drop(in_hand);
        log::error!(
            "Stack of thread {} when its time was over, in {}:\n{}{others}",
            overrun.thread,
            overrun.request,
            stack.trim_end()
        );
    }

    /// The one that holds the others up may be another.
    fn other_stacks(&self, py: Python<'_>, seat: usize) -> String {
        let mut told = String::new();
        for other in (0..self.seats.len()).filter(|other| *other != seat) {
            let in_hand = self.seat(other);
            let (ident, is_busy) = (in_hand.ident, in_hand.token != 0);
            drop(in_hand);
            if is_busy {
                let stack = told_stack(py, ident);
                told += &format!("\nMeanwhile thread {other}:\n{}", stack.trim_end());
            }
        }
        told
    }
}

/// Replaces what is pending for the thread; null takes it back.
fn set_async_exception(_py: Python<'_>, ident: c_long, exception: *mut ffi::PyObject) {
    // SAFETY: the GIL is held (`_py`), and `exception` is null or an exception class that lives as long as the
    // interpreter; the call takes its own reference. An unknown `ident` changes nothing.
    unsafe { ffi::PyThreadState_SetAsyncExc(ident, exception) };
}

fn told_stack(py: Python<'_>, ident: c_long) -> String {
    match stack_of(py, ident) {
        Ok(Some(stack)) => stack,
        Ok(None) => "  (no Python code)\n".to_owned(),
        Err(error) => traceback::format(py, &error),
    }
}

fn stack_of(py: Python<'_>, ident: c_long) -> PyResult<Option<String>> {
    let frames = py.import("sys")?.call_method0("_current_frames")?;
    let frame = frames.call_method1("get", (ident,))?;
    if frame.is_none() {
        return Ok(None);
    }
    let lines = py
        .import("traceback")?
        .call_method1("format_stack", (frame,))?;
    let lines: Vec<String> = lines.extract()?;
    Ok(Some(lines.concat()))
}
