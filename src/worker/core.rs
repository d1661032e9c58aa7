//! What the connections of one worker share: limits, clock, buffers, the pool, the counters.
//!
//! The event loop owns one [`Core`] beside its connections and lends it to the connection that it moves.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::Config;
use crate::http::{HttpDate, Limits, ResponseDefaults};
use crate::logging::statsd::Statsd;

use crate::pool::{BorrowedBuffer, ConnId, Job, OneRequestShare, Pool, Reason, policy};
use crate::scoreboard::{Scoreboard, Slot, Unready};

use super::access_log::AccessLog;
use super::arbiter_line::ArbiterLine;
use super::deadlines::{Deadlines, Timer};
use super::health::Health;
use super::overload::{Excess, Overload};
use super::overrun::Overruns;
use super::released::Released;
use super::spool::SpoolBudget;
use super::trust::{self, Trust};

/// The loop reads into a buffer of this size, shared by all connections.
const SCRATCH_BYTES: usize = 64 * 1024;
/// All connections together write at most about this of queued responses in one turn: many large ones at once must
/// not keep a small one waiting for more than a millisecond or so.
const TURN_BYTES: u64 = 2 * 1024 * 1024;
/// So many finished jobs are kept for reuse, and none that holds more than this.
const FREE_JOBS_MAX: usize = 256;
const FREE_JOB_BYTES_MAX: usize = 64 * 1024;

/// The deadlines' lengths; `None` is no deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// From the first byte of a head (or from accept) to its end (`client_header_timeout`).
    pub(super) header: Option<Duration>,
    /// Between two arrivals of body bytes (`client_body_timeout`).
    pub(super) body: Option<Duration>,
    /// Between two requests (`keepalive`).
    pub(super) keep_alive: Option<Duration>,
    /// Between two acceptances of response bytes by the client (`send_timeout`).
    pub(super) send: Option<Duration>,
    /// From the end of a last response to the client's own close.
    pub(super) linger: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) limits: Limits,
    pub(super) trust: Trust,
    pub(super) timeouts: Timeouts,
    pub(super) pool: Arc<Pool>,
    pub(super) deadlines: Deadlines,
    pub(super) spool: SpoolBudget,
    pub(super) health: Option<Health>,
    pub(super) overload: Overload,
    pub(super) overruns: Option<Overruns>,
    /// The time at the start of this turn of the loop.
    pub(super) now: Instant,
    pub(super) clock: Clock,
    /// The `Server` field's value.
    server: Vec<u8>,
    /// What was just read.
    pub(super) scratch: Vec<u8>,
    /// What is just being encoded.
    pub(super) out: Vec<u8>,
    /// Objects of the application's that were written, on their way back to the pool.
    pub(super) finished: Vec<Box<dyn BorrowedBuffer>>,
    pub(super) released: Released,
    #[expect(
        clippy::vec_box,
        reason = "jobs travel boxed, and come back in their boxes"
    )]
    free_jobs: Vec<Box<Job>>,
    /// Connections to which pieces of streamed responses came in this turn.
    pub(super) streaming: Vec<ConnId>,
    /// Connections that have more to read or write than one turn allows.
    pub(super) again: Vec<ConnId>,
    /// What the connections together may still write of large responses in this turn.
    pub(super) turn_bytes_left: u64,
    /// In the last turn that was not enough for all.
    pub(super) ran_dry: bool,
    /// A connection has closed, or may be closed for another: a worker that was full can accept again.
    pub(super) room_made: bool,
    /// Jobs that were queued since a thread was last notified.
    unannounced_jobs: u32,
    /// Requests wait for their bodies (`request_buffering`).
    pub(super) buffers_requests: bool,
    /// The worker stops: every answer says close.
    pub(super) draining: bool,
    /// It has closed connections that waited for an answer.
    pub(super) cut: bool,
    /// Requests that have begun to arrive.
    serial: u64,
    pub(super) arbiter: ArbiterLine,
    /// Requests dispatched, and after how many the worker asks for a successor (`max_requests`).
    pub(super) requests: u64,
    pub(super) requests_max: Option<u64>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) metrics: Option<Statsd>,
    /// Jobs that are with the pool, and connections that have not asked for anything yet.
    pub(super) in_flight: u32,
    pub(super) newcomers: u32,
    /// How many of the last connections brought one request only (see `siblings.rs`).
    pub(super) one_request: OneRequestShare,
    scoreboard: Arc<Scoreboard>,
    slot: usize,
}

