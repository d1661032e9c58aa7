//! The pool as both sides see it: the job queue, the threads' seats, the way back.
//!
//! Called by the event loop (`push`, `receive`, `park`, `release`, `close`) and by the pool threads (`enter`, `next`,
//! `send`). The loop is the only producer of jobs. One job per connection is under way at most, so a queue of as many
//! places as there may be connections cannot overflow.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::{ArrayQueue, SegQueue};

use super::heirs::Heirs;
use super::job::{ConnId, Job, Piece, Reply, SharedBytes};
use super::presence::Presence;
use super::replies::{ParkMode, Replies};

/// The threads that run the application and what passes between them and the event loop.
#[derive(Debug)]
pub struct Pool {
    jobs: ArrayQueue<Box<Job>>,
    heirs: Heirs,
    replies: Replies,
    presence: Presence,
    /// Objects of the application's that the loop has finished with.
    released: SegQueue<Box<dyn SharedBytes>>,
    closed: AtomicBool,
    thread_count: usize,
    /// Seats given out, and seats given back.
    entered: AtomicUsize,
    left: AtomicUsize,
    /// Threads that run a job.
    busy: AtomicUsize,
    /// Jobs that were taken from the queue, wrapping: whether the pool moves.
    taken: AtomicUsize,
    /// How long a job lasts, as a moving mean in microseconds.
    service_micros: AtomicU32,
}

/// Jobs that last less than this on average do not wait for anything: one thread runs them one after another faster
/// than a second one could be woken to help.
const FAST_SERVICE_MICROS: u32 = 500;
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
            // Unknown: as if jobs waited, so that the first burst finds all threads.
            service_micros: AtomicU32::new(FAST_SERVICE_MICROS * 4),
        }
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
        self.jobs.len()
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
    /// ([`Pool::taken`]) and calls [`Pool::summon_now`].
    pub fn summon(&self) {
        let fast = self.service_micros.load(Ordering::Relaxed) < FAST_SERVICE_MICROS;
        if !(fast && self.heirs.is_anyone_awake()) {
            self.heirs.summon();
        }
    }

    /// Wake a thread, unless one is on its way or all are awake.
    pub fn summon_now(&self) {
        self.heirs.summon();
    }

    /// How many jobs were taken from the queue so far, wrapping.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether a thread sleeps that could be summoned (a hint).
    pub fn has_sleepers(&self) -> bool {
        self.heirs.sleeping() > 0
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

    /// Give an object back to the application's side, to be dropped on a pool thread.
    pub fn release(&self, shared: Box<dyn SharedBytes>) {
        self.released.push(shared);
        self.heirs.summon();
    }

    /// No more jobs will come. Threads finish what is queued, then leave.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.heirs.wake_all();
    }

    /// Take back what no thread has begun (after `close`, when waiting for it is over).
    pub fn unbegun(&self) -> Option<Box<Job>> {
        self.jobs.pop()
    }

    // The threads' side.

    /// A thread takes its seat. Panics when more threads come than the pool was made for.
    pub fn enter(self: &Arc<Self>) -> Seat {
        let index = self.entered.fetch_add(1, Ordering::AcqRel);
        assert!(index < self.thread_count, "more threads than seats");
        Seat {
            pool: self.clone(),
            index,
            running_since: Cell::new(None),
        }
    }

    /// Whether nobody waits for the answer to a job of this connection any more.
    pub fn is_gone(&self, conn: ConnId) -> bool {
        self.presence.is_gone(conn)
    }

    /// Whether another job waits behind the one that a thread has in hand.
    pub fn has_more(&self) -> bool {
        !self.jobs.is_empty()
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
    fn summon_beside(&self) {
        if self.service_micros.load(Ordering::Relaxed) >= FAST_SERVICE_MICROS {
            self.heirs.summon();
        }
    }

    fn note_service(&self, lasted: Duration) {
        let micros = u32::try_from(lasted.as_micros()).unwrap_or(u32::MAX);
        let mean = self.service_micros.load(Ordering::Relaxed);
        // Threads may overwrite each other's note: it is a mean, not an account.
        let mean = mean - mean / SERVICE_WEIGHT + micros / SERVICE_WEIGHT;
        self.service_micros.store(mean, Ordering::Relaxed);
    }

    fn drop_released(&self) {
        while let Some(shared) = self.released.pop() {
            drop(shared);
        }
    }

    fn has_work(&self) -> bool {
        !self.jobs.is_empty() || !self.released.is_empty() || self.closed.load(Ordering::Relaxed)
    }
}

/// One thread's place in the pool, taken with [`Pool::enter`].
#[derive(Debug)]
pub struct Seat {
    pool: Arc<Pool>,
    index: usize,
    /// When the job in hand was taken.
    running_since: Cell<Option<Instant>>,
}

impl Seat {
    /// The thread's number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The next job whose client is still there, or `None` when the pool is closed and empty. The caller holds the
    /// GIL; `idle` is called with a function that sleeps, gives the GIL away around it, and has it again when it
    /// returns (see [`super::heirs`]).
    pub fn next(&self, mut idle: impl FnMut(&(dyn Fn() + Sync))) -> Option<Box<Job>> {
        let (pool, index) = (&*self.pool, self.index);
        loop {
            pool.drop_released();
            if let Some(mut job) = pool.jobs.pop() {
                job.started = self.take_over(Instant::now());
                self.running_since.set(Some(job.started));
                pool.taken.fetch_add(1, Ordering::Relaxed);
                if !pool.jobs.is_empty() {
                    pool.summon_beside();
                }
                if pool.is_gone(job.conn) {
                    // Nobody would read the answer: the loop takes note and the application never sees it.
                    pool.send(Reply::Abort(job));
                    continue;
                }
                return Some(job);
            }
            self.take_over(Instant::now());
            if pool.closed.load(Ordering::SeqCst) {
                return None;
            }
            pool.heirs.lie_down(index);
            if pool.has_work() {
                pool.heirs.get_up(index);
                continue;
            }
            idle(&|| pool.heirs.wait(index));
            pool.heirs.arrive();
        }
    }

    /// Note how long the job that was in hand has lasted.
    fn take_over(&self, now: Instant) -> Instant {
        if let Some(since) = self.running_since.take() {
            self.pool.note_service(now.saturating_duration_since(since));
        }
        now
    }

    /// Mark this thread as running a job, or as free again.
    pub fn set_busy(&self, busy: bool) {
        if busy {
            self.pool.busy.fetch_add(1, Ordering::Relaxed);
        } else {
            self.pool.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.pool.left.fetch_add(1, Ordering::AcqRel);
        // The loop may be waiting for the last thread to leave.
        self.pool.replies.wake();
    }
}
