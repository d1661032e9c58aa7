//! A worker of greenlets: their library's hub turns on the interpreter's main thread, and the event loop has a thread of its own.
//!
//! The loop's thread is native and gets no signals. At the end of `graceful_timeout` the greenlets that still run are
//! killed. A main thread that does not come back even then is stuck in one of them, and the loop's thread ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pyo3::prelude::*;

use super::main_thread::{LoopError, beside_event_loop, serve_or_fail};
use super::worker_signals::watch_slot;
use crate::config::{Config, GreenLibrary};
use crate::python::green;
use crate::python::green_application::GreenApplication;
use crate::python::hub_watch::HubWatch;
use crate::python::interrupts::stack_or_reason;
use crate::scoreboard::{Scoreboard, monotonic_ms};
use crate::worker::{Exit, Setup};

/// Killed greenlets have a second. What takes longer is stuck.
const END_WITHIN: Duration = Duration::from_secs(3);
/// A hub that has not turned for so long is reported; within `timeout` at half of that.
const BLOCKED_MAX: Duration = Duration::from_secs(5);
/// How often the hub turns by itself.
const PERIOD_MAX: Duration = Duration::from_secs(1);
const PERIOD_MIN: Duration = Duration::from_millis(50);

/// Serves. `on_stuck` is called on the loop's thread when the main one does not come back.
pub(super) fn serve(
    py: Python<'_>,
    setup: Setup,
    application: &Arc<GreenApplication>,
    watch: &Arc<HubWatch>,
    on_stuck: impl FnOnce(Exit) + Send + 'static,
) -> Result<Exit, LoopError> {
    let (scoreboard, index) = (Arc::clone(&setup.scoreboard), setup.slot);
    let period = period(setup.config.workers.timeout);
    let watched = Arc::clone(watch);
    let on_turn = move || {
        watched.set(Some(Instant::now()));
        scoreboard.slot(index).python_heartbeat(monotonic_ms());
    };
    let looped = Arc::clone(application);
    let event_loop = move || {
        let mut exit = serve_or_fail(setup, &looped, 1);
        if exit.stuck_threads > 0 && looped.has_begun() {
            match looped.end_greenlets(END_WITHIN) {
                true => exit.stuck_threads = 0,
                false => on_stuck(exit),
            }
        }
        looped.release_main_thread();
        exit
    };
    application.take_tasks(watch, period);
    beside_event_loop(py, event_loop, || {
        let served = application.run_here(py, on_turn, period);
        watch.set(None);
        application.leave_tasks(py);
        served
    })
}

/// Hooks of a leaving worker are called in a greenlet, as the application's code is. A hub that turns begins within a
/// millisecond; one that is blocked never does, and the arbiter ends a worker a second after ABRT.
pub(super) fn patience(signal: i32) -> Option<Duration> {
    match Signal::try_from(signal) {
        Ok(Signal::SIGINT | Signal::SIGQUIT) => Some(Duration::from_secs(1)),
        Ok(Signal::SIGABRT) => Some(Duration::from_millis(200)),
        _ => None,
    }
}

fn period(timeout: Option<Duration>) -> Duration {
    timeout.map_or(PERIOD_MAX, |timeout| {
        (timeout / 4).clamp(PERIOD_MIN, PERIOD_MAX)
    })
}

/// What the heartbeat's thread does where the hub shows by turning that Python is alive: it is that itself while there is no
/// hub yet or none any more, and reports one that does not turn, once, with the stack of what holds it up.
pub(super) fn heartbeat(
    py: Python<'_>,
    (config, library): (&Config, GreenLibrary),
    scoreboard: &Arc<Scoreboard>,
    index: usize,
    watch: &Arc<HubWatch>,
) -> PyResult<Box<dyn Fn() + Send>> {
    let main_thread = green::thread_number(py, library)?;
    let limit = config
        .workers
        .timeout
        .map_or(BLOCKED_MAX, |timeout| (timeout / 2).min(BLOCKED_MAX));
    let watch_slot = watch_slot(scoreboard, index);
    let (scoreboard, watch) = (Arc::clone(scoreboard), Arc::clone(watch));
    let is_reported = AtomicBool::new(false);
    Ok(Box::new(move || {
        match watch.blocked(Instant::now()) {
            None => scoreboard.slot(index).python_heartbeat(monotonic_ms()),
            Some(blocked) if blocked < limit => {
                is_reported.store(false, Ordering::Relaxed);
            }
            Some(blocked) => {
                if !is_reported.swap(true, Ordering::Relaxed) {
                    let stack = Python::attach(|py| stack_or_reason(py, main_thread));
                    log::warn!(
                        "{}'s hub is blocked for {:.0} s: no greenlet of this worker can run. It is in:\n{}",
                        library.name(),
                        blocked.as_secs_f64(),
                        stack.trim_end()
                    );
                }
            }
        }
        watch_slot();
    }))
}
