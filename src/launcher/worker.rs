//! A worker from its fork to its end, but for serving itself.
//!
//! `post_fork`, drop privileges, import the application, `post_worker_init`, serve, `worker_exit`.

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, getegid, geteuid, setgid, setgroups, setuid};
use pyo3::prelude::*;
use std::sync::Arc;

use super::code_watch::Reloader;
use super::faults::Faults;
use super::greenlets;
use super::leave::{leave, say_goodbye};
use super::python_runtime::{Inherited, PythonRuntime};
use super::raised::Raised;
use super::serve::serve;
use super::worker_signals::{WorkerSignals, without_signals};
use crate::arbiter::signals::dump_signal;
use crate::arbiter::{EXIT_BOOT, WorkerChannel, WorkerContext};
use crate::config::Config;
use crate::net::Listener;
use crate::python::hooks::{self, Hook};
use crate::python::loader::{self, AppLoadError};
use crate::python::native_thread::ThreadEnd;
use crate::python::stacks::StackReporter;
use crate::python::traceback::format as traceback;
use crate::worker::Exit;

/// Returns the worker's exit code. Leaving the interpreter in the normal way is up to the caller.
pub(super) fn run(py: Python<'_>, runtime: PythonRuntime<'_>, context: WorkerContext) -> i32 {
    let age = context.age;
    let inherited = match runtime.into_worker(age) {
        Ok(inherited) => Arc::new(inherited),
        Err(error) => return boot_failure(&traceback(py, &error)),
    };
    inherited.logs.allow_threads();
    let faults = Faults::watch(py, inherited.logs);
    let mut context = context;
    let reporter = context
        .channel
        .take()
        .and_then(|channel| report_stacks(py, channel));
    let (index, scoreboard) = (context.index, Arc::clone(&context.scoreboard));
    let reloader = Reloader::start(py, &context.config, &inherited.hooks, &inherited.worker);
    let config = Arc::clone(&context.config);
    let mut exit = match boot(py, &inherited, &context, reloader.as_ref(), &faults) {
        Ok((app, signals)) => serve(py, app, context, &inherited, (signals, &faults)),
        Err(code) => Exit {
            code,
            stuck_threads: 0,
        },
    };
    say_goodbye(py, &inherited, scoreboard.slot(index));
    let ends = [
        reloader.map(|reloader| reloader.stop(py)),
        reporter.map(|reporter| reporter.stop(py)),
    ];
    exit.stuck_threads += ends
        .iter()
        .filter(|end| **end == Some(ThreadEnd::Stuck))
        .count();
    leave(py, inherited.logs, exit, &config, scoreboard.slot(index))
}

/// From now on the arbiter can ask where this worker is, also while the application is being imported.
fn report_stacks(py: Python<'_>, channel: WorkerChannel) -> Option<StackReporter> {
    let reporter = without_signals(|| {
        StackReporter::start(
            py,
            channel.requests,
            channel.dump,
            dump_signal().map(|one| one as i32),
        )
    });
    match reporter {
        Ok(reporter) => Some(reporter),
        Err(error) => {
            log::warn!("This worker cannot report its stacks: {error}");
            None
        }
    }
}

/// Everything up to the application. The error is the exit code; it has been logged.
fn boot(
    py: Python<'_>,
    inherited: &Inherited,
    context: &WorkerContext,
    reloader: Option<&Reloader>,
    faults: &Faults,
) -> Result<(Py<PyAny>, WorkerSignals), i32> {
    let Inherited {
        hooks,
        arbiter,
        worker,
        ..
    } = inherited;
    let raised = |error: PyErr| boot_failure(&traceback(py, &error));
    greenlets::patch(py, &context.config, Some(worker.bind(py))).map_err(raised)?;
    show_listeners(py, inherited, context).map_err(raised)?;
    describe(py, worker, context).map_err(raised)?;
    hooks
        .call(py, Hook::PostFork, (arbiter, worker))
        .map_err(|error| boot_failure(&error.to_string()))?;
    drop_privileges(py, &context.config).map_err(|error| boot_failure(&error.to_string()))?;
    worker.call_method0(py, "init_process").map_err(raised)?;
    let signals = WorkerSignals::init(py, worker, faults).map_err(raised)?;
    load(py, worker, reloader)?;
    hooks
        .call(py, Hook::PostWorkerInit, (worker,))
        .map_err(|error| boot_failure(&error.to_string()))?;
    let worker = worker.bind(py);
    hooks::store(worker, "booted", true).map_err(raised)?;
    // A hook may have put a middleware around it.
    let app = worker.getattr("wsgi").map_err(raised)?;
    Ok((app.unbind(), signals))
}

