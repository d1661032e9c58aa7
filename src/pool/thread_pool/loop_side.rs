//! What the pool is to the event loop besides its queues: who wakes it when it sleeps, and threads that it is delegated to (`loop_role.rs`).

use std::io;
use std::time::{Duration, Instant};

use super::Pool;
use crate::pool::delegation;
use crate::pool::loop_role::{DelegableLoop, Served};
use crate::pool::policy::{self, BriefSleep, FastJobs, Reason, SleepMode};

impl Pool {
    /// How the loop sleeps while jobs wait (`policy::brief_sleep`).
    pub fn brief_sleep(&self) -> BriefSleep {
        policy::brief_sleep(self.is_fast().then(|| FastJobs {
            count: self.queue_length(),
            mean_micros: self.stats.service_micros(),
        }))
    }

    /// The pool has stood still for so long while jobs wait: another thread is needed.
    pub fn notify_stall(&self, lasted: Duration, now: Instant) {
        if self.stats.note_stall(lasted, now) {
            self.notify_one(Reason::Stall);
        }
    }

    /// Wake a parked thread, unless one is awake that comes for the jobs itself.
    pub(super) fn notify_if_none_comes(&self) {
        if !self.is_any_coming() {
            self.wakeup.notify_one();
        }
    }

    /// Whether a thread is awake that will look at the queue again soon.
    pub(in crate::pool) fn is_any_coming(&self) -> bool {
        self.wakeup.is_any_coming(self.stats.held_up())
    }

    /// Whether another than the calling one is.
    pub(in crate::pool) fn is_another_coming(&self) -> bool {
        self.wakeup.is_another_coming(self.stats.held_up())
    }

    /// The calling thread has announced that it parks, although jobs may wait. The loop looks after them: had it seen no parked
    /// thread before, it would sleep until it is woken.
    pub(in crate::pool) fn leave_jobs_to_others(&self) {
        if self.has_jobs() {
            self.replies.wake_loop();
        }
    }

    /// Announce that the loop is about to sleep. Returns false when a reply is waiting, or jobs that a thread has left meanwhile (see
    /// `wakeup.rs`), or its thread is recalled: then it must not.
    pub fn park(&self, mode: SleepMode) -> bool {
        let must_look_after_jobs =
            || mode == SleepMode::UntilWoken && self.has_jobs() && self.has_parked_threads();
        self.replies
            .park(mode, || self.role.is_recalled() || must_look_after_jobs())
    }

    /// Sleep without a look at the poll set, after [`Pool::park`] with [`SleepMode::Batching`].
    pub fn sleep_as_thread(&self, time: Duration) {
        self.replies.sleep_as_thread(time);
    }

    /// The loop is awake again.
    pub fn unpark(&self) {
        self.replies.unpark();
    }

    /// The loop may be delegated to this pool's threads, from the calling thread: jobs run one at a time there, and the system has what
    /// it takes.
    pub fn prepare_delegation(&self) -> bool {
        self.hub.is_none() && !self.stats.is_parallel() && self.role.prepare()
    }

    /// Whether jobs are such that the loop is delegated, and so many of them are run where they were found (`delegation::fit`).
    #[inline]
    pub fn fit_delegated_loop(&self, jobs: usize) -> bool {
        self.is_fast() && delegation::fit(jobs, self.stats.service_micros())
    }

    /// Serve with `event_loop`, whose monitor the calling thread is, and delegate it while it may be delegated. Returns the worker's exit
    /// code.
    ///
    /// # Errors
    /// The loop cannot go on.
    pub fn serve(&self, mut event_loop: Box<dyn DelegableLoop>) -> io::Result<i32> {
        loop {
            match event_loop.serve()? {
                Served::Over(code) => return Ok(code),
                Served::Calm => {
                    let (back, end) = self
                        .role
                        .delegate(event_loop, || self.notify_if_none_comes());
                    event_loop = back;
                    end?;
                }
            }
        }
    }

    /// The loop is run by one of the pool's threads.
    pub fn is_loop_delegated(&self) -> bool {
        self.role.is_delegated()
    }

    /// Whether the loop is for a thread without a job to run.
    #[inline]
    pub(in crate::pool) fn has_loop(&self) -> bool {
        self.role.is_aside()
    }

    /// Run the loop, if no other thread has taken it, until there is something else to do. Returns when that was.
    pub(in crate::pool) fn run_loop(&self) -> Option<Instant> {
        self.role.run(|| self.has_work())
    }
}
