//! The loop on its own thread, the monitor, and on the pool threads that it is delegated to (`pool/loop_role.rs`).

use std::io;

use super::{EventLoop, renew_budgets};
use crate::pool::{DelegableLoop, Found, NextHolder, Served};
use crate::scoreboard::SlotState;

impl EventLoop {
    /// Begin to accept. The calling thread is the monitor.
    ///
    /// # Errors
    /// The poll set refused a listener.
    pub(in crate::worker) fn start(&mut self) -> io::Result<()> {
        let may_delegate = self.requests.dispatch.pool().prepare_delegation();
        self.runner.start(may_delegate);
        self.requests.arbiter.report(SlotState::Serving);
        self.listeners.start()
    }

    fn sleep_and_iterate(&mut self) -> io::Result<()> {
        let awoken = self.sleep()?;
        self.requests.clock.tick(awoken.at, awoken.known_until);
        if !awoken.pause.is_zero() {
            // Nothing was read meanwhile: clients get that time again.
            self.connections.excuse(awoken.pause);
        }
        renew_budgets(&mut self.io);
        let dispatched = self.requests.dispatch.dispatched();
        self.iterate()?;
        let jobs = self.requests.dispatch.dispatched() - dispatched;
        let jobs = usize::try_from(jobs).unwrap_or(usize::MAX);
        self.delegation.note(Found {
            jobs,
            do_fit: self.requests.dispatch.pool().fit_delegated_loop(jobs),
            slept: awoken.at.saturating_duration_since(awoken.since),
        });
        Ok(())
    }

    /// The loop is with the monitor, perhaps again.
    fn return_to_monitor(&mut self) {
        let Some(left) = self.runner.return_to_monitor() else {
            return;
        };
        self.delegation.note_return();
        for descriptor in left {
            self.on_descriptor(descriptor);
        }
    }

    /// Requests are such that they are run where they are found, and none is under way.
    fn may_delegate(&self) -> bool {
        let requests = &self.requests;
        self.delegation.is_calm()
            && self.runner.may_delegate()
            && requests.dispatch.jobs_in_flight() == 0
            && requests.shutdown.is_serving()
            && requests.dispatch.pool().is_fast()
    }
}

impl DelegableLoop for EventLoop {
    fn serve(&mut self) -> io::Result<Served> {
        self.return_to_monitor();
        while !self.requests.shutdown.is_over() {
            self.sleep_and_iterate()?;
            if self.may_delegate() {
                self.runner.delegate();
                self.delegation.note_delegated();
                return Ok(Served::Calm);
            }
        }
        // What the last step to the end has logged.
        self.end_iteration();
        Ok(Served::Over(self.requests.shutdown.exit_code()))
    }

    fn run_once(&mut self) -> io::Result<NextHolder> {
        self.sleep_and_iterate()?;
        let stays = !self.runner.has_left()
            && self.requests.shutdown.is_serving()
            && self.delegation.stays_delegated();
        Ok(if stays {
            NextHolder::Same
        } else {
            NextHolder::Monitor
        })
    }
}
