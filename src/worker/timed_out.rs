//! Requests that run too long (`request_timeout`): the client gets its answer, the application is notified, and a thread
//! that does not come back costs the worker its place.
//!
//! 1. *Timed out.* A thread has had its job for longer than the timeout. The client gets 504, or its response is broken
//!    off; the application's side is asked to log the thread's stack and to raise an exception there.
//! 2. *Returned.* The job comes back, whatever became of it: its line goes to the access log.
//! 3. *Lost.* It does not within a grace. The line is written from the scoreboard, and the worker asks for its
//!    replacement and stops gracefully: its other threads finish.
//!
//! Off by default; then the loop has none of this.

use std::time::{Duration, Instant};

use crate::http::{HeadScan, parse_head};
use crate::pool::{Application, InFlightRequest, Job, Peer, Pool, TimedOutRequest};
use crate::scoreboard::Running;

use super::access_lines::RequestEnd;
use super::accounting::Accounting;
use super::connections::Connections;
use super::http1::TimedOut;
use super::loop_clock::Clock;
use super::requests::Requests;
use super::shared_io::SharedIo;

/// How long the exception has to take effect: as long as the request had, within these.
const GRACE_MIN: Duration = Duration::from_secs(1);
const GRACE_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
struct Entry {
    request: InFlightRequest,
    lost_at: Instant,
    /// `None` when the client has left before, or the connection was hijacked.
    seen: Option<TimedOut>,
    /// The thread is given up.
    is_lost: bool,
}

/// The timeout and the requests that have exceeded it.
#[derive(Debug)]
pub(super) struct TimedOutRequests {
    timeout: Duration,
    entries: Vec<Entry>,
    /// No job can be due before.
    next_check: Instant,
}

impl TimedOutRequests {
    pub(super) fn new(timeout: Duration, now: Instant) -> Self {
        Self {
            timeout,
            entries: Vec::new(),
            next_check: now + timeout,
        }
    }

    /// When the threads must be checked again.
    pub(super) fn next_check(&self) -> Instant {
        self.next_check
    }

