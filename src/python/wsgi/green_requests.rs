//! Requests as greenlets: what one of them does between its job and its reply.
//!
//! Runs on the hub's thread, in the request's greenlet. The maker of environs is taken out while it is used, so that a
//! greenlet that is switched to meanwhile (by a finalizer of the collector) makes one of its own.

use std::cell::RefCell;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::pool::{Job, PoolThread, Reply};
use crate::python::traceback;

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
        let spare = self.spare.take();
        let mut environs = match spare.map_or_else(|| self.app.environs(py), Ok) {
            Ok(environs) => environs,
            Err(error) => {
                log::error!("{}", traceback::format(py, &error));
                return thread.pool().send(Reply::Abort(job));
            }
        };
        self.app.begin(thread, &job, self.clock);
        let environ = environs.make(py, &mut job);
        self.spare.replace(Some(environs));
        self.app.run_job(py, environ, thread, job);
        self.app.end(py, thread);
    }
}
