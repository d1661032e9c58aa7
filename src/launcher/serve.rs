//! A worker that serves: settings and application become a running event loop, and its end becomes an exit code.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use pyo3::prelude::*;

use super::faults::Faults;
use super::green_worker;
use super::greenlets;
use super::leave::{leave, log_running, say_goodbye};
use super::main_thread::{self, LoopError};
use super::python_logs::{self, Touched};
use super::python_runtime::Inherited;
use super::raised::Raised;
use super::worker_access_log;
use super::worker_signals::{RequestedExit, WorkerSignals, watch_slot, without_signals};
use super::wsgi_surroundings::{server_header, wsgi_settings};
use crate::arbiter::{WorkerContext, signals};
use crate::config::Config;
use crate::fork_guard::QuietChild;
use crate::logging::access::FormatError;
use crate::logging::statsd::Statsd;
use crate::python::gil::{Reason, release};
use crate::python::green_application::{GreenApplication, HookPatience};
use crate::python::heartbeat::{self, GilTaskQueue, Heartbeat};
use crate::python::hooks::{Hook, leaving, reopen_files, store};
use crate::python::hub_watch::HubWatch;
use crate::python::interrupts::Interrupts;
use crate::python::native_thread::ThreadEnd;
use crate::python::threads::{PythonApplication, TimeoutHook, poke_main_thread};
use crate::python::wsgi::{PythonAccessLog, RequestHooks, WsgiApp};
use crate::scoreboard::{Scoreboard, monotonic_ms};
use crate::worker::{Exit, Setup};

/// Why a worker could not serve.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Raised(#[from] Raised),
    #[error(transparent)]
    AccessLog(#[from] FormatError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Loop(#[from] LoopError),
}

/// Serves until the worker is asked to stop.
pub(super) fn serve(
    py: Python<'_>,
    app: Py<PyAny>,
    context: WorkerContext,
    inherited: &Arc<Inherited>,
    boot: (WorkerSignals, &Faults),
) -> Exit {
    match start(py, app, context, inherited, boot) {
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
    (signals, faults): (WorkerSignals, &Faults),
) -> Result<Exit, ServeError> {
    let WorkerContext {
        index,
        age,
        listeners,
        config,
        scoreboard,
        notifier,
        parent,
        channels,
        certificates,
        fork_server,
        ..
    } = context;
    let raised = |error: PyErr| Raised::new(py, &error);
    let max_requests = max_requests(py, &inherited.worker).map_err(raised)?;
    let (signals, wakeups) = signals.take(py, faults).map_err(raised)?;
    start_object(py, &inherited.worker).map_err(raised)?;
    let mut settings = wsgi_settings(py, &config, &listeners);
    let touched = touched_logs(py, &config, inherited).map_err(raised)?;
    let is_python = Arc::new(AtomicBool::new(touched.has_access_log()));
    let access_log =
        worker_access_log::make(py, &config, &mut settings, age, inherited, &is_python)?;
    let hub = Arc::new(HubWatch::default());
    let shows_life = shows_life(py, &config, &scoreboard, index, &hub).map_err(raised)?;
    let heartbeat = start_heartbeat(&config, shows_life, fork_server)?;
    let interrupts = interrupts(&config);
    let app = WsgiApp::new(app, Arc::new(settings), scoreboard.clone(), index)
        .with_interrupts(interrupts.clone());
    let app = with_loggers(py, app, &config, inherited, (touched, is_python)).map_err(raised)?;
    let on_signal = signal_hook(Arc::clone(inherited), scoreboard.clone(), index);
    let script_name = app.script_name().as_bytes().to_vec();
    let on_timeout = timeout_hook(interrupts, heartbeat.queue());
    let (requested_exit, on_exception) = exception_hook();
    let setup = Setup {
        listeners,
        scoreboard: Arc::clone(&scoreboard),
        slot: index,
        signals: Some(signals),
        interrupts: Some(wakeups),
        booted: Some(notifier),
        parent: Some(parent.as_raw()),
        max_requests,
        certificates,
        channels,
        script_name,
        server: server_header(py, &config),
        access_log,
        metrics: Statsd::new(&config),
        log: Some(inherited.logs),
        config: Arc::clone(&config),
    };
    let on_stuck = stuck_hook(inherited, &config, scoreboard.clone(), index);
    let mut exit = if let Some(library) = greenlets::library(&config) {
        let on_signal = (on_signal, green_worker::patience as HookPatience);
        let application = GreenApplication::new(app, library, on_signal, on_exception)?;
        green_worker::serve(py, setup, &Arc::new(application), &hub, on_stuck)?
    } else if config.workers.threads == 1 {
        let mut application = PythonApplication::new(app, on_signal, on_exception, on_timeout);
        let jobs = application.use_main_thread();
        main_thread::serve(py, setup, &Arc::new(application), &jobs, on_stuck)?
    } else {
        let application = PythonApplication::new(app, on_signal, on_exception, on_timeout);
        let (application, threads) = (Arc::new(application), config.workers.threads);
        let serve = || main_thread::serve_or_fail(setup, &application, threads);
        release(py, Reason::MainThread, serve)
    };
    python_logs::served();
    exit.stuck_threads += usize::from(heartbeat.stop(py) == ThreadEnd::Stuck);
    exit.code = requested_exit.code_after(exit.code);
    Ok(exit)
}

/// On the loop's thread: the main one does not come back.
fn stuck_hook(
    inherited: &Arc<Inherited>,
    config: &Arc<Config>,
    scoreboard: Arc<Scoreboard>,
    index: usize,
) -> impl FnOnce(Exit) + Send + 'static {
    let (inherited, config) = (Arc::clone(inherited), Arc::clone(config));
    move |exit| {
        Python::attach(|py| {
            let slot = scoreboard.slot(index);
            say_goodbye(py, &inherited, slot);
            leave(py, inherited.logs, exit, &config, slot);
        });
    }
}

