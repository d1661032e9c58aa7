//! Dispatch: requests to the pool, and the load they make.
//!
//! A whole request is queued for a thread, or the loop answers it itself: load shedding and health checks. Such answers
//! are queued here and taken by the loop later in the iteration, as the pool's replies are, so a client that pipelines
//! gets one per iteration. Jobs that are done with are kept for reuse with their buffers.

use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use crate::pool::balance::OwnLoad;
use crate::pool::policy;
use crate::pool::{ConnId, Job, OneRequestShare, Pool, Reason};

use super::arbiter_channel::ArbiterChannel;
use super::deferred_drop::DeferredDrops;
use super::health::Health;
use super::load_shedding::{self, LoadShedding, Shed};
use super::spool::BodyBudget;
use super::usage::Usage;
use super::worker_slot::{WorkerSlot, saturating_u32};

/// How many finished jobs are kept for reuse, and how much memory one of them may have.
const FREE_JOBS_MAX: usize = 256;
const FREE_JOB_BYTES_MAX: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Dispatch {
    pool: Arc<Pool>,
    slot: WorkerSlot,
    /// `None` when no bound is set.
    shedding: Option<LoadShedding>,
    health: Option<Health>,
    /// Whole requests that the loop has answered itself.
    #[expect(
        clippy::vec_box,
        reason = "jobs are boxed once and reused in their boxes"
    )]
    answered: Vec<Box<Job>>,
    #[expect(
        clippy::vec_box,
        reason = "jobs are boxed once and reused in their boxes"
    )]
    free_jobs: Vec<Box<Job>>,
    /// Jobs that were queued since a thread was last woken.
    unannounced: u32,
    /// Requests that have begun to arrive.
    serial: u64,
    /// Requests dispatched, and after how many the worker asks for a successor (`max_requests`).
    dispatched: u64,
    requests_max: Option<u64>,
    /// Jobs that are with the pool, and connections on which no request has come yet.
    in_flight: u32,
    newcomers: u32,
    /// How many of the last connections brought one request only.
    one_request: OneRequestShare,
}

