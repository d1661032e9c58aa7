//! The pool's threads as Python sees them: ordinary `threading.Thread` objects that run our loop.
//!
//! They are named `ferricorn-thread_N`, no daemons, and have the platform's full stack, so that thread-locals, tracers,
//! profilers and `threading.enumerate()` see nothing unusual, and deep recursion meets the interpreter's limit before
//! the stack's end.
//!
//! A pool of one thread has none of its own: the interpreter's main thread, where the application was imported, runs
//! the requests, as in gunicorn's sync worker. `SIGALRM`, event loops, SQLite handles, thread-locals and context
//! variables that were made at import then work in a view.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crossbeam::channel::{Receiver, Sender, bounded};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::pool::{
    Application, Pool, PoolThread, Reason as WakeReason, ThreadStartError, TimedOutRequest,
};

use super::fork_guard::{end_child, restore_wakeup};
use super::gil::{Reason, has_no_gil, release};
use super::traceback;
use super::wsgi::WsgiApp;

/// Called on the event loop's thread, not attached, with the number of a signal that the worker passes on.
pub type SignalHook = Box<dyn Fn(i32) + Send + Sync>;

/// Called on the interpreter's main thread with what a signal handler of the application has raised.
pub type ExceptionHook = Box<dyn Fn(Python<'_>, PyErr) + Send + Sync>;

/// Called on the event loop's thread with a request that runs too long; must not wait.
pub type TimeoutHook = Box<dyn Fn(&TimedOutRequest) + Send + Sync>;

/// The WSGI application as the pool runs it.
pub struct PythonApplication {
    app: Arc<WsgiApp>,
    on_signal: SignalHook,
    on_exception: ExceptionHook,
    on_timeout: TimeoutHook,
    main_thread: Option<MainThread>,
}

/// Where the main thread is the pool's: a moment between two requests, also when none comes. It looks after what only
/// the main thread can, such as a wake-up descriptor that `asyncio` has taken out.
pub fn poke_main_thread() {
    if let Some(pool) = MAIN_THREAD_POOL.get().and_then(Weak::upgrade) {
        IS_POKED.store(true, Ordering::Relaxed);
        pool.notify_one(WakeReason::Signal);
    }
}

static MAIN_THREAD_POOL: OnceLock<Weak<Pool>> = OnceLock::new();
static IS_POKED: AtomicBool = AtomicBool::new(false);

/// What the main thread waits for.
#[derive(Debug)]
pub struct MainThreadJobs(Receiver<Option<PoolThread>>);

/// The interpreter's main thread, which waits to be the pool's only one.
#[derive(Debug)]
struct MainThread {
    /// `None` is said when there is nothing to run.
    place: Sender<Option<PoolThread>>,
    pool: OnceLock<Arc<Pool>>,
}

impl std::fmt::Debug for PythonApplication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PythonApplication")
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}

impl PythonApplication {
    /// Run `app`; signals that are not the loop's alone go to `on_signal`, exceptions of the application's signal
    /// handlers to `on_exception`, requests that run too long to `on_timeout`.
    pub fn new(
        app: Arc<WsgiApp>,
        on_signal: SignalHook,
        on_exception: ExceptionHook,
        on_timeout: TimeoutHook,
    ) -> Self {
        Self {
            app,
            on_signal,
            on_exception,
            on_timeout,
            main_thread: None,
        }
    }

    /// The calling thread, which is the interpreter's main one, is to be the pool's only thread; what it runs comes by
    /// what this returns, for [`Self::run_here`].
    pub fn use_main_thread(&mut self) -> MainThreadJobs {
        let (place, arrives) = bounded(2);
        let pool = OnceLock::new();
        self.main_thread = Some(MainThread { place, pool });
        MainThreadJobs(arrives)
    }

    /// The loop has ended, or has never begun: a main thread that still waits has nothing to wait for.
    pub fn release_main_thread(&self) {
        if let Some(main) = &self.main_thread {
            let _ = main.place.try_send(None);
        }
    }

    /// The main thread has become the pool's.
    pub fn has_main_thread(&self) -> bool {
        let main = self.main_thread.as_ref();
        main.is_some_and(|main| main.pool.get().is_some())
    }

    /// Run jobs on the calling thread, once the loop has begun, until there are no more.
    ///
    /// # Errors
    /// The interpreter had no memory for what a thread needs.
    pub fn run_here(&self, py: Python<'_>, jobs: &MainThreadJobs) -> PyResult<()> {
        let Ok(Some(thread)) = release(py, Reason::MainThread, || jobs.0.recv()) else {
            return Ok(());
        };
        self.app
            .run_thread(py, &thread, || self.run_signal_handlers(py))
    }

    fn run_signal_handlers(&self, py: Python<'_>) {
        if IS_POKED.load(Ordering::Relaxed) && self.has_main_thread() {
            IS_POKED.store(false, Ordering::Relaxed);
            if let Err(error) = restore_wakeup(py) {
                log::error!("{}", traceback::format(py, &error));
            }
        }
        // The application's own signal handler raised: its exception has nowhere else to go.
        let handled = py.check_signals();
        end_child(py, handled.as_ref().err());
        if let Err(error) = handled {
            (self.on_exception)(py, error);
        }
    }
}

impl Application for PythonApplication {
    fn start_threads(&self, pool: &Arc<Pool>) -> Result<(), ThreadStartError> {
        if let Some(main) = &self.main_thread {
            main.pool.get_or_init(|| Arc::clone(pool));
            MAIN_THREAD_POOL.get_or_init(|| Arc::downgrade(pool));
            let thread = PoolThread::register(pool);
            return main
                .place
                .try_send(Some(thread))
                .map_err(|_| ThreadStartError("the main thread has left".into()));
        }
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
        Python::attach(has_no_gil)
    }

    /// Python runs signal handlers on its main thread only.
    fn on_interrupt(&self) {
        match &self.main_thread {
            None => Python::attach(|py| self.run_signal_handlers(py)),
            // It runs them when it next executes Python code, and before it parks.
            Some(main) => {
                if let Some(pool) = main.pool.get() {
                    pool.notify_one(WakeReason::Signal);
                }
            }
        }
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
    // A thread that a view starts inherits this, and is waited for at the end.
    options.set_item("daemon", false)?;
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
            Some(thread) => self.app.run_thread(py, &thread, || {}),
            None => Ok(()),
        }
    }
}