/// An exception of the application's own signal handler ends the worker as it would end a program.
fn exception_hook() -> (Arc<RequestedExit>, crate::python::threads::ExceptionHook) {
    let requested_exit = Arc::new(RequestedExit::default());
    let noted = Arc::clone(&requested_exit);
    let on_exception = move |py: Python<'_>, error: PyErr| noted.on_exception(py, &error);
    (requested_exit, Box::new(on_exception))
}

/// Request hooks and loggers, as configured or as the application has changed them.
fn with_loggers(
    py: Python<'_>,
    app: WsgiApp,
    config: &Config,
    inherited: &Inherited,
    (touched, is_python): (Touched, Arc<AtomicBool>),
) -> PyResult<Arc<WsgiApp>> {
    let is_custom = !config.logging.is_built_in();
    let sees_exceptions = is_custom || touched.sees_exceptions;
    let logger = sees_exceptions.then(|| inherited.log.clone_ref(py));
    let logs_access = is_custom || touched.has_access_log();
    let app = app
        .with_request_hooks(request_hooks(py, config, logs_access, inherited)?)
        .with_logger(logger);
    let app = Arc::new(app);
    let later = match worker_access_log::logs_access(config) && !logs_access {
        true => request_hooks(py, config, true, inherited)?,
        false => None,
    };
    python_logs::serve(touched, is_python, Arc::clone(&app), later);
    Ok(app)
}

/// For `request_timeout` alone.
fn interrupts(config: &Config) -> Option<Arc<Interrupts>> {
    let threads = config.workers.threads;
    let limit = config.workers.request_timeout;
    // A greenlet is not a thread: the hub throws into it.
    let limit = limit.filter(|_| greenlets::library(config).is_none());
    limit.map(|_| Arc::new(Interrupts::new(threads)))
}

/// What shows that Python is alive, from the heartbeat's thread.
fn shows_life(
    py: Python<'_>,
    config: &Config,
    scoreboard: &Arc<Scoreboard>,
    index: usize,
    hub: &Arc<HubWatch>,
) -> PyResult<Box<dyn Fn() + Send>> {
    match greenlets::library(config) {
        Some(library) => green_worker::heartbeat(py, (config, library), scoreboard, index, hub),
        None => Ok(heartbeat(scoreboard, index, config.workers.threads == 1)),
    }
}

