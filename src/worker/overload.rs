//! Answers that the event loop gives itself, to whole requests that no thread will run: those that have waited too
//! long for one (`queue_timeout`), and those for which too many wait already (`max_queue`).
//!
//! Such a job is answered as if a pool thread had done it, so the connection goes on as the client wishes; only the
//! answer does not come at once but in the next step of the turn, so that a client that pipelines gets one per turn.
//! Both bounds are off by default and then cost a branch on the way of a request.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::http::{Status, error_page};
use crate::pool::{Job, Pool};

use super::connection::{Connection, Fate};
use super::core::Core;
use super::event_loop::EventLoop;

/// Refusals with less than this between them are one story for the log.
const BURST_QUIET: Duration = Duration::from_secs(5);
/// When a refused client may come again, in seconds, unless `queue_timeout` says more.
const RETRY_AFTER_MIN_S: u64 = 1;

/// Why a request is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// It has waited longer than `queue_timeout`.
    Waited,
    /// As many as `max_queue` wait already.
    QueueFull,
}

impl Excess {
    fn message(self) -> &'static str {
        match self {
            Self::Waited => "The request waited too long for its turn",
            Self::QueueFull => "Too many requests wait for their turn",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Waited => "queue_timeout",
            Self::QueueFull => "max_queue",
        }
    }
}

/// Refusals in close succession.
#[derive(Clone, Copy, Debug)]
struct Burst {
    began: Instant,
    last: Instant,
    count: u64,
}

/// The bounds, and what came of them.
#[derive(Debug)]
pub(super) struct Overload {
    queue_timeout: Option<Duration>,
    /// Jobs that may be with the pool, running and waiting; `None` is no limit.
    jobs_max: Option<usize>,
    /// When the jobs in the queue arrived, the oldest first. Kept for `queue_timeout` only.
    arrivals: VecDeque<Instant>,
    /// Whole requests with their answers.
    #[expect(
        clippy::vec_box,
        reason = "jobs travel boxed, and come back in their boxes"
    )]
    answered: Vec<Box<Job>>,
    burst: Option<Burst>,
}

impl Overload {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            queue_timeout: config.workers.queue_timeout,
            jobs_max: (config.workers.max_queue > 0).then(|| {
                config
                    .workers
                    .max_queue
                    .saturating_add(config.workers.threads)
            }),
            arrivals: VecDeque::new(),
            answered: Vec::new(),
            burst: None,
        }
    }

    /// Whether `max_queue` is reached.
    pub(super) fn is_full(&self, pool: &Pool) -> bool {
        self.jobs_max
            .is_some_and(|max| pool.queue_length() + pool.busy() >= max)
    }

    /// A job is queued.
    pub(super) fn note_queued(&mut self, arrived: Instant) {
        if self.queue_timeout.is_some() {
            self.arrivals.push_back(arrived);
        }
    }

    /// The loop has answered this job itself.
    pub(super) fn answer(&mut self, job: Box<Job>) {
        self.answered.push(job);
    }

    /// Answers wait to be sent.
    pub(super) fn has_answers(&self) -> bool {
        !self.answered.is_empty()
    }

    /// When the oldest job will have waited too long.
    pub(super) fn next_due(&mut self, pool: &Pool) -> Option<Instant> {
        let timeout = self.queue_timeout?;
        let waiting = pool.queue_length();
        // Threads take jobs in the order of their arrival, so the entries of those that are gone are in front.
        while self.arrivals.len() > waiting {
            self.arrivals.pop_front();
        }
        self.arrivals.front().map(|arrived| *arrived + timeout)
    }
}

impl Core {
    /// No thread will run this job.
    pub(super) fn turn_away(&mut self, mut job: Box<Job>, excess: Excess) {
        let overload = &mut self.overload;
        let status = Status::SERVICE_UNAVAILABLE;
        let retry_after = overload
            .queue_timeout
            .map_or(0, |timeout| timeout.as_secs())
            .max(RETRY_AFTER_MIN_S);
        let page = error_page(status, excess.message());
        fill(&mut job, status, &retry_after.to_string(), &page);
        job.refusal = excess.setting();
        match &mut overload.burst {
            Some(burst) => {
                burst.last = self.now;
                burst.count += 1;
            }
            None => {
                overload.burst = Some(Burst {
                    began: self.now,
                    last: self.now,
                    count: 1,
                });
                log::warn!(
                    "Requests are answered with 503: {} ({}; {} wait, {} run).",
                    excess.message().to_lowercase(),
                    excess.setting(),
                    self.pool.queue_length(),
                    self.pool.busy()
                );
            }
        }
        overload.answer(job);
        self.slot().add_shed(1);
    }

    /// Say what a burst came to when it is over (or the worker is).
    pub(super) fn end_burst(&mut self, is_last_word: bool) {
        let now = self.now;
        let is_over = |burst: &Burst| {
            is_last_word || now.saturating_duration_since(burst.last) >= BURST_QUIET
        };
        if let Some(burst) = self.overload.burst.take_if(|burst| is_over(burst)) {
            log::warn!(
                "{} request(s) were answered with 503 within {:.1?}.",
                burst.count,
                burst.last.saturating_duration_since(burst.began)
            );
        }
    }

    /// Take what has waited too long out of the queue.
    fn take_overdue(&mut self) {
        while let Some(due) = self.overload.next_due(&self.pool)
            && due < self.now
        {
            let Some(job) = self.pool.take_overdue(self.now) else {
                return;
            };
            self.job_is_back();
            self.turn_away(job, Excess::Waited);
        }
    }
}

fn fill(job: &mut Job, status: Status, retry_after: &str, page: &str) {
    job.socket = None;
    job.response.clear();
    let line = format!("{} {}", status.code, status.reason);
    // None of these can be refused: they are ours.
    let _ = job.response.set_status(line.as_bytes());
    let _ = job.response.push(b"Retry-After", retry_after.as_bytes());
    let _ = job.response.push(b"Content-Type", b"text/html");
    job.response_body.bytes.extend_from_slice(page.as_bytes());
}

impl Connection {
    /// The loop answers the request itself: nobody has run it, and nobody will.
    pub(super) fn on_own_answer(&mut self, job: Box<Job>, core: &mut Core) -> Fate {
        if !self.exchange.is_dispatched() {
            core.recycle(job);
            return Fate::Keep;
        }
        self.offered = false;
        self.on_whole(job, core)
    }
}

impl EventLoop<'_> {
    /// Send the answers that need no thread. What they make room for (the next of a pipeline) waits for the next turn.
    pub(super) fn send_own_answers(&mut self) {
        self.core.take_overdue();
        for job in std::mem::take(&mut self.core.overload.answered) {
            let id = job.conn;
            match self.connections.get_mut(id) {
                Some(connection) => {
                    let fate = connection.on_own_answer(job, &mut self.core);
                    self.settle_fate(id, fate);
                }
                None => self.on_orphaned_job(job),
            }
        }
    }
}
