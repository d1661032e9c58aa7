//! The loop on its own thread, the monitor, and on the pool threads that it is lent to (`pool/loop_role.rs`).

use std::io;

use super::{EventLoop, Runner};
use crate::pool::{LentLoop, Served, Turn};
use crate::scoreboard::SlotState;

impl EventLoop {
    /// Begin to accept. The calling thread is the monitor.
    ///
    /// # Errors
    /// The poll set refused a listener.
    pub(in crate::worker) fn start(&mut self) -> io::Result<()> {
        let may_lend = self.requests.dispatch.pool().prepare_lending();
        self.runner = Runner::Monitor { may_lend };
        self.requests.arbiter.report(SlotState::Serving);
        self.listeners.start()
    }

    /// The loop is with the monitor, perhaps again.
    fn return_to_monitor(&mut self) {
        let Runner::PoolThread { dispatched, left } = &mut self.runner else {
            return;
        };
        let left = std::mem::take(left);
        let jobs = self.requests.dispatch.dispatched() - *dispatched;
        self.runner = Runner::Monitor { may_lend: true };
        self.lending.note_loan(jobs);
        for descriptor in left {
            self.on_descriptor(descriptor);
        }
    }

    /// Requests are such that they are run where they are found, and none is under way.
    fn may_lend(&self) -> bool {
        let requests = &self.requests;
        self.lending.is_calm()
            && self.runner == Runner::Monitor { may_lend: true }
            && requests.dispatch.jobs_in_flight() == 0
            && requests.shutdown.is_serving()
            && requests.dispatch.pool().is_fast()
    }
}

impl LentLoop for EventLoop {
    fn serve(&mut self) -> io::Result<Served> {
        self.return_to_monitor();
        while !self.requests.shutdown.is_over() {
            self.sleep_and_iterate()?;
            if self.may_lend() {
                self.runner = Runner::PoolThread {
                    dispatched: self.requests.dispatch.dispatched(),
                    left: Vec::new(),
                };
                return Ok(Served::Calm);
            }
        }
        // What the last step to the end has logged.
        self.end_iteration();
        Ok(Served::Over(self.requests.shutdown.exit_code()))
    }

    fn turn(&mut self) -> io::Result<Turn> {
        self.sleep_and_iterate()?;
        let has_left = matches!(&self.runner, Runner::PoolThread { left, .. } if !left.is_empty());
        let stays = !has_left && self.requests.shutdown.is_serving() && self.lending.stays_lent();
        Ok(if stays { Turn::Here } else { Turn::Monitor })
    }
}
