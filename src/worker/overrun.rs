//! Requests that run too long (`request_timeout`): the client gets its answer, the application is told, and a thread
//! that does not come back costs the worker its place.
//!
//! 1. *Timed out.* A thread has had its job for longer than the timeout. The client gets 504, or its response is broken
//!    off; the application's side is asked to log the thread's stack and to raise an exception there.
//! 2. *Returned.* The job comes back, whatever became of it: its line goes to the access log.
//! 3. *Lost.* It does not within a grace. The line is written from the scoreboard, and the worker asks for its
//!    replacement and stops gracefully: its other threads finish.
//!
//! Off by default; then a turn of the loop looks at one `Option`.

use std::time::{Duration, Instant};

use crate::http::{HeadScan, Status, parse_head};
use crate::pool::{InFlightRequest, Job, Peer, TimedOutRequest};
use crate::scoreboard::Running;

use super::connection::{Connection, Fate};
use super::core::Core;
use super::event_loop::EventLoop;

/// How long the exception has to take effect: as long as the request had, within these.
const GRACE_MIN: Duration = Duration::from_secs(1);
const GRACE_MAX: Duration = Duration::from_secs(10);

/// What was answered to a client whose request ran too long.
#[derive(Clone, Copy, Debug)]
struct Answer {
    status: u16,
    body_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Overdue {
    job: InFlightRequest,
    lost_at: Instant,
    /// `None` when the client has left before, or the connection is the application's own.
    answer: Option<Answer>,
    /// The thread is given up.
    is_lost: bool,
}

/// The timeout and who has exceeded it.
#[derive(Debug)]
pub(super) struct Overruns {
    timeout: Duration,
    overdue: Vec<Overdue>,
    /// No job can be due before.
    next_look: Instant,
}

impl Overruns {
    pub(super) fn new(timeout: Duration, now: Instant) -> Self {
        Self {
            timeout,
            overdue: Vec::new(),
            next_look: now + timeout,
        }
    }

    /// When the threads must be looked at again.
    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }

    fn grace(&self) -> Duration {
        self.timeout.clamp(GRACE_MIN, GRACE_MAX)
    }

    fn is_known(&self, job: &InFlightRequest) -> bool {
        let same = |known: &Overdue| known.job.thread == job.thread && known.job.token == job.token;
        self.overdue.iter().any(same)
    }
}

impl EventLoop<'_> {
    /// Look for jobs that have run too long, when there may be one.
    pub(super) fn check_overruns(&mut self) {
        let now = self.core.now;
        let Some(overruns) = &mut self.core.overruns else {
            return;
        };
        if now < overruns.next_look {
            return;
        }
        let timeout = overruns.timeout;
        // A job that begins after this look is due a timeout later at the earliest.
        let mut next_look = now + timeout;
        let mut due = Vec::new();
        for job in self.core.pool.in_flight() {
            let due_at = job.since + timeout;
            if overruns.is_known(&job) {
                continue;
            }
            if due_at <= now {
                due.push(job);
            } else {
                next_look = next_look.min(due_at);
            }
        }
        for job in due {
            self.on_overrun(job);
        }
        let lost_at = self.give_up_lost();
        if let Some(overruns) = &mut self.core.overruns {
            overruns.next_look = lost_at.map_or(next_look, |at| at.min(next_look));
        }
    }

    fn on_overrun(&mut self, job: InFlightRequest) {
        let now = self.core.now;
        if self.handed_over.contains(job.conn) {
            // An upgraded connection lasts as long as it likes; it is noted so that it is not looked at again.
            return self.note_overdue(job, None);
        }
        let running = self.core.slot().running_on(job.thread);
        let request = running.as_ref().map(describe).unwrap_or_default();
        log::error!(
            "Request timed out after {:.1} s (request_timeout): {request}, in thread {}.",
            now.saturating_duration_since(job.since).as_secs_f64(),
            job.thread
        );
        self.core.slot().add_timed_out(1);
        self.application.on_request_timeout(&TimedOutRequest {
            thread: job.thread,
            token: job.token,
            request,
        });
        let mut answer = None;
        if let Some(connection) = self.connections.get_mut(job.conn) {
            let (status, fate) = connection.time_out(&mut self.core);
            answer = Some(Answer {
                status,
                body_bytes: connection.body_sent,
            });
            connection.body_sent = 0;
            self.settle_fate(job.conn, fate);
        }
        self.note_overdue(job, answer);
    }

    fn note_overdue(&mut self, job: InFlightRequest, answer: Option<Answer>) {
        if let Some(overruns) = &mut self.core.overruns {
            let lost_at = self.core.now + overruns.grace();
            overruns.overdue.push(Overdue {
                job,
                lost_at,
                answer,
                is_lost: answer.is_none(),
            });
        }
    }

    /// Threads whose grace is over. Returns when that of the next one is.
    fn give_up_lost(&mut self) -> Option<Instant> {
        let now = self.core.now;
        let overruns = self.core.overruns.as_mut()?;
        let mut lost = Vec::new();
        let mut next = None::<Instant>;
        for overdue in &mut overruns.overdue {
            if overdue.is_lost {
                continue;
            }
            if overdue.lost_at <= now {
                overdue.is_lost = true;
                lost.push(*overdue);
            } else {
                next = Some(next.map_or(overdue.lost_at, |at| at.min(overdue.lost_at)));
            }
        }
        let lost_count = overruns.overdue.iter().filter(|one| one.is_lost).count();
        for overdue in &lost {
            log::error!(
                "Thread {} does not come back from its request; the worker is replaced.",
                overdue.job.thread
            );
            self.core.log_lost(overdue);
        }
        let all_lost = lost_count >= self.core.slot().threads_count() as usize;
        if !lost.is_empty() {
            self.core.slot().set_wants_replacement();
            // The other threads go on until the arbiter has a successor; without others, or without an arbiter, there
            // is nothing to wait for.
            if all_lost || !self.core.arbiter.nudge() {
                self.begin_drain();
            }
        }
        next
    }
}

