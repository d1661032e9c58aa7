//! The streams of one connection: each is a request on its way through the worker.
//!
//! A stream is received, waits for a place in the pool, runs, is answered, and is over. The jobs that a connection may have
//! with the pool are few, so that its streams do not stand before other clients'; the others wait here in order. While jobs are
//! fast and all of them together are soon over, there may be some more. Responses are sent round robin, a frame at a time, as
//! far as their windows go.
//!
//! A stream that its client has reset stays, and counts, until its job is back: resetting streams does not make room for
//! more of them.
//!
//! `phase.rs` is how far a stream is, `intake.rs` the way from requests to jobs, `output.rs` from replies to frames.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use h2::Reason;
use http_message::header::HeaderMap;

use crate::http::Status;
use crate::pool::{AccessLine, ConnId, Job};

use crate::worker::accounting::CLIENT_GONE;
use crate::worker::broken_off::BrokenOff;
use crate::worker::http1::{Client, Refusal, TimedOut};
use crate::worker::loop_clock::{Clock, Timer};
use crate::worker::requests::{Requests, recycle};
use crate::worker::usage::Usage;

mod intake;
mod output;
mod phase;
mod request_body;

use self::phase::Phase;
use super::violation::is_clients_fault;

/// A connection may always have this many jobs with the pool, if there are fewer threads.
const JOBS_MIN: usize = 2;
/// And never more than this many: the queue has room for those of all connections.
const JOBS_MAX: usize = 128;

/// How many jobs of one connection the pool may have at a time.
pub(in crate::worker) fn jobs_max(threads: usize) -> usize {
    threads.clamp(JOBS_MIN, JOBS_MAX)
}

/// One request.
#[derive(Debug)]
struct Stream {
    phase: Phase,
    /// For its body, or for its client to take more of its response.
    timer: Timer,
    is_head: bool,
    /// Of a response that has not begun.
    trailers: Option<Box<HeaderMap>>,
}

/// What becomes of a job that has come back from the pool.
#[derive(Debug)]
enum Returned {
    /// Its client waits for the answer.
    Awaited(Box<Job>),
    /// Its client was answered before (`request_timeout`); that is logged elsewhere.
    Late(Box<Job>),
    /// Its client has reset the stream; that is logged, and the job recycled.
    Gone,
}

/// That no request is under way.
#[derive(Debug)]
struct Idle {
    /// There were so many before.
    requests: u64,
    since: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Mux {
    conn: ConnId,
    streams: HashMap<u32, Stream>,
    /// Those whose bodies are being received.
    receiving: Vec<u32>,
    /// Those that wait for the pool, in order.
    waiting: VecDeque<u32>,
    /// Those whose responses have something to send, in order.
    sending: VecDeque<u32>,
    /// When a response last began after none was under way, or sent something.
    moved: Instant,
    /// Jobs that the pool has.
    jobs: usize,
    jobs_max: usize,
    streams_max: usize,
    /// Requests so far.
    requests: u64,
    idle: Idle,
    /// The engine was given something to encode since it was last asked to.
    has_acted: bool,
}

impl Mux {
    pub(super) fn new(conn: ConnId, streams_max: u32, jobs_max: usize, now: Instant) -> Self {
        Self {
            conn,
            streams: HashMap::new(),
            receiving: Vec::new(),
            waiting: VecDeque::new(),
            sending: VecDeque::new(),
            moved: now,
            jobs: 0,
            jobs_max,
            streams_max: usize::try_from(streams_max).unwrap_or(usize::MAX),
            requests: 0,
            idle: Idle {
                requests: 0,
                since: now,
            },
            has_acted: false,
        }
    }

    /// No request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    /// Since when no request is under way; asked while that is so and everything is written.
    pub(super) fn idle_since(&mut self, now: Instant) -> Instant {
        if self.idle.requests != self.requests {
            self.idle = Idle {
                requests: self.requests,
                since: now,
            };
        }
        self.idle.since
    }

