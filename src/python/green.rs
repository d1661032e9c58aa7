//! Where requests are greenlets: how Rust code on a greenlet's stack waits, and which thread's stacks these are.
//!
//! A wait switches to the hub by a call into Python (`wait` of `ferricorn._gevent` and `ferricorn._eventlet`). Across that call the caller holds no
//! lock, no borrow and no exclusive reference to what another greenlet may use; what it has on its stack stays there.
//!
//! # The calls that may switch
//! All that run code of the application, its hooks or its logger, and the waits of the server itself:
//!
//! 1. the application, its result's `iter`, `next` and `close` (`wsgi/app.rs`, `wsgi/body.rs`), a file's `read`;
//! 2. `str`, `repr` and iteration of its objects: header lists, values that are logged, items that are no bytes, exceptions;
//! 3. hooks and loggers (`wsgi/request_hooks.rs`, `app.rs`, `launcher/relay.rs`);
//! 4. finalizers: where the last reference is dropped, and up to CPython 3.11 wherever an object is allocated;
//! 5. `Wait::until_called`: a window, and a stream that gives way (`wsgi/stream.rs`), a body (`wsgi/input.rs`), a response that memory waits for (`body.rs`).
//!
//! Why Rust frames may lie under a switch: greenlet copies a greenlet's part of the C stack away and back to the same
//! addresses, so what only that greenlet uses is there when it goes on. The rest is held by what no switch moves:
//! - the job is owned (`Box`), Python's objects are references that are counted, the pool's place is an `Rc`;
//! - a `RefCell` or `Cell` is borrowed between two such calls (`green_pool.rs`, `GreenRequests`), the maker of environs
//!   is taken out meanwhile, a response's state is replaced under its lock and filled outside (`start_response.rs`);
//! - a window and a streamed body are asked with a ticket, and the lock is released before the wait;
//! - no other thread borrows from the stack: the loop gets boxes and `Arc`s;
//! - the thread stays attached. `gil::release` on it runs Rust alone, and switches nothing; PyO3 counts attachments per
//!   thread, and each greenlet leaves as many as it has entered. A panic is caught in the greenlet that has it.
//!
//! `tests/python/test_gevent_switches.py` switches at random at each of 1 to 4, `test_gevent.py` waits at 5.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use crate::config::GreenLibrary;
use crate::pool::{ConnId, HubWakeup, Ticket};

use super::data_stacks;

/// The hub of the interpreter's main thread.
#[derive(Debug)]
pub(super) struct Hub {
    thread: ThreadId,
    wakeup: Arc<HubWakeup>,
    module: Py<PyModule>,
    is_called: Py<PyCFunction>,
    /// The tickets of waits that are not over, and whether each was called up. For the hub's thread alone.
    open: Mutex<HashMap<u64, bool>>,
    /// The stream that has sent a piece last, and since when no other one has. For the hub's thread alone.
    sender: Mutex<Option<(ConnId, Instant)>>,
}

/// A stream that sends for this long, and no other one does, lets other greenlets run.
const ALONE_MAX: Duration = Duration::from_millis(10);

static HUB: OnceLock<Hub> = OnceLock::new();

/// The calling thread, from now on, has a hub that `wakeup` wakes.
pub(super) fn install(
    py: Python<'_>,
    library: GreenLibrary,
    wakeup: &Arc<HubWakeup>,
) -> PyResult<()> {
    let module = module(py, library)?.unbind();
    let is_called = wrap_pyfunction!(is_called, py)?.unbind();
    data_stacks::keep(py);
    HUB.get_or_init(|| Hub {
        thread: thread::current().id(),
        wakeup: Arc::clone(wakeup),
        module,
        is_called,
        open: Mutex::default(),
        sender: Mutex::default(),
    });
    Ok(())
}

/// The hub, if the caller runs on its thread. Other threads of the application wait as threads do.
pub(super) fn here() -> Option<&'static Hub> {
    HUB.get().filter(|hub| hub.thread == thread::current().id())
}

