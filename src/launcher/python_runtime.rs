//! What the arbiter needs of the interpreter: Python's fork, the server hooks, reading the settings again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::origin::{Settings, Sources};
use super::raw_env::RawEnv;
use super::{master_signals, python_fork, python_logs, reexec, relay, title};
use crate::arbiter::signals;
use crate::arbiter::{Forked, Hook, HookError, HookEvent, ReloadError, Runtime, WorkerInfo};
use crate::config::Config;
use crate::fork_guard::Succession;
use crate::logging::Log;
use crate::python::hooks::{self, Hooks};
use crate::python::loader::{self, AppLoadError};
use crate::python::traceback::format as traceback;

pub(super) struct PythonRuntime<'py> {
    py: Python<'py>,
    sources: Sources,
    config: Arc<Config>,
    hooks: Hooks,
    raw_env: RawEnv,
    /// Settings and hooks before the last reload, in case it comes to nothing.
    before: Option<(Arc<Config>, Hooks)>,
    objects: Objects,
    /// The objects that hooks get, by age: from `pre_fork` to `child_exit` it is the same one.
    workers: BTreeMap<u64, Py<PyAny>>,
}

/// What hooks see, but for the workers.
struct Objects {
    arbiter: Py<PyAny>,
    cfg: Py<PyAny>,
    log: Py<PyAny>,
    /// What the built-in one writes to, and Rust.
    logs: Log,
    /// The server writes its logs itself.
    logs_are_built_in: bool,
    /// The `.app`.
    application: Py<PyAny>,
}

impl Objects {
    fn new(
        py: Python<'_>,
        logs: Log,
        sources: &Sources,
        config: &Config,
        hooks: &Hooks,
    ) -> PyResult<Self> {
        let cfg = hooks::cfg(py, config, hooks)?;
        let log = make_logger(py, logs, &cfg, config)?;
        let application = match sources.application() {
            Some(application) => application.clone_ref(py),
            None => hooks::application(py, &cfg, config.app.wsgi_app.as_deref())?,
        };
        Ok(Self {
            arbiter: hooks::arbiter(py, &application, &cfg, &log)?,
            cfg,
            log,
            logs,
            logs_are_built_in: config.logging.is_built_in(),
            application,
        })
    }

    /// After a reload.
    fn update(&mut self, py: Python<'_>, config: &Config, hooks: &Hooks) -> PyResult<()> {
        self.cfg = hooks::cfg(py, config, hooks)?;
        let arbiter = self.arbiter.bind(py);
        hooks::store(arbiter, "cfg", &self.cfg)?;
        hooks::store(arbiter, "timeout", self.cfg.getattr(py, "timeout")?)?;
        hooks::store(arbiter, "address", self.cfg.getattr(py, "address")?)?;
        self.application.setattr(py, "cfg", &self.cfg)?;
        let before = self.log.getattr(py, "cfg")?;
        if let Err(error) = self.update_log(py, config) {
            // A logger that cannot be set up is no reason to stop a server that serves.
            self.log.call_method1(py, "setup", (before,))?;
            log::error!(
                "reloading the logger configuration failed, keeping the previous one\n{}",
                traceback(py, &error)
            );
        }
        Ok(())
    }

    fn update_log(&mut self, py: Python<'_>, config: &Config) -> PyResult<()> {
        if config.logging.is_built_in() == self.logs_are_built_in {
            return self.log.call_method1(py, "setup", (&self.cfg,)).map(drop);
        }
        self.log = make_logger(py, self.logs, &self.cfg, config)?;
        self.logs_are_built_in = config.logging.is_built_in();
        hooks::store(self.arbiter.bind(py), "log", &self.log)
    }
}

/// The logger that the settings ask for; from then on it is the one that Rust logs through.
fn make_logger(py: Python<'_>, logs: Log, cfg: &Py<PyAny>, config: &Config) -> PyResult<Py<PyAny>> {
    let is_built_in = config.logging.is_built_in();
    let log = hooks::logger(py, cfg, is_built_in)?;
    relay::install(logs, (!is_built_in).then(|| log.clone_ref(py)));
    python_logs::watch(py, logs, is_built_in.then_some(&log))?;
    Ok(log)
}

impl<'py> PythonRuntime<'py> {
    pub(super) fn new(
        py: Python<'py>,
        logs: Log,
        sources: Sources,
        config: Arc<Config>,
        hooks: Hooks,
        raw_env: RawEnv,
    ) -> PyResult<Self> {
        let objects = Objects::new(py, logs, &sources, &config, &hooks)?;
        Ok(Self {
            py,
            sources,
            config,
            hooks,
            raw_env,
            before: None,
            objects,
            workers: BTreeMap::new(),
        })
    }

    pub(super) fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The application, kept by the `.app` that workers have.
    pub(super) fn preload(&self) -> Result<(), AppLoadError> {
        loader::load_embedded(self.objects.application.bind(self.py)).map(drop)
    }

