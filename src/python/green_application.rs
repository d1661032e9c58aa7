//! The WSGI application where requests are greenlets: what the event loop calls, and what it tells the hub's thread.
//!
//! The loop never attaches for that. It pushes into the inbox and wakes the hub, which looks ([`HubInbox`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::queue::SegQueue;
use pyo3::prelude::*;

use crate::pool::{Application, HubWakeup, Pool, PoolThread, ThreadStartError, TimedOutRequest};

use super::gil::{Reason, release};
use super::green;
use super::green_pool::GreenPool;
use super::hub_call::HubCall;
use super::threads::{ExceptionHook, SignalHook};
use super::wsgi::{GreenRequests, WsgiApp};

/// The WSGI application as a pool of greenlets runs it.
pub struct GreenApplication {
    app: Arc<WsgiApp>,
    patience: HookPatience,
    on_exception: Arc<ExceptionHook>,
    place: Sender<Option<Places>>,
    arrives: Receiver<Option<Places>>,
    inbox: Arc<HubInbox>,
    has_begun: OnceLock<()>,
}

pub(super) type Places = (Arc<Pool>, Vec<PoolThread>);

/// For how long the event loop waits until the hub begins with what is to be done about a signal; `None`: the loop does it.
pub type HookPatience = fn(i32) -> Option<Duration>;

/// What the event loop's thread tells the hub's.
pub(super) struct HubInbox {
    wakeup: Arc<HubWakeup>,
    timed_out: SegQueue<TimedOutRequest>,
    calls: SegQueue<Arc<HubCall>>,
    on_signal: SignalHook,
    /// The greenlets that still run are to be killed.
    must_end: AtomicBool,
    /// The hub's thread has left the pool.
    has_left: Mutex<bool>,
    left: Condvar,
}

impl std::fmt::Debug for GreenApplication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GreenApplication")
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}

impl GreenApplication {
    /// Run `app`; signals that are not the loop's alone go to `on_signal`, exceptions of the application's signal
    /// handlers and of its greenlets that end programs to `on_exception`.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new(
        app: Arc<WsgiApp>,
        (on_signal, patience): (SignalHook, HookPatience),
        on_exception: ExceptionHook,
    ) -> std::io::Result<Self> {
        let (place, arrives) = bounded(2);
        let inbox = HubInbox {
            wakeup: Arc::new(HubWakeup::new()?),
            timed_out: SegQueue::new(),
            calls: SegQueue::new(),
            on_signal,
            must_end: AtomicBool::new(false),
            has_left: Mutex::new(false),
            left: Condvar::new(),
        };
        Ok(Self {
            app,
            patience,
            on_exception: Arc::new(on_exception),
            place,
            arrives,
            inbox: Arc::new(inbox),
            has_begun: OnceLock::new(),
        })
    }

    /// On the interpreter's main thread: turn the hub until the pool is closed and its greenlets have ended. `on_turn` is
    /// called at each `period` by the hub.
    ///
    /// # Errors
    /// gevent cannot be used.
    pub fn run_here(
        &self,
        py: Python<'_>,
        on_turn: impl Fn() + Send + 'static,
        period: Duration,
    ) -> PyResult<()> {
        let arrives = &self.arrives;
        let Ok(Some((pool, threads))) = release(py, Reason::MainThread, || arrives.recv()) else {
            return Ok(());
        };
        green::install(py, &self.inbox.wakeup)?;
        let places = GreenPool::new(
            GreenRequests::new(Arc::clone(&self.app)),
            (pool, threads),
            Arc::clone(&self.inbox),
            Arc::clone(&self.on_exception),
            Box::new(on_turn),
        );
        let served = Bound::new(py, places).and_then(|places| {
            let served = green::module(py)?.call_method1("serve", (&places, period.as_secs_f64()));
            places.borrow().abandon();
            served.map(drop)
        });
        let mut has_left = self.inbox.has_left();
        *has_left = true;
        self.inbox.left.notify_all();
        drop(has_left);
        served
    }

    /// On the event loop's thread: kill the greenlets that still run. Returns whether the main thread has left the pool
    /// within `patience`.
    pub fn end_greenlets(&self, patience: Duration) -> bool {
        if self.has_begun.get().is_none() {
            return false;
        }
        self.inbox.must_end.store(true, Ordering::Release);
        self.inbox.wakeup.wake();
        let waited =
            self.inbox
                .left
                .wait_timeout_while(self.inbox.has_left(), patience, |has_left| !*has_left);
        let (has_left, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *has_left
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

impl HubInbox {
    fn has_left(&self) -> MutexGuard<'_, bool> {
        self.has_left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wakeup(&self) -> &HubWakeup {
        &self.wakeup
    }

    pub(super) fn next_timed_out(&self) -> Option<TimedOutRequest> {
        self.timed_out.pop()
    }

    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// In a greenlet: a hook may switch.
    pub(super) fn run_calls(&self) {
        while let Some(call) = self.calls.pop() {
            call.run(|signal| (self.on_signal)(signal));
        }
    }

    pub(super) fn must_end(&self) -> bool {
        self.must_end.load(Ordering::Acquire)
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
        Some(Arc::clone(&self.inbox.wakeup))
    }

    /// The interpreter runs its handlers as soon as the hub turns.
    fn on_interrupt(&self) {
        self.inbox.wakeup.wake();
    }

    fn on_signal(&self, signal: i32) {
        let turns = self.has_begun() && !*self.inbox.has_left();
        if let Some(patience) = (self.patience)(signal).filter(|_| turns) {
            let call = Arc::new(HubCall::new(signal));
            self.inbox.calls.push(Arc::clone(&call));
            self.inbox.wakeup.wake();
            if call.wait(patience) {
                return;
            }
        }
        (self.inbox.on_signal)(signal);
    }

    fn on_request_timeout(&self, request: &TimedOutRequest) {
        self.inbox.timed_out.push(request.clone());
        self.inbox.wakeup.wake();
    }
}