impl Dispatch {
    pub(super) fn new(
        config: &Config,
        pool: Arc<Pool>,
        slot: WorkerSlot,
        requests_max: Option<u64>,
    ) -> Self {
        Self {
            pool,
            slot,
            shedding: LoadShedding::new(config),
            health: Health::new(config),
            answered: Vec::new(),
            free_jobs: Vec::new(),
            unannounced: 0,
            serial: 0,
            dispatched: 0,
            requests_max,
            in_flight: 0,
            newcomers: 0,
            one_request: OneRequestShare::default(),
        }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    // Jobs.

    /// A job for the next request, with the buffers of one that is done with, if there is one.
    pub(super) fn new_job(&mut self, now: Instant) -> Box<Job> {
        let mut job = self
            .free_jobs
            .pop()
            .unwrap_or_else(|| Box::new(Job::new(now)));
        self.serial += 1;
        job.serial = self.serial;
        job.arrived = now;
        job
    }

    /// A job is done with.
    pub(super) fn recycle(
        &mut self,
        mut job: Box<Job>,
        bodies: &mut BodyBudget,
        drops: &mut DeferredDrops,
    ) {
        if job.body_held_bytes > 0 {
            bodies.give_back(std::mem::take(&mut job.body_held_bytes));
        }
        for piece in job.response_body.pieces.drain(..) {
            drops.push(piece.into_borrowed());
        }
        if self.free_jobs.len() < FREE_JOBS_MAX && job.capacity() <= FREE_JOB_BYTES_MAX {
            job.clear();
            self.free_jobs.push(job);
        }
    }

    /// Hand a request to the pool, whose threads are notified of a batch at a time, or answer it.
    ///
    /// # Errors
    /// The job itself when the worker is about to leave.
    pub(super) fn submit(
        &mut self,
        mut job: Box<Job>,
        arbiter: &mut ArbiterChannel,
    ) -> Result<(), Box<Job>> {
        if let Some(health) = &self.health
            && let Some(question) = health.asked(&job.head)
        {
            self.slot
                .get()
                .report_queue_length(saturating_u32(self.pool.queue_length()));
            health.answer(&mut job, question, &self.slot);
            self.answered.push(job);
            return Ok(());
        }
        self.dispatched += 1;
        if self.requests_max == Some(self.dispatched) {
            arbiter.report_worn_out();
        }
        let arrived = job.arrived;
        if let Some(shedding) = &mut self.shedding {
            if shedding.is_full(&self.pool) {
                self.shed(job, Shed::QueueFull, arrived);
                return Ok(());
            }
            shedding.note_queued(arrived);
        }
        self.pool.push(job)?;
        self.in_flight += 1;
        self.unannounced += 1;
        if self.unannounced >= policy::JOBS_PER_NOTIFY {
            self.announce();
        }
        Ok(())
    }

    /// How many requests were handed to the pool so far.
    pub(super) fn dispatched(&self) -> u64 {
        self.dispatched
    }

    /// How many of them are with it.
    pub(super) fn jobs_in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether a connection that has `jobs` with the pool may have one more than its share: as long as nobody waits noticeably
    /// longer for it (`JobStats::has_room_beyond_share`), and no request would be shed for it.
    pub(super) fn has_room_beyond_share(&self, jobs: usize) -> bool {
        self.shedding.is_none()
            && self
                .pool
                .has_room_beyond_share(jobs, self.in_flight as usize)
    }

    /// See that a thread runs what was queued.
    pub(super) fn announce(&mut self) {
        if std::mem::take(&mut self.unannounced) > 0 {
            self.pool.notify_one(Reason::JobsQueued);
        }
    }

    /// A job has left the pool.
    pub(super) fn job_is_back(&mut self, conn: ConnId) {
        debug_assert!(self.in_flight > 0, "a job comes back once");
        if conn.stream != 0 {
            self.pool.stream_over(conn);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Take the job that has waited longest away from the pool.
    pub(super) fn take_first(&mut self) -> Option<Box<Job>> {
        let job = self.pool.pop_front()?;
        self.job_is_back(job.conn);
        Some(job)
    }

    /// Put it back.
    pub(super) fn put_back(&mut self, job: Box<Job>) {
        self.in_flight += 1;
        self.pool.push_front(job);
    }

    // Answers of the loop's own.

    /// No thread will run this job: the loop answers it with 503.
    pub(super) fn shed(&mut self, mut job: Box<Job>, why: Shed, now: Instant) {
        if let Some(shedding) = &mut self.shedding {
            shedding.refuse(&mut job, why, &self.pool, now);
        }
        self.answered.push(job);
        self.slot.get().add_shed(1);
    }

    /// Refuse a request that waited: the worker is stopped before a thread is free for it.
    pub(super) fn refuse(&mut self, mut job: Box<Job>) {
        load_shedding::refuse_stopped(&mut job);
        self.answered.push(job);
        self.slot.get().add_shed(1);
    }

    /// Shed what has waited too long in the queue.
    pub(super) fn shed_overdue(&mut self, now: Instant) {
        while let Some(due) = self.next_overdue()
            && due < now
        {
            let Some(job) = self.pool.take_overdue(now) else {
                return;
            };
            self.job_is_back(job.conn);
            self.shed(job, Shed::Waited, now);
        }
    }

    /// The answers that wait to be sent.
    #[expect(
        clippy::vec_box,
        reason = "jobs are boxed once and reused in their boxes"
    )]
    pub(super) fn take_answered(&mut self) -> Vec<Box<Job>> {
        std::mem::take(&mut self.answered)
    }

    /// There may be requests that the loop answers.
    pub(super) fn may_have_own_answers(&self) -> bool {
        self.shedding.is_some() || !self.answered.is_empty()
    }

    /// Answers wait to be sent.
    pub(super) fn has_answered(&self) -> bool {
        !self.answered.is_empty()
    }

    /// When the oldest job will have waited too long.
    pub(super) fn next_overdue(&mut self) -> Option<Instant> {
        self.shedding.as_mut()?.next_due(&self.pool)
    }

    /// Log how many requests were shed, when no more are or the worker stops.
    pub(super) fn log_shed(&mut self, now: Instant, worker_stops: bool) {
        if let Some(shedding) = &mut self.shedding {
            shedding.end_series(now, worker_stops);
        }
    }

    // Connections, as load.

    pub(super) fn connection_opened(&mut self, conn: ConnId) {
        self.pool.connection_opened(conn);
        self.newcomers += 1;
    }

    /// The first request of a connection has come.
    pub(super) fn newcomer_asked(&mut self) {
        self.newcomers = self.newcomers.saturating_sub(1);
    }

    /// A connection is gone, or is not this worker's any more.
    pub(super) fn connection_left(&self, conn: ConnId) {
        self.pool.connection_closed(conn);
    }

    /// Note how much a connection was used that is over.
    pub(super) fn note_usage(&mut self, usage: Usage) {
        match usage {
            Usage::New => self.newcomer_asked(),
            Usage::Asked => self.one_request.note(false),
            Usage::Kept => self.one_request.note(true),
        }
    }

    /// What keeps threads from serving another connection, now or soon.
    pub(super) fn load(&self) -> u32 {
        self.in_flight + self.newcomers
    }

    /// How this worker is doing, when it has `connections`.
    pub(super) fn own_load(&self, connections: u32) -> OwnLoad {
        OwnLoad {
            connections,
            load: self.load(),
            threads: saturating_u32(self.pool.thread_count()),
            are_fast: self.pool.is_fast(),
            one_request: self.one_request,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pool::PoolThread;
    use crate::scoreboard::Scoreboard;

    fn dispatch(config: &Config) -> (Dispatch, ArbiterChannel) {
        let slot = WorkerSlot::new(Arc::new(Scoreboard::new(1, 1).unwrap()), 0);
        let pool = Arc::new(Pool::new(1, 8, Box::new(|| {})).with_take_back(true));
        let arbiter = ArbiterChannel::new(slot.clone(), None);
        (Dispatch::new(config, pool, slot, Some(2)), arbiter)
    }

    #[test]
    fn a_request_beyond_max_queue_is_answered_and_never_queued() {
        let mut config = Config::default();
        (config.workers.threads, config.workers.max_queue) = (1, 1);
        let (mut dispatch, mut arbiter) = dispatch(&config);
        for _ in 0..3 {
            let job = dispatch.new_job(Instant::now());
            dispatch.submit(job, &mut arbiter).unwrap();
        }
        assert_eq!((dispatch.pool.queue_length(), dispatch.load()), (2, 2));
        let answered = dispatch.take_answered();
        assert_eq!(answered.len(), 1);
        assert_eq!(answered[0].response.status_code(), 503);
        assert!(!dispatch.has_answered());
    }

    #[test]
    fn more_than_a_share_is_for_fast_jobs() {
        let (mut dispatch, mut arbiter) = dispatch(&Config::default());
        assert!(
            !dispatch.has_room_beyond_share(0),
            "nothing is known of jobs"
        );
        let thread = PoolThread::register(dispatch.pool());
        for _ in 0..200 {
            let job = dispatch.new_job(Instant::now());
            dispatch.submit(job, &mut arbiter).unwrap();
            let job = thread.next_job(|_| panic!("there is one")).unwrap();
            dispatch.job_is_back(job.conn);
        }
        assert!(dispatch.has_room_beyond_share(0));
        let job = dispatch.new_job(Instant::now());
        dispatch.submit(job, &mut arbiter).unwrap();
        assert!(dispatch.has_room_beyond_share(1));
        assert!(!dispatch.has_room_beyond_share(16));
    }

    #[test]
    fn a_job_with_a_long_head_is_not_kept() {
        let (mut dispatch, _) = dispatch(&Config::default());
        let mut bodies = BodyBudget::new(&Config::default());
        let mut drops = DeferredDrops::default();
        for (bytes, kept) in [(10, 1), (FREE_JOB_BYTES_MAX + 1, 0)] {
            let mut job = dispatch.new_job(Instant::now());
            job.response.push(b"X", &vec![b'x'; bytes]).unwrap();
            dispatch.recycle(job, &mut bodies, &mut drops);
            assert_eq!(dispatch.free_jobs.len(), kept, "{bytes}");
        }
    }

    #[test]
    fn load_is_what_is_with_the_pool_and_who_has_not_asked_yet() {
        let (mut dispatch, mut arbiter) = dispatch(&Config::default());
        let conn = ConnId::new(0, 0);
        dispatch.connection_opened(conn);
        assert_eq!(dispatch.load(), 1);
        dispatch.newcomer_asked();
        let job = dispatch.new_job(Instant::now());
        dispatch.submit(job, &mut arbiter).unwrap();
        assert_eq!(dispatch.load(), 1);
        let job = dispatch.take_first().unwrap();
        assert_eq!(dispatch.load(), 0);
        dispatch.put_back(job);
        assert_eq!(dispatch.load(), 1);
    }

    #[test]
    fn a_successor_is_asked_for_once_at_the_limit_of_requests() {
        let (mut dispatch, mut arbiter) = dispatch(&Config::default());
        for number in 1..4 {
            let job = dispatch.new_job(Instant::now());
            dispatch.submit(job, &mut arbiter).unwrap();
            assert_eq!(dispatch.slot.get().asks_to_go(), number >= 2, "{number}");
        }
    }
}
