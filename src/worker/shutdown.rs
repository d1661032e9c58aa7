//! How a worker stops: it drains, waits for its pool threads, and is over.

use std::time::{Duration, Instant};

use super::accept::Accepting;
use super::event_loop::EventLoop;

/// Threads that are in the middle of a request get this long to end it at a quick stop.
const QUICK_STOP_GRACE: Duration = Duration::from_millis(100);

/// How far the worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// No new connections; requests in flight are finished until then.
    Draining {
        until: Instant,
    },
    /// No connections any more; the threads may leave until then.
    Leaving {
        until: Instant,
    },
    Stopped,
}

impl Phase {
    /// When the phase must be looked at again if nothing else happens.
    pub(super) fn next_look(self) -> Option<Instant> {
        match self {
            Self::Draining { until } | Self::Leaving { until } => Some(until),
            Self::Serving | Self::Stopped => None,
        }
    }
}

impl EventLoop<'_> {
    /// Stop gracefully: take what waits in the accept queue, then no more; close what is idle; finish the rest.
    pub(super) fn begin_drain(&mut self) {
        if !matches!(self.phase, Phase::Serving) {
            return;
        }
        let until = self.core.now + self.graceful_timeout;
        self.phase = Phase::Draining { until };
        self.core.draining = true;
        self.core
            .slot()
            .set_state(crate::scoreboard::SlotState::Draining);
        self.core.arbiter.nudge();
        self.empty_accept_queues();
        self.empty_way();
        if let Err(error) = self.stop_accepting(Accepting::Over) {
            log::error!("The listeners could not be left: {error}");
        }
        self.acceptors.clear();
        for id in self.connections.ids() {
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            let fate = connection.begin_drain(&mut self.core);
            self.settle_fate(id, fate);
        }
    }

    /// Stop at once: whatever is open is closed. `code` is the worker's exit code.
    pub(super) fn stop_now(&mut self, code: i32) {
        self.exit_code = code;
        self.core.draining = true;
        self.core.cut = true;
        // Failing to leave a listener that is about to be closed changes nothing.
        let _ = self.stop_accepting(Accepting::Over);
        self.acceptors.clear();
        for id in self.connections.ids() {
            self.close(id);
        }
        self.leave(self.core.now + QUICK_STOP_GRACE);
    }

    fn leave(&mut self, until: Instant) {
        self.phase = Phase::Leaving { until };
        self.core.pool.close();
        self.core.end_burst(true);
        // Nobody waits for these any more: all connections are closed.
        while let Some(job) = self.core.pool.pop_front() {
            self.core.log_gone(&job);
            self.core.recycle(job);
        }
    }

    /// Go on to the next phase when this one is over.
    pub(super) fn advance_phase(&mut self) {
        if let Phase::Draining { until } = self.phase {
            if self.connections.len() + self.handed_over.len() == 0 {
                self.leave(until.max(self.core.now + QUICK_STOP_GRACE));
            } else if until <= self.core.now {
                self.cut_connections();
                self.leave(self.core.now + QUICK_STOP_GRACE);
            }
        }
        if let Phase::Leaving { until } = self.phase
            && (self.core.pool.live_threads() == 0 || until <= self.core.now)
        {
            self.phase = Phase::Stopped;
        }
    }

    fn cut_connections(&mut self) {
        self.core.cut = true;
        let cut = self
            .connections
            .iter()
            .filter(|connection| !connection.is_idle())
            .count()
            + self.handed_over.len();
        if cut > 0 {
            self.core.slot().add_cut(cut as u64);
            log::warn!(
                "graceful_timeout is over: {cut} connection(s) with a request under way were cut."
            );
        }
        self.handed_over.clear();
        for id in self.connections.ids() {
            self.close(id);
        }
    }

    fn empty_accept_queues(&mut self) {
        for listener in 0..self.acceptors.len() {
            while let super::accept::Attempt::Accepted(stream, peer) =
                self.acceptors[listener].accept()
            {
                self.take_in(stream, peer, listener);
            }
        }
    }
}
