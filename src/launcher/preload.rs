//! The fork server of `--preload`: imports the application once and forks the workers of one generation.

use std::io;
use std::sync::Arc;

use nix::unistd::Pid;
use pyo3::prelude::*;

use super::greenlets;
use super::leave::exit_now;
use super::python_runtime::PythonRuntime;
use super::worker;
use crate::arbiter::{
    EXIT_BOOT, ForkServerContext, Hook, HookError, HookEvent, Place, Runtime as _, SpawnRequest,
    WorkerInfo,
};
use crate::python::loader::AppLoadError;
use crate::python::traceback::format as traceback;

/// Why a worker could not be forked.
#[derive(Debug, thiserror::Error)]
enum SpawnError {
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error("Cannot start a worker: {0}")]
    Fork(#[from] io::Error),
}

/// Returns the exit code of the fork server, or in a worker the worker's.
pub(super) fn run(
    py: Python<'_>,
    mut runtime: PythonRuntime<'_>,
    mut context: ForkServerContext,
) -> i32 {
    runtime.set_title(&format!(
        "fork server [{}]",
        context.config.process.proc_name
    ));
    if let Err(error) = greenlets::patch(py, &context.config, None) {
        log::error!("Exception while preloading\n{}", traceback(py, &error));
        return 1;
    }
    match runtime.preload() {
        Ok(()) => {}
        Err(error) => {
            match &error {
                AppLoadError::Import { traceback, .. } => {
                    log::error!("Exception while preloading\n{traceback}");
                }
                AppLoadError::Exit { code, .. } => {
                    log::info!(
                        "The application called sys.exit({code}) while it was being preloaded."
                    );
                    if context.report_exit(*code).is_err() {
                        return *code;
                    }
                }
                AppLoadError::Load(_) | AppLoadError::Refused(_) => log::error!("{error}"),
            }
            // The server's exit code, as gunicorn's: there the application is loaded in the master.
            return match error {
                AppLoadError::Import { .. } | AppLoadError::Load(_) => 1,
                AppLoadError::Refused(_) | AppLoadError::Exit { .. } => error.exit_code(),
            };
        }
    }
    report_threads(py);
    if let Err(error) = freeze(py) {
        log::debug!("gc.freeze: {}", traceback(py, &error));
    }
    if context.report_ready().is_err() {
        return 0;
    }
    loop {
        let mut request = None;
        runtime.wait(&mut || request = context.next_request());
        let Some(request) = request else {
            context.end_with_process();
            return 0;
        };
        let worker = match spawn(&mut runtime, &context, &request) {
            Err(error) => {
                log::error!("{error}");
                None
            }
            Ok(Place::ForkServer(worker)) => worker,
            Ok(Place::Between) => exit_now(py, 0),
            Ok(Place::Worker(fork_server)) => {
                return become_worker(py, runtime, context, (request, fork_server));
            }
        };
        if context.answer(&request, worker).is_err() {
            return 0;
        }
    }
}

fn spawn(
    runtime: &mut PythonRuntime<'_>,
    context: &ForkServerContext,
    request: &SpawnRequest,
) -> Result<Place, SpawnError> {
    let config = Arc::clone(&context.config);
    runtime.call_hook(&HookEvent {
        hook: Hook::PreFork(WorkerInfo::unborn(request.age)),
        pid: nix::unistd::getpid().as_raw(),
        num_workers: config.workers.workers,
        workers: Vec::new(),
        listeners: context.listener_infos(),
        config: &config,
    })?;
    // The log may have been rotated since the import.
    runtime.reopen_logs();
    Ok(context.fork_worker(runtime)?)
}

fn become_worker(
    py: Python<'_>,
    mut runtime: PythonRuntime<'_>,
    context: ForkServerContext,
    (request, fork_server): (SpawnRequest, Option<Pid>),
) -> i32 {
    runtime.set_worker_title(&context.config);
    match context.into_worker(request, fork_server) {
        Ok(context) => worker::run(py, runtime, context),
        Err(error) => {
            log::error!("The worker cannot serve: {error}");
            exit_now(py, EXIT_BOOT)
        }
    }
}

/// A fork copies one thread only: what the others were doing, and the locks they hold, stays behind. A library may start
/// its threads again in each worker, so this is no warning.
fn report_threads(py: Python<'_>) {
    let names = || -> PyResult<Vec<String>> {
        let threading = py.import("threading")?;
        let main = threading.call_method0("main_thread")?;
        let mut names = Vec::new();
        for thread in threading.call_method0("enumerate")?.try_iter()? {
            let thread = thread?;
            if !thread.is(&main) {
                names.push(thread.getattr("name")?.extract()?);
            }
        }
        Ok(names)
    };
    match names() {
        Ok(names) if !names.is_empty() => log::info!(
            "The preloaded application started {} thread(s): {}. A fork does not copy them: workers have only those \
             that are started again after it, as by a library's at-fork handler.",
            names.len(),
            names.join(", ")
        ),
        Ok(_) => {}
        Err(error) => log::debug!("threads not counted: {}", traceback(py, &error)),
    }
}

/// The collector does not visit what exists now any more, so its pages stay shared.
fn freeze(py: Python<'_>) -> PyResult<()> {
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    gc.call_method0("freeze")?;
    Ok(())
}
