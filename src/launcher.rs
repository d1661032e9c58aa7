//! From the command line to a running server, and in every worker from the fork to its application.
//!
//! The walk of the master process:
//! 1. `config::cli` reads the command line and the environment; `--help`, `-v` and mistakes end here.
//! 2. `python::config_file` runs the config file in the start directory; `config::validate` checks the whole.
//! 3. `--print-config` and `--check-config` end here.
//! 4. `chdir` and `pythonpath`, the log, the environment, `--daemon`.
//! 5. `arbiter::run` opens the listeners and forks. It comes back with an exit code, in a worker, or in the
//!    fork server of `--preload`.
//!
//! The walk of a worker is in `worker.rs`. Every process leaves by returning an exit code to Python, so
//! that exit handlers and flushes run.

pub(crate) mod api;
mod code_watch;
mod config_check;
mod daemon;
mod ending;
mod faults;
mod green_worker;
mod greenlets;
mod leave;
mod main_thread;
mod master_signals;
mod origin;
mod preload;
mod python_fork;
mod python_logs;
mod python_runtime;
mod raised;
mod raw_env;
mod reexec;
mod relay;
mod serve;
mod shared_modules;
mod title;
mod worker;
mod worker_access_log;
mod worker_signals;
mod wsgi_surroundings;

use std::ffi::OsString;
use std::sync::Arc;

use pyo3::prelude::*;

use self::ending::{Ending, chain, complain, error_line};
use self::leave::disregard_signals;
use self::origin::{Origin, Settings, Sources};
use self::python_runtime::PythonRuntime;
use self::raw_env::RawEnv;
use self::reexec::Inheritance;
use crate::arbiter::{self, ListenError, Outcome, Start, StartError};
use crate::config::{self, Environment, VERSION};
use crate::logging::Log;
use crate::net::host_names;
use crate::python::gil::has_no_gil;
use crate::python::traceback::format as traceback;
use crate::python::{fork_guard, loader};

/// Serves with the command line. Returns the exit code, in the master and in each of its workers.
pub fn run(py: Python<'_>, argv: Vec<OsString>) -> i32 {
    run_from(py, Origin::CommandLine(argv))
}

/// Serves a `BaseApplication`.
fn run_application(py: Python<'_>, application: Py<PyAny>) -> i32 {
    run_from(py, Origin::Application(application))
}

fn run_from(py: Python<'_>, origin: Origin) -> i32 {
    let inheritance = match Inheritance::take(py) {
        Ok(inheritance) => inheritance,
        Err(error) => {
            complain(&error_line(&chain(&error)));
            return 1;
        }
    };
    let log = Log::of_process();
    match prepare(py, log, origin, inheritance.is_successor()) {
        Ok(runtime) => {
            let code = serve(py, log, runtime, inheritance);
            leave::release_frozen(py);
            if let Err(error) = disregard_signals(py) {
                log::debug!("signals: {}", traceback(py, &error));
            }
            log.close();
            code
        }
        Err(Ending { code, message }) => {
            if let Some(message) = message {
                complain(&message);
            }
            code
        }
    }
}

fn prepare(
    py: Python<'_>,
    log: Log,
    origin: Origin,
    is_successor: bool,
) -> Result<PythonRuntime<'_>, Ending> {
    let sources = Sources {
        origin,
        environment: Environment::of_process(),
        start_directory: std::env::current_dir().map_err(Ending::refused)?,
    };
    let raised = |error: PyErr| Ending::raised(py, &error);
    fork_guard::install(py).map_err(raised)?;
    // Before any code of the operator's runs.
    py.import("ferricorn._stand_in")
        .and_then(|module| module.call_method0("install"))
        .map_err(raised)?;
    if has_no_gil(py) {
        config::note_parallel_threads();
    }
    loader::enter_directory(py, &sources.start_directory).map_err(raised)?;
    let Settings {
        config,
        hooks,
        hints,
    } = sources.read(py)?;
    loader::enter(py, &config).map_err(raised)?;
    if config.debugging.print_config || config.debugging.check_config {
        return Err(config_check::run(py, &config, &hooks, &hints, || {
            sources.load_app(py, &config)
        }));
    }
    log.apply(&config).map_err(Ending::refused)?;
    // statsd's host: the first metrics need not be lost.
    host_names::await_answers(FIRST_NAMES_MS);
    let software = ("SERVER_SOFTWARE".to_owned(), format!("ferricorn/{VERSION}"));
    RawEnv::default().apply(py, &[software]).map_err(raised)?;
    let mut raw_env = RawEnv::default();
    raw_env.apply(py, &config.app.raw_env).map_err(raised)?;
    if config.process.daemon && !is_successor {
        daemon::detach(py, config.logging.enable_stdio_inheritance).map_err(raised)?;
        log.capture();
    }
    if config.debugging.spew {
        // This thread and, because threads inherit it, all that workers start.
        py.import("ferricorn._gunicorn.debug")
            .and_then(|debug| debug.call_method0("spew"))
            .map_err(raised)?;
    }
    let notice = alias_notice(py).map_err(raised)?;
    let runtime = PythonRuntime::new(py, log, sources, config, hooks, raw_env).map_err(raised)?;
    if let Some(notice) = notice {
        log::warn!("{notice}");
    }
    if let Some(reason) = &runtime.config().workers.auto {
        let count = runtime.config().workers.workers;
        log::info!("workers = auto is {count}: {reason}");
    }
    for warning in &runtime.config().warnings {
        log::warn!("{warning}");
    }
    code_watch::warn(py, runtime.config());
    shared_modules::import(py, runtime.config());
    Ok(runtime)
}

/// An alias may have brought this server where gunicorn is installed: the log says so first.
fn alias_notice(py: Python<'_>) -> PyResult<Option<String>> {
    py.import("ferricorn._stand_in")?
        .call_method0("notice")?
        .extract()
}

fn serve(
    py: Python<'_>,
    log: Log,
    mut runtime: PythonRuntime<'_>,
    inheritance: Inheritance,
) -> i32 {
    let start = Start {
        log,
        config: Arc::clone(runtime.config()),
        inherited: inheritance.systemd,
        from_old_master: inheritance.sockets,
        old_master: inheritance.old_master,
        tickets: inheritance.tickets,
        supervisor: inheritance.supervisor,
    };
    match arbiter::run(&mut runtime, start) {
        Outcome::Exit(code) => code,
        Outcome::Refused(error) => refuse(&error),
        Outcome::Worker(context) => {
            runtime.set_worker_title(&context.config);
            worker::run(py, runtime, *context)
        }
        Outcome::ForkServer(context) => preload::run(py, runtime, *context),
    }
}

/// The reason goes to the terminal; that an address is taken goes to the log, as in gunicorn.
fn refuse(error: &StartError) -> i32 {
    let reason = chain(error);
    match error {
        StartError::Listen(ListenError::Bind(_)) => log::error!("{reason}"),
        _ => complain(&error_line(&reason)),
    }
    1
}

/// For a name server at work. Without an answer the server starts all the same.
const FIRST_NAMES_MS: u16 = 2000;
