//! The WSGI application where requests are greenlets: what the event loop calls, and the main thread's part until the hub turns.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use pyo3::prelude::*;

use crate::config::GreenLibrary;
use crate::pool::{Application, HubWakeup, Pool, PoolThread, ThreadStartError, TimedOutRequest};

use super::gil::{Reason, release};
use super::green;
use super::green_pool::{GreenPool, Places};
use super::heartbeat::{GilTask, TaskRunner, set_runner};
use super::hub_inbox::HubInbox;
use super::hub_watch::HubWatch;
use super::threads::{ExceptionHook, SignalHook};
use super::wsgi::{GreenRequests, WsgiApp};

pub use super::hub_inbox::HookPatience;

/// The hub's thread as what runs tasks for Python.
struct HubTasks {
    inbox: Arc<HubInbox>,
    watch: Arc<HubWatch>,
    stalled_after: Duration,
}

impl TaskRunner for HubTasks {
    fn post(&self, task: GilTask) -> bool {
        self.inbox.push_task(task)
    }

    fn is_stalled(&self) -> bool {
        let blocked = self.watch.blocked(Instant::now());
        blocked.is_some_and(|blocked| blocked > self.stalled_after)
    }
}

/// The WSGI application as a pool of greenlets runs it.
pub struct GreenApplication {
    app: Arc<WsgiApp>,
    library: GreenLibrary,
    on_exception: Arc<ExceptionHook>,
    place: Sender<Option<Places>>,
    arrives: Receiver<Option<Places>>,
    inbox: Arc<HubInbox>,
    has_begun: OnceLock<()>,
}

impl std::fmt::Debug for GreenApplication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GreenApplication")
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}

impl GreenApplication {
    /// Run `app` on greenlets of `library`; signals that are not the loop's alone go to `on_signal`, exceptions of the application's signal
    /// handlers and of its greenlets that end programs to `on_exception`.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new(
        app: Arc<WsgiApp>,
        library: GreenLibrary,
        (on_signal, patience): (SignalHook, HookPatience),
        on_exception: ExceptionHook,
    ) -> std::io::Result<Self> {
        let (place, arrives) = bounded(2);
        Ok(Self {
            app,
            library,
            on_exception: Arc::new(on_exception),
            place,
            arrives,
            inbox: Arc::new(HubInbox::new(on_signal, patience)?),
            has_begun: OnceLock::new(),
        })
    }

    /// On the interpreter's main thread: turn the hub until the pool is closed and its greenlets have ended. `on_turn` is
    /// called at each `period` by the hub.
    ///
    /// # Errors
    /// The library cannot be used.
    pub fn run_here(
        &self,
        py: Python<'_>,
        on_turn: impl Fn() + Send + 'static,
        period: Duration,
    ) -> PyResult<()> {
        let arrives = &self.arrives;
        let Ok(Some(places)) = release(py, Reason::MainThread, || arrives.recv()) else {
            return Ok(());
        };
        green::install(py, self.library, self.inbox.wakeup())?;
        let pool = GreenPool::new(
            GreenRequests::new(Arc::clone(&self.app)),
            places,
            Arc::clone(&self.inbox),
            Arc::clone(&self.on_exception),
            Box::new(on_turn),
        );
        let served = Bound::new(py, pool).and_then(|pool| {
            let served = green::module(py, self.library)?
                .call_method1("serve", (&pool, period.as_secs_f64()));
            pool.borrow().abandon();
            served.map(drop)
        });
        self.inbox.leave();
        served
    }

    /// Before the loop begins: tasks for Python are the hub's from now on. It turns at each `period`, which `watch` knows.
    pub fn take_tasks(&self, watch: &Arc<HubWatch>, period: Duration) {
        set_runner(Some(Arc::new(HubTasks {
            inbox: Arc::clone(&self.inbox),
            watch: Arc::clone(watch),
            stalled_after: period * 2,
        })));
    }

    /// The hub turns no longer: what tasks are left are run here, on its thread.
    pub fn leave_tasks(&self, py: Python<'_>) {
        set_runner(None);
        self.inbox.run_tasks(py);
    }

    /// On the event loop's thread: kill the greenlets that still run. Returns whether the main thread has left the pool
    /// within `patience`.
    pub fn end_greenlets(&self, patience: Duration) -> bool {
        self.has_begun() && self.inbox.end_greenlets(patience)
    }

    /// The main thread has become the pool's.
    pub fn has_begun(&self) -> bool {
        self.has_begun.get().is_some()
    }

    /// The loop has ended, or has never begun: a main thread that still waits has nothing to wait for.
    pub fn release_main_thread(&self) {
        let _ = self.place.try_send(None);
    }
}

impl Application for GreenApplication {
    fn start_threads(&self, pool: &Arc<Pool>) -> Result<(), ThreadStartError> {
        let threads = (0..pool.thread_count()).map(|_| PoolThread::register(pool));
        let places = (Arc::clone(pool), threads.collect());
        self.has_begun.get_or_init(|| ());
        self.place
            .try_send(Some(places))
            .map_err(|_| ThreadStartError("the main thread has left".into()))
    }

    /// One that waits holds none of the others up.
    fn is_parallel(&self) -> bool {
        true
    }

    fn hub(&self) -> Option<Arc<HubWakeup>> {
        Some(Arc::clone(self.inbox.wakeup()))
    }

    /// The interpreter runs its handlers as soon as the hub turns.
    fn on_interrupt(&self) {
        self.inbox.wakeup().wake();
    }

    fn on_signal(&self, signal: i32) {
        self.inbox.on_signal(signal, self.has_begun());
    }

    fn on_request_timeout(&self, request: &TimedOutRequest) {
        self.inbox.push_timed_out(request.clone());
    }
}