    pub(super) fn set_worker_title(&mut self, config: &Config) {
        self.set_title(&format!("worker [{}]", config.process.proc_name));
    }

    /// What a worker takes with it.
    pub(super) fn into_worker(mut self, age: u64) -> PyResult<Inherited> {
        let worker = match self.workers.remove(&age) {
            Some(worker) => worker,
            None => hooks::worker(self.py, &self.objects.arbiter, age)?,
        };
        hooks::store(worker.bind(self.py), "pid", std::process::id())?;
        Ok(Inherited {
            hooks: Arc::new(self.hooks),
            arbiter: self.objects.arbiter,
            logs: self.objects.logs,
            log: self.objects.log,
            worker,
        })
    }

    /// The worker's object, made at its first mention.
    fn worker(&mut self, info: WorkerInfo) -> PyResult<Py<PyAny>> {
        let worker = match self.workers.get(&info.age) {
            Some(worker) => worker.clone_ref(self.py),
            None => {
                let worker = hooks::worker(self.py, &self.objects.arbiter, info.age)?;
                self.workers.insert(info.age, worker.clone_ref(self.py));
                worker
            }
        };
        if let Some(pid) = info.pid {
            hooks::store(worker.bind(self.py), "pid", pid)?;
        }
        if info.aborted {
            hooks::store(worker.bind(self.py), "aborted", true)?;
        }
        Ok(worker)
    }

    /// Brings the arbiter's object up to date.
    fn update_arbiter(&mut self, event: &HookEvent<'_>) -> PyResult<()> {
        let workers = PyDict::new(self.py);
        for info in &event.workers {
            workers.set_item(info.pid, self.worker(*info)?)?;
        }
        let arbiter = self.objects.arbiter.bind(self.py);
        hooks::store(arbiter, "WORKERS", workers)?;
        hooks::store(arbiter, "num_workers", event.num_workers)?;
        let listeners = hooks::listeners(self.py, &event.listeners)?;
        hooks::store(arbiter, "LISTENERS", listeners)?;
        let youngest = match event.hook {
            Hook::PreFork(info) => Some(info.age),
            _ => event.workers.last().map(|info| info.age),
        };
        match youngest {
            Some(age) => hooks::store(arbiter, "worker_age", age),
            None => Ok(()),
        }
    }

    fn call(&mut self, event: &HookEvent<'_>) -> Result<(), HookError> {
        let hook = match event.hook {
            Hook::OnStarting => hooks::Hook::OnStarting,
            Hook::WhenReady => hooks::Hook::WhenReady,
            Hook::OnReload => hooks::Hook::OnReload,
            Hook::OnExit => hooks::Hook::OnExit,
            Hook::PreExec => hooks::Hook::PreExec,
            Hook::NworkersChanged { .. } => hooks::Hook::NworkersChanged,
            Hook::PreFork(_) => hooks::Hook::PreFork,
            Hook::ChildExit(_) => hooks::Hook::ChildExit,
        };
        let py = self.py;
        let raised = |error: PyErr| HookError {
            traceback: traceback(py, &error),
        };
        // Workers take what they see of the arbiter from the moment of their fork.
        if self.hooks.is_set(hook) || matches!(event.hook, Hook::PreFork(_)) {
            self.update_arbiter(event).map_err(raised)?;
        }
        // The worker's object is needed in the child, whether the hook is set or not.
        let worker = match event.hook {
            Hook::PreFork(info) | Hook::ChildExit(info) => Some(self.worker(info).map_err(raised)?),
            _ => None,
        };
        if let Hook::ChildExit(info) = event.hook {
            self.workers.remove(&info.age);
        }
        if !self.hooks.is_set(hook) {
            return Ok(());
        }
        let arbiter = self.objects.arbiter.clone_ref(py);
        let called = match (event.hook, worker) {
            (Hook::NworkersChanged { new, old }, _) => {
                self.hooks.call(py, hook, (arbiter, new, old))
            }
            (_, Some(worker)) => self.hooks.call(py, hook, (arbiter, worker)),
            (_, None) => self.hooks.call(py, hook, (arbiter,)),
        };
        called.map_err(|error| HookError {
            traceback: error.to_string(),
        })
    }

    /// The settings anew, as at the start: from the start directory, in the environment of then.
    fn read_again(&mut self) -> Result<Settings, ReloadError> {
        let raised = |error: PyErr| failed(&error);
        self.raw_env.restore(self.py).map_err(raised)?;
        let back = std::env::current_dir().map_err(|error| failed(&error))?;
        loader::enter_directory(self.py, &self.sources.start_directory).map_err(raised)?;
        let read = self.sources.read_again(self.py);
        match read {
            Ok(settings) => {
                self.move_into(&settings.config).map_err(raised)?;
                Ok(settings)
            }
            Err(end) => {
                // What the workers that go on rely on is put back.
                loader::enter_directory(self.py, &back).map_err(raised)?;
                self.raw_env
                    .apply(self.py, &self.config.app.raw_env)
                    .map_err(raised)?;
                let reason = end.message.unwrap_or_default();
                let reason = reason.trim().replace("\n\nError: ", "; ");
                Err(failed(&reason.replace("Error: ", "")))
            }
        }
    }

