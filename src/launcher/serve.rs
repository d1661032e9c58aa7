//! A worker that serves: settings and application become a running event loop, and its end becomes an exit code.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::sys::signal::Signal;
use pyo3::prelude::*;

use super::faults::Faults;
use super::python_runtime::Inherited;
use super::raised::Raised;
use super::worker_access_log;
use crate::arbiter::{WorkerContext, signals};
use crate::config::{Config, VERSION};
use crate::fork_guard::register;
use crate::logging::Log;
use crate::logging::access::FormatError;
use crate::logging::statsd::Statsd;
use crate::net::Listener;
use crate::python::fork_guard::register_wakeup;
use crate::python::gil::{Reason, release};
use crate::python::heartbeat::{self, GilTaskQueue, Heartbeat};
use crate::python::hooks::{Hook, leaving, reopen_files};
use crate::python::interrupts::Interrupts;
use crate::python::native_thread::ThreadEnd;
use crate::python::threads::{PythonApplication, TimeoutHook};
use crate::python::traceback::format as traceback;
use crate::python::wsgi::{ListenerAddress, RequestHooks, WsgiApp, WsgiSettings};
use crate::scoreboard::{Scoreboard, monotonic_ms};
use crate::worker::{self, Exit, Setup};

/// What the worker listens to, unless the application handles it itself.
const WORKER_SIGNALS: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGABRT,
    Signal::SIGUSR1,
];

