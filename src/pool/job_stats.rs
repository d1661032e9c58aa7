//! What is known of the jobs that ran: how long they last, whether they wait, how many were taken.
//!
//! The threads write, threads and event loop read. Each number stands alone and is a hint, so none needs an order;
//! threads may overwrite each other's notes of a mean, which is a mean and not an account.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use super::{estimates, policy};

/// See the module.
#[derive(Debug)]
pub(super) struct JobStats {
    /// How long a job lasts, as a moving mean in microseconds.
    service_micros: AtomicU32,
    /// Below this mean jobs are fast, if they do not wait for anything.
    fast_micros: u32,
    /// The share of the last jobs that waited.
    waiting_share: AtomicU32,
    /// Jobs that were taken from the queue, wrapping: whether the pool moves.
    taken: AtomicUsize,
    /// What `taken` was when the loop last found a stall.
    stalled_at: AtomicUsize,
    /// Threads that run a job.
    busy: AtomicUsize,
}

impl JobStats {
    pub(super) fn new() -> Self {
        Self {
            service_micros: AtomicU32::new(policy::UNKNOWN_MICROS),
            fast_micros: policy::FAST_MICROS,
            waiting_share: AtomicU32::new(0),
            taken: AtomicUsize::new(0),
            // As if long ago.
            stalled_at: AtomicUsize::new(usize::MAX / 2),
            busy: AtomicUsize::new(0),
        }
    }

    /// The threads do not share one interpreter lock.
    pub(super) fn set_parallel(&mut self) {
        self.fast_micros = policy::FAST_MICROS_IN_PARALLEL;
    }

    /// See [`Self::set_parallel`].
    pub(super) fn is_parallel(&self) -> bool {
        self.fast_micros == policy::FAST_MICROS_IN_PARALLEL
    }

    /// Whether jobs are fast (`policy::are_fast`).
    #[inline]
    pub(super) fn are_fast(&self) -> bool {
        policy::are_fast(self.service_micros(), self.fast_micros, || {
            self.waiting_share.load(Ordering::Relaxed)
        })
    }

    /// How many jobs a connection may have with the pool while no other has any: a client that asks then waits no longer than a
    /// switch of threads takes. 0 while jobs are not fast.
    pub(super) fn lone_jobs_max(&self) -> usize {
        match self.are_fast() {
            true => lone_jobs_max(self.service_micros()),
            false => 0,
        }
    }

    /// How long a job lasts on average, in microseconds.
    #[inline]
    pub(super) fn service_micros(&self) -> u32 {
        self.service_micros.load(Ordering::Relaxed)
    }

    /// A job is over.
    #[inline]
    pub(super) fn note_service(&self, lasted: Duration) {
        let mean = estimates::service_mean(self.service_micros(), lasted);
        self.service_micros.store(mean, Ordering::Relaxed);
    }

    /// A job that was sampled has waited or has not.
    #[inline]
    pub(super) fn note_waited(&self, has_waited: bool) {
        let share = self.waiting_share.load(Ordering::Relaxed);
        let share = estimates::waiting_share(share, has_waited);
        self.waiting_share.store(share, Ordering::Relaxed);
    }

    /// How many jobs were taken so far, wrapping.
    #[inline]
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// A job was taken.
    #[inline]
    pub(super) fn note_taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// A thread runs a job from now on, or is free again.
    #[inline]
    pub(super) fn note_busy(&self, is_busy: bool) {
        if is_busy {
            self.busy.fetch_add(1, Ordering::Relaxed);
        } else {
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many threads run a job.
    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// The loop has found that the pool stands still.
    pub(super) fn note_stall(&self) {
        self.stalled_at.store(self.taken(), Ordering::Relaxed);
    }

    /// How many jobs were taken since.
    #[inline]
    pub(super) fn taken_since_stall(&self) -> usize {
        self.taken()
            .wrapping_sub(self.stalled_at.load(Ordering::Relaxed))
    }
}

/// How much work that may be.
const LONE_WORK_MICROS: u32 = 1000;
/// More than this many at once saves no wake-up that is worth it.
const LONE_JOBS_MAX: u32 = 16;

fn lone_jobs_max(mean_micros: u32) -> usize {
    (LONE_WORK_MICROS / mean_micros.max(1)).min(LONE_JOBS_MAX) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_fast_when_they_are_known_to_be_brief_and_do_not_wait() {
        let stats = JobStats::new();
        assert!(!stats.are_fast(), "nothing is known yet");
        for _ in 0..100 {
            stats.note_service(Duration::from_micros(50));
        }
        assert!(stats.are_fast());
        for _ in 0..10 {
            stats.note_waited(true);
        }
        assert!(!stats.are_fast());
        for _ in 0..100 {
            stats.note_waited(false);
        }
        assert!(stats.are_fast());
        let mut stats = stats;
        stats.set_parallel();
        assert!(!stats.are_fast(), "threads that run side by side help");
    }

    #[test]
    fn jobs_are_counted_from_the_last_stall() {
        let stats = JobStats::new();
        assert!(stats.taken_since_stall() > usize::MAX / 4, "long ago");
        stats.note_taken();
        stats.note_stall();
        assert_eq!(stats.taken_since_stall(), 0);
        stats.note_taken();
        assert_eq!((stats.taken(), stats.taken_since_stall()), (2, 1));
    }

    #[test]
    fn the_only_connection_with_work_has_a_millisecond_of_it_in_the_queue() {
        for (mean, jobs) in [(0, 16), (5, 16), (62, 16), (63, 15), (250, 4), (499, 2)] {
            assert_eq!(lone_jobs_max(mean), jobs, "{mean} µs");
        }
    }
}
