//! The template process of `--preload`: imports the application once and forks the workers of one generation.

use std::sync::Arc;

use nix::sys::wait::waitpid;
use pyo3::prelude::*;

use super::host::PythonHost;
use super::leave::exit_now;
use super::worker;
use crate::arbiter::{
    EXIT_BOOT, Forked, Hook, HookEvent, Host as _, Order, TemplateSeat, WorkerView,
};
use crate::python::loader::AppLoadError;
use crate::python::traceback::format as traceback;

/// Returns the exit code of the template, or in a worker the worker's.
pub(super) fn run(py: Python<'_>, mut host: PythonHost<'_>, mut seat: TemplateSeat) -> i32 {
    match host.load_app(&seat.config) {
        Ok(app) => host.set_app(app),
        Err(error) => {
            match &error {
                AppLoadError::Import { traceback, .. } => {
                    log::error!("Exception while preloading\n{traceback}");
                }
                AppLoadError::Load(_) | AppLoadError::Exit { .. } => log::error!("{error}"),
            }
            return error.exit_code();
        }
    }
    super::warn_of_threads(py);
    if let Err(error) = freeze(py) {
        log::debug!("gc.freeze: {}", traceback(py, &error));
    }
    if seat.report_ready().is_err() {
        return 0;
    }
    loop {
        let mut order = None;
        host.wait(&mut || order = seat.next_order());
        let Some(order) = order else { return 0 };
        match fork(&mut host, &seat, &order) {
            Err(reason) => log::error!("{reason}"),
            Ok(Place::Template) => {}
            Ok(Place::Between) => exit_now(py, 0),
            Ok(Place::Worker) => return become_worker(py, host, seat, order),
        }
        if seat.answer(&order).is_err() {
            return 0;
        }
    }
}

/// Which of the three processes this is after a fork.
enum Place {
    Template,
    Between,
    Worker,
}

fn fork(host: &mut PythonHost<'_>, seat: &TemplateSeat, order: &Order) -> Result<Place, String> {
    let config = Arc::clone(&seat.config);
    let age = order.age;
    host.hook(&HookEvent {
        hook: Hook::PreFork(WorkerView {
            pid: None,
            age,
            aborted: false,
        }),
        pid: nix::unistd::getpid().as_raw(),
        num_workers: config.workers.workers,
        workers: Vec::new(),
        listeners: seat.faces(),
        config: &config,
    })?;
    // The log may have been rotated since the import.
    host.reopen_logs();
    let failed = |error: std::io::Error| format!("Cannot start a worker: {error}");
    let between = match host.fork().map_err(failed)? {
        Forked::Parent(between) => between,
        Forked::Child => {
            return match host.fork() {
                Ok(Forked::Child) => Ok(Place::Worker),
                Ok(Forked::Parent(worker)) => {
                    // Before this process ends, so before the arbiter can hear of the worker's end.
                    seat.scoreboard.slot(order.slot).set_pid(worker.as_raw());
                    Ok(Place::Between)
                }
                Err(error) => {
                    log::error!("{}", failed(error));
                    Ok(Place::Between)
                }
            };
        }
    };
    waitpid(between, None).map_err(|errno| failed(errno.into()))?;
    Ok(Place::Template)
}

fn become_worker(
    py: Python<'_>,
    mut host: PythonHost<'_>,
    seat: TemplateSeat,
    order: Order,
) -> i32 {
    host.name_process(&format!("worker [{}]", seat.config.process.proc_name));
    match seat.into_worker(order) {
        Ok(seat) => worker::run(py, host, seat),
        Err(error) => {
            log::error!("The worker cannot serve: {error}");
            exit_now(py, EXIT_BOOT)
        }
    }
}

/// What is there now is not looked at by the collector any more, so its pages stay shared.
fn freeze(py: Python<'_>) -> PyResult<()> {
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    gc.call_method0("freeze")?;
    Ok(())
}