/// Why a worker could not serve.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Raised(#[from] Raised),
    #[error(transparent)]
    AccessLog(#[from] FormatError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Serves until the worker is told to stop.
pub(super) fn serve(
    py: Python<'_>,
    app: Py<PyAny>,
    context: WorkerContext,
    inherited: &Arc<Inherited>,
    faults: &Faults,
) -> Exit {
    match start(py, app, context, inherited, faults) {
        Ok(exit) => exit,
        Err(error) => {
            log::error!("The worker could not serve: {error}");
            Exit {
                code: crate::arbiter::EXIT_BOOT,
                stuck_threads: 0,
            }
        }
    }
}

fn start(
    py: Python<'_>,
    app: Py<PyAny>,
    context: WorkerContext,
    inherited: &Arc<Inherited>,
    faults: &Faults,
) -> Result<Exit, ServeError> {
    let WorkerContext {
        index,
        age,
        listeners,
        config,
        scoreboard,
        notifier,
        parent,
        max_requests,
        channels,
        ..
    } = context;
    let raised = |error: PyErr| Raised::new(py, &error);
    let wakeups = install_wakeup(py).map_err(raised)?;
    let signals = install_signals(py, faults).map_err(raised)?;
    let mut settings = wsgi_settings(py, &config, &listeners);
    let access_log = worker_access_log::make(py, &config, &mut settings, age, inherited)?;
    let heartbeat = Heartbeat::start(config.workers.timeout, beat(&scoreboard, index))?;
    let interrupts = config
        .workers
        .request_timeout
        .map(|_| Arc::new(Interrupts::new(config.workers.threads)));
    let logger = (!config.logging.is_built_in()).then(|| inherited.log.clone_ref(py));
    let app = WsgiApp::new(app, Arc::new(settings), scoreboard.clone(), index)
        .with_request_hooks(request_hooks(py, &config, inherited).map_err(raised)?)
        .with_logger(logger)
        .with_interrupts(interrupts.clone());
    let app = Arc::new(app);
    let on_signal = signal_hook(Arc::clone(inherited), scoreboard.clone(), index);
    let script_name = app.script_name().as_bytes().to_vec();
    let on_timeout = timeout_hook(interrupts, heartbeat.queue());
    let application = PythonApplication::new(app, on_signal, on_timeout);
    let setup = Setup {
        listeners,
        scoreboard,
        slot: index,
        signals: Some(signals),
        interrupts: Some(wakeups),
        booted: Some(notifier),
        parent: Some(parent.as_raw()),
        max_requests,
        channels,
        script_name,
        server: server_header(py, &config),
        access_log,
        metrics: Statsd::new(&config),
        config,
    };
    let exit = release(py, Reason::MainThread, || worker::run(setup, &application));
    let mut exit = exit?;
    if heartbeat.stop(py) == ThreadEnd::Stuck {
        exit.stuck_threads += 1;
    }
    Ok(exit)
}

/// What sees each request: hooks, and the access log of a custom logger.
fn request_hooks(
    py: Python<'_>,
    config: &Config,
    inherited: &Inherited,
) -> PyResult<Option<RequestHooks>> {
    let logs_access = !config.logging.is_built_in();
    RequestHooks::new(
        py,
        Arc::clone(&inherited.hooks),
        inherited.worker.clone_ref(py),
        logs_access.then(|| inherited.log.clone_ref(py)),
    )
}

fn beat(scoreboard: &Arc<Scoreboard>, index: usize) -> Box<dyn Fn() + Send> {
    let scoreboard = scoreboard.clone();
    Box::new(move || scoreboard.slot(index).python_beat(monotonic_ms()))
}

fn timeout_hook(interrupts: Option<Arc<Interrupts>>, queue: GilTaskQueue) -> TimeoutHook {
    Box::new(move |request| {
        if let Some(interrupts) = interrupts.clone() {
            let request = request.clone();
            queue.post(Box::new(move |py| interrupts.interrupt(py, &request)));
        }
    })
}

/// The interpreter writes to this socket when a signal that the application handles has arrived.
fn install_wakeup(py: Python<'_>) -> PyResult<OwnedFd> {
    let (read_end, write_end) = UnixStream::pair()?;
    read_end.set_nonblocking(true)?;
    write_end.set_nonblocking(true)?;
    py.import("signal")?
        .call_method1("set_wakeup_fd", (write_end.as_raw_fd(),))?;
    register(&read_end);
    register(&write_end);
    register_wakeup(py, write_end.as_raw_fd())?;
    // The interpreter keeps the number, for as long as the process lives.
    let _ = std::os::fd::IntoRawFd::into_raw_fd(write_end);
    Ok(OwnedFd::from(read_end))
}

/// Take the worker's signals, except those for which the application has a handler of its own.
fn install_signals(py: Python<'_>, faults: &Faults) -> PyResult<OwnedFd> {
    let module = py.import("signal")?;
    let (default, default_int) = (
        module.getattr("SIG_DFL")?,
        module.getattr("default_int_handler")?,
    );
    let dumps_on_abort = faults.are_the_applications(py)?;
    let mut ours = Vec::new();
    for signal in WORKER_SIGNALS {
        let handler = module.call_method1("getsignal", (signal as i32,))?;
        let untouched = handler.eq(&default)? || handler.is(&default_int) || handler.is_none();
        if untouched && !(signal == Signal::SIGABRT && dumps_on_abort) {
            ours.push(signal);
        }
    }
    faults.around(py, || Ok(signals::install(&ours)?))
}

/// What the worker does about its signals beside what the event loop does.
fn signal_hook(
    inherited: Arc<Inherited>,
    scoreboard: Arc<Scoreboard>,
    index: usize,
) -> crate::python::threads::SignalHook {
    Box::new(move |number| {
        let hook = match Signal::try_from(number) {
            Ok(Signal::SIGUSR1) => {
                if let Err(error) = inherited.logs.reopen() {
                    log::error!("{error}");
                }
                // The files of Python's loggers can wait until the interpreter is free, the loop cannot.
                let inherited = Arc::clone(&inherited);
                heartbeat::post(Box::new(move |py| reopen_files(py, &inherited.log)));
                return;
            }
            Ok(Signal::SIGINT | Signal::SIGQUIT) => Hook::WorkerInt,
            Ok(Signal::SIGABRT) => {
                // Before anything that needs the interpreter, which may be what is stuck.
                log_running(&scoreboard, index);
                Hook::WorkerAbort
            }
            _ => return,
        };
        let requests = scoreboard.slot(index).requests();
        Python::attach(|py| {
            leaving(py, &inherited.worker, requests);
            if let Err(reason) = inherited.hooks.call(py, hook, (&inherited.worker,)) {
                log::error!("{reason}");
            }
        });
    })
}

/// Which requests the worker's threads are in, for how long.
pub(super) fn log_running(scoreboard: &Scoreboard, index: usize) {
    let now = monotonic_ms();
    for running in scoreboard.slot(index).running() {
        let seconds = now.saturating_sub(running.since_ms) / 1000;
        let (method, path) = (running.method.escape_ascii(), running.path.escape_ascii());
        match running.client {
            Some(client) => log::error!("In flight for {seconds} s: {method} {path} from {client}"),
            None => log::error!("In flight for {seconds} s: {method} {path}"),
        }
    }
}

fn wsgi_settings(py: Python<'_>, config: &Config, listeners: &[Listener]) -> WsgiSettings {
    WsgiSettings {
        multithread: config.workers.threads > 1,
        multiprocess: config.workers.workers > 1,
        server_software: of_gunicorn(py, "SERVER_SOFTWARE")
            .unwrap_or_else(|| format!("ferricorn/{VERSION}")),
        script_name: environment(py, "SCRIPT_NAME"),
        sendfile: config.http.sendfile,
        listeners: listeners.iter().map(face).collect(),
        noted_keys: Vec::new(),
        request_id_seed: None,
    }
}

/// The `Server` field's value; empty for none.
fn server_header(py: Python<'_>, config: &Config) -> Vec<u8> {
    let text = config.http.server_header.clone();
    let text = text.or_else(|| of_gunicorn(py, "SERVER"));
    let text = text.unwrap_or_else(|| "ferricorn".to_owned());
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.into_bytes();
    }
    log::error!("gunicorn.SERVER cannot stand in a header, so there is no Server header: {text:?}");
    Vec::new()
}

