//! What is counted of each request and where it is logged: the worker's slot on the scoreboard, the access log, statsd.

use std::time::Instant;

use crate::logging::statsd::Statsd;
use crate::pool::{ConnId, Job};
use crate::scoreboard::Slot;

use super::access_lines::{AccessLog, RequestEnd};
use super::broken_off::{BrokenOff, BrokenOffRequests};
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
    broken_off: BrokenOffRequests,
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
            broken_off: BrokenOffRequests::default(),
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

    /// A request is over for its client while the pool has its job, which will be logged so.
    pub(super) fn break_off(&mut self, id: ConnId, seen: BrokenOff) {
        self.broken_off.note(id, seen);
    }

    /// A job is back that is logged otherwise.
    pub(super) fn forget_broken_off(&mut self, id: ConnId) {
        self.broken_off.take(id);
    }

    /// The client was gone when the answer came; `reason` says who closed the connection, if nothing else was noted of it.
    pub(super) fn client_gone(&mut self, job: &mut Job, reason: &str, clock: &Clock) {
        let Some(seen) = self.broken_off.take(job.conn) else {
            return self.unanswered(job, CLIENT_GONE, reason, clock);
        };
        job.response = seen.response.unwrap_or_default();
        let end = RequestEnd {
            status: seen.status,
            bytes_sent: seen.sent_bytes,
            reason: seen.reason,
        };
        self.request(job, &end, clock);
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
