//! Lock convoys: noticed and broken.
//!
//! Threads that share the GIL and take one Python lock again and again (asgiref's `Local`, which Django reads dozens of
//! times in a request, a logger, a connection pool) fall into step: the lock is given to a thread that has to wait for the
//! GIL, the one that has the GIL soon waits for the lock, and every use of it becomes two switches of threads. A request
//! then costs three to ten times what it costs alone, and while requests follow one another nothing ends that.
//!
//! What ends it is a moment in which one thread runs alone, and what avoids it is to let it. So when most jobs give up the
//! processor in quick succession ([`Sample`]), one thread is tried ([`ConvoyBreaker::begin`]): the others are idle extra
//! threads (`policy::is_idle_extra`). It goes on alone while its jobs hardly ever wait and are over in [`ALONE_MICROS`].
//! A pool of jobs that really wait loses the time of a few of them by a trial, and trials that end soon become rare.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::estimates::{self, ALL_JOBS};

/// A job in a convoy waits at least so often,
const WAITS_MIN: u32 = 4;
/// and again within this time on average. Threads that only share the GIL switch every 5 ms.
const PERIOD_MAX: Duration = Duration::from_millis(1);
/// More than this share of the jobs is in a convoy, if there is one.
const SUSPECT_SHARE_MIN: u32 = ALL_JOBS / 2;
/// Jobs that last longer on average, in microseconds, share the GIL anyway: it is taken from a thread after this time.
const ALONE_MICROS: u32 = 5000;
/// So long a thread that runs alone is awaited before the pool stands still: another one would get the GIL no sooner.
const PATIENCE_MIN_MICROS: u64 = ALONE_MICROS as u64;
/// The jobs that began in the convoy are awaited for as long as one lasted there, but for this at most after the last of them.
const PATIENCE_MAX_MICROS: u64 = 250_000;
/// After so many jobs the mean service time has forgotten the convoy, and the trial was worth it.
const TRIAL_JOBS: u32 = 64;
/// A convoy that has formed again is broken after so many microseconds. Where that did not help, it is tried again after
/// twice the last pause or [`PAUSE_PARTS`] times as long as the trial took,
const PAUSE_MIN: u64 = 50_000;
/// and after so many at the latest.
const PAUSE_MAX: u64 = 6_400_000;
const PAUSE_PARTS: u64 = 50;

/// What was seen of one job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// How often its thread gave up the processor.
    pub(super) waits: u32,
    /// How long it lasted,
    pub(super) lasted: Duration,
    /// until when.
    pub(super) ended: Instant,
}

impl Sample {
    /// Whether it may have been in a convoy.
    fn is_suspect(self) -> bool {
        self.waits >= WAITS_MIN && self.lasted < PERIOD_MAX * self.waits
    }
}

/// What is known of the last jobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastJobs {
    /// More of them wait than are few.
    pub(super) do_wait: bool,
    /// They are fast.
    pub(super) are_fast: bool,
    /// How long one lasts, in microseconds.
    pub(super) mean_micros: u32,
}

/// See the module. The threads write; each number stands alone and is a hint.
#[derive(Debug)]
pub(super) struct ConvoyBreaker {
    /// One thread runs alone.
    is_alone: AtomicBool,
    /// Each job is a sample.
    samples_all: AtomicBool,
    /// The share of the last jobs that were suspect.
    suspect_share: AtomicU32,
    /// Jobs of the thread that runs alone so far.
    alone_jobs: AtomicU32,
    born: Instant,
    /// When it began, in microseconds after `born`.
    alone_since: AtomicU64,
    /// When it may begin again, in the same,
    not_before: AtomicU64,
    /// and when a job that began in the convoy was over last.
    drained_at: AtomicU64,
    /// How long the next one is awaited, in microseconds.
    patience: AtomicU64,
    /// The last pause between trials, in the same unit.
    pause: AtomicU64,
}

impl ConvoyBreaker {
    pub(super) fn new(born: Instant) -> Self {
        Self {
            is_alone: AtomicBool::new(false),
            samples_all: AtomicBool::new(false),
            suspect_share: AtomicU32::new(0),
            alone_jobs: AtomicU32::new(0),
            born,
            alone_since: AtomicU64::new(0),
            not_before: AtomicU64::new(0),
            drained_at: AtomicU64::new(0),
            patience: AtomicU64::new(0),
            pause: AtomicU64::new(PAUSE_MIN),
        }
    }