    /// Makes settings the current ones and returns those that were.
    fn adopt(&mut self, config: Arc<Config>, hooks: Hooks) -> PyResult<(Arc<Config>, Hooks)> {
        self.objects.update(self.py, &config, &hooks)?;
        let config = std::mem::replace(&mut self.config, config);
        let hooks = std::mem::replace(&mut self.hooks, hooks);
        Ok((config, hooks))
    }

    /// Environment, directory and logs as `config` wants them.
    fn move_into(&mut self, config: &Config) -> PyResult<()> {
        loader::enter(self.py, config)?;
        self.raw_env.apply(self.py, &config.app.raw_env)?;
        // A log that cannot be opened anew stays where it is, as in gunicorn.
        if let Err(error) = self.objects.logs.apply(config) {
            log::error!("{error}");
        }
        Ok(())
    }
}

impl Runtime for PythonRuntime<'_> {
    fn fork(&mut self) -> io::Result<Forked> {
        let forked = python_fork::fork(self.py, self.objects.logs)?;
        if let Forked::Child = forked {
            master_signals::forget(self.py, &self.objects.arbiter)
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
        Ok(forked)
    }

    fn fork_with_successor(
        &mut self,
        adopter: Pid,
        moved: &mut dyn FnMut(Pid),
    ) -> io::Result<Succession> {
        python_fork::fork_with_successor(self.py, self.objects.logs, adopter, moved)
    }

    fn call_hook(&mut self, event: &HookEvent<'_>) -> Result<(), HookError> {
        self.call(event)?;
        if let Hook::OnStarting = event.hook {
            master_signals::show(self.py, &self.objects.arbiter).map_err(|error| HookError {
                traceback: traceback(self.py, &error),
            })?;
        }
        Ok(())
    }

    fn reload(&mut self) -> Result<Arc<Config>, ReloadError> {
        let settings = self.read_again()?;
        for warning in &settings.config.warnings {
            log::warn!("{warning}");
        }
        let before = self.adopt(settings.config, settings.hooks);
        self.before = Some(before.map_err(|error| failed(&error))?);
        Ok(Arc::clone(&self.config))
    }

    fn undo_reload(&mut self) {
        let Some((config, hooks)) = self.before.take() else {
            return;
        };
        let restored = self.raw_env.restore(self.py);
        let moved = restored.and_then(|()| self.move_into(&config));
        if let Err(error) = moved.and_then(|()| self.adopt(config, hooks).map(drop)) {
            log::error!("{}", traceback(self.py, &error));
        }
    }

    fn reopen_logs(&mut self) {
        if let Err(error) = self.objects.logs.reopen() {
            log::error!("{error}");
        }
        hooks::reopen_files(self.py, &self.objects.log);
    }

    fn execute_again(&mut self, variables: &[(String, String)]) -> io::Error {
        let restored = self.raw_env.restore(self.py);
        let failed = restored
            .and_then(|()| reexec::execute(self.py, &self.sources.start_directory, variables));
        match failed {
            Ok(never) => match never {},
            Err(error) => io::Error::other(error.to_string()),
        }
    }

    fn set_title(&mut self, title: &str) {
        title::set_title(self.py, title);
    }

    fn wait(&mut self, blocking: &mut (dyn FnMut() + Send)) {
        let logs = self.objects.logs;
        self.py.detach(|| {
            blocking();
            logs.tick();
        });
        // A hook may have set a handler of its own.
        if let Err(error) = self.py.check_signals() {
            on_handler_error(self.py, &error);
        }
    }
}

/// A signal handler that a hook has set in the master raised. It would end a program, so it stops the server, in order.
fn on_handler_error(py: Python<'_>, error: &PyErr) {
    let is_exit = error.is_instance_of::<PySystemExit>(py);
    if !is_exit && !error.is_instance_of::<PyKeyboardInterrupt>(py) {
        log::error!("Exception in a signal handler\n{}", traceback(py, error));
    }
    let _ = signals::deliver(Signal::SIGTERM);
}

fn failed(reason: &dyn std::fmt::Display) -> ReloadError {
    ReloadError {
        reason: reason.to_string(),
    }
}

/// What a worker has of the arbiter's Python side.
pub(super) struct Inherited {
    pub(super) hooks: Arc<Hooks>,
    pub(super) arbiter: Py<PyAny>,
    pub(super) logs: Log,
    pub(super) log: Py<PyAny>,
    pub(super) worker: Py<PyAny>,
}
