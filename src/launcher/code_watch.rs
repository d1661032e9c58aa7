//! `--reload` in a worker: a thread that watches what the worker has imported, and ends it when that changes.
//!
//! Each worker watches for itself, because each knows what it has imported. The arbiter starts another in its place, which
//! imports the code as it is then. The thread runs from before the application is loaded, so that what is saved during
//! a slow import is noticed; and when the application cannot be loaded the worker lives on with a page that shows why.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use pyo3::prelude::*;

use super::worker_signals::without_signals;
use crate::arbiter::signals;
use crate::config::Config;
use crate::fork_guard;
use crate::python::hooks::{Hook, Hooks};
use crate::python::native_thread::{NativeThread, ThreadEnd};
use crate::python::traceback::format as traceback;
use crate::reloader::{Files, Imported, Watcher, pause};

/// The thread, until it is stopped.
#[derive(Debug)]
pub(super) struct Reloader {
    stop: UnixStream,
    shared: Arc<Shared>,
    thread: NativeThread,
}

/// What the worker reports to the thread.
#[derive(Debug, Default)]
struct Shared {
    /// The application has been loaded, or cannot be.
    is_loaded: AtomicBool,
    /// Where the mistake may be mended that kept it from being loaded.
    mending: Mutex<Vec<PathBuf>>,
}

/// What the thread does its work with.
struct Duty {
    watcher: Watcher,
    extra_files: Vec<String>,
    stop: UnixStream,
    shared: Arc<Shared>,
    hooks: Arc<Hooks>,
    worker: Py<PyAny>,
}

/// In the arbiter, at the start: what the operator should see about the settings.
pub(super) fn warn(py: Python<'_>, config: &Config) {
    if !config.debugging.reload {
        return;
    }
    if config.app.preload_app {
        log::warn!(
            "--reload has no effect with --preload: the workers share what the master has imported."
        );
    }
    let entries = config.debugging.reload_extra_files.clone();
    let unmatched: PyResult<Vec<String>> = helper(py, "unmatched", (entries,));
    for pattern in unmatched.unwrap_or_default() {
        log::warn!("Pattern {pattern} currently matches no files.");
    }
}

impl Reloader {
    /// `None` when there is nothing to watch, or no way to.
    pub(super) fn start(
        py: Python<'_>,
        config: &Config,
        hooks: &Arc<Hooks>,
        worker: &Py<PyAny>,
    ) -> Option<Self> {
        if !config.debugging.reload || config.app.preload_app {
            return None;
        }
        match Self::try_start(py, config, hooks, worker) {
            Ok(reloader) => {
                log::warn!("Reloader is on. Use in development only!");
                Some(reloader)
            }
            Err(error) => {
                log::error!("Code is not reloaded: {error}");
                None
            }
        }
    }

    fn try_start(
        py: Python<'_>,
        config: &Config,
        hooks: &Arc<Hooks>,
        worker: &Py<PyAny>,
    ) -> io::Result<Self> {
        let watcher = Watcher::new(config.debugging.reload_engine)?;
        log::debug!("Files are watched with {}", watcher.engine());
        let (stop, stopped) = UnixStream::pair()?;
        fork_guard::register(&stop);
        fork_guard::register(&stopped);
        let shared = Arc::new(Shared::default());
        let raised = |error: PyErr| io::Error::other(traceback(py, &error));
        py.import(HELPER)
            .and_then(|module| module.call_method0("start"))
            .map_err(raised)?;
        let mut duty = Duty {
            watcher,
            extra_files: config.debugging.reload_extra_files.clone(),
            stop: stopped,
            shared: Arc::clone(&shared),
            hooks: Arc::clone(hooks),
            worker: worker.clone_ref(py),
        };
        // What there is now is what changes are measured by.
        let files = duty.files();
        duty.watcher.look(&files);
        let thread =
            without_signals(|| NativeThread::spawn("ferricorn-reload", move || duty.run()))?;
        Ok(Self {
            stop,
            shared,
            thread,
        })
    }

