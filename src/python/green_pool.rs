//! The pool whose jobs are greenlets: one hub, on the interpreter's main thread, has all its places.
//!
//! `ferricorn/_gevent.py` or `_eventlet.py` turns the hub. It takes a job by `GreenPool::take`, starts a greenlet for it that calls
//! `GreenPool::run`, and says `GreenPool::over` when that has ended, however it has.
//!
//! Everything here runs on the main thread; the event loop calls `green_application.rs`. A greenlet may
//! switch wherever the application's code runs, and nowhere else: `RefCell`s and `Cell`s here are borrowed between two
//! calls into Python and never across one, and a place's [`PoolThread`] is shared (`Rc`), so that no greenlet holds an
//! exclusive reference while another runs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::pool::{Job, NextJob, Pool, PoolThread, Reply};

use super::green;
use super::hub_inbox::HubInbox;
use super::interrupts::RequestTimeout;
use super::threads::ExceptionHook;
use super::wsgi::GreenRequests;

/// [`GreenPool::take`] found no job, or no free place, or there will be no more jobs.
const NOTHING: isize = -1;
const CLOSED: isize = -2;

/// A pool, and all its places.
pub(super) type Places = (Arc<Pool>, Vec<PoolThread>);

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

/// What the main thread hands to the library's module.
#[pyclass(frozen, unsendable, module = "ferricorn", name = "GreenPool")]
pub(super) struct GreenPool {
    requests: GreenRequests,
    pool: Arc<Pool>,
    places: Box<[Place]>,
    free: RefCell<Vec<usize>>,
    is_closed: Cell<bool>,
    inbox: Arc<HubInbox>,
    on_exception: Arc<ExceptionHook>,
    on_turn: Box<dyn Fn()>,
}

impl GreenPool {
    pub(super) fn new(
        requests: GreenRequests,
        (pool, threads): Places,
        inbox: Arc<HubInbox>,
        on_exception: Arc<ExceptionHook>,
        on_turn: Box<dyn Fn()>,
    ) -> Self {
        Self {
            requests,
            pool,
            free: RefCell::new((0..threads.len()).rev().collect()),
            places: threads.into_iter().map(Place::new).collect(),
            is_closed: Cell::new(false),
            inbox,
            on_exception,
            on_turn,
        }
    }

    /// The places that are free are given up; those that run greenlets keep theirs until those end.
    fn close(&self) {
        self.is_closed.set(true);
        for index in self.free.take() {
            self.places[index].thread.take();
        }
    }

    /// The hub does not turn any more. What a greenlet still holds stays with it.
    pub(super) fn abandon(&self) {
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
        self.inbox.wakeup().descriptor()
    }

    /// Before a look.
    fn begin_look(&self) {
        self.inbox.wakeup().begin_look();
    }

    /// A look has raised: there is another.
    fn look_again(&self) {
        self.inbox.wakeup().wake();
    }

    /// The number of a greenlet that need not wait any more.
    fn next_due(&self) -> Option<u64> {
        green::next_due()
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
            let request = self.inbox.next_timed_out()?;
            let thread = self.places.get(request.thread)?.thread();
            if thread.is_some_and(|thread| thread.token() == request.token) {
                return Some((request.thread, request.request));
            }
            log::info!("It has ended in the meantime: {}", request.request);
        }
    }

    /// What is thrown into its greenlet, after its stack is logged.
    fn timeout_of(&self, py: Python<'_>, index: usize, request: &str, stack: &str) -> Py<PyAny> {
        log::error!(
            "Stack of greenlet {index} at its timeout, in {request}:\n{}",
            stack.trim_end()
        );
        py.get_type::<RequestTimeout>().into_any().unbind()
    }

    /// Whether a signal's hook is to be called.
    fn has_calls(&self) -> bool {
        self.inbox.has_calls()
    }

    /// Call the hooks, in a greenlet.
    fn run_calls(&self) {
        self.inbox.run_calls();
    }

    /// Whether a task for Python waits, and no greenlet runs them.
    fn has_tasks(&self) -> bool {
        self.inbox.has_tasks()
    }

    /// Run the tasks, in a greenlet.
    fn run_tasks(&self, py: Python<'_>) {
        self.inbox.run_tasks(py);
    }

    /// Whether the greenlets that still run are to be killed.
    fn must_end(&self) -> bool {
        self.inbox.must_end()
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