/// Configuration files change gunicorn's name through its module; with the module installed that goes on to work.
fn of_gunicorn(py: Python<'_>, constant: &str) -> Option<String> {
    let modules = py.import("sys").and_then(|sys| sys.getattr("modules"));
    let module = modules.ok()?.get_item("gunicorn").ok()?;
    let value: String = module.getattr(constant).ok()?.extract().ok()?;
    let is_untouched = value == "gunicorn" || value.starts_with("gunicorn/");
    (!is_untouched).then_some(value)
}

/// As the application sees it: `raw_env` and `post_fork` may have changed it.
fn environment(py: Python<'_>, name: &str) -> String {
    let value = py.import("os").and_then(|os| {
        os.getattr("environ")?
            .call_method1("get", (name, ""))?
            .extract()
    });
    value.unwrap_or_default()
}

fn face(listener: &Listener) -> ListenerAddress {
    match listener {
        Listener::Tcp(listener) => {
            let address = listener.local_addr().ok();
            ListenerAddress::Tcp {
                name: address
                    .map(|address| address.ip().to_string())
                    .unwrap_or_default(),
                port: address.map_or(0, |address| address.port()),
            }
        }
        Listener::Unix(listener) => {
            let path = listener
                .local_addr()
                .ok()
                .and_then(|address| Some(address.as_pathname()?.display().to_string()));
            ListenerAddress::Unix {
                path: path.unwrap_or_default(),
            }
        }
    }
}

/// Leave at once, without finalizing the interpreter under a thread that still runs: what is buffered is written, and
/// what was cut is logged.
pub(super) fn leave_stuck(
    py: Python<'_>,
    logs: Log,
    exit: Exit,
    scoreboard: &Scoreboard,
    index: usize,
) -> ! {
    log::error!("{} thread(s) did not finish in time:", exit.stuck_threads);
    log_running(scoreboard, index);
    logs.close();
    if let Err(error) = dump_and_flush(py) {
        log::error!("{}", traceback(py, &error));
    }
    exit_now(py, exit.code)
}

/// `os._exit`: no exit handler runs, no thread is waited for.
pub(super) fn exit_now(py: Python<'_>, code: i32) -> ! {
    let result = py
        .import("os")
        .and_then(|os| os.call_method1("_exit", (code,)));
    log::error!("os._exit failed: {result:?}");
    std::process::abort()
}

fn dump_and_flush(py: Python<'_>) -> PyResult<()> {
    let faulthandler = py.import("faulthandler")?;
    let sys = py.import("sys")?;
    faulthandler.call_method1("dump_traceback", (sys.getattr("__stderr__")?,))?;
    for stream in ["stdout", "stderr"] {
        sys.getattr(stream)?.call_method0("flush")?;
    }
    py.import("logging")?.call_method0("shutdown")?;
    Ok(())
}
