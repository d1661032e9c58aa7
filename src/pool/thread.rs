//! A pool thread's side of the pool: it takes jobs, one after another, and says what it has in hand.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::job::{Job, Reply};
use super::queue::{Pool, Reason};
use super::waits::Samples;

/// One thread's place in the pool, made by [`PoolThread::register`].
#[derive(Debug)]
pub struct PoolThread {
    pool: Arc<Pool>,
    index: usize,
    /// When the job in hand was taken.
    running_since: Cell<Option<Instant>>,
    samples: Samples,
}

impl PoolThread {
    /// A thread joins the pool. Panics when more threads come than the pool was made for.
    pub fn register(pool: &Arc<Pool>) -> Self {
        let index = pool.entered.fetch_add(1, Ordering::AcqRel);
        assert!(
            index < pool.thread_count(),
            "more threads than the pool was made for"
        );
        Self {
            pool: pool.clone(),
            index,
            running_since: Cell::new(None),
            samples: Samples::default(),
        }
    }

    /// The thread's number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Tells the job in hand from the others that this thread has; 0 when jobs are not watched.
    pub fn token(&self) -> u64 {
        let in_flight = self.pool.in_flight.as_ref();
        in_flight.map_or(0, |in_flight| in_flight.token(self.index))
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The next job whose client is still there, or `None` when the pool is closed and empty. The caller holds the
    /// GIL; `idle` is called with a function that sleeps, gives the GIL away around it, and has it again when it
    /// returns (see [`super::wakeup`]).
    pub fn next_job(&self, mut idle: impl FnMut(&(dyn Fn() + Sync))) -> Option<Box<Job>> {
        let (pool, index) = (&*self.pool, self.index);
        if let Some(in_flight) = &pool.in_flight {
            in_flight.end(index);
        }
        let mut waited_for_gil = Duration::ZERO;
        loop {
            pool.run_deferred_drops();
            // Before the look at the queue: what was queued before it closed is still run.
            let is_closed = pool.closed.load(Ordering::SeqCst);
            let is_idle_extra = pool.is_idle_extra();
            if !is_idle_extra && let Some(mut job) = pool.pop() {
                job.gil_wait = std::mem::take(&mut waited_for_gil);
                job.started = self.take_over(Instant::now());
                self.running_since.set(Some(job.started));
                pool.taken.fetch_add(1, Ordering::Relaxed);
                if pool.has_more() {
                    pool.notify_one(Reason::JobsLeft);
                }
                if pool.is_overdue(&job, job.started) {
                    pool.send(Reply::Overdue(job));
                    continue;
                }
                if pool.is_gone(job.conn) {
                    // Nobody would read the answer: the loop takes note and the application never sees it.
                    pool.send(Reply::Abort(job));
                    continue;
                }
                if let Some(in_flight) = &pool.in_flight {
                    in_flight.begin(index, job.conn, job.started);
                }
                self.samples.begin();
                return Some(job);
            }
            self.take_over(Instant::now());
            if is_closed {
                return None;
            }
            pool.wakeup.park(index);
            // Of two that lie down as surplus one sees here that the other has.
            let is_needed = match is_idle_extra {
                true => !pool.wakeup.is_anyone_awake() || pool.closed.load(Ordering::SeqCst),
                false => pool.has_work(),
            };
            if is_needed {
                pool.wakeup.cancel_park(index);
                continue;
            }
            let woken = OnceLock::new();
            idle(&|| {
                pool.wakeup.wait(index);
                woken.get_or_init(Instant::now);
            });
            waited_for_gil = woken.get().map_or(Duration::ZERO, Instant::elapsed);
            pool.wakeup.wakeup_done();
        }
    }

    /// Note how long the job that was in hand has lasted.
    fn take_over(&self, now: Instant) -> Instant {
        if let Some(since) = self.running_since.take() {
            self.pool.note_service(now.saturating_duration_since(since));
            self.samples.end(&self.pool.waiting);
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

impl Drop for PoolThread {
    fn drop(&mut self) {
        self.pool.left.fetch_add(1, Ordering::AcqRel);
        // The loop may be waiting for the last thread to leave.
        self.pool.replies.wake();
    }
}
