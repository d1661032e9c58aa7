//! The end of a worker: its application's threads, exit handlers and buffers, within `graceful_timeout`. And what each
//! process of the server does before its interpreter ends.

use std::time::Duration;

use pyo3::prelude::*;

use super::python_runtime::Inherited;
use crate::arbiter::signals::{self, ARBITER_SIGNALS};
use crate::config::Config;
use crate::logging::Log;
use crate::python::hooks::{Hook, leaving};
use crate::python::traceback::format as traceback;
use crate::scoreboard::{Slot, monotonic_ms};
use crate::worker::Exit;

/// The arbiter kills a worker one second after `graceful_timeout`; by then it is to have left.
const MARGIN: Duration = Duration::from_millis(500);
/// As long as the arbiter waits when a stop is to be quick.
const QUICK_STOP: Duration = Duration::from_secs(4);

/// What happened before is logged. Returns the exit code when the interpreter may end in the normal way; a thread that
/// does not end is left behind, and then this does not return.
pub(super) fn leave(py: Python<'_>, logs: Log, exit: Exit, config: &Config, slot: Slot<'_>) -> i32 {
    if exit.stuck_threads > 0 {
        if !slot.running().is_empty() {
            log::error!("{} thread(s) did not finish in time:", exit.stuck_threads);
            log_running(slot);
            if let Err(error) = dump_stacks(py, logs) {
                log::debug!("stacks: {}", traceback(py, &error));
            }
        }
        finish(py, logs, exit.code);
    }
    match join_threads(py, patience(config, slot)) {
        Ok(left) if left.is_empty() => {}
        Ok(left) => {
            let count = left.len();
            let names = left.join(", ");
            log::error!(
                "{count} thread(s) of the application did not end in time and are abandoned: {names}"
            );
            finish(py, logs, exit.code);
        }
        Err(error) => log::error!("{}", traceback(py, &error)),
    }
    exit.code
}

/// What the process, or the one that it was forked from, has kept from the collector is freed at its end, as ever.
pub(super) fn release_frozen(py: Python<'_>) {
    let released = helper(py).and_then(|helper| helper.call_method0("release_frozen"));
    if let Err(error) = released {
        log::debug!("gc.unfreeze: {}", traceback(py, &error));
    }
}

/// At its end the interpreter gives every signal back to the kernel that Python has a handler for. One that came then
/// would kill the process in the middle of its finalizers and buffers: from here on they have no effect.
pub(super) fn disregard_signals(py: Python<'_>) -> PyResult<()> {
    let module = py.import("signal")?;
    let (getsignal, default) = (module.getattr("getsignal")?, module.getattr("SIG_DFL")?);
    let _blocked = signals::Blocked::new()?;
    let mut handled = Vec::new();
    for signal in ARBITER_SIGNALS {
        let number = signal as i32;
        if getsignal.call1((number,))?.is_callable() {
            module.call_method1("signal", (number, &default))?;
            handled.push(signal);
        }
    }
    Ok(signals::disregard(&handled)?)
}

/// `worker_exit`, with what the worker's object can tell at its end.
pub(super) fn say_goodbye(py: Python<'_>, inherited: &Inherited, slot: Slot<'_>) {
    leaving(py, &inherited.worker, slot.requests());
    log::info!("Worker exiting (pid: {})", std::process::id());
    let objects = (&inherited.arbiter, &inherited.worker);
    if let Err(error) = inherited.hooks.call(py, Hook::WorkerExit, objects) {
        log::warn!("{error}");
    }
}

/// Which requests the worker's threads are in, for how long.
pub(super) fn log_running(slot: Slot<'_>) {
    let now = monotonic_ms();
    for running in slot.running() {
        let seconds = now.saturating_sub(running.since_ms) / 1000;
        let (method, path) = (running.method.escape_ascii(), running.path.escape_ascii());
        match running.client {
            Some(client) => log::error!("In flight for {seconds} s: {method} {path} from {client}"),
            None => log::error!("In flight for {seconds} s: {method} {path}"),
        }
    }
}

/// How long the application's threads may still take.
fn patience(config: &Config, slot: Slot<'_>) -> Duration {
    let graceful = config.workers.graceful_timeout;
    let Some(asked) = slot.stop_asked_ms() else {
        return graceful;
    };
    let is_quick = slot.stop_signal() != Some(nix::libc::SIGTERM);
    let whole = match is_quick {
        true => graceful.min(QUICK_STOP),
        false => graceful + MARGIN,
    };
    whole.saturating_sub(Duration::from_millis(monotonic_ms().saturating_sub(asked)))
}

fn helper(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("ferricorn._leave")
}

fn join_threads(py: Python<'_>, patience: Duration) -> PyResult<Vec<String>> {
    helper(py)?
        .call_method1("join_threads", (patience.as_secs_f64(),))?
        .extract()
}

/// The fault handler writes to a descriptor, and would wait for one that stalls; the log does not.
fn dump_stacks(py: Python<'_>, logs: Log) -> PyResult<()> {
    let file = py.import("tempfile")?.call_method0("TemporaryFile")?;
    py.import("faulthandler")?
        .call_method1("dump_traceback", (&file,))?;
    file.call_method1("seek", (0,))?;
    let stacks: Vec<u8> = file.call_method0("read")?.extract()?;
    logs.write_raw(&String::from_utf8_lossy(&stacks));
    Ok(())
}

/// Exit handlers and buffers, then `os._exit`.
fn finish(py: Python<'_>, logs: Log, code: i32) -> ! {
    if let Err(error) = helper(py).and_then(|helper| helper.call_method0("finish")) {
        log::error!("{}", traceback(py, &error));
    }
    logs.close();
    exit_now(py, code)
}

/// `os._exit`: no exit handler runs, no thread is waited for.
pub(super) fn exit_now(py: Python<'_>, code: i32) -> ! {
    let result = py
        .import("os")
        .and_then(|os| os.call_method1("_exit", (code,)));
    log::error!("os._exit failed: {result:?}");
    std::process::abort()
}
