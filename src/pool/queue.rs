//! The pool as both sides see it: the job queue, the threads' seats, the way back.
//!
//! Called by the event loop (`push`, `receive`, `park`, `release`, `close`) and by the pool threads (`enter`, `next`,
//! `send`). The loop is the only producer of jobs. One job per connection is under way at most, so a queue of as many
//! places as there may be connections cannot overflow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::{ArrayQueue, SegQueue};

use super::heirs::Heirs;
use super::job::{ConnId, Job, Piece, Reply, SharedBytes};
use super::presence::Presence;
use super::replies::{ParkMode, Replies};
use super::seat::Seat;
use super::waits::WaitingShare;
use super::watch::{InHand, Watches};

/// The threads that run the application and what passes between them and the event loop.
#[derive(Debug)]
pub struct Pool {
    pub(super) jobs: ArrayQueue<Box<Job>>,
    /// A job that the loop took from the queue to look at and that goes first.
    displaced: ArrayQueue<Box<Job>>,
    /// The loop may do so.
    loop_takes: bool,
    /// A job that has waited longer is not run (`queue_timeout`).
    pub(super) queue_timeout: Option<Duration>,
    /// What the threads have in hand, when requests are timed.
    pub(super) watches: Option<Watches>,
    pub(super) heirs: Heirs,
    pub(super) replies: Replies,
    presence: Presence,
    /// Objects of the application's that the loop has finished with.
    released: SegQueue<Box<dyn SharedBytes>>,
    pub(super) closed: AtomicBool,
    thread_count: usize,
    /// Seats given out, and seats given back.
    entered: AtomicUsize,
    pub(super) left: AtomicUsize,
    /// Threads that run a job.
    pub(super) busy: AtomicUsize,
    /// Jobs that were taken from the queue, wrapping: whether the pool moves.
    pub(super) taken: AtomicUsize,
    /// What `taken` was when the loop last found that it does not.
    stalled_at: AtomicUsize,
    /// How long a job lasts, as a moving mean in microseconds.
    service_micros: AtomicU32,
    /// Below this mean jobs are fast, if they do not wait for anything.
    fast_micros: u32,
    pub(super) waiting: WaitingShare,
}

/// Jobs that last less than this on average are run by one thread, one after another, faster than a second one could be
/// woken to help.
const FAST_SERVICE_MICROS: u32 = 500;
/// Threads that run side by side help as soon as waking one costs less than the job.
const FAST_SERVICE_MICROS_IN_PARALLEL: u32 = 20;
/// After a stall as many jobs are run by all threads that are awake.
const DISTRUST_JOBS: usize = 256;
/// The mean moves by this part of a difference.
const SERVICE_WEIGHT: u32 = 8;

impl Pool {
    /// A pool of `threads` threads (not started yet) with room for `capacity` jobs
    /// (and as many connections); `wake` makes the event loop
    /// return from its sleep.
    pub fn new(threads: usize, capacity: usize, wake: Box<dyn Fn() + Send + Sync>) -> Self {
        assert!(threads > 0, "a pool has at least one thread");
        Self {
            jobs: ArrayQueue::new(capacity.max(1)),
            displaced: ArrayQueue::new(1),
            loop_takes: false,
            queue_timeout: None,
            watches: None,
            heirs: Heirs::new(threads),
            replies: Replies::new(wake),
            presence: Presence::new(capacity),
            released: SegQueue::new(),
            closed: AtomicBool::new(false),
            thread_count: threads,
            entered: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            // As if long ago.
            stalled_at: AtomicUsize::new(usize::MAX / 2),
            // Unknown: as if jobs waited, so that the first burst finds all threads.
            service_micros: AtomicU32::new(FAST_SERVICE_MICROS * 4),
            fast_micros: FAST_SERVICE_MICROS,
            waiting: WaitingShare::default(),
        }
    }

    /// The same pool, whose threads do not share one interpreter lock.
    #[must_use]
    pub fn with_parallel_threads(mut self, are_parallel: bool) -> Self {
        if are_parallel {
            self.fast_micros = FAST_SERVICE_MICROS_IN_PARALLEL;
        }
        self
    }