fn start_heartbeat(
    config: &Config,
    shows_life: Box<dyn Fn() + Send>,
    fork_server: Option<Pid>,
) -> std::io::Result<Heartbeat> {
    let below = QuietChild::new(fork_server);
    let shows_life = Box::new(move || {
        shows_life();
        Python::attach(python_logs::look);
        below.reap();
    });
    without_signals(|| Heartbeat::start(config.workers.timeout, shows_life))
}

/// As hooks have left it.
fn max_requests(py: Python<'_>, worker: &Py<PyAny>) -> PyResult<Option<u64>> {
    let most: i64 = worker.getattr(py, "max_requests")?.extract(py)?;
    let most = u64::try_from(most).unwrap_or(0).max(1);
    // `sys.maxsize` stands for none.
    Ok(Some(most).filter(|most| *most < i64::MAX as u64))
}

/// From now on the worker's object passes on what hooks set. One that a hook has told to stop stops.
fn start_object(py: Python<'_>, worker: &Py<PyAny>) -> PyResult<()> {
    let worker = worker.bind(py);
    store(worker, "_serves", true)?;
    if !worker.getattr("alive")?.is_truthy()? {
        let _ = signals::deliver(Signal::SIGTERM);
    }
    Ok(())
}

/// Which of the built-in logs' loggers the application has changed before the worker serves.
fn touched_logs(py: Python<'_>, config: &Config, inherited: &Inherited) -> PyResult<Touched> {
    if !config.logging.is_built_in() {
        return Ok(Touched::default());
    }
    let touched = Touched::look(py, &inherited.log)?;
    Ok(match worker_access_log::logs_access(config) {
        true => touched,
        false => touched.without_access_log(),
    })
}

/// What sees each request: hooks, and the access log of a custom logger.
fn request_hooks(
    py: Python<'_>,
    config: &Config,
    logs_access: bool,
    inherited: &Inherited,
) -> PyResult<Option<RequestHooks>> {
    RequestHooks::new(
        py,
        Arc::clone(&inherited.hooks),
        inherited.worker.clone_ref(py),
        logs_access.then(|| PythonAccessLog {
            logger: inherited.log.clone_ref(py),
            admits: worker_access_log::admits(config),
        }),
    )
}

/// What shows that Python is alive. With one thread nothing shows it but the end of a request, so that `timeout` bounds
/// each request's run, as in gunicorn's sync worker.
fn heartbeat(
    scoreboard: &Arc<Scoreboard>,
    index: usize,
    has_one_thread: bool,
) -> Box<dyn Fn() + Send> {
    let watch_slot = watch_slot(scoreboard, index);
    let scoreboard = scoreboard.clone();
    Box::new(move || {
        let slot = scoreboard.slot(index);
        let is_idle = slot.threads_busy() == 0;
        if !has_one_thread || is_idle {
            slot.python_heartbeat(monotonic_ms());
        }
        if has_one_thread && is_idle {
            poke_main_thread();
        }
        watch_slot();
    })
}

fn timeout_hook(interrupts: Option<Arc<Interrupts>>, queue: GilTaskQueue) -> TimeoutHook {
    Box::new(move |request| {
        if let Some(interrupts) = interrupts.clone() {
            let request = request.clone();
            queue.post(Box::new(move |py| interrupts.interrupt(py, &request)));
        }
    })
}

/// What the worker does about its signals beside what the event loop does.
fn signal_hook(
    inherited: Arc<Inherited>,
    scoreboard: Arc<Scoreboard>,
    index: usize,
) -> crate::python::threads::SignalHook {
    let is_leaving = AtomicBool::new(false);
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
                log_running(scoreboard.slot(index));
                Hook::WorkerAbort
            }
            _ => return,
        };
        // The signal may come by the kernel, from the application's handler and by the slot's note.
        if is_leaving.swap(true, Ordering::Relaxed) {
            return;
        }
        let requests = scoreboard.slot(index).requests();
        Python::attach(|py| {
            leaving(py, &inherited.worker, requests);
            if let Err(reason) = inherited.hooks.call(py, hook, (&inherited.worker,)) {
                log::error!("{reason}");
            }
        });
    })
}
