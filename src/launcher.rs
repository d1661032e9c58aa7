//! From the command line to a running server, and in every worker from the fork to its application.
//!
//! The walk of the master process:
//! 1. `config::cli` reads the command line and the environment; `--help`, `-v` and mistakes end here.
//! 2. `python::config_file` runs the config file in the start directory; `config::validate` checks the whole.
//! 3. `--print-config` and `--check-config` end here.
//! 4. `chdir` and `pythonpath`, the log, the environment, `--daemon`.
//! 5. `arbiter::run` opens the listeners and forks. It comes back with an exit code, in a worker, or in the
//!    template of `--preload`.
//!
//! The walk of a worker is in `worker.rs`. Every process leaves by returning an exit code to Python, so
//! that exit handlers and flushes run.

mod access_log;
pub(crate) mod api;
mod daemon;
mod faults;
mod host;
mod reexec;
mod relay;
mod reload;
mod serve;
mod sources;
mod template;
mod title;
mod worker;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::sync::Arc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use self::host::{PythonHost, RawEnv};
use self::reexec::Inheritance;
use self::sources::{Origin, Settings, Sources};
use crate::arbiter::{self, Outcome, Start};
use crate::config::{Config, Environment, VERSION};
use crate::logging;
use crate::python::traceback::format as traceback;
use crate::python::{fork_guard, loader};

/// Serves as the command line says. Returns the exit code, in the master and in each of its workers.
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
        Err(reason) => {
            complain(&format!("\nError: {reason}\n"));
            return 1;
        }
    };
    match prepare(py, origin, inheritance.is_successor()) {
        Ok(host) => {
            let code = serve(py, host, inheritance);
            logging::close();
            code
        }
        Err(End { code, message }) => {
            if let Some(message) = message {
                complain(&message);
            }
            code
        }
    }
}

/// How the program ends before it serves: with a line for the operator, unless all was said.
struct End {
    code: i32,
    message: Option<String>,
}

impl End {
    fn refused(message: impl std::fmt::Display) -> Self {
        let message = Some(format!("\nError: {message}\n"));
        Self { code: 1, message }
    }

    /// A `RuntimeError` is the operator's to mend, so its text is enough; another exception has its traceback.
    fn raised(py: Python<'_>, error: &PyErr) -> Self {
        if error.is_instance_of::<PyRuntimeError>(py) {
            Self::refused(error.value(py))
        } else {
            Self::refused(traceback(py, error))
        }
    }
}

fn prepare(py: Python<'_>, origin: Origin, is_successor: bool) -> Result<PythonHost<'_>, End> {
    let sources = Sources {
        origin,
        environment: Environment::of_process(),
        start_directory: std::env::current_dir().map_err(End::refused)?,
    };
    let raised = |error: PyErr| End::raised(py, &error);
    fork_guard::install(py).map_err(raised)?;
    // Before any code of the operator's runs.
    py.import("ferricorn._stand_in")
        .and_then(|module| module.call_method0("install"))
        .map_err(raised)?;
    loader::enter_directory(py, &sources.start_directory).map_err(raised)?;
    let Settings {
        config,
        hooks,
        hints,
    } = sources.read(py)?;
    loader::enter(py, &config).map_err(raised)?;
    if config.debugging.print_config || config.debugging.check_config {
        return Err(check(py, &sources, &config, &hints));
    }
    init_logs(&config)?;
    let software = ("SERVER_SOFTWARE".to_owned(), format!("ferricorn/{VERSION}"));
    RawEnv::default().apply(py, &[software]).map_err(raised)?;
    let mut raw_env = RawEnv::default();
    raw_env.apply(py, &config.app.raw_env).map_err(raised)?;
    if config.process.daemon && !is_successor {
        daemon::detach(py, config.logging.enable_stdio_inheritance).map_err(raised)?;
        logging::capture();
    }
    if config.debugging.spew {
        // This thread and, because threads inherit it, all that workers start.
        py.import("ferricorn._gunicorn.debug")
            .and_then(|debug| debug.call_method0("spew"))
            .map_err(raised)?;
    }
    let host = PythonHost::new(py, sources, config, hooks, raw_env).map_err(raised)?;
    for warning in &host.config().warnings {
        log::warn!("{warning}");
    }
    reload::warn(py, host.config());
    Ok(host)
}

fn serve(py: Python<'_>, mut host: PythonHost<'_>, inheritance: Inheritance) -> i32 {
    let start = Start {
        config: Arc::clone(host.config()),
        inherited: inheritance.systemd,
        handed_over: inheritance.sockets,
        elder: inheritance.elder,
        supervisor: inheritance.supervisor,
    };
    match arbiter::run(&mut host, start) {
        Outcome::Master(code) => code,
        Outcome::Refused(reason) => {
            complain(&format!("\nError: {reason}\n"));
            1
        }
        Outcome::Worker(seat) => worker::run(py, host, *seat),
        Outcome::Template(seat) => template::run(py, host, *seat),
    }
}

fn init_logs(config: &Config) -> Result<(), End> {
    logging::init(config).map_err(End::refused)
}

/// `--print-config` and `--check-config`: 0 when the application can be loaded and no name is in doubt.
fn check(py: Python<'_>, sources: &Sources, config: &Config, hints: &[String]) -> End {
    if config.debugging.print_config {
        print(&config.resolved.print());
    }
    for warning in &config.warnings {
        complain(&format!("Warning: {warning}\n"));
    }
    for note in config.resolved.notes() {
        complain(&format!("Note: {note}\n"));
    }
    match sources.load_app(py, config) {
        Err(error) => End {
            code: 1,
            message: Some(format!(
                "\nError while loading the application:\n\n{error}\n"
            )),
        },
        Ok(_) => End {
            code: i32::from(!hints.is_empty()),
            message: None,
        },
    }
}

/// A fork copies one thread only: what the others were doing, and the locks they hold, stays behind.
fn warn_of_threads(py: Python<'_>) {
    let count = py
        .import("threading")
        .and_then(|threading| threading.call_method0("active_count"))
        .and_then(|count| count.extract::<usize>());
    match count {
        Ok(count) if count > 1 => {
            let started = count - 1;
            log::warn!(
                "The preloaded application started {started} thread(s); workers will not have them."
            );
        }
        Ok(_) => {}
        Err(error) => log::debug!("threads not counted: {}", traceback(py, &error)),
    }
}

/// The terminal may be gone; there is nobody else to tell.
fn print(text: &str) {
    let mut stdout = io::stdout();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
