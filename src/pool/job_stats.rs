//! What is known of the jobs that ran: how long they last, whether they wait, how many were taken.
//!
//! The threads write, threads and event loop read. Each number stands alone and is a hint, so none needs an order;
//! threads may overwrite each other's notes of a mean, which is a mean and not an account.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::busy_threads::{BusySince, BusyThreads};
use super::convoy::{ConvoyBreaker, LastJobs, Sample};
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
    busy: BusyThreads,
    convoys: ConvoyBreaker,
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
            busy: BusyThreads::new(),
            convoys: ConvoyBreaker::new(Instant::now()),
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

    /// Whether one thread is to run all jobs: they are fast, or a convoy is broken.
    #[inline]
    pub(super) fn is_one_enough(&self) -> bool {
        self.are_fast() || self.convoys.is_alone()
    }

    /// Whether a connection that has `own` jobs with the pool may have one more than its share, when all connections have `all`
    /// there: as long as jobs are fast, and a client that asks now waits no longer for all of them than a switch of threads takes.
    pub(super) fn has_room_beyond_share(&self, own: usize, all: usize) -> bool {
        self.are_fast() && own < JOBS_AT_ONCE_MAX && all < jobs_ahead_max(self.service_micros())
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

    /// Whether the next job is to be a sample, whatever is next.
    #[inline]
    pub(super) fn samples_all(&self) -> bool {
        self.convoys.samples_all()
    }

    /// A job that was sampled is over. `is_another_awake`: so is another thread than the one that has run it.
    pub(super) fn note_sample(&self, sample: Sample, is_another_awake: impl FnOnce() -> bool) {
        let share = self.waiting_share.load(Ordering::Relaxed);
        let share = estimates::waiting_share(share, sample.waits > 0);
        self.waiting_share.store(share, Ordering::Relaxed);
        let is_convoy = self.convoys.note(sample);
        if self.convoys.is_alone() {
            self.note_alone(sample, share);
        } else if is_convoy && !self.is_parallel() && !self.are_fast() && is_another_awake() {
            self.break_convoy(sample.ended);
        }
    }

    fn break_convoy(&self, now: Instant) {
        if self.convoys.begin(self.service_micros(), now) {
            // Jobs waited for one another. Whether they do alone is seen now, and until then nobody stands still.
            self.waiting_share.store(0, Ordering::Relaxed);
            let long_ago = self.taken().wrapping_sub(usize::MAX / 2);
            self.stalled_at.store(long_ago, Ordering::Relaxed);
        }
    }

    fn note_alone(&self, sample: Sample, waiting_share: u32) {
        let last = LastJobs {
            do_wait: waiting_share > policy::WAITING_SHARE_SMALL,
            are_fast: self.are_fast(),
            mean_micros: self.service_micros(),
        };
        if !self.convoys.note_alone(sample, last) {
            // It began before.
            self.waiting_share.store(0, Ordering::Relaxed);
        }
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

    /// A thread runs a job from now on, until [`Self::note_free`].
    #[inline]
    pub(super) fn note_busy(&self) -> BusySince {
        self.busy.begin()
    }

    /// It is free again.
    #[inline]
    pub(super) fn note_free(&self, since: BusySince) {
        self.busy.end(since);
    }

    /// How many threads run a job (a hint).
    pub(super) fn busy(&self) -> usize {
        self.busy.count()
    }

    /// See [`BusyThreads::held_up`] (a hint).
    #[inline]
    pub(super) fn held_up(&self) -> usize {
        self.busy.held_up()
    }

    /// The loop has found that the pool has stood still for so long. Returns whether all threads are needed.
    pub(super) fn note_stall(&self, lasted: Duration, now: Instant) -> bool {
        if self.convoys.outlasts(lasted, now) {
            return false;
        }
        self.convoys.end(now);
        self.stalled_at.store(self.taken(), Ordering::Relaxed);
        self.busy.note_stall();
        true
    }

    /// How many jobs were taken since.
    #[inline]
    pub(super) fn taken_since_stall(&self) -> usize {
        self.taken()
            .wrapping_sub(self.stalled_at.load(Ordering::Relaxed))
    }
}

/// How much work may be ahead of a client for more than the share of others.
const WORK_AHEAD_MICROS: u32 = 1000;
/// More jobs of one connection at once save no wake-up that is worth it.
const JOBS_AT_ONCE_MAX: usize = 16;

fn jobs_ahead_max(mean_micros: u32) -> usize {
    (WORK_AHEAD_MICROS / mean_micros.max(1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(waits: u32) -> Sample {
        Sample {
            waits,
            lasted: Duration::from_micros(50),
            ended: Instant::now(),
        }
    }

    #[test]
    fn jobs_are_fast_when_they_are_known_to_be_brief_and_do_not_wait() {
        let stats = JobStats::new();
        assert!(!stats.are_fast(), "nothing is known yet");
        for _ in 0..100 {
            stats.note_service(Duration::from_micros(50));
        }
        assert!(stats.are_fast());
        for _ in 0..10 {
            stats.note_sample(sample(1), || false);
        }
        assert!(!stats.are_fast());
        for _ in 0..100 {
            stats.note_sample(sample(0), || false);
        }
        assert!(stats.are_fast());
        let mut stats = stats;
        stats.set_parallel();
        assert!(!stats.are_fast(), "threads that run side by side help");
    }

    /// A pool whose jobs are in a convoy, and one thread is tried.
    fn in_trial() -> (JobStats, Instant) {
        let stats = JobStats::new();
        let now = Instant::now() + Duration::from_secs(1);
        for _ in 0..16 {
            stats.note_service(CONVOY.lasted);
            stats.note_sample(CONVOY.at(now), || true);
        }
        (stats, now)
    }

    /// Jobs that last so long and wait so often, one after another.
    fn run(stats: &JobStats, jobs: u32, kind: Kind, now: &mut Instant) {
        for _ in 0..jobs {
            *now += kind.lasted + Duration::from_micros(1);
            stats.note_taken();
            stats.note_service(kind.lasted);
            stats.note_sample(kind.at(*now), || true);
        }
    }

    #[derive(Clone, Copy)]
    struct Kind {
        waits: u32,
        lasted: Duration,
    }

    impl Kind {
        fn at(self, ended: Instant) -> Sample {
            Sample {
                waits: self.waits,
                lasted: self.lasted,
                ended,
            }
        }
    }

    const CONVOY: Kind = Kind {
        waits: 16,
        lasted: Duration::from_micros(1200),
    };
    const ALONE: Kind = Kind {
        waits: 0,
        lasted: Duration::from_micros(1200),
    };

    #[test]
    fn one_thread_is_tried_in_a_convoy_of_threads_that_share_the_gil() {
        let (stats, _) = in_trial();
        assert!(stats.is_one_enough() && !stats.are_fast());
        let (alone, mut parallel) = (JobStats::new(), JobStats::new());
        parallel.set_parallel();
        for _ in 0..100 {
            alone.note_sample(CONVOY.at(Instant::now()), || false);
            parallel.note_sample(CONVOY.at(Instant::now()), || true);
        }
        assert!(!alone.is_one_enough() && !parallel.is_one_enough());
    }

    #[test]
    fn one_thread_goes_on_while_its_jobs_do_not_wait() {
        let (stats, mut now) = in_trial();
        run(&stats, 1000, ALONE, &mut now);
        assert!(stats.is_one_enough() && stats.taken_since_stall() > 1000);
        let fast = Kind {
            lasted: Duration::from_micros(250),
            ..ALONE
        };
        run(&stats, 100, fast, &mut now);
        assert!(
            stats.are_fast() && !stats.convoys.is_alone(),
            "the usual rule"
        );
    }

    #[test]
    fn all_threads_come_back_when_jobs_wait_or_last_long_or_the_pool_stands_still() {
        let (stats, mut now) = in_trial();
        run(&stats, 3, Kind { waits: 1, ..ALONE }, &mut now);
        assert!(!stats.is_one_enough());
        let (stats, mut now) = in_trial();
        run(
            &stats,
            100,
            Kind {
                lasted: Duration::from_millis(8),
                ..ALONE
            },
            &mut now,
        );
        assert!(!stats.is_one_enough());
        let (stats, mut now) = in_trial();
        run(&stats, 1, ALONE, &mut now);
        assert!(!stats.note_stall(Duration::from_millis(4), now) && stats.is_one_enough());
        assert!(stats.note_stall(Duration::from_millis(5), now) && !stats.is_one_enough());
    }

    #[test]
    fn jobs_are_counted_from_the_last_stall() {
        let stats = JobStats::new();
        assert!(stats.taken_since_stall() > usize::MAX / 4, "long ago");
        stats.note_taken();
        assert!(stats.note_stall(Duration::from_millis(1), Instant::now()));
        assert_eq!(stats.taken_since_stall(), 0);
        stats.note_taken();
        assert_eq!((stats.taken(), stats.taken_since_stall()), (2, 1));
    }

    #[test]
    fn beyond_their_shares_connections_have_a_millisecond_of_work_in_the_queue() {
        for (mean, jobs) in [(0, 1000), (5, 200), (62, 16), (250, 4), (499, 2)] {
            assert_eq!(jobs_ahead_max(mean), jobs, "{mean} µs");
        }
        let stats = JobStats::new();
        assert!(
            !stats.has_room_beyond_share(0, 0),
            "nothing is known of jobs"
        );
        for _ in 0..200 {
            stats.note_service(Duration::from_micros(10));
        }
        let ahead = jobs_ahead_max(stats.service_micros());
        assert!(stats.has_room_beyond_share(15, ahead - 1));
        assert!(!stats.has_room_beyond_share(16, 16), "enough at once");
        assert!(!stats.has_room_beyond_share(0, ahead), "others wait");
    }
}
