//! Where requests are greenlets: how Rust code on a greenlet's stack waits, and which thread's stacks these are.
//!
//! A wait switches to the hub by a call into Python (`wait` of `ferricorn._gevent` and `ferricorn._eventlet`). Across that call the caller holds no
//! lock, no borrow and no exclusive reference to what another greenlet may use; what it has on its stack stays there.

use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;

use crate::config::GreenLibrary;
use crate::pool::{HubWakeup, Ticket};

/// The hub of the interpreter's main thread.
#[derive(Debug)]
pub(super) struct Hub {
    thread: ThreadId,
    wakeup: Arc<HubWakeup>,
    module: Py<PyModule>,
}

static HUB: OnceLock<Hub> = OnceLock::new();

/// The calling thread, from now on, has a hub that `wakeup` wakes.
pub(super) fn install(
    py: Python<'_>,
    library: GreenLibrary,
    wakeup: &Arc<HubWakeup>,
) -> PyResult<()> {
    let module = module(py, library)?.unbind();
    HUB.get_or_init(|| Hub {
        thread: thread::current().id(),
        wakeup: Arc::clone(wakeup),
        module,
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

impl Hub {
    pub(super) fn ticket(&self) -> Ticket {
        self.wakeup.ticket()
    }

    /// Yield to the hub until the ticket of this number is called up, for `patience` at most.
    ///
    /// # Errors
    /// What was thrown into the greenlet meanwhile: `GreenletExit`, a `Timeout`.
    pub(super) fn wait(
        &self,
        py: Python<'_>,
        number: u64,
        patience: Option<Duration>,
    ) -> PyResult<()> {
        let patience = patience.map(|patience| patience.as_secs_f64());
        let module = self.module.bind(py);
        module.call_method1(intern!(py, "wait"), (number, patience))?;
        Ok(())
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
pub fn patch(py: Python<'_>, library: GreenLibrary) -> PyResult<()> {
    module(py, library)?.call_method0(intern!(py, "patch"))?;
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
