//! Ending a request that runs too long: its stack goes to the log, and an exception is raised in its thread.
//!
//! The event loop names the request ([`TimedOutRequest`]). The heartbeat's thread does the work, because it may wait for
//! the GIL. The exception takes effect when its thread next runs Python code. It must never hit the next request of that
//! thread, so both sides agree under a lock: the exception is raised only while the job is in flight, and at the job's
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

/// The job of each pool thread, and the thread's number in Python.
#[derive(Debug)]
pub struct Interrupts {
    threads: Box<[Mutex<InFlight>]>,
}

#[derive(Debug, Default)]
struct InFlight {
    /// `threading.get_ident()` of the thread.
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
            threads: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    fn thread(&self, index: usize) -> MutexGuard<'_, InFlight> {
        // Nothing that runs under the lock can panic.
        self.threads[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread is pool thread `index`.
    pub(super) fn enter(&self, py: Python<'_>, index: usize) -> PyResult<()> {
        let ident = py.import("threading")?.call_method0("get_ident")?;
        self.thread(index).ident = ident.extract()?;
        Ok(())
    }

    /// The thread begins a job.
    pub(super) fn begin(&self, index: usize, token: u64) {
        self.thread(index).token = token;
    }

    /// The thread's job is done. An exception that has not yet taken effect is taken back.
    pub(super) fn end(&self, py: Python<'_>, index: usize) {
        let mut in_flight = self.thread(index);
        in_flight.token = 0;
        if std::mem::take(&mut in_flight.is_interrupted) {
            set_async_exception(py, in_flight.ident, std::ptr::null_mut());
        }
    }

    /// On the heartbeat's thread: log where the job is, and raise the exception there.
    pub fn interrupt(&self, py: Python<'_>, request: &TimedOutRequest) {
        let ident = self.thread(request.thread).ident;
        let stack = stack_or_reason(py, ident);
        let others = self.other_stacks(py, request.thread);
        let mut in_flight = self.thread(request.thread);
        if in_flight.token != request.token {
            drop(in_flight);
            log::info!("It has ended in the meantime: {}", request.request);
            return;
        }
        in_flight.is_interrupted = true;
        let class = py.get_type::<RequestTimeout>();
        set_async_exception(py, ident, class.as_ptr());
        drop(in_flight);
        log::error!(
            "Stack of thread {} at its timeout, in {}:\n{}{others}",
            request.thread,
            request.request,
            stack.trim_end()
        );
    }

    /// The stacks of the other busy threads: the cause may be one of them.
    fn other_stacks(&self, py: Python<'_>, index: usize) -> String {
        let mut stacks = String::new();
        for other in (0..self.threads.len()).filter(|other| *other != index) {
            let in_flight = self.thread(other);
            let (ident, is_busy) = (in_flight.ident, in_flight.token != 0);
            drop(in_flight);
            if is_busy {
                let stack = stack_or_reason(py, ident);
                stacks += &format!("\nMeanwhile thread {other}:\n{}", stack.trim_end());
            }
        }
        stacks
    }
}

/// Replaces what is pending for the thread; null takes it back.
fn set_async_exception(_py: Python<'_>, ident: c_long, exception: *mut ffi::PyObject) {
    // SAFETY: the GIL is held (`_py`), and `exception` is null or an exception class that lives as long as the
    // interpreter; the call takes its own reference. An unknown `ident` changes nothing.
    unsafe { ffi::PyThreadState_SetAsyncExc(ident, exception) };
}

/// What the thread of this number executes.
pub fn stack_or_reason(py: Python<'_>, ident: c_long) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::with_interpreter;

    fn timed_out(token: u64) -> TimedOutRequest {
        TimedOutRequest {
            thread: 0,
            token,
            request: "GET /".to_owned(),
        }
    }

    #[test]
    fn an_exception_that_has_not_taken_effect_is_taken_back_at_the_end_of_its_job() {
        with_interpreter(|py| {
            let interrupts = Interrupts::new(1);
            interrupts.enter(py, 0).unwrap();
            interrupts.begin(0, 7);
            interrupts.interrupt(py, &timed_out(7));
            interrupts.end(py, 0);
            py.run(c"sum(range(100))", None, None)
                .expect("nothing is raised in the next job");
        });
    }

    #[test]
    fn the_exception_is_raised_in_the_job_that_it_is_for() {
        with_interpreter(|py| {
            let interrupts = Interrupts::new(1);
            interrupts.enter(py, 0).unwrap();
            interrupts.begin(0, 7);
            interrupts.interrupt(py, &timed_out(6));
            py.run(c"sum(range(100))", None, None)
                .expect("the job of that number is over");
            interrupts.interrupt(py, &timed_out(7));
            let raised = py
                .run(c"for _ in range(1000): pass", None, None)
                .unwrap_err();
            assert!(raised.is_instance_of::<RequestTimeout>(py));
            interrupts.end(py, 0);
        });
    }
}
