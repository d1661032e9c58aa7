//! A worker from its fork to its end, but for serving itself.
//!
//! `post_fork`, drop privileges, import the application, `post_worker_init`, serve, `worker_exit`.

use nix::unistd::{Gid, Uid, getegid, geteuid, setgid, setgroups, setuid};
use pyo3::prelude::*;
use std::sync::Arc;

use super::faults::Faults;
use super::host::{Inherited, PythonHost};
use super::leave::leave;
use super::reload::Reloader;
use super::serve::{serve, without_signals};
use super::worker_signals::WorkerSignals;
use crate::arbiter::{EXIT_BOOT, WorkerLine, WorkerSeat, dump_signal};
use crate::config::Config;
use crate::net::Listener;
use crate::python::hooks::{self, Hook, leaving};
use crate::python::loader::AppLoadError;
use crate::python::stacks::StackTeller;
use crate::python::traceback::format as traceback;
use crate::scoreboard::Slot;
use crate::worker::Exit;

/// Returns the worker's exit code. Leaving the interpreter in the normal way is up to the caller.
pub(super) fn run(py: Python<'_>, host: PythonHost<'_>, seat: WorkerSeat) -> i32 {
    let age = seat.age;
    let inherited = match host.into_worker(age) {
        Ok(inherited) => Arc::new(inherited),
        Err(error) => return boot_failure(&traceback(py, &error)),
    };
    let faults = Faults::watch(py);
    let mut seat = seat;
    let teller = seat.line.take().and_then(|line| tell_stacks(py, line));
    let (index, scoreboard) = (seat.index, Arc::clone(&seat.scoreboard));
    let reloader = Reloader::start(py, &seat.config, &inherited.hooks, &inherited.worker);
    let config = Arc::clone(&seat.config);
    let exit = match boot(py, &inherited, &seat, reloader.as_ref(), &faults) {
        Ok((app, signals)) => serve(py, app, seat, &inherited, (signals, &faults)),
        Err(code) => Exit {
            code,
            stuck_threads: 0,
        },
    };
    say_goodbye(py, &inherited, scoreboard.slot(index));
    if let Some(reloader) = reloader {
        reloader.stop(py);
    }
    if let Some(teller) = teller {
        teller.stop(py);
    }
    leave(py, exit, &config, scoreboard.slot(index))
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

/// From now on the arbiter can ask where this worker is, also while the application is being imported.
fn tell_stacks(py: Python<'_>, line: WorkerLine) -> Option<StackTeller> {
    let teller = without_signals(|| {
        StackTeller::start(
            py,
            line.questions,
            line.dump,
            dump_signal().map(|one| one as i32),
        )
    });
    match teller {
        Ok(teller) => Some(teller),
        Err(error) => {
            log::warn!("This worker cannot tell its stacks: {error}");
            None
        }
    }
}

/// Everything up to the application. The error is the exit code; it has been logged.
fn boot(
    py: Python<'_>,
    inherited: &Inherited,
    seat: &WorkerSeat,
    reloader: Option<&Reloader>,
    faults: &Faults,
) -> Result<(Py<PyAny>, WorkerSignals), i32> {
    let Inherited {
        hooks,
        arbiter,
        worker,
        ..
    } = inherited;
    show_listeners(py, inherited, seat).map_err(|error| boot_failure(&traceback(py, &error)))?;
    hooks
        .call(py, Hook::PostFork, (arbiter, worker))
        .map_err(|error| boot_failure(&error.to_string()))?;
    drop_privileges(py, &seat.config).map_err(|reason| boot_failure(&reason))?;
    let signals = WorkerSignals::init(py, worker, faults)
        .map_err(|error| boot_failure(&traceback(py, &error)))?;
    let app = match &inherited.app {
        Some(app) => app.clone_ref(py),
        None => load(py, inherited, &seat.config, reloader)?,
    };
    describe(py, worker, &app, seat).map_err(|error| boot_failure(&traceback(py, &error)))?;
    hooks
        .call(py, Hook::PostWorkerInit, (worker,))
        .map_err(|error| boot_failure(&error.to_string()))?;
    worker
        .setattr(py, "booted", true)
        .map_err(|error| boot_failure(&traceback(py, &error)))?;
    Ok((app, signals))
}

/// With `--reload` on, an application that cannot be loaded is no reason to stop: its author is at work on it.
fn load(
    py: Python<'_>,
    inherited: &Inherited,
    config: &Config,
    reloader: Option<&Reloader>,
) -> Result<Py<PyAny>, i32> {
    match (inherited.sources.load_app(py, config), reloader) {
        (Ok(app), None) => Ok(app),
        (Ok(app), Some(reloader)) => {
            reloader.loaded();
            Ok(app)
        }
        (Err(error), None) => Err(load_failure(&error)),
        (Err(error), Some(reloader)) => {
            load_failure(&error);
            let page = reloader.broken(py, &error.to_string());
            page.map_err(|error| boot_failure(&traceback(py, &error)))
        }
    }
}

/// The worker has descriptors of its own for the listeners; those of the arbiter are closed here.
fn show_listeners(py: Python<'_>, inherited: &Inherited, seat: &WorkerSeat) -> PyResult<()> {
    let faces = seat.listeners.iter().map(Listener::face);
    let listeners = hooks::listeners(py, &faces.collect::<Vec<_>>())?;
    inherited.arbiter.setattr(py, "LISTENERS", &listeners)?;
    inherited.worker.setattr(py, "sockets", &listeners)
}

/// What the worker's object can tell only now.
fn describe(
    py: Python<'_>,
    worker: &Py<PyAny>,
    app: &Py<PyAny>,
    seat: &WorkerSeat,
) -> PyResult<()> {
    let worker = worker.bind(py);
    worker.setattr("wsgi", app)?;
    worker.getattr("app")?.setattr("callable", app)?;
    worker.setattr("ppid", seat.parent.as_raw())?;
    match seat.max_requests {
        Some(most) => worker.setattr("max_requests", most),
        None => Ok(()),
    }
}

fn load_failure(error: &AppLoadError) -> i32 {
    match error {
        AppLoadError::Import { traceback, .. } => boot_failure(traceback),
        AppLoadError::Load(reason) => {
            log::error!("{reason}");
            error.exit_code()
        }
        AppLoadError::Exit { code, .. } => {
            log::info!(
                "The application has ended the worker with exit code {code} while it was loaded."
            );
            *code
        }
    }
}

fn boot_failure(reason: &str) -> i32 {
    log::error!("Exception in worker process\n{reason}");
    EXIT_BOOT
}

/// From root to `user` and `group`, before any of the application's code runs.
fn drop_privileges(py: Python<'_>, config: &Config) -> Result<(), String> {
    let (user, group) = (
        Uid::from_raw(config.process.user),
        Gid::from_raw(config.process.group),
    );
    if group != getegid() {
        let failed = |errno| format!("cannot change to group {group}: {errno}");
        if config.process.initgroups {
            initgroups(py, config).map_err(|error| traceback(py, &error))?;
        } else if geteuid().is_root() {
            setgroups(&[group]).map_err(failed)?;
        }
        setgid(group).map_err(failed)?;
    }
    if user != geteuid() {
        setuid(user).map_err(|errno| format!("cannot change to user {user}: {errno}"))?;
    }
    Ok(())
}

/// Through Python, whose `pwd` knows the user's name in every directory service.
fn initgroups(py: Python<'_>, config: &Config) -> PyResult<()> {
    let name = py
        .import("pwd")?
        .call_method1("getpwuid", (config.process.user,))?
        .getattr("pw_name")?;
    py.import("os")?
        .call_method1("initgroups", (name, config.process.group))?;
    Ok(())
}
