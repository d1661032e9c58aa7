//! The pool as both sides see it: the job queue, the threads' seats, the way back.
//!
//! Called by the event loop (`push`, `receive`, `park`, `release`, `close`) and by the pool threads (`enter`, `next`,
//! `send`). The loop is the only producer of jobs. One job per connection is under way at most, so a queue of as many
//! places as there may be connections cannot overflow.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::{ArrayQueue, SegQueue};

use super::in_flight::{InFlight, InFlightRequest};
use super::job::{BorrowedBuffer, ConnId, Job, Piece, Reply};
use super::live_connections::LiveConnections;
use super::replies::{Replies, SleepMode};
use super::waits::WaitingShare;
use super::wakeup::WakeupToken;

/// Why a parked thread may be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The loop has queued jobs.
    JobsQueued,
    /// A thread has taken a job and leaves others in the queue.
    JobsLeft,
    /// The loop has put a job back in front.
    PutBack,
    /// Jobs wait and the threads that are awake take none.
    Stall,
    /// Borrowed buffers wait to be dropped.
    DeferredDrops,
    /// A signal has arrived that the thread is to handle.
    Signal,
}

/// The threads that run the application and what passes between them and the event loop.
#[derive(Debug)]
pub struct Pool {
    pub(super) jobs: ArrayQueue<Box<Job>>,
    /// A job that the loop took from the queue to look at and that goes first.
    front: ArrayQueue<Box<Job>>,
    /// The loop may do so.
    loop_takes: bool,
    /// A job that has waited longer is not run (`queue_timeout`).
    pub(super) queue_timeout: Option<Duration>,
    /// What the threads have in hand, when requests are timed.
    pub(super) in_flight: Option<InFlight>,
    pub(super) wakeup: WakeupToken,
    pub(super) replies: Replies,
    live: LiveConnections,
    /// Objects of the application's that the loop has finished with.
    released: SegQueue<Box<dyn BorrowedBuffer>>,
    pub(super) closed: AtomicBool,
    thread_count: usize,
    /// Seats given out, and seats given back.
    pub(super) entered: AtomicUsize,
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
            front: ArrayQueue::new(1),
            loop_takes: false,
            queue_timeout: None,
            in_flight: None,
            wakeup: WakeupToken::new(threads),
            replies: Replies::new(wake),
            live: LiveConnections::new(capacity),
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

    /// The same pool, from which the loop takes jobs back ([`Pool::pop_front`]).
    #[must_use]
    pub fn with_take_back(mut self, may_take: bool) -> Self {
        self.loop_takes |= may_take;
        self
    }

    /// The same pool, which tells what its threads have in hand ([`Pool::in_hand`]).
    #[must_use]
    pub fn with_in_flight(mut self, is_watched: bool) -> Self {
        self.in_flight = is_watched.then(|| InFlight::new(self.thread_count));
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
        self.jobs.len() + self.front.len()
    }

    /// How many threads have entered and not left.
    pub fn live_threads(&self) -> usize {
        self.entered.load(Ordering::Acquire) - self.left.load(Ordering::Acquire)
    }

    // The event loop's side.