    /// It has as many requests as it may have.
    pub(super) fn is_full(&self) -> bool {
        self.streams.len() >= self.streams_max
    }

    /// A response may have something to send.
    pub(super) fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Whether the engine was given something to encode, beside bodies, since this was last asked.
    pub(super) fn take_acted(&mut self) -> bool {
        std::mem::take(&mut self.has_acted)
    }

    fn name(&self, id: u32) -> ConnId {
        self.conn.with_stream(id)
    }

    /// Hand waiting requests to the pool, as far as this connection may.
    pub(super) fn submit(&mut self, usage: &mut Usage, client: &Client, requests: &mut Requests) {
        while (self.jobs < self.jobs_max || self.has_room_beyond_share(requests))
            && let Some(id) = self.waiting.pop_front()
        {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            // One that was reset meanwhile waits no more.
            let Some(job) = stream.phase.run() else {
                continue;
            };
            if usage.note_request() {
                requests.dispatch.newcomer_asked();
            }
            self.jobs += 1;
            if let Err(job) = requests.dispatch.submit(job, &mut requests.arbiter) {
                self.jobs -= 1;
                let message = "The worker is stopping";
                let refusal = Refusal::new(Status::SERVICE_UNAVAILABLE, message, message);
                self.refuse(id, refusal, Some(job), client, requests);
            }
        }
    }

    fn has_room_beyond_share(&self, requests: &Requests) -> bool {
        !self.waiting.is_empty() && requests.dispatch.has_room_beyond_share(self.jobs)
    }

    /// The client wants no answer to this stream any more. Returns whether its answer had not begun.
    pub(super) fn cancel(
        &mut self,
        id: u32,
        reason: &'static str,
        requests: &mut Requests,
    ) -> bool {
        self.give_up(id, CLIENT_GONE, reason, requests)
    }

    /// The stream was reset for an error of the client's.
    pub(super) fn cancel_faulty(&mut self, id: u32, why: &'static str, requests: &mut Requests) {
        self.give_up(id, Status::BAD_REQUEST.code, why, requests);
    }

    /// The answer is not wanted any more. Of a request that has not run the log says this status. Returns whether its answer
    /// had not begun.
    fn give_up(
        &mut self,
        id: u32,
        status: u16,
        reason: &'static str,
        requests: &mut Requests,
    ) -> bool {
        let name = self.name(id);
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        stream.timer.clear();
        let phase = stream.phase.cancel();
        let is_early = !matches!(phase, Phase::Responding(_));
        let is_with_pool = match phase {
            Phase::Receiving { receiving, .. } => {
                receiving.abandon(reason, requests);
                false
            }
            Phase::Waiting { job, upload, .. } => {
                if let Some(upload) = upload {
                    upload.drop_rest();
                }
                log_unanswered(job, status, reason, requests);
                false
            }
            Phase::Running { upload, .. } => {
                if let Some(upload) = upload {
                    upload.drop_rest();
                }
                let seen = BrokenOff {
                    status,
                    sent_bytes: 0,
                    reason,
                    response: None,
                };
                requests.accounting.break_off(name, seen);
                true
            }
            Phase::Responding(response) => response.abandon(name, reason, requests),
            Phase::Reset => true,
            Phase::TimedOut => return false,
        };
        match is_with_pool {
            true => requests.dispatch.pool().stream_reset(name),
            false => drop(self.streams.remove(&id)),
        }
        is_early
    }

    /// A job is back from the pool.
    fn take_back(&mut self, job: Box<Job>, requests: &mut Requests) -> Returned {
        self.jobs = self.jobs.saturating_sub(1);
        let id = job.conn.stream;
        match self.streams.get(&id).map(|stream| &stream.phase) {
            Some(Phase::Running { .. } | Phase::Responding(_)) => Returned::Awaited(job),
            Some(Phase::TimedOut) => {
                self.streams.remove(&id);
                Returned::Late(job)
            }
            _ => {
                self.forget(id, job, requests);
                Returned::Gone
            }
        }
    }