/// Whether there is a hub, and the caller runs on another thread: what is patched is not for it.
pub fn is_elsewhere() -> bool {
    HUB.get()
        .is_some_and(|hub| hub.thread != thread::current().id())
}

/// The hub's look: the ticket of a wait that is not over and is called up.
pub(super) fn next_due() -> Option<u64> {
    let hub = HUB.get()?;
    loop {
        let number = hub.wakeup.next_due()?;
        if let Some(is_called) = hub.open().get_mut(&number) {
            *is_called = true;
            return Some(number);
        }
    }
}

/// For a greenlet that is about to yield: a finalizer may have let the hub look after the ticket was given away and before
/// the greenlet could be called up.
#[pyfunction]
fn is_called(number: u64) -> bool {
    HUB.get()
        .is_some_and(|hub| hub.open().get(&number) == Some(&true))
}

impl Hub {
    /// A greenlet is about to wait.
    pub(super) fn begin_wait(&'static self) -> Wait {
        let ticket = self.wakeup.ticket();
        self.open().insert(ticket.number(), false);
        Wait { hub: self, ticket }
    }

    /// The stream of `conn` has sent a piece at `now`. Returns whether it is to yield.
    pub(super) fn has_sent_alone(&self, conn: ConnId, now: Instant) -> bool {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *sender {
            Some((last, since)) if last == conn => since,
            _ => now,
        };
        let is_long = now.saturating_duration_since(since) > ALONE_MAX;
        *sender = Some((conn, if is_long { now } else { since }));
        is_long
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, bool>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A greenlet's wait, which is over when this is dropped.
#[derive(Debug)]
pub(super) struct Wait {
    hub: &'static Hub,
    ticket: Ticket,
}

impl Wait {
    /// For what is waited for.
    pub(super) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }

    /// Yield to the hub until the ticket is called up, for `patience` at most.
    ///
    /// # Errors
    /// What was thrown into the greenlet meanwhile: `GreenletExit`, a `Timeout`.
    pub(super) fn until_called(self, py: Python<'_>, patience: Option<Duration>) -> PyResult<()> {
        let patience = patience.map(|patience| patience.as_secs_f64());
        let arguments = (self.ticket.number(), patience, &self.hub.is_called);
        let module = self.hub.module.bind(py);
        module.call_method1(intern!(py, "wait"), arguments)?;
        Ok(())
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.hub.open().remove(&self.ticket.number());
    }
}

/// The hub's side of a library, in Python.
pub(super) fn module(py: Python<'_>, library: GreenLibrary) -> PyResult<Bound<'_, PyModule>> {
    match library {
        GreenLibrary::Gevent => py.import(intern!(py, "ferricorn._gevent")),
        GreenLibrary::Eventlet => py.import(intern!(py, "ferricorn._eventlet")),
    }
}

/// Before any code of the application: its blocking calls yield to the hub from now on. In a process that was forked
/// from one where this was done the hub begins anew.
///
/// # Errors
/// What the library has raised.
pub fn patch(
    py: Python<'_>,
    library: GreenLibrary,
    worker: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let own = worker.map(|worker| worker.getattr(intern!(py, "patch")));
    let own = own.transpose()?;
    module(py, library)?.call_method1(intern!(py, "patch"), (own,))?;
    Ok(())
}

/// Why this interpreter cannot run requests as greenlets, in a line. The library is not imported for that, nor
/// gevent-websocket, which `has_websockets` asks for.
///
/// # Errors
/// The interpreter has no memory for the question.
pub fn obstacle(
    py: Python<'_>,
    library: GreenLibrary,
    has_websockets: bool,
) -> PyResult<Option<String>> {
    let obstacle = module(py, library)?.call_method1(intern!(py, "obstacle"), (has_websockets,))?;
    obstacle.extract()
}

/// Of the calling thread, as `sys._current_frames` has it, whatever is patched.
///
/// # Errors
/// The library cannot be used.
pub fn thread_number(py: Python<'_>, library: GreenLibrary) -> PyResult<std::os::raw::c_long> {
    module(py, library)?
        .call_method0(intern!(py, "thread_number"))?
        .extract()
}
