//! The pool whose jobs are greenlets: one hub, on the interpreter's main thread, has all its places.
//!
//! `ferricorn/_green.py` turns the hub. It takes a job by `GreenPool::take`, starts a greenlet for it that calls
//! `GreenPool::run`, and says `GreenPool::over` when that has ended, however it has.
//!
//! Everything here runs on the main thread, but for what the event loop calls ([`GreenApplication`]). A greenlet may
//! switch wherever the application's code runs, and nowhere else: `RefCell`s and `Cell`s here are borrowed between two
//! calls into Python and never across one, and a place's [`PoolThread`] is shared (`Rc`), so that no greenlet holds an
//! exclusive reference while another runs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::queue::SegQueue;
use pyo3::prelude::*;

use crate::pool::{
    Application, HubWakeup, Job, NextJob, Pool, PoolThread, Reply, ThreadStartError,
    TimedOutRequest,
};

use super::gil::{Reason, release};
use super::green;
use super::interrupts::RequestTimeout;
use super::threads::{ExceptionHook, SignalHook};
use super::wsgi::{GreenRequests, WsgiApp};

/// [`GreenPool::take`] found no job, or no free place, or there will be no more jobs.
const NOTHING: isize = -1;
const CLOSED: isize = -2;

/// The WSGI application as a pool of greenlets runs it.
pub struct GreenApplication {
    app: Arc<WsgiApp>,
    on_signal: SignalHook,
    on_exception: Arc<ExceptionHook>,
    place: Sender<Option<Places>>,
    arrives: Receiver<Option<Places>>,
    shared: Arc<Shared>,
    has_begun: OnceLock<()>,
}

type Places = (Arc<Pool>, Vec<PoolThread>);

