//! Requests as greenlets: what one of them does between its job and its reply.
//!
//! Runs on the hub's thread, in the request's greenlet. The maker of environs is taken out while it is used, so that a
//! greenlet that is switched to meanwhile (by a finalizer of the collector) makes one of its own.

use std::cell::RefCell;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::pool::{Job, PoolThread};

use super::app::WsgiApp;
use super::environ::EnvironMaker;
use super::scoreboard_clock::ScoreboardClock;

/// See the module.
#[derive(Debug)]
pub struct GreenRequests {
    app: Arc<WsgiApp>,
    spare: RefCell<Option<Box<EnvironMaker>>>,
    clock: ScoreboardClock,
}

impl GreenRequests {
    /// For the application of this worker.
    #[must_use]
    pub fn new(app: Arc<WsgiApp>) -> Self {
        Self {
            app,
            spare: RefCell::new(None),
            clock: ScoreboardClock::new(),
        }
    }

    /// Run a job to its end. The reply is sent whatever the application does.
    pub fn run(&self, py: Python<'_>, thread: &PoolThread, mut job: Box<Job>) {
        let environ = self.begin(py, thread, &mut job);
        self.app.run_job(py, environ, thread, job);
        self.app.end(py, thread);
    }

    /// In a frame of its own: that of `run` is a part of each waiting greenlet's C stack.
    #[inline(never)]
    fn begin<'py>(
        &self,
        py: Python<'py>,
        thread: &PoolThread,
        job: &mut Job,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.app.begin(thread, job, self.clock);
        let spare = self.spare.take();
        let mut environs = spare.map_or_else(|| self.app.environs(py), Ok)?;
        let environ = environs.make(py, job);
        self.spare.replace(Some(environs));
        environ
    }
}