    /// Queue a job. Whoever pushes calls [`Pool::notify_one`] before it sleeps.
    ///
    /// # Errors
    /// The job itself when the queue is full or closed.
    pub fn push(&self, job: Box<Job>) -> Result<(), Box<Job>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(job);
        }
        self.jobs.push(job)
    }

    /// Wake a parked thread if `reason` asks for one, unless one is waking or none is parked.
    ///
    /// Called once for several jobs: on a busy core the woken thread preempts the loop, and a switch for each job would
    /// cost more than the job. While jobs are fast, a thread that is awake is trusted to come back for the next one, and
    /// no second one is woken to stand by. Should it wait in the application after all, the loop finds that the pool
    /// takes no jobs ([`Pool::jobs_taken`]) and notifies with [`Reason::Stall`].
    pub fn notify_one(&self, reason: Reason) {
        let is_needed = match reason {
            Reason::JobsQueued => !(self.is_fast() && self.wakeup.is_anyone_awake()),
            Reason::JobsLeft => !self.is_fast(),
            Reason::Stall => {
                self.stalled_at.store(self.jobs_taken(), Ordering::Relaxed);
                true
            }
            Reason::PutBack | Reason::DeferredDrops | Reason::Signal => true,
        };
        if is_needed {
            self.wakeup.notify_one();
        }
    }

    /// Whether jobs are over before a thread or a process could be woken to help, and seldom wait for anything but the
    /// interpreter.
    pub fn is_fast(&self) -> bool {
        self.service_micros.load(Ordering::Relaxed) < self.fast_micros && self.waiting.is_small()
    }

    /// How long one thread would take for the jobs that wait (a hint).
    pub fn queued_work(&self) -> Duration {
        let micros = u64::from(self.service_micros.load(Ordering::Relaxed));
        Duration::from_micros(micros.saturating_mul(self.queue_length() as u64))
    }

    /// Whether the calling thread is better asleep although jobs wait. While jobs are fast one thread runs them all;
    /// others that are awake, as after a burst of slow ones, would only take the GIL from it again and again. Not so
    /// when the pool stood still not long ago: then those that are awake may be held up in the application.
    pub(super) fn is_idle_extra(&self) -> bool {
        let since_stall = self
            .jobs_taken()
            .wrapping_sub(self.stalled_at.load(Ordering::Relaxed));
        self.is_fast()
            && since_stall > DISTRUST_JOBS
            && self.wakeup.is_another_awake()
            && !self.closed.load(Ordering::Relaxed)
    }

    /// How many jobs were taken from the queue so far, wrapping.
    pub fn jobs_taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether a thread sleeps that could be summoned (a hint).
    pub fn has_parked_threads(&self) -> bool {
        self.wakeup.sleeping() > 0
    }

    /// The jobs that threads have in hand; none when the pool does not watch them.
    pub fn in_flight(&self) -> impl Iterator<Item = InFlightRequest> {
        self.in_flight.iter().flat_map(InFlight::iter)
    }

    /// A connection is there: jobs may name it.
    pub fn connection_opened(&self, conn: ConnId) {
        self.live.insert(conn);
    }

    /// A connection is gone, or not ours any more.
    pub fn connection_closed(&self, conn: ConnId) {
        self.live.remove(conn);
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
    pub fn park(&self, mode: SleepMode) -> bool {
        self.replies.park(mode)
    }

    /// The loop is awake again.
    pub fn unpark(&self) {
        self.replies.unpark();
    }

    /// Give an object back to the application's side, to be dropped by the next thread that looks for a job.
    pub fn defer_drop(&self, shared: Box<dyn BorrowedBuffer>) {
        self.released.push(shared);
    }

    /// Whether objects wait to be dropped.
    pub fn has_deferred_drops(&self) -> bool {
        !self.released.is_empty()
    }

    /// No more jobs will come. Threads finish what is queued, then leave.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wakeup.wake_all();
    }

    /// Take back the job that has waited longest. Only for a loop that may do so ([`Pool::with_take_back`]).
    pub fn pop_front(&self) -> Option<Box<Job>> {
        self.front.pop().or_else(|| self.jobs.pop())
    }

    /// Put back what was taken with [`Pool::pop_front`], before all others. Called at most once for each of them.
    pub fn push_front(&self, job: Box<Job>) {
        debug_assert!(self.loop_takes, "threads do not look for it");
        if let Err(job) = self.front.push(job) {
            debug_assert!(false, "only the loop displaces, one at a time");
            // In production it loses its place and no more.
            drop(self.jobs.push(job));
        }
        self.notify_one(Reason::PutBack);
    }

    /// Take back the job that has waited longest, if that is longer than `queue_timeout`. The queue cannot be looked
    /// into, so one that may still wait is taken out and put back.
    pub fn take_overdue(&self, now: Instant) -> Option<Box<Job>> {
        let job = self.pop_front()?;
        if self.is_overdue(&job, now) {
            return Some(job);
        }
        self.push_front(job);
        None
    }

    pub(super) fn is_overdue(&self, job: &Job, now: Instant) -> bool {
        self.queue_timeout
            .is_some_and(|timeout| now.saturating_duration_since(job.arrived) > timeout)
    }

    pub(super) fn pop(&self) -> Option<Box<Job>> {
        if self.has_front()
            && let Some(job) = self.front.pop()
        {
            return Some(job);
        }
        self.jobs.pop()
    }

    // The threads' side.

    /// Whether nobody waits for the answer to a job of this connection any more.
    pub fn is_gone(&self, conn: ConnId) -> bool {
        self.live.is_gone(conn)
    }

    /// Whether another job waits behind the one that a thread has in hand.
    pub fn has_more(&self) -> bool {
        !self.jobs.is_empty() || self.has_front()
    }

    fn has_front(&self) -> bool {
        self.loop_takes && !self.front.is_empty()
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

    pub(super) fn note_service(&self, lasted: Duration) {
        let micros = u32::try_from(lasted.as_micros()).unwrap_or(u32::MAX);
        let mean = self.service_micros.load(Ordering::Relaxed);
        // Threads may overwrite each other's note: it is a mean, not an account.
        let mean = mean - mean / SERVICE_WEIGHT + micros / SERVICE_WEIGHT;
        self.service_micros.store(mean, Ordering::Relaxed);
    }

    pub(super) fn run_deferred_drops(&self) {
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
        assert!(!pool.is_idle_extra(), "nobody knows yet that jobs are fast");
        for _ in 0..100 {
            pool.note_service(Duration::from_micros(50));
        }
        assert!(pool.is_fast() && pool.is_idle_extra());
        pool.wakeup.park(1);
        assert!(!pool.is_idle_extra(), "nobody else is awake");
        pool.notify_one(Reason::Stall);
        assert!(!pool.is_idle_extra(), "the other one may be held up");
        pool.taken.fetch_add(DISTRUST_JOBS + 1, Ordering::Relaxed);
        assert!(pool.is_idle_extra());
        pool.close();
        assert!(!pool.is_idle_extra(), "all help to finish");
    }

    #[test]
    fn threads_that_run_side_by_side_are_no_surplus() {
        let pool = Pool::new(2, 8, Box::new(|| {})).with_parallel_threads(true);
        for _ in 0..100 {
            pool.note_service(Duration::from_micros(50));
        }
        assert!(!pool.is_fast() && !pool.is_idle_extra());
    }
}
