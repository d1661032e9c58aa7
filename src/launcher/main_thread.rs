//! A worker of one thread: the interpreter's main thread runs the requests, and the event loop has a thread of its own.
//!
//! The loop's thread is native and gets no signals. It owns what it works with: a library of greenlets that the application
//! uses moves parts of the main thread's stack away while it switches, so nothing there may be pointed to. It ends before the main thread goes on, unless the main thread is
//! stuck in a request when the worker's time is over: then the loop's thread ends the process.

use std::io;
use std::sync::Arc;
use std::thread;

use nix::libc::EBADF;
use pyo3::prelude::*;

use super::leave::exit_now;
use super::worker_signals::without_signals;
use crate::arbiter::EXIT_BOOT;
use crate::pool::Application;
use crate::python::gil::{Reason, release};
use crate::python::threads::{MainThreadJobs, PythonApplication};
use crate::python::traceback::format as traceback;
use crate::scoreboard::SlotState;
use crate::worker::{self, Exit, Setup};

/// Why the event loop, on a thread of its own, has not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoopError {
    #[error(transparent)]
    NotStarted(#[from] io::Error),
    #[error("the event loop panicked")]
    Panicked,
}

/// Serves. `on_stuck` is called on the loop's thread when the main one does not come back.
pub(super) fn serve(
    py: Python<'_>,
    setup: Setup,
    application: &Arc<PythonApplication>,
    jobs: &MainThreadJobs,
    on_stuck: impl FnOnce(Exit) + Send + 'static,
) -> Result<Exit, LoopError> {
    let looped = Arc::clone(application);
    let event_loop = move || {
        let exit = serve_or_fail(setup, &looped, 1);
        if exit.stuck_threads > 0 && looped.has_main_thread() {
            on_stuck(exit);
        }
        looped.release_main_thread();
        exit
    };
    beside_event_loop(py, event_loop, || application.run_here(py, jobs))
}

/// Runs `event_loop` on a thread of its own and the application on this one, until both have ended.
pub(super) fn beside_event_loop(
    py: Python<'_>,
    event_loop: impl FnOnce() -> Exit + Send + 'static,
    application: impl FnOnce() -> PyResult<()>,
) -> Result<Exit, LoopError> {
    let event_loop = without_signals(|| {
        thread::Builder::new()
            .name("ferricorn-loop".to_owned())
            .spawn(event_loop)
    })?;
    if let Err(error) = application() {
        log::error!("{}", traceback(py, &error));
    }
    release(py, Reason::MainThread, || event_loop.join()).map_err(|_| LoopError::Panicked)
}

/// Runs the event loop. When it fails, its threads wait for jobs that never come: none of them is to be waited for.
pub(super) fn serve_or_fail<A: Application + 'static>(
    setup: Setup,
    application: &Arc<A>,
    threads: usize,
) -> Exit {
    let (scoreboard, index, logs) = (Arc::clone(&setup.scoreboard), setup.slot, setup.log);
    worker::run(setup, Arc::<A>::clone(application)).unwrap_or_else(|error| {
        let has_served = scoreboard.slot(index).reported_state() != SlotState::Booting;
        if has_served && error.raw_os_error() == Some(EBADF) {
            log::error!("The application has closed this worker's descriptors: exiting at once");
            // Helper threads wait on such descriptors and cannot be reached any more.
            if let Some(logs) = logs {
                logs.close();
            }
            Python::attach(|py| exit_now(py, EXIT_DESCRIPTORS_LOST));
        }
        log::error!("The worker could not serve: {error}");
        Exit {
            code: EXIT_BOOT,
            stuck_threads: threads,
        }
    })
}

/// Not that of a failed boot.
const EXIT_DESCRIPTORS_LOST: i32 = 1;
