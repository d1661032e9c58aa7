//! The pool's threads as Python sees them: ordinary `threading.Thread` objects that run our loop.
//!
//! They are named `ferricorn-thread_N`, daemonic, and have the platform's full stack, so that thread-locals, tracers,
//! profilers and `threading.enumerate()` see nothing unusual, and deep recursion meets the interpreter's limit before
//! the stack's end.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::pool::{Application, Pool, PoolThread, ThreadStartError, TimedOutRequest};

use super::fork_guard::end_child;
use super::wsgi::WsgiApp;

/// Called on the event loop's thread, not attached, with the number of a signal that the worker passes on.
pub type SignalHook = Box<dyn Fn(i32) + Send + Sync>;

/// Called on the event loop's thread with a request that runs too long; must not wait.
pub type TimeoutHook = Box<dyn Fn(&TimedOutRequest) + Send + Sync>;

/// The WSGI application as the pool runs it.
pub struct PythonApplication {
    app: Arc<WsgiApp>,
    on_signal: SignalHook,
    on_timeout: TimeoutHook,
}

impl std::fmt::Debug for PythonApplication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PythonApplication")
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}

impl PythonApplication {
    /// Run `app`; signals that are not the loop's alone go to `on_signal`, requests that run too long to `on_timeout`.
    pub fn new(app: Arc<WsgiApp>, on_signal: SignalHook, on_timeout: TimeoutHook) -> Self {
        Self {
            app,
            on_signal,
            on_timeout,
        }
    }
}

impl Application for PythonApplication {
    fn start_threads(&self, pool: &Arc<Pool>) -> Result<(), ThreadStartError> {
        Python::attach(|py| {
            for index in 0..pool.thread_count() {
                start_thread(py, index, self.app.clone(), PoolThread::register(pool))?;
            }
            Ok(())
        })
        .map_err(|error: PyErr| ThreadStartError(error.into()))
    }

    /// On a free-threaded interpreter they do.
    fn is_parallel(&self) -> bool {
        let has_gil = Python::attach(|py| {
            let sys = py.import("sys")?;
            match sys.getattr_opt("_is_gil_enabled")? {
                Some(ask) => ask.call0()?.is_truthy(),
                None => Ok(true),
            }
        });
        !has_gil.unwrap_or(true)
    }

    fn on_interrupt(&self) {
        Python::attach(|py| {
            // The application's own signal handler raised: its exception has nowhere else to go.
            let handled = py.check_signals();
            end_child(py, handled.as_ref().err());
            if let Err(error) = handled {
                log::error!(
                    "Exception in a signal handler\n{}",
                    super::traceback::format(py, &error)
                );
            }
        });
    }

    fn on_signal(&self, signal: i32) {
        (self.on_signal)(signal);
    }

    fn on_request_timeout(&self, request: &TimedOutRequest) {
        (self.on_timeout)(request);
    }
}

fn start_thread(
    py: Python<'_>,
    index: usize,
    app: Arc<WsgiApp>,
    thread: PoolThread,
) -> PyResult<()> {
    let body = Bound::new(
        py,
        ThreadMain {
            app,
            thread: Mutex::new(Some(thread)),
        },
    )?;
    let options = PyDict::new(py);
    options.set_item("target", body)?;
    options.set_item("name", format!("ferricorn-thread_{index}"))?;
    options.set_item("daemon", true)?;
    let thread = py
        .import("threading")?
        .getattr("Thread")?
        .call((), Some(&options))?;
    thread.call_method0("start")?;
    Ok(())
}

/// What a pool thread's `threading.Thread` runs.
#[pyclass(frozen, module = "ferricorn", name = "PoolThread")]
#[derive(Debug)]
struct ThreadMain {
    app: Arc<WsgiApp>,
    /// Taken by the thread when it starts.
    thread: Mutex<Option<PoolThread>>,
}

#[pymethods]
impl ThreadMain {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match thread {
            Some(thread) => self.app.run_thread(py, &thread),
            None => Ok(()),
        }
    }
}