    /// The client has reset the stream just now.
    fn forget(&mut self, id: u32, mut job: Box<Job>, requests: &mut Requests) {
        self.streams.remove(&id);
        let reason = requests.shutdown.reason_of_gone();
        let (accounting, clock) = (&mut requests.accounting, &requests.clock);
        match job.access_line {
            AccessLine::Omitted => accounting.forget_broken_off(job.conn),
            _ => accounting.client_gone(&mut job, reason, clock),
        }
        recycle(job, requests);
    }

    /// Reset a stream, and forget what it was about.
    pub(super) fn reset(
        &mut self,
        id: u32,
        code: Reason,
        reason: &'static str,
        requests: &mut Requests,
    ) {
        self.has_acted = true;
        match self.streams.get_mut(&id).map(|stream| &mut stream.phase) {
            Some(
                Phase::Receiving { respond, .. }
                | Phase::Waiting { respond, .. }
                | Phase::Running { respond, .. },
            ) => respond.send_reset(code),
            Some(Phase::Responding(response)) => response.reset(code),
            Some(Phase::Reset | Phase::TimedOut) | None => return,
        }
        let status = match is_clients_fault(code) {
            true => Status::BAD_REQUEST.code,
            false => CLIENT_GONE,
        };
        self.give_up(id, status, reason, requests);
    }

    /// The connection is gone, or goes, for this reason: nothing will be answered. What the pool has comes back later.
    pub(super) fn close(&mut self, reason: &'static str, requests: &mut Requests) {
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        for id in ids {
            self.cancel(id, reason, requests);
        }
    }

    /// The deadlines of the streams are later by a pause of the loop.
    pub(super) fn excuse(&mut self, pause: Duration) {
        for stream in self.streams.values_mut() {
            stream.timer.excuse(pause);
        }
    }

    /// Whether the deadline of a stream is over; the set has found an entry for it.
    pub(super) fn has_expired(&mut self, id: u32, clock: &mut Clock) -> bool {
        self.streams
            .get_mut(&id)
            .is_some_and(|stream| clock.expired(&mut stream.timer))
    }

    /// The application has had the request for too long: 504, or the response is broken off.
    pub(super) fn time_out(&mut self, id: u32, requests: &mut Requests) -> TimedOut {
        let mut seen = TimedOut {
            status: Status::GATEWAY_TIMEOUT.code,
            body_bytes: 0,
        };
        let is_with_pool = match self.streams.get(&id).map(|stream| &stream.phase) {
            Some(Phase::Running { .. }) => {
                let message = "The request took too long";
                self.send_page(id, Status::GATEWAY_TIMEOUT, message, requests);
                true
            }
            Some(Phase::Responding(response)) => {
                (seen.status, seen.body_bytes) = response.sent_so_far();
                self.reset(id, Reason::INTERNAL_ERROR, "request_timeout", requests);
                self.streams.contains_key(&id)
            }
            _ => false,
        };
        if is_with_pool && let Some(stream) = self.streams.get_mut(&id) {
            stream.phase.time_out();
            requests
                .dispatch
                .pool()
                .stream_reset(self.conn.with_stream(id));
        }
        seen
    }
}

/// A request is over that nobody answers.
fn log_unanswered(job: Box<Job>, status: u16, reason: &str, requests: &mut Requests) {
    if job.access_line != AccessLine::Omitted {
        let (accounting, clock) = (&mut requests.accounting, &requests.clock);
        accounting.unanswered(&job, status, reason, clock);
    }
    recycle(job, requests);
}

/// What a simulation checks.
#[cfg(test)]
impl Mux {
    /// Memory of the body budget that requests hold here.
    pub(in crate::worker) fn held_bytes(&self) -> usize {
        let held = |stream: &Stream| match &stream.phase {
            Phase::Receiving { receiving, .. } => receiving.body.held_bytes(),
            Phase::Waiting { job, .. } => job.body_held_bytes,
            Phase::Responding(response) => response.held_bytes(),
            _ => 0,
        };
        self.streams.values().map(held).sum()
    }
}