/// By the worker's object and its `app`, which agents and hooks wrap. With `--reload` on, an application that cannot be
/// loaded is no reason to stop: its author is at work on it.
fn load(py: Python<'_>, worker: &Py<PyAny>, reloader: Option<&Reloader>) -> Result<(), i32> {
    match (loader::load_into_worker(worker.bind(py)), reloader) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(reloader)) => {
            reloader.loaded();
            Ok(())
        }
        (Err(error), None) => Err(load_failure(&error)),
        (Err(error), Some(reloader)) => {
            load_failure(&error);
            let page = reloader.broken(py, &error.to_string());
            page.and_then(|page| hooks::store(worker.bind(py), "wsgi", page))
                .map_err(|error| boot_failure(&traceback(py, &error)))
        }
    }
}

/// The worker has descriptors of its own for the listeners; those of the arbiter are closed here.
fn show_listeners(py: Python<'_>, inherited: &Inherited, context: &WorkerContext) -> PyResult<()> {
    let infos = context.listeners.iter().map(Listener::info);
    let listeners = hooks::listeners(py, &infos.collect::<Vec<_>>())?;
    hooks::store(inherited.arbiter.bind(py), "LISTENERS", &listeners)?;
    hooks::store(inherited.worker.bind(py), "sockets", &listeners)
}

/// What the worker's object can show only now.
fn describe(py: Python<'_>, worker: &Py<PyAny>, context: &WorkerContext) -> PyResult<()> {
    let worker = worker.bind(py);
    hooks::store(worker, "ppid", context.parent.as_raw())?;
    match context.max_requests {
        Some(most) => hooks::store(worker, "max_requests", most),
        None => Ok(()),
    }
}

fn load_failure(error: &AppLoadError) -> i32 {
    match error {
        AppLoadError::Import { traceback, .. } => boot_failure(traceback),
        AppLoadError::Load(reason) | AppLoadError::Refused(reason) => {
            log::error!("{reason}");
            error.exit_code()
        }
        AppLoadError::Exit { code, .. } => {
            log::info!(
                "The application ended the worker with exit code {code} while it was being loaded."
            );
            *code
        }
    }
}

fn boot_failure(reason: &str) -> i32 {
    log::error!("Exception in worker process\n{reason}");
    EXIT_BOOT
}

/// Why the worker cannot become another user's.
#[derive(Debug, thiserror::Error)]
enum PrivilegeError {
    #[error("cannot change to group {0}: {1}")]
    Group(Gid, Errno),
    #[error("cannot change to user {0}: {1}")]
    User(Uid, Errno),
    #[error(transparent)]
    Raised(#[from] Raised),
}

/// From root to `user` and `group`, before any of the application's code runs.
fn drop_privileges(py: Python<'_>, config: &Config) -> Result<(), PrivilegeError> {
    let (user, group) = (
        Uid::from_raw(config.process.user),
        Gid::from_raw(config.process.group),
    );
    if group != getegid() {
        let failed = |errno| PrivilegeError::Group(group, errno);
        if config.process.initgroups {
            initgroups(py, config).map_err(|error| Raised::new(py, &error))?;
        } else if geteuid().is_root() {
            setgroups(&[group]).map_err(failed)?;
        }
        setgid(group).map_err(failed)?;
    }
    if user != geteuid() {
        setuid(user).map_err(|errno| PrivilegeError::User(user, errno))?;
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