/// Wall-clock seconds and the `Date` field, worked out once a second at most.
#[derive(Debug)]
pub(super) struct Clock {
    date: HttpDate,
    unix_seconds: i64,
    /// Until when `unix_seconds` holds.
    valid_until: Instant,
}

impl Clock {
    fn new(now: Instant) -> Self {
        let mut clock = Self {
            date: HttpDate::new(),
            unix_seconds: 0,
            valid_until: now,
        };
        clock.update(now);
        clock
    }

    /// Follow the wall clock: read it again when its second is over.
    pub(super) fn update(&mut self, now: Instant) {
        if now < self.valid_until {
            return;
        }
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.unix_seconds = i64::try_from(since.as_secs()).unwrap_or(0);
        self.valid_until =
            now + Duration::from_nanos(u64::from(1_000_000_000 - since.subsec_nanos()));
    }

    /// Seconds since the epoch and nanoseconds at `at`, which is in this turn.
    pub(super) fn unix_time(&self, at: Instant) -> (i64, u32) {
        let left = self.valid_until.saturating_duration_since(at);
        let nanos = 999_999_999_u32.saturating_sub(left.subsec_nanos());
        (self.unix_seconds, nanos)
    }
}

/// What a [`Core`] is made from.
pub(super) struct CoreSetup<'a> {
    pub(super) config: &'a Config,
    pub(super) pool: Arc<Pool>,
    pub(super) server: Vec<u8>,
    pub(super) script_name: Vec<u8>,
    pub(super) requests_max: Option<u64>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) metrics: Option<Statsd>,
    pub(super) scoreboard: Arc<Scoreboard>,
    pub(super) slot: usize,
}

impl Core {
    pub(super) fn new(setup: CoreSetup<'_>) -> Self {
        let CoreSetup {
            config,
            pool,
            server,
            script_name,
            requests_max,
            access_log,
            metrics,
            scoreboard,
            slot,
        } = setup;
        let now = Instant::now();
        Self {
            limits: trust::limits(config),
            trust: Trust::new(config, &script_name),
            timeouts: Timeouts {
                header: config.http.client_header_timeout,
                body: config.http.client_body_timeout,
                keep_alive: config.http.keepalive,
                send: config.http.send_timeout,
                linger: Duration::from_secs(2),
            },
            pool,
            deadlines: Deadlines::new(now),
            spool: SpoolBudget {
                body_bytes_max: config.limits.body_buffer_size,
                total_bytes_max: config.limits.body_buffer_total,
                directory: config.workers.worker_tmp_dir.clone(),
                held_bytes: 0,
                buffer_pool: Arc::default(),
            },
            health: Health::new(config),
            overload: Overload::new(config),
            overruns: config
                .workers
                .request_timeout
                .map(|timeout| Overruns::new(timeout, now)),
            now,
            clock: Clock::new(now),
            server,
            scratch: vec![0; SCRATCH_BYTES],
            out: Vec::with_capacity(4096),
            finished: Vec::new(),
            released: Released::default(),
            free_jobs: Vec::new(),
            streaming: Vec::new(),
            again: Vec::new(),
            turn_bytes_left: TURN_BYTES,
            ran_dry: false,
            room_made: false,
            unannounced_jobs: 0,
            buffers_requests: config.limits.request_buffering,
            draining: false,
            cut: false,
            serial: 0,
            arbiter: ArbiterLine::default(),
            requests: 0,
            requests_max,
            access_log,
            metrics,
            in_flight: 0,
            newcomers: 0,
            one_request: OneRequestShare::default(),
            scoreboard,
            slot,
        }
    }

    /// What keeps threads from serving another connection, now or soon.
    pub(super) fn load(&self) -> u32 {
        self.in_flight + self.newcomers
    }

    /// How many slots the scoreboard has, and which one is ours.
    pub(super) fn slots(&self) -> usize {
        self.scoreboard.slots()
    }

    pub(super) fn slot_index(&self) -> usize {
        self.slot
    }