    /// Time out the jobs that have run too long, when there may be one. Returns whether the worker is to drain because it
    /// lost a thread and nothing replaces it before.
    pub(super) fn check(
        &mut self,
        connections: &mut Connections,
        application: &dyn Application,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> bool {
        let now = requests.clock.now();
        if now < self.next_check {
            return false;
        }
        let timeout = self.timeout;
        let (due, next_check) = self.find_due(requests.dispatch.pool(), timeout, now);
        for request in due {
            let seen = time_out(request, connections, application, requests, io);
            self.note(request, seen, timeout, now);
        }
        let (lost, lost_at) = self.take_lost(now);
        self.next_check = lost_at.map_or(next_check, |at| at.min(next_check));
        for entry in &lost {
            log::error!(
                "Thread {} has not returned from its request; replacing the worker.",
                entry.request.thread
            );
            log_lost(entry, requests);
        }
        if lost.is_empty() {
            return false;
        }
        // The other threads serve until the arbiter has a successor; without others, or without an arbiter, there is
        // nothing to wait for.
        let lost_count = self.entries.iter().filter(|entry| entry.is_lost).count();
        let all_lost = lost_count >= requests.accounting.slot().threads_count() as usize;
        !requests.arbiter.ask_for_replacement() || all_lost
    }

    /// The jobs that have run too long, and when the next one may have.
    fn find_due(
        &self,
        pool: &Pool,
        timeout: Duration,
        now: Instant,
    ) -> (Vec<InFlightRequest>, Instant) {
        // A job that begins after this check is due a timeout later at the earliest.
        let mut next_check = now + timeout;
        let mut due = Vec::new();
        for request in pool.in_flight() {
            let due_at = request.since + timeout;
            if self.is_noted(&request) {
                continue;
            }
            if due_at <= now {
                due.push(request);
            } else {
                next_check = next_check.min(due_at);
            }
        }
        (due, next_check)
    }

    fn is_noted(&self, request: &InFlightRequest) -> bool {
        self.entries.iter().any(|entry| {
            entry.request.thread == request.thread && entry.request.token == request.token
        })
    }

    fn note(
        &mut self,
        request: InFlightRequest,
        seen: Option<TimedOut>,
        timeout: Duration,
        now: Instant,
    ) {
        self.entries.push(Entry {
            request,
            lost_at: now + timeout.clamp(GRACE_MIN, GRACE_MAX),
            seen,
            is_lost: seen.is_none(),
        });
    }

    /// Give up the threads whose grace is over. Returns them, and when that of the next one is.
    fn take_lost(&mut self, now: Instant) -> (Vec<Entry>, Option<Instant>) {
        let mut lost = Vec::new();
        for entry in &mut self.entries {
            if !entry.is_lost && entry.lost_at <= now {
                entry.is_lost = true;
                lost.push(*entry);
            }
        }
        let waiting = self.entries.iter().filter(|entry| !entry.is_lost);
        (lost, waiting.map(|entry| entry.lost_at).min())
    }

    /// A job has come back. Returns whether its client was answered for it before; that is logged now, unless it was.
    pub(super) fn on_return(&mut self, job: &Job, requests: &mut Requests) -> bool {
        let of_job = |entry: &Entry| entry.request.conn == job.conn;
        let Some(at) = self.entries.iter().position(of_job) else {
            return false;
        };
        let entry = self.entries.swap_remove(at);
        let Some(seen) = entry.seen else {
            return false;
        };
        if !entry.is_lost {
            log_request(job, seen, &mut requests.accounting, &requests.clock);
        }
        true
    }
}

/// The application has had a request for too long. Returns what its client has seen.
fn time_out(
    request: InFlightRequest,
    connections: &mut Connections,
    application: &dyn Application,
    requests: &mut Requests,
    io: &mut SharedIo,
) -> Option<TimedOut> {
    if connections.is_hijacked(request.conn) {
        // A hijacked connection lasts as long as it likes; it is noted so that it is not checked again.
        return None;
    }
    let slot = requests.accounting.slot();
    let running = slot.running_on(request.thread);
    let text = running.as_ref().map(describe).unwrap_or_default();
    let lasted = requests
        .clock
        .now()
        .saturating_duration_since(request.since);
    log::error!(
        "Request timed out after {:.1} s (request_timeout): {text}, in thread {}.",
        lasted.as_secs_f64(),
        request.thread
    );
    slot.add_timed_out(1);
    application.on_request_timeout(&TimedOutRequest {
        thread: request.thread,
        token: request.token,
        request: text,
    });
    connections.time_out(request.conn, requests, io)
}

fn log_request(job: &Job, seen: TimedOut, accounting: &mut Accounting, clock: &Clock) {
    let end = RequestEnd {
        status: seen.status,
        bytes_sent: seen.body_bytes,
        reason: "request_timeout",
    };
    accounting.request(job, &end, clock);
}

/// The job will hardly come back: the access log's line is made of what the scoreboard has of it.
fn log_lost(entry: &Entry, requests: &mut Requests) {
    let Some(seen) = entry.seen else { return };
    let mut job = Job::new(entry.request.since);
    let running = requests.accounting.slot().running_on(entry.request.thread);
    if let Some(running) = running {
        let method = running.method.as_slice();
        let line = [method, b" ", &running.path, b" HTTP/1.1\r\nHost: -\r\n\r\n"].concat();
        let limits = requests.policy.limits();
        // A path that was cut inside an escape is refused; the line then shows as much as of any bad request.
        let _ = parse_head(&line, &mut HeadScan::default(), limits, &mut job.head);
        job.peer = running.client.map_or(job.peer, Peer::Ip);
    }
    log_request(&job, seen, &mut requests.accounting, &requests.clock);
}

/// A running request for log lines.
fn describe(running: &Running) -> String {
    let (method, path) = (running.method.escape_ascii(), running.path.escape_ascii());
    match running.client {
        Some(client) => format!("{method} {path} from {client}"),
        None => format!("{method} {path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::ConnId;

    #[test]
    fn a_thread_is_lost_when_its_grace_is_over_and_is_reported_once() {
        let (now, timeout) = (Instant::now(), Duration::from_secs(5));
        let mut requests = TimedOutRequests::new(timeout, now);
        assert_eq!(requests.next_check(), now + timeout);
        let request = InFlightRequest {
            thread: 0,
            token: 7,
            conn: ConnId::new(0, 0),
            since: now,
        };
        let seen = TimedOut {
            status: 504,
            body_bytes: 0,
        };
        requests.note(request, Some(seen), timeout, now);
        assert!(requests.is_noted(&request));
        let (lost, next) = requests.take_lost(now);
        assert!(lost.is_empty() && next == Some(now + timeout));
        assert_eq!(requests.take_lost(now + timeout).0.len(), 1);
        let (lost, next) = requests.take_lost(now + timeout * 2);
        assert!(lost.is_empty() && next.is_none());
    }
}