/// What the event loop's thread tells the hub's.
#[derive(Debug)]
struct Shared {
    wakeup: Arc<HubWakeup>,
    timed_out: SegQueue<TimedOutRequest>,
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
        on_signal: SignalHook,
        on_exception: ExceptionHook,
    ) -> std::io::Result<Self> {
        let (place, arrives) = bounded(2);
        let shared = Shared {
            wakeup: Arc::new(HubWakeup::new()?),
            timed_out: SegQueue::new(),
            must_end: AtomicBool::new(false),
            has_left: Mutex::new(false),
            left: Condvar::new(),
        };
        Ok(Self {
            app,
            on_signal,
            on_exception: Arc::new(on_exception),
            place,
            arrives,
            shared: Arc::new(shared),
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
        green::install(py, &self.shared.wakeup)?;
        let places = GreenPool {
            requests: GreenRequests::new(Arc::clone(&self.app)),
            pool,
            free: RefCell::new((0..threads.len()).rev().collect()),
            places: threads.into_iter().map(Place::new).collect(),
            is_closed: Cell::new(false),
            shared: Arc::clone(&self.shared),
            on_exception: Arc::clone(&self.on_exception),
            on_turn: Box::new(on_turn),
        };
        let served = Bound::new(py, places).and_then(|places| {
            let served = green::module(py)?.call_method1("serve", (&places, period.as_secs_f64()));
            places.borrow().abandon();
            served.map(drop)
        });
        let mut has_left = self.shared.has_left();
        *has_left = true;
        self.shared.left.notify_all();
        drop(has_left);
        served
    }

    /// On the event loop's thread: kill the greenlets that still run. Returns whether the main thread has left the pool
    /// within `patience`.
    pub fn end_greenlets(&self, patience: Duration) -> bool {
        if self.has_begun.get().is_none() {
            return false;
        }
        self.shared.must_end.store(true, Ordering::Release);
        self.shared.wakeup.wake();
        let waited =
            self.shared
                .left
                .wait_timeout_while(self.shared.has_left(), patience, |has_left| !*has_left);
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

impl Shared {
    fn has_left(&self) -> std::sync::MutexGuard<'_, bool> {
        self.has_left.lock().unwrap_or_else(PoisonError::into_inner)
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
        Some(Arc::clone(&self.shared.wakeup))
    }

    /// The interpreter runs its handlers as soon as the hub turns.
    fn on_interrupt(&self) {
        self.shared.wakeup.wake();
    }

    fn on_signal(&self, signal: i32) {
        (self.on_signal)(signal);
    }

    fn on_request_timeout(&self, request: &TimedOutRequest) {
        self.shared.timed_out.push(request.clone());
        self.shared.wakeup.wake();
    }
}

/// Room for one greenlet.
#[derive(Debug)]
struct Place {
    /// `None` once the greenlet's end is the pool's.
    thread: RefCell<Option<Rc<PoolThread>>>,
    /// On its way from the queue to the greenlet.
    job: RefCell<Option<Box<Job>>>,
}

impl Place {
    fn new(thread: PoolThread) -> Self {
        Self {
            thread: RefCell::new(Some(Rc::new(thread))),
            job: RefCell::new(None),
        }
    }

    fn thread(&self) -> Option<Rc<PoolThread>> {
        self.thread.borrow().clone()
    }
}

/// What the main thread hands to `ferricorn._green`.
#[pyclass(frozen, unsendable, module = "ferricorn", name = "GreenPool")]
struct GreenPool {
    requests: GreenRequests,
    pool: Arc<Pool>,
    places: Box<[Place]>,
    free: RefCell<Vec<usize>>,
    is_closed: Cell<bool>,
    shared: Arc<Shared>,
    on_exception: Arc<ExceptionHook>,
    on_turn: Box<dyn Fn()>,
}

impl GreenPool {
    /// The places that are free are given up; those that run greenlets keep theirs until those end.
    fn close(&self) {
        self.is_closed.set(true);
        for index in self.free.take() {
            self.places[index].thread.take();
        }
    }

    /// The hub does not turn any more. What a greenlet still holds stays with it.
    fn abandon(&self) {
        self.close();
        for place in &self.places {
            if let Some(job) = place.job.take() {
                self.pool.send(Reply::Abort(job));
            }
            place.thread.take();
        }
    }
}

#[pymethods]
impl GreenPool {
    /// The descriptor that is readable when the hub is to look.
    fn descriptor(&self) -> i32 {
        self.shared.wakeup.descriptor()
    }

    /// Before a look.
    fn begin_look(&self) {
        self.shared.wakeup.begin_look();
    }

    /// The number of a greenlet that need not wait any more.
    fn next_due(&self) -> Option<u64> {
        self.shared.wakeup.next_due()
    }

    /// The place whose greenlet is to run the next job; or -1: no job or no place is there; or -2: no job will come.
    fn take(&self) -> isize {
        let index = self.free.borrow_mut().pop();
        let Some(index) = index else {
            return if self.is_closed.get() {
                CLOSED
            } else {
                NOTHING
            };
        };
        let place = &self.places[index];
        let next = place
            .thread()
            .map_or(NextJob::Closed, |one| one.try_next_job());
        if let NextJob::Job(job) = next {
            place.job.replace(Some(job));
            return isize::try_from(index).unwrap_or(NOTHING);
        }
        self.free.borrow_mut().push(index);
        if matches!(next, NextJob::Nothing) {
            return NOTHING;
        }
        self.close();
        CLOSED
    }

    /// A greenlet runs the job of its place.
    fn run(&self, py: Python<'_>, index: usize) {
        let place = &self.places[index];
        if let (Some(job), Some(thread)) = (place.job.take(), place.thread()) {
            self.requests.run(py, &thread, job);
            thread.end_job();
        }
    }

    /// The greenlet of a place has ended, perhaps before it has begun.
    fn over(&self, index: usize) {
        let place = &self.places[index];
        if let Some(job) = place.job.take() {
            self.pool.send(Reply::Abort(job));
            if let Some(thread) = place.thread() {
                thread.end_job();
            }
        }
        if self.is_closed.get() {
            place.thread.take();
        } else {
            self.free.borrow_mut().push(index);
        }
    }

    /// Whether buffers of responses that are written wait to be dropped.
    fn has_deferred_drops(&self) -> bool {
        self.pool.has_deferred_drops()
    }

    /// Drop them, in a greenlet: the `close()` of a file may switch.
    fn drop_deferred(&self) {
        self.pool.drop_deferred();
    }

    /// The place and the words of a request whose time is over and that still runs.
    fn next_timed_out(&self) -> Option<(usize, String)> {
        loop {
            let request = self.shared.timed_out.pop()?;
            let thread = self.places.get(request.thread)?.thread();
            if thread.is_some_and(|thread| thread.token() == request.token) {
                return Some((request.thread, request.request));
            }
            log::info!("It has ended meanwhile: {}", request.request);
        }
    }

    /// What is thrown into its greenlet, after its stack is logged.
    fn timeout_of(&self, py: Python<'_>, index: usize, request: &str, stack: &str) -> Py<PyAny> {
        log::error!(
            "Stack of greenlet {index} when its time was over, in {request}:\n{}",
            stack.trim_end()
        );
        py.get_type::<RequestTimeout>().into_any().unbind()
    }

    /// Whether the greenlets that still run are to be killed.
    fn must_end(&self) -> bool {
        self.shared.must_end.load(Ordering::Acquire)
    }

    /// The hub turns.
    fn heartbeat(&self) {
        (self.on_turn)();
    }

    /// An exception that ends programs has come to the main greenlet.
    fn raised(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        (self.on_exception)(py, PyErr::from_value(error));
    }
}
