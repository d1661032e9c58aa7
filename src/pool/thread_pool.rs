//! The pool as both sides see it: jobs go in, replies come back, and threads are parked and woken in between.
//!
//! Called by the event loop (`push`, `notify_one`, `receive`, `park`, `defer_drop`, `close`) and by the pool threads,
//! each through its [`super::PoolThread`]. This file joins the parts; each protocol stands in the file of its part, and
//! each decision in `policy.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::SegQueue;

use super::borrowed_buffer::BorrowedBuffer;
use super::conn_id::ConnId;
use super::gone_streams::GoneStreams;
use super::hub_wakeup::HubWakeup;
use super::in_flight::{InFlight, InFlightRequest};
use super::job::{Job, Piece, Reply};
use super::job_queue::JobQueue;
use super::job_stats::JobStats;
use super::live_connections::LiveConnections;
use super::loop_role::LoopRole;
use super::policy::{self, Reason, Wake};
use super::replies::Replies;
use super::response_memory::UnsentBytes;
use super::streaming_body::BodyDemand;
use super::wakeup::WakeupToken;

mod loop_side;

/// The threads that run the application and what passes between them and the event loop.
#[derive(Debug)]
pub struct Pool {
    queue: JobQueue,
    /// A job that has waited longer is not run (`queue_timeout`).
    queue_timeout: Option<Duration>,
    stats: JobStats,
    /// What the threads run, when requests are timed.
    in_flight: Option<InFlight>,
    wakeup: WakeupToken,
    role: LoopRole,
    /// Where the jobs are greenlets, their hub.
    hub: Option<Arc<HubWakeup>>,
    replies: Replies,
    live: LiveConnections,
    gone_streams: GoneStreams,
    /// Borrowed buffers that the loop has finished with, to be dropped by a thread that holds the GIL.
    deferred_drops: SegQueue<Box<dyn BorrowedBuffer>>,
    /// Whole responses that wait for their clients.
    unsent: Arc<UnsentBytes>,
    thread_count: usize,
    /// Threads that have registered, and threads that have left.
    registered: AtomicUsize,
    left: AtomicUsize,
}

impl Pool {
    /// A pool of `threads` threads (not started yet) with room for `capacity` jobs and as many live connections and streams;
    /// `wake_poll` makes the event loop return from its poll set.
    pub fn new(threads: usize, capacity: usize, wake_poll: Box<dyn Fn() + Send + Sync>) -> Self {
        assert!(threads > 0, "a pool has at least one thread");
        Self {
            queue: JobQueue::new(capacity),
            queue_timeout: None,
            stats: JobStats::new(),
            in_flight: None,
            wakeup: WakeupToken::new(threads),
            role: LoopRole::new(),
            hub: None,
            replies: Replies::new(wake_poll),
            live: LiveConnections::new(capacity),
            gone_streams: GoneStreams::default(),
            deferred_drops: SegQueue::new(),
            unsent: Arc::default(),
            thread_count: threads,
            registered: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
        }
    }

    /// The same pool, whose threads do not share one interpreter lock.
    #[must_use]
    pub fn with_parallel_threads(mut self, are_parallel: bool) -> Self {
        if are_parallel {
            self.stats.set_parallel();
        }
        self
    }

    /// The same pool, whose jobs are greenlets of this hub.
    #[must_use]
    pub fn with_hub(mut self, hub: Option<Arc<HubWakeup>>) -> Self {
        self.hub = hub;
        self
    }