impl Core {
    /// A job has come back after its client was answered for it. Returns whether that is so.
    pub(super) fn settle_overrun(&mut self, job: &Job) -> bool {
        let Some(overruns) = &mut self.overruns else {
            return false;
        };
        let of_job = |overdue: &Overdue| overdue.job.conn == job.conn;
        let Some(at) = overruns.overdue.iter().position(of_job) else {
            return false;
        };
        let overdue = overruns.overdue.swap_remove(at);
        let Some(answer) = overdue.answer else {
            return false;
        };
        if !overdue.is_lost {
            self.log_overrun(job, answer.status, answer.body_bytes);
        }
        true
    }

    /// The job will hardly come back: what the scoreboard knows of it must do for the access log.
    fn log_lost(&mut self, overdue: &Overdue) {
        let Some(answer) = overdue.answer else { return };
        let mut job = Job::new(overdue.job.since);
        if let Some(running) = self.slot().running_on(overdue.job.thread) {
            let method = running.method.as_slice();
            let line = [method, b" ", &running.path, b" HTTP/1.1\r\nHost: -\r\n\r\n"].concat();
            // A path that was cut inside an escape is refused; the line then shows as much as of any bad request.
            let _ = parse_head(&line, &mut HeadScan::default(), &self.limits, &mut job.head);
            job.peer = running.client.map_or(job.peer, Peer::Ip);
        }
        self.log_overrun(&job, answer.status, answer.body_bytes);
    }
}

impl Connection {
    /// The application has had the request for too long. Returns the status that the client has seen.
    fn time_out(&mut self, core: &mut Core) -> (u16, Fate) {
        self.timed_out = true;
        if self.offered {
            // The application may be about to take the socket: nothing may be written to it.
            return (Status::GATEWAY_TIMEOUT.code, Fate::Close);
        }
        let status = if self.exchange.is_dispatched() {
            core.out.clear();
            let (look, out) = core.look_and_out();
            let status = Status::GATEWAY_TIMEOUT;
            self.exchange
                .refuse(status, "The request took too long", &look, out);
            self.write_out(0, core);
            status.code
        } else {
            self.exchange.abort();
            self.status
        };
        (status, self.settle(core))
    }
}

/// A running request for log lines.
fn describe(running: &Running) -> String {
    let (method, path) = (running.method.escape_ascii(), running.path.escape_ascii());
    match running.client {
        Some(client) => format!("{method} {path} from {client}"),
        None => format!("{method} {path}"),
    }
}