    /// The application was loaded.
    pub(super) fn loaded(&self) {
        self.shared.is_loaded.store(true, Ordering::Relaxed);
    }

    /// The application could not be loaded: what to serve until a file has changed.
    pub(super) fn broken(&self, py: Python<'_>, reason: &str) -> PyResult<Py<PyAny>> {
        let directories: Vec<String> = helper(py, "beside", (reason,))?;
        *self
            .shared
            .mending
            .lock()
            .unwrap_or_else(PoisonError::into_inner) =
            directories.into_iter().map(PathBuf::from).collect();
        self.loaded();
        log::warn!("Waiting for a file to change.");
        let module = py.import(HELPER)?;
        Ok(module.getattr("Broken")?.call1((reason,))?.unbind())
    }

    /// Ends the thread, before the interpreter ends.
    #[must_use]
    pub(super) fn stop(self, py: Python<'_>) -> ThreadEnd {
        drop(self.stop);
        self.thread.join(py)
    }
}

impl Duty {
    fn run(mut self) {
        let Some(path) = self.next_change() else {
            return;
        };
        // One change is enough: another process takes it from there.
        // Not before the event loop has its signal pipe; until then the worker is still loading.
        while !signals::deliver(Signal::SIGTERM) {
            if !pause(TICK, self.stop.as_fd()) {
                return;
            }
        }
        log::info!("Worker reloading: {} modified", path.display());
        Python::attach(|py| {
            let worker = self.worker.clone_ref(py);
            if let Err(reason) = self.hooks.call(py, Hook::WorkerInt, (worker,)) {
                log::error!("{reason}");
            }
        });
    }

    /// Waits for a change, and then until nothing more changes: a save or a checkout may be many.
    fn next_change(&mut self) -> Option<PathBuf> {
        let changed = loop {
            let files = self.files();
            if let Some(path) = self.watcher.look(&files) {
                break path;
            }
            let goes_on = if self.shared.is_loaded.load(Ordering::Relaxed) {
                self.watcher.wait(self.stop.as_fd())
            } else {
                // While modules come one by one, none shall change before it was first looked at.
                pause(TICK, self.stop.as_fd())
            };
            if !goes_on {
                return None;
            }
        };
        for _ in 0..QUIET_TICKS_MAX {
            if !pause(TICK, self.stop.as_fd()) {
                return None;
            }
            let files = self.files();
            if self.watcher.look(&files).is_none() {
                break;
            }
        }
        Some(changed)
    }

    fn files(&mut self) -> Files {
        let mending = self
            .shared
            .mending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut extra = self.extra_files.clone();
        let code = |directory: &PathBuf| directory.join("*.py").display().to_string();
        extra.extend(mending.iter().map(code));
        let found = Python::attach(|py| -> PyResult<Files> {
            let modules: Vec<(PathBuf, Option<(i64, u64)>)> = helper(py, "modules", ())?;
            let modules = modules
                .into_iter()
                .map(|(path, stamp)| Imported { path, stamp });
            Ok(Files {
                modules: modules.collect(),
                matched: helper(py, "matched", (extra,))?,
            })
        });
        self.watcher.expect(&mending);
        let directories: Vec<PathBuf> = self
            .extra_files
            .iter()
            .filter_map(|entry| Path::new(entry).parent().map(Path::to_owned))
            .filter(|directory| directory.is_dir())
            .collect();
        self.watcher.expect(&directories);
        found.unwrap_or_else(|error| {
            log::debug!("Files not listed: {error}");
            Files::default()
        })
    }
}

fn helper<'py, T: for<'a> FromPyObject<'a, 'py, Error = PyErr>>(
    py: Python<'py>,
    name: &str,
    arguments: impl pyo3::call::PyCallArgs<'py>,
) -> PyResult<T> {
    py.import(HELPER)?.call_method1(name, arguments)?.extract()
}

const HELPER: &str = "ferricorn._reload";
const TICK: Duration = Duration::from_millis(100);
/// A program that writes files without end is not waited for.
const QUIET_TICKS_MAX: u32 = 20;