    /// The same pool, whose threads do not run a job that has waited longer than `timeout`.
    #[must_use]
    pub fn with_queue_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.queue_timeout = timeout;
        self.with_take_back(timeout.is_some())
    }

    /// The same pool, from which the loop takes jobs back ([`Pool::pop_front`]).
    #[must_use]
    pub fn with_take_back(mut self, may_take: bool) -> Self {
        if may_take {
            self.queue.allow_take_back();
        }
        self
    }

    /// The same pool, which keeps what its threads run ([`Pool::in_flight`]).
    #[must_use]
    pub fn with_in_flight(mut self, is_kept: bool) -> Self {
        self.in_flight = is_kept.then(|| InFlight::new(self.thread_count));
        self
    }

    /// The same pool, whose whole responses hold at most so much memory.
    #[must_use]
    pub fn with_unsent(mut self, unsent: UnsentBytes) -> Self {
        self.unsent = Arc::new(unsent);
        self
    }

    /// Whole responses that wait for their clients.
    pub fn unsent(&self) -> &Arc<UnsentBytes> {
        &self.unsent
    }

    /// How many threads the pool has.
    pub fn thread_count(&self) -> usize {
        self.thread_count
    }

    /// Where the jobs are greenlets, what wakes their hub.
    pub fn hub(&self) -> Option<&HubWakeup> {
        self.hub.as_deref()
    }

    /// Whether all threads wait for clients that do not read.
    pub fn has_stuck_threads(&self) -> bool {
        self.unsent.waiting() + self.unsent.waiting_streams() >= self.thread_count
    }

    /// How many threads run a job now (a hint).
    pub fn busy(&self) -> usize {
        self.stats.busy()
    }

    /// How many jobs wait (a hint).
    pub fn queue_length(&self) -> usize {
        self.queue.len()
    }

    /// How many threads have registered and not left.
    pub fn live_threads(&self) -> usize {
        self.registered.load(Ordering::Acquire) - self.left.load(Ordering::Acquire)
    }

    /// Whether jobs are fast (`policy::are_fast`).
    #[inline]
    pub fn is_fast(&self) -> bool {
        self.stats.are_fast()
    }

    /// See `JobStats::has_room_beyond_share`.
    pub fn has_room_beyond_share(&self, own: usize, all: usize) -> bool {
        self.stats.has_room_beyond_share(own, all)
    }

    /// Wake a parked thread if `reason` asks for one (`policy::wake`), unless one is waking or none is parked.
    pub fn notify_one(&self, reason: Reason) {
        if let Some(hub) = &self.hub {
            // A hub that takes a job goes on to look for the next one.
            if reason != Reason::JobsLeft {
                hub.wake();
            }
            return;
        }
        match reason {
            // The thread that runs the loop looks after them as soon as it has iterated.
            Reason::DeferredDrops if self.role.is_delegated() => return,
            Reason::Signal if self.role.is_delegated() => {
                self.role.recall();
                self.replies.wake_loop();
            }
            _ => {}
        }
        match policy::wake(reason, self.stats.is_one_enough()) {
            Wake::One => self.wakeup.notify_one(),
            Wake::OneIfNoneComes => self.notify_if_none_comes(),
            Wake::No => {}
        }
    }

    // The event loop's side.

    /// Queue a job. The loop calls [`Pool::notify_one`] before it sleeps.
    ///
    /// # Errors
    /// The job itself when the queue is full or closed.
    pub fn push(&self, job: Box<Job>) -> Result<(), Box<Job>> {
        self.queue.push(job)
    }

    /// How many jobs were taken from the queue so far, wrapping.
    pub fn jobs_taken(&self) -> usize {
        self.stats.taken()
    }

    /// Whether a thread is parked that could be notified (a hint).
    pub fn has_parked_threads(&self) -> bool {
        self.wakeup.parked() > 0
    }

    /// The requests that threads run; none when the pool does not keep them.
    pub fn in_flight(&self) -> impl Iterator<Item = InFlightRequest> {
        self.in_flight.iter().flat_map(InFlight::iter)
    }

    /// A connection is open: jobs may name it.
    pub fn connection_opened(&self, conn: ConnId) {
        self.live.insert(conn);
    }

    /// A connection is closed, or no longer this worker's.
    pub fn connection_closed(&self, conn: ConnId) {
        self.live.remove(conn);
    }

    /// A stream is reset: its job need not run, or is notified if it does.
    pub fn stream_reset(&self, stream: ConnId) {
        self.gone_streams.insert(stream);
    }

    /// The job of a stream is back.
    pub fn stream_over(&self, stream: ConnId) {
        self.gone_streams.remove(stream);
    }

    /// The next reply, if one is waiting.
    pub fn receive(&self) -> Option<Reply> {
        self.replies.receive()
    }

    /// Whether a reply is waiting.
    pub fn has_replies(&self) -> bool {
        !self.replies.is_empty()
    }

    /// Give a borrowed buffer back, to be dropped by the next thread that looks for a job.
    pub fn defer_drop(&self, buffer: Box<dyn BorrowedBuffer>) {
        self.deferred_drops.push(buffer);
    }

    /// Whether borrowed buffers wait to be dropped.
    pub fn has_deferred_drops(&self) -> bool {
        !self.deferred_drops.is_empty()
    }

    /// No more jobs will come. Threads finish what is queued, then leave.
    pub fn close(&self) {
        self.queue.close();
        if let Some(hub) = &self.hub {
            hub.wake();
        }
        self.wakeup.notify_all();
    }

    /// Take back the job that has waited longest. Before the pool is closed only for a loop that may do so
    /// ([`Pool::with_take_back`]).
    pub fn pop_front(&self) -> Option<Box<Job>> {
        self.queue.pop_front()
    }

    /// Put back what was taken with [`Pool::pop_front`], before all others. Called at most once for each of them.
    pub fn push_front(&self, job: Box<Job>) {
        self.queue.push_front(job);
        self.notify_one(Reason::PutBack);
    }

    /// Take back the job that has waited longest, if that is longer than `queue_timeout`. The queue cannot be looked
    /// into, so a job that may still wait is taken out and put back.
    pub fn take_overdue(&self, now: Instant) -> Option<Box<Job>> {
        let job = self.pop_front()?;
        if self.is_overdue(&job, now) {
            return Some(job);
        }
        self.push_front(job);
        None
    }

    // The threads' side.

    /// Whether the connection of a job, or its stream, is gone: its response would reach no client.
    pub fn is_gone(&self, conn: ConnId) -> bool {
        self.live.is_gone(conn) || conn.stream != 0 && self.gone_streams.contains(conn)
    }

    /// Answer. Wakes the loop if it must be woken: a thread that sees another job will soon send another reply.
    pub fn send(&self, reply: Reply) {
        self.replies.send(reply, self.has_jobs());
    }

    /// Answer, before this thread waits for the client.
    pub fn send_and_wait(&self, reply: Reply) {
        self.replies.send(reply, false);
    }

    /// A piece of a streamed response. Another one is likely to follow soon, so a loop that sleeps briefly is left
    /// asleep; not so when the thread is about to wait for the window (`is_last`).
    pub fn send_piece(&self, conn: ConnId, piece: Piece, is_last: bool) {
        self.replies.send(Reply::Data(conn, piece), !is_last);
    }

    /// A thread registers. Returns its number. Panics when more threads come than the pool was made for.
    pub(super) fn register_thread(&self) -> usize {
        let index = self.registered.fetch_add(1, Ordering::AcqRel);
        assert!(index < self.thread_count, "more threads than in the pool");
        index
    }

    /// A thread leaves. The loop may be waiting for the last one.
    pub(super) fn thread_left(&self) {
        self.left.fetch_add(1, Ordering::AcqRel);
        self.replies.wake_loop();
    }

    /// The next job, for a thread that parks unless it gets one.
    #[inline]
    pub(super) fn pop(&self) -> Option<Box<Job>> {
        self.queue.pop()
    }

    /// Whether a job waits.
    #[inline]
    pub(super) fn has_jobs(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether there is anything for a thread that looks.
    pub(super) fn has_work(&self) -> bool {
        self.has_jobs() || self.has_deferred_drops() || self.is_closed()
    }

    /// See [`JobQueue::is_closed`].
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    pub(super) fn is_overdue(&self, job: &Job, now: Instant) -> bool {
        self.queue_timeout
            .is_some_and(|timeout| now.saturating_duration_since(job.arrived) > timeout)
    }

    /// Drop the borrowed buffers that the loop has given back. The caller holds the GIL.
    #[inline]
    pub fn drop_deferred(&self) {
        while let Some(buffer) = self.deferred_drops.pop() {
            drop(buffer);
        }
    }

    #[inline]
    pub(super) fn stats(&self) -> &JobStats {
        &self.stats
    }

    #[inline]
    pub(super) fn wakeup(&self) -> &WakeupToken {
        &self.wakeup
    }

    #[inline]
    pub(super) fn in_flight_table(&self) -> Option<&InFlight> {
        self.in_flight.as_ref()
    }
}