    /// The same pool, whose threads do not run a job that has waited longer than `timeout`.
    #[must_use]
    pub fn with_queue_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.queue_timeout = timeout;
        self.loop_takes |= timeout.is_some();
        self
    }

    /// The same pool, from which the loop takes jobs back ([`Pool::take_first`]).
    #[must_use]
    pub fn with_taking(mut self, may_take: bool) -> Self {
        self.loop_takes |= may_take;
        self
    }

    /// The same pool, which tells what its threads have in hand ([`Pool::in_hand`]).
    #[must_use]
    pub fn with_watches(mut self, is_watched: bool) -> Self {
        self.watches = is_watched.then(|| Watches::new(self.thread_count));
        self
    }

    /// How many threads the pool has.
    pub fn thread_count(&self) -> usize {
        self.thread_count
    }

    /// How many threads run a job now (a hint).
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// How many jobs wait (a hint).
    pub fn queue_length(&self) -> usize {
        self.jobs.len() + self.displaced.len()
    }

    /// How many threads have entered and not left.
    pub fn live(&self) -> usize {
        self.entered.load(Ordering::Acquire) - self.left.load(Ordering::Acquire)
    }

    // The event loop's side.

    /// Queue a job. Whoever pushes calls [`Pool::summon`] before it sleeps.
    ///
    /// # Errors
    /// The job itself when the queue is full or closed.
    pub fn push(&self, job: Box<Job>) -> Result<(), Box<Job>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(job);
        }
        self.jobs.push(job)
    }

    /// See that a thread will look at what was pushed. Called once for several jobs: on a busy core the woken thread
    /// preempts the loop, and a switch for each job would cost more than the job.
    ///
    /// While jobs are fast, a thread that is awake is trusted to come back for the next one, and no second one is
    /// woken to stand by. Should it wait in the application after all, the loop finds the pool standing still
    /// ([`Pool::taken`]) and calls [`Pool::summon_in_stall`].
    pub fn summon(&self) {
        if !(self.is_fast() && self.heirs.is_anyone_awake()) {
            self.heirs.summon();
        }
    }

    /// Whether jobs are over before a thread or a process could be woken to help, and seldom wait for anything but the
    /// interpreter.
    pub fn is_fast(&self) -> bool {
        self.service_micros.load(Ordering::Relaxed) < self.fast_micros && self.waiting.is_small()
    }

    /// How long one thread would take for the jobs that wait (a hint).
    pub fn work_ahead(&self) -> Duration {
        let micros = u64::from(self.service_micros.load(Ordering::Relaxed));
        Duration::from_micros(micros.saturating_mul(self.queue_length() as u64))
    }

    /// Wake a thread, unless one is on its way or all are awake.
    pub fn summon_now(&self) {
        self.heirs.summon();
    }

    /// The threads that are awake take no jobs: see that another one does.
    pub fn summon_in_stall(&self) {
        self.stalled_at.store(self.taken(), Ordering::Relaxed);
        self.heirs.summon();
    }

    /// Whether the calling thread is better asleep although jobs wait. While jobs are fast one thread runs them all;
    /// others that are awake, as after a burst of slow ones, would only take the GIL from it again and again. Not so
    /// when the pool stood still not long ago: then those that are awake may be held up in the application.
    pub(super) fn has_surplus(&self) -> bool {
        let since_stall = self
            .taken()
            .wrapping_sub(self.stalled_at.load(Ordering::Relaxed));
        self.is_fast()
            && since_stall > DISTRUST_JOBS
            && self.heirs.is_another_awake()
            && !self.closed.load(Ordering::Relaxed)
    }

    /// How many jobs were taken from the queue so far, wrapping.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether a thread sleeps that could be summoned (a hint).
    pub fn has_sleepers(&self) -> bool {
        self.heirs.sleeping() > 0
    }

    /// The jobs that threads have in hand; none when the pool does not watch them.
    pub fn in_hand(&self) -> impl Iterator<Item = InHand> {
        self.watches.iter().flat_map(Watches::in_hand)
    }

    /// A connection is there: jobs may name it.
    pub fn arrived(&self, conn: ConnId) {
        self.presence.arrive(conn);
    }

    /// A connection is gone, or not ours any more.
    pub fn left(&self, conn: ConnId) {
        self.presence.leave(conn);
    }

    /// The next reply, if one is waiting.
    pub fn receive(&self) -> Option<Reply> {
        self.replies.receive()
    }

    /// Whether a reply is waiting.
    pub fn has_replies(&self) -> bool {
        self.replies.has_replies()
    }

    /// Announce that the loop is about to sleep. Returns false when a reply is waiting: then it must not.
    pub fn park(&self, mode: ParkMode) -> bool {
        self.replies.park(mode)
    }

    /// The loop is awake again.
    pub fn unpark(&self) {
        self.replies.unpark();
    }

    /// Give an object back to the application's side, to be dropped by the next thread that looks for a job.
    pub fn release(&self, shared: Box<dyn SharedBytes>) {
        self.released.push(shared);
    }

    /// Whether objects wait to be dropped.
    pub fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// No more jobs will come. Threads finish what is queued, then leave.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.heirs.wake_all();
    }

    /// Take back what no thread has begun (after `close`, when waiting for it is over).
    pub fn unbegun(&self) -> Option<Box<Job>> {
        self.take_first()
    }

    /// Take back the job that has waited longest. Only for a loop that may do so ([`Pool::with_taking`]).
    pub fn take_first(&self) -> Option<Box<Job>> {
        self.displaced.pop().or_else(|| self.jobs.pop())
    }

    /// Put back what was taken with [`Pool::take_first`], before all others. Called at most once for each of them.
    pub fn put_first(&self, job: Box<Job>) {
        debug_assert!(self.loop_takes, "threads do not look for it");
        if let Err(job) = self.displaced.push(job) {
            debug_assert!(false, "only the loop displaces, one at a time");
            // In production it loses its place and no more.
            drop(self.jobs.push(job));
        }
        self.heirs.summon();
    }

    /// Take back the job that has waited longest, if that is longer than `queue_timeout`. The queue cannot be looked
    /// into, so one that may still wait is taken out and put back.
    pub fn take_overdue(&self, now: Instant) -> Option<Box<Job>> {
        let job = self.take_first()?;
        if self.is_overdue(&job, now) {
            return Some(job);
        }
        self.put_first(job);
        None
    }

    pub(super) fn is_overdue(&self, job: &Job, now: Instant) -> bool {
        self.queue_timeout
            .is_some_and(|timeout| now.saturating_duration_since(job.arrived) > timeout)
    }

    pub(super) fn next_job(&self) -> Option<Box<Job>> {
        if self.has_displaced()
            && let Some(job) = self.displaced.pop()
        {
            return Some(job);
        }
        self.jobs.pop()
    }

    // The threads' side.

    /// A thread takes its seat. Panics when more threads come than the pool was made for.
    pub fn enter(self: &Arc<Self>) -> Seat {
        let index = self.entered.fetch_add(1, Ordering::AcqRel);
        assert!(index < self.thread_count, "more threads than seats");
        Seat::new(self.clone(), index)
    }

    /// Whether nobody waits for the answer to a job of this connection any more.
    pub fn is_gone(&self, conn: ConnId) -> bool {
        self.presence.is_gone(conn)
    }

    /// Whether another job waits behind the one that a thread has in hand.
    pub fn has_more(&self) -> bool {
        !self.jobs.is_empty() || self.has_displaced()
    }

    fn has_displaced(&self) -> bool {
        self.loop_takes && !self.displaced.is_empty()
    }

    /// Answer. Wakes the loop if it must be woken.
    pub fn send(&self, reply: Reply) {
        self.replies.send(reply, self.has_more());
    }

    /// A piece of a streamed response. Another one is likely to follow soon, so a loop that sleeps shortly is left to
    /// it; not so when the thread is about to wait for the window (`is_last`).
    pub fn send_piece(&self, conn: ConnId, piece: Piece, is_last: bool) {
        self.replies.send(Reply::Data(conn, piece), !is_last);
    }

    /// A thread leaves jobs behind: while they are fast it will be back for them.
    pub(super) fn summon_beside(&self) {
        if !self.is_fast() {
            self.heirs.summon();
        }
    }

    pub(super) fn note_service(&self, lasted: Duration) {
        let micros = u32::try_from(lasted.as_micros()).unwrap_or(u32::MAX);
        let mean = self.service_micros.load(Ordering::Relaxed);
        // Threads may overwrite each other's note: it is a mean, not an account.
        let mean = mean - mean / SERVICE_WEIGHT + micros / SERVICE_WEIGHT;
        self.service_micros.store(mean, Ordering::Relaxed);
    }

    pub(super) fn drop_released(&self) {
        while let Some(shared) = self.released.pop() {
            drop(shared);
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.has_more() || !self.released.is_empty() || self.closed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_threads_that_are_awake_for_fast_jobs_one_is_enough_unless_the_pool_stood_still() {
        let pool = Pool::new(2, 8, Box::new(|| {}));
        assert!(!pool.has_surplus(), "nobody knows yet that jobs are fast");
        for _ in 0..100 {
            pool.note_service(Duration::from_micros(50));
        }
        assert!(pool.is_fast() && pool.has_surplus());
        pool.heirs.lie_down(1);
        assert!(!pool.has_surplus(), "nobody else is awake");
        pool.summon_in_stall();
        assert!(!pool.has_surplus(), "the other one may be held up");
        pool.taken.fetch_add(DISTRUST_JOBS + 1, Ordering::Relaxed);
        assert!(pool.has_surplus());
        pool.close();
        assert!(!pool.has_surplus(), "all help to finish");
    }

    #[test]
    fn threads_that_run_side_by_side_are_no_surplus() {
        let pool = Pool::new(2, 8, Box::new(|| {})).with_parallel_threads(true);
        for _ in 0..100 {
            pool.note_service(Duration::from_micros(50));
        }
        assert!(!pool.is_fast() && !pool.has_surplus());
    }
}