    /// A sibling's counters.
    pub(super) fn slot_of(&self, index: usize) -> Slot<'_> {
        self.scoreboard.slot(index)
    }

    /// A job has left the pool.
    pub(super) fn job_is_back(&mut self) {
        debug_assert!(self.in_flight > 0, "a job comes back once");
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Take the job that has waited longest away from the pool.
    pub(super) fn take_first(&mut self) -> Option<Box<Job>> {
        let job = self.pool.pop_front()?;
        self.job_is_back();
        Some(job)
    }

    /// Put it back.
    pub(super) fn put_first(&mut self, job: Box<Job>) {
        self.in_flight += 1;
        self.pool.push_front(job);
    }

    /// This worker's counters.
    pub(super) fn slot(&self) -> Slot<'_> {
        self.scoreboard.slot(self.slot)
    }

    /// Whether the server can serve, as all workers together know it.
    pub(super) fn readiness(&self, max_queue: usize) -> Result<(), Unready> {
        self.scoreboard.readiness(max_queue)
    }

    /// Take the time for this turn.
    pub(super) fn tick(&mut self) {
        self.now = Instant::now();
        self.clock.update(self.now);
        self.ran_dry = self.turn_bytes_left == 0;
        self.turn_bytes_left = TURN_BYTES;
    }

    /// How responses look now, and the buffer they are encoded into.
    pub(super) fn look_and_out(&mut self) -> (ResponseDefaults<'_>, &mut Vec<u8>) {
        let date = self.clock.date.at(self.clock.unix_seconds);
        (
            ResponseDefaults {
                server: &self.server,
                date,
            },
            &mut self.out,
        )
    }

    /// An empty job, with its buffers if one has come back.
    pub(super) fn fresh_job(&mut self) -> Box<Job> {
        self.free_jobs
            .pop()
            .unwrap_or_else(|| Box::new(Job::new(self.now)))
    }

    /// The number of the next request.
    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// A job is done with.
    pub(super) fn recycle(&mut self, mut job: Box<Job>) {
        self.spool
            .give_back(std::mem::take(&mut job.body_held_bytes));
        for piece in job.response_body.pieces.drain(..) {
            if let crate::pool::Piece::Borrowed(shared) = piece {
                self.finished.push(shared);
            }
        }
        if self.free_jobs.len() < FREE_JOBS_MAX
            && job.response_body.bytes.capacity() <= FREE_JOB_BYTES_MAX
        {
            job.clear();
            self.free_jobs.push(job);
        }
    }

    /// Give the application's objects back to it.
    pub(super) fn release_finished(&mut self) {
        self.released.take(&mut self.finished, &self.pool);
    }

    /// Queue a job for the pool, whose threads hear of it with the rest of a batch.
    pub(super) fn push(&mut self, job: Box<Job>) -> Result<(), Box<Job>> {
        if self.overload.is_full(&self.pool) {
            self.turn_away(job, Excess::QueueFull);
            return Ok(());
        }
        let arrived = job.arrived;
        self.pool.push(job)?;
        self.in_flight += 1;
        self.overload.note_queued(arrived);
        self.unannounced_jobs += 1;
        if self.unannounced_jobs >= policy::JOBS_PER_NOTIFY {
            self.announce_jobs();
        }
        Ok(())
    }

    /// See that somebody runs what was queued.
    pub(super) fn announce_jobs(&mut self) {
        if std::mem::take(&mut self.unannounced_jobs) > 0 {
            self.pool.notify_one(Reason::JobsQueued);
        }
    }

    /// What is done once per turn: objects go back, log lines go out.
    pub(super) fn end_turn(&mut self) {
        self.release_finished();
        self.released.look(&self.pool, self.now);
        if let Some(log) = &mut self.access_log {
            log.flush_if_due(self.now);
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.flush();
        }
    }

    /// Let `conn` be due after `timeout`, or never.
    pub(super) fn set_deadline(
        &mut self,
        conn: ConnId,
        timer: &mut Timer,
        timeout: Option<Duration>,
    ) {
        match timeout {
            Some(timeout) => self.deadlines.set(conn, timer, self.now + timeout),
            None => timer.clear(),
        }
    }
}
