//! A worker from its fork to its end, but for serving itself.
//!
//! `post_fork`, drop privileges, import the application, `post_worker_init`, serve, `worker_exit`.

use nix::unistd::{Gid, Uid, getegid, geteuid, setgid, setgroups, setuid};
use pyo3::prelude::*;
use std::sync::Arc;

use super::faults::Faults;
use super::host::{Inherited, PythonHost};
use super::reload::Reloader;
use super::serve::{leave_stuck, serve};
use crate::arbiter::{EXIT_BOOT, WorkerLine, WorkerSeat, dump_signal};
use crate::config::Config;
use crate::python::hooks::{Hooks, traceback};
use crate::python::loader::AppLoadError;
use crate::python::stacks::StackTeller;
use crate::worker::Exit;

/// Returns the worker's exit code. Leaving the interpreter in the normal way is up to the caller.
pub(super) fn run(py: Python<'_>, host: PythonHost<'_>, seat: WorkerSeat) -> i32 {
    let pid = std::process::id();
    let age = seat.age;
    let Inherited {
        hooks,
        arbiter,
        worker,
        app,
    } = match host.into_worker(age) {
        Ok(inherited) => inherited,
        Err(error) => return boot_failure(&traceback(py, &error)),
    };
    let faults = Faults::watch(py);
    let objects = (arbiter, worker);
    let hooks = Arc::new(hooks);
    let mut seat = seat;
    let teller = seat.line.take().and_then(|line| tell_stacks(py, line));
    let (index, scoreboard) = (seat.index, Arc::clone(&seat.scoreboard));
    let reloader = Reloader::start(py, &seat.config, &hooks, &objects.1);
    let exit = match boot(py, &hooks, &objects, app, &seat, reloader.as_ref()) {
        Ok(app) => serve(py, app, seat, &hooks, &objects.1, &faults),
        Err(code) => Exit {
            code,
            stuck_threads: 0,
        },
    };
    log::info!("Worker exiting (pid: {pid})");
    if let Err(reason) = hooks.call(py, "worker_exit", objects) {
        log::warn!("{reason}");
    }
    if let Some(reloader) = reloader {
        reloader.stop(py);
    }
    if let Some(teller) = teller {
        teller.stop(py);
    }
    if exit.stuck_threads > 0 {
        leave_stuck(py, exit, &scoreboard, index);
    }
    exit.code
}

/// From now on the arbiter can ask where this worker is, also while the application is being imported.
fn tell_stacks(py: Python<'_>, line: WorkerLine) -> Option<StackTeller> {
    let teller = StackTeller::start(
        py,
        line.questions,
        line.dump,
        dump_signal().map(|one| one as i32),
    );
    match teller {
        Ok(teller) => Some(teller),
        Err(error) => {
            log::warn!("This worker cannot tell its stacks: {error}");
            None
        }
    }
}

type Objects = (
    Py<crate::python::hooks::Arbiter>,
    Py<crate::python::hooks::Worker>,
);

/// Everything up to the application. The error is the exit code; it has been logged.
fn boot(
    py: Python<'_>,
    hooks: &Hooks,
    objects: &Objects,
    preloaded: Option<Py<PyAny>>,
    seat: &WorkerSeat,
    reloader: Option<&Reloader>,
) -> Result<Py<PyAny>, i32> {
    let (arbiter, worker) = objects;
    let both = (arbiter.clone_ref(py), worker.clone_ref(py));
    hooks
        .call(py, "post_fork", both)
        .map_err(|reason| boot_failure(&reason))?;
    drop_privileges(py, &seat.config).map_err(|reason| boot_failure(&reason))?;
    let app = match preloaded {
        Some(app) => app,
        None => load(py, &seat.config, reloader)?,
    };
    {
        let mut worker = worker.borrow_mut(py);
        worker.wsgi = app.clone_ref(py);
        worker.booted = true;
        worker.ppid = seat.parent.as_raw().unsigned_abs();
        worker.max_requests = seat.max_requests.unwrap_or(worker.max_requests);
    }
    hooks
        .call(py, "post_worker_init", (worker.clone_ref(py),))
        .map_err(|reason| boot_failure(&reason))?;
    Ok(app)
}

/// With `--reload` on, an application that cannot be loaded is no reason to stop: its author is at work on it.
fn load(py: Python<'_>, config: &Config, reloader: Option<&Reloader>) -> Result<Py<PyAny>, i32> {
    match (super::load_app(py, config), reloader) {
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

fn load_failure(error: &AppLoadError) -> i32 {
    match error {
        AppLoadError::Import(traceback) => boot_failure(traceback),
        AppLoadError::Load(reason) => {
            log::error!("{reason}");
            error.exit_code()
        }
    }
}

fn boot_failure(reason: &str) -> i32 {
    log::error!("Exception in worker process\n{reason}");
    EXIT_BOOT
}

/// From root to `user` and `group`, before any of the application's code runs.
fn drop_privileges(py: Python<'_>, config: &Config) -> Result<(), String> {
    let (user, group) = (Uid::from_raw(config.user), Gid::from_raw(config.group));
    if group != getegid() {
        let failed = |errno| format!("cannot change to group {group}: {errno}");
        if config.initgroups {
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
        .call_method1("getpwuid", (config.user,))?
        .getattr("pw_name")?;
    py.import("os")?
        .call_method1("initgroups", (name, config.group))?;
    Ok(())
}