    /// Whether one thread runs alone.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Relaxed)
    }

    /// Whether every job is to be sampled.
    #[inline]
    pub(super) fn samples_all(&self) -> bool {
        self.samples_all.load(Ordering::Relaxed)
    }

    /// A job that was sampled is over. Returns whether most are suspect.
    pub(super) fn note(&self, sample: Sample) -> bool {
        let is_suspect = sample.is_suspect();
        let share = self.suspect_share.load(Ordering::Relaxed);
        let share = estimates::suspect_share(share, is_suspect);
        self.suspect_share.store(share, Ordering::Relaxed);
        let samples_all = is_suspect || self.is_alone();
        self.samples_all.store(samples_all, Ordering::Relaxed);
        is_suspect && share > SUSPECT_SHARE_MIN
    }

    /// One thread runs alone from now on, unless it was tried a short time ago. Returns whether it does. A job has lasted
    /// `mean_micros` until now.
    pub(super) fn begin(&self, mean_micros: u32, now: Instant) -> bool {
        let now = self.micros(now);
        if self.is_alone() || now < self.not_before.load(Ordering::Relaxed) {
            return false;
        }
        self.alone_jobs.store(0, Ordering::Relaxed);
        self.alone_since.store(now, Ordering::Relaxed);
        self.drained_at.store(now, Ordering::Relaxed);
        let patience = u64::from(mean_micros).clamp(PATIENCE_MIN_MICROS, PATIENCE_MAX_MICROS);
        self.patience.store(patience, Ordering::Relaxed);
        self.is_alone.store(true, Ordering::Relaxed);
        true
    }

    /// A job is over. Returns whether it was one of the thread that runs alone. The trial ends when its jobs wait although no other
    /// thread runs, last too long, or are fast and have no need of this rule.
    pub(super) fn note_alone(&self, sample: Sample, last: LastJobs) -> bool {
        let began = self.micros(sample.ended - sample.lasted);
        // Also the one that was taken as the trial began.
        if began <= self.alone_since.load(Ordering::Relaxed) {
            let ended = self.micros(sample.ended);
            self.drained_at.store(ended, Ordering::Relaxed);
            return false;
        }
        self.alone_jobs.fetch_add(1, Ordering::Relaxed);
        let is_decided = self.is_known() && (last.are_fast || last.mean_micros > ALONE_MICROS);
        if sample.is_suspect() || last.do_wait || is_decided {
            self.end(sample.ended);
        }
        true
    }

    /// Whether a pool that has stood still for so long goes on alone: one thread does, or will as soon as the jobs are over
    /// that began in the convoy.
    pub(super) fn outlasts(&self, stall: Duration, now: Instant) -> bool {
        let (patience, still) = match self.alone_jobs.load(Ordering::Relaxed) {
            0 => (
                self.patience.load(Ordering::Relaxed),
                self.micros(now)
                    .saturating_sub(self.drained_at.load(Ordering::Relaxed)),
            ),
            _ => (PATIENCE_MIN_MICROS, stall.as_micros() as u64),
        };
        self.is_alone() && still < patience
    }

    /// Whether its jobs were enough to decide by.
    fn is_known(&self) -> bool {
        self.alone_jobs.load(Ordering::Relaxed) >= TRIAL_JOBS
    }

    /// One thread does not run alone any more.
    pub(super) fn end(&self, now: Instant) {
        if !self.is_alone.swap(false, Ordering::Relaxed) {
            return;
        }
        let now = self.micros(now);
        let lasted = now.saturating_sub(self.alone_since.load(Ordering::Relaxed));
        let before = self.pause.load(Ordering::Relaxed);
        let pause = match self.is_known() {
            true => PAUSE_MIN,
            false => (before * 2).max(lasted * PAUSE_PARTS).min(PAUSE_MAX),
        };
        self.pause.store(pause, Ordering::Relaxed);
        self.not_before.store(now + pause, Ordering::Relaxed);
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.born);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);
    const CALM: LastJobs = LastJobs {
        do_wait: false,
        are_fast: false,
        mean_micros: 1200,
    };

    fn sample(waits: u32, lasted: Duration, ended: Instant) -> Sample {
        Sample {
            waits,
            lasted,
            ended,
        }
    }

    #[test]
    fn jobs_that_wait_in_quick_succession_are_suspect_and_those_that_share_the_gil_or_a_database_are_not()
     {
        let now = Instant::now();
        for (waits, millis, is_suspect) in
            [(16, 1, true), (4, 1, true), (3, 1, false), (80, 14, true)]
        {
            let one = sample(waits, MILLISECOND * millis, now);
            assert_eq!(one.is_suspect(), is_suspect, "{waits} in {millis} ms");
        }
        // By force every 5 ms; or five queries of 3 ms.
        assert!(!sample(20, MILLISECOND * 100, now).is_suspect());
        assert!(!sample(5, MILLISECOND * 15, now).is_suspect());
    }

    #[test]
    fn most_of_the_last_jobs_are_suspect_in_a_convoy_and_then_every_job_is_a_sample() {
        let now = Instant::now();
        let breaker = ConvoyBreaker::new(now);
        let (busy, calm) = (sample(16, MILLISECOND, now), sample(0, MILLISECOND, now));
        assert!(!breaker.note(busy), "one is none");
        assert!(breaker.samples_all());
        assert!((0..8).any(|_| breaker.note(busy)));
        assert!(!breaker.note(calm) && !breaker.samples_all());
        for _ in 0..100 {
            breaker.note(busy);
            assert!(!breaker.note(calm));
            breaker.note(calm);
        }
    }

    #[test]
    fn the_jobs_of_the_convoy_are_awaited_one_after_another_and_then_five_milliseconds() {
        let born = Instant::now();
        let breaker = ConvoyBreaker::new(born);
        let mut now = born + MILLISECOND;
        let outlasts = |millis: u32, now: Instant| {
            let stall = MILLISECOND * millis;
            breaker.outlasts(stall, now + stall)
        };
        assert!(!outlasts(1, now), "all threads run");
        assert!(breaker.begin(40_000, now));
        for _ in 0..16 {
            assert!(outlasts(39, now) && !outlasts(40, now));
            now += MILLISECOND * 39;
            assert!(!breaker.note_alone(sample(900, MILLISECOND * 700, now), CALM));
        }
        now += MILLISECOND * 2;
        assert!(breaker.note_alone(sample(0, MILLISECOND, now), CALM));
        assert!(outlasts(4, now) && !outlasts(5, now));
        assert!(breaker.note_alone(sample(9, MILLISECOND, now), CALM));
        assert!(!breaker.is_alone(), "it waits, and no other thread runs");
    }

    #[test]
    fn a_trial_that_takes_long_and_does_not_help_is_not_repeated_soon() {
        let born = Instant::now();
        let breaker = ConvoyBreaker::new(born);
        assert!(breaker.begin(1200, born));
        let now = born + MILLISECOND * 40;
        breaker.end(now);
        assert!(!breaker.begin(1200, now + MILLISECOND * 1999));
        assert!(breaker.begin(1200, now + MILLISECOND * 2000));
    }

    #[test]
    fn a_trial_that_ends_soon_is_repeated_less_and_less_often_and_one_that_helped_soon() {
        let born = Instant::now();
        let breaker = ConvoyBreaker::new(born);
        let mut now = born;
        let mut pause = Duration::from_millis(50);
        for _ in 0..10 {
            assert!(breaker.begin(1200, now) && breaker.is_alone() && !breaker.begin(1200, now));
            breaker.end(now);
            pause = (pause * 2).min(Duration::from_millis(6400));
            assert!(!breaker.begin(1200, now + pause - MILLISECOND));
            now += pause;
        }
        assert!(breaker.begin(1200, now));
        let before = sample(9, MILLISECOND * 2, now + MILLISECOND);
        assert!(!breaker.note_alone(before, CALM), "it began in the convoy");
        for _ in 0..64 {
            now += MILLISECOND * 2;
            assert!(!breaker.is_known());
            assert!(breaker.note_alone(sample(0, MILLISECOND, now), CALM));
        }
        assert!(breaker.is_known());
        breaker.end(now);
        assert!(!breaker.is_alone() && !breaker.begin(1200, now + MILLISECOND * 49));
        assert!(breaker.begin(1200, now + MILLISECOND * 50));
    }
}