impl BodyDemand for Pool {
    fn want_body(&self, conn: ConnId) {
        self.send(Reply::WantsBody(conn));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool_of_fast_jobs(threads: usize) -> Pool {
        let pool = Pool::new(threads, 8, Box::new(|| {}));
        for _ in 0..100 {
            pool.stats.note_service(Duration::from_micros(50));
        }
        pool
    }

    #[test]
    fn fast_jobs_wake_a_thread_only_when_all_are_parked_or_stand_still() {
        let pool = pool_of_fast_jobs(2);
        pool.wakeup.park(0);
        pool.notify_one(Reason::JobsQueued);
        pool.notify_one(Reason::JobsLeft);
        assert!(pool.has_parked_threads(), "thread 1 comes for them");
        pool.notify_stall(Duration::from_millis(1), Instant::now());
        assert!(!pool.has_parked_threads());
        pool.wakeup.wait(0);
        pool.wakeup.wakeup_done();
        pool.wakeup.park(0);
        pool.wakeup.park(1);
        pool.notify_one(Reason::JobsQueued);
        assert_eq!(pool.wakeup.parked(), 1);
    }

    #[test]
    fn a_thread_that_a_stall_has_found_is_not_counted_on_until_it_is_back() {
        let pool = pool_of_fast_jobs(2);
        pool.wakeup.park(0);
        // Thread 1 runs a job that waits.
        let since = pool.stats.note_busy();
        pool.notify_stall(Duration::from_millis(1), Instant::now());
        let run_and_park = || {
            assert!(!pool.has_parked_threads(), "it was not woken");
            pool.wakeup.wait(0);
            pool.wakeup.wakeup_done();
            assert!(!pool.is_another_coming());
            pool.wakeup.park(0);
        };
        run_and_park();
        for _ in 0..2 {
            pool.notify_one(Reason::JobsQueued);
            run_and_park();
        }
        pool.stats.note_free(since);
        pool.notify_one(Reason::JobsQueued);
        assert!(pool.has_parked_threads(), "thread 1 comes for them");
    }

    #[test]
    fn an_overdue_job_is_taken_back_and_another_keeps_its_place() {
        let timeout = Duration::from_secs(1);
        let pool = Pool::new(1, 2, Box::new(|| {})).with_queue_timeout(Some(timeout));
        let arrived = Instant::now();
        assert!(pool.push(Box::new(Job::new(arrived))).is_ok());
        assert!(pool.take_overdue(arrived + timeout).is_none());
        assert_eq!(pool.queue_length(), 1);
        assert!(pool.take_overdue(arrived + timeout * 2).is_some());
        assert_eq!(pool.queue_length(), 0);
    }
}
