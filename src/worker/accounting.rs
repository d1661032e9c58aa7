//! What is counted of each request and where it is logged: the worker's slot on the scoreboard, the access log, statsd.

use std::time::Instant;

use crate::logging::statsd::Statsd;
use crate::pool::Job;
use crate::scoreboard::Slot;

use super::access_lines::{AccessLog, RequestEnd};
use super::loop_clock::Clock;
use super::worker_slot::WorkerSlot;

/// Status of a request whose client was gone before it was answered (nginx's number for it).
pub(super) const CLIENT_GONE: u16 = 499;
/// Status of a request whose connection the application hijacked.
const SWITCHED: u16 = 101;

/// See the module.
#[derive(Debug)]
pub(super) struct Accounting {
    slot: WorkerSlot,
    access_log: Option<AccessLog>,
    metrics: Option<Statsd>,
}

impl Accounting {
    pub(super) fn new(
        slot: WorkerSlot,
        access_log: Option<AccessLog>,
        metrics: Option<Statsd>,
    ) -> Self {
        Self {
            slot,
            access_log,
            metrics,
        }
    }

    /// The counters, for events that are not requests.
    pub(super) fn slot(&self) -> Slot<'_> {
        self.slot.get()
    }

    /// A request is over.
    pub(super) fn request(&mut self, job: &Job, end: &RequestEnd<'_>, clock: &Clock) {
        let now = Instant::now();
        let duration = now.saturating_duration_since(job.arrived);
        let slot = self.slot.get();
        slot.add_requests(1);
        slot.add_bytes_out(end.bytes_sent);
        slot.latency().record_alone(duration);
        if !job.gil_wait.is_zero() {
            slot.gil_wait().record_alone(job.gil_wait);
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.request(duration, end.status);
        }
        if let Some(log) = &mut self.access_log {
            log.record(job, end, duration, clock.unix_time(now));
        }
    }

    /// A request is over to which no response was sent.
    pub(super) fn unanswered(&mut self, job: &Job, status: u16, reason: &str, clock: &Clock) {
        let end = RequestEnd {
            status,
            bytes_sent: 0,
            reason,
        };
        self.request(job, &end, clock);
    }

    /// The connection was gone when the answer came; `reason` says who closed it.
    pub(super) fn connection_gone(&mut self, job: &Job, reason: &str, clock: &Clock) {
        self.unanswered(job, CLIENT_GONE, reason, clock);
    }

    /// The application hijacked the connection, and its request has ended.
    pub(super) fn hijacked(&mut self, job: &Job, clock: &Clock) {
        self.unanswered(job, SWITCHED, "", clock);
    }

    /// The end of an iteration: what has waited long enough is written.
    pub(super) fn flush_due(&mut self, now: Instant) {
        if let Some(log) = &mut self.access_log {
            log.flush_if_due(now);
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.flush();
        }
    }

    /// The loop is about to sleep: the access log is written.
    pub(super) fn flush_log(&mut self) {
        if let Some(log) = &mut self.access_log {
            log.flush();
        }
    }
}
