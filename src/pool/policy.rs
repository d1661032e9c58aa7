//! The scheduling policy: pure rules, without atomics, clocks or system calls.
//!
//! Counters and times go in, a decision comes out. The pool (`thread_pool.rs`, `loop_park.rs`) and the event loop
//! (`worker/`) measure, ask here, and carry out what is decided.
//!
//! | question | rule |
//! | --- | --- |
//! | Are jobs fast? | `are_fast`, from the means of `estimates.rs` |
//! | Which event wakes a parked thread? | `wake` |
//! | Does a thread that is awake park although jobs wait? | `is_idle_extra` |
//! | Does a reply wake the event loop? | [`wakes_loop`] |
//! | Does the event loop sleep, and how? | [`loop_sleep`], `brief_sleep`, [`poll_timeout`] |
//! | Does the pool stand still? | [`StallDetector`] |
//!
//! Which work goes to another worker: `balance.rs`.
//!
//! An argument that costs an atomic load is a closure where the rule often does without it.

use std::time::{Duration, Instant};

use super::estimates::ALL_JOBS;

/// Jobs that last less than this on average, in microseconds, are run by one thread faster, one after another, than a
/// second thread could be woken to help. The threads share the GIL.
pub(super) const FAST_MICROS: u32 = 500;
/// The same for threads that run side by side: they help as soon as waking one costs less than the job.
pub(super) const FAST_MICROS_IN_PARALLEL: u32 = 20;
/// The mean before the first job, in microseconds: slow, so that the first burst finds all threads.
pub(super) const UNKNOWN_MICROS: u32 = FAST_MICROS * 4;
/// Up to this share jobs count as not waiting: some always wait, for a lock or for the GIL.
pub(super) const WAITING_SHARE_SMALL: u32 = ALL_JOBS / 8;

/// Whether jobs are over before a thread or a process could be woken to help, and seldom wait for anything but the
/// interpreter. A job that waits for a database is not fast, however short it is: another can run meanwhile.
#[inline]
pub(super) fn are_fast(
    mean_micros: u32,
    fast_micros: u32,
    waiting_share: impl FnOnce() -> u32,
) -> bool {
    mean_micros < fast_micros && waiting_share() <= WAITING_SHARE_SMALL
}

/// After this many queued jobs the loop notifies a thread before its iteration ends: a free core should not wait for
/// the end. Notified for each job, the woken thread would preempt the loop on a busy core, and the switches would cost
/// more than the jobs.
pub const JOBS_PER_NOTIFY: u32 = 32;

/// Why a parked thread may be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The loop has queued jobs.
    JobsQueued,
    /// A thread has taken a job and leaves others in the queue.
    JobsLeft,
    /// The loop has put a job back in front.
    PutBack,
    /// Jobs wait, and the threads that are awake take none.
    Stall,
    /// Borrowed buffers wait to be dropped.
    DeferredDrops,
    /// The thread is to handle a signal.
    Signal,
}

/// Which thread is woken, if one is parked and none is waking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    No,
    One,
    OneIfNoneComes,
}

/// What `reason` asks for.
///
/// While jobs are fast, a thread that is awake is trusted to come back for the next one, and no second one is woken to
/// stand by: it would take the GIL by force every 5 ms. Should it wait in the application after all, the loop finds the
/// stall and wakes another, and the first is not counted on until it is back.
#[inline]
pub(super) fn wake(reason: Reason, are_fast: bool) -> Wake {
    match reason {
        Reason::JobsQueued if are_fast => Wake::OneIfNoneComes,
        Reason::JobsLeft if are_fast => Wake::No,
        _ => Wake::One,
    }
}

/// After a stall, this many jobs are run by all threads that are awake: those may be held up in the application.
const DISTRUST_JOBS: usize = 256;

/// The threads as one of them sees them when it looks for a job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd {
    /// Jobs taken since the last stall.
    pub(super) jobs_since_stall: usize,
    pub(super) is_another_coming: bool,
    /// No more jobs come: all threads help to finish.
    pub(super) is_closed: bool,
}

/// Whether the calling thread is an idle extra thread: better parked although jobs wait. While jobs are fast one thread
/// runs them all; others that are awake, as after a burst of slow ones, would only take the GIL from it again and again.
#[inline]
pub(super) fn is_idle_extra(are_fast: bool, crowd: impl FnOnce() -> Crowd) -> bool {
    are_fast && {
        let crowd = crowd();
        crowd.jobs_since_stall > DISTRUST_JOBS && crowd.is_another_coming && !crowd.is_closed
    }
}

/// This many replies may wait for a loop in a timed sleep: a wake-up for each would cost more than it saves.
const REPLIES_PER_WAKE: u32 = 12;

/// How the loop sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SleepMode {
    /// On the poll set, for `TIMED_SLEEP`: threads may leave it asleep while they have more to run.
    Timed = 1,
    /// On the poll set, until something happens.
    UntilWoken = 2,
    /// As a parked thread that looks at nothing, for a time that it has chosen: threads may leave it asleep while they
    /// have more to run. Replies and arrivals batch up meanwhile.
    Batching = 3,
}

/// Whether a thread that has sent a reply wakes the loop. A thread that is about to send another (`more_to_come`)
/// leaves it to that, unless the loop sleeps until it is woken. `unannounced` counts the replies of this sleep that
/// woke nothing.
#[inline]
pub fn wakes_loop(mode: SleepMode, more_to_come: bool, unannounced: impl FnOnce() -> u32) -> bool {
    match mode {
        _ if !more_to_come => true,
        SleepMode::UntilWoken => true,
        SleepMode::Batching => false,
        SleepMode::Timed => unannounced() >= REPLIES_PER_WAKE,
    }
}

/// The length of a timed sleep: a reply that waits for a batch is late by this at most.
const TIMED_SLEEP: Duration = Duration::from_micros(500);
/// With more work than this in the queue the loop looks at nothing for a part of the time that it takes, and then at
/// all that has come: each wake-up takes the processor's caches from the application.
const MUCH_WORK: Duration = Duration::from_micros(500);
/// It sleeps through this part of the queued work, within a bound.
const BATCHING_PART: u32 = 2;
const BATCHING_SLEEP_MAX: Duration = Duration::from_millis(4);
/// Jobs briefer than this cost the loop as much as the threads: then it had better keep up. (Sleeping through a queue
/// of such jobs was measured as 5 to 9 % dearer.)
const BRIEF_JOB_MICROS: u64 = 30;
/// The bound of the sleep that awaits the answer to a lone request. The answer comes much sooner and wakes the loop, so
/// what counts is what the timer costs to set, which is less when it is not the processor's next one.
const LONE_SLEEP: Duration = Duration::from_millis(2);
/// While requests wait here, a peer worker that has become free is looked for this often.
const OFFLOAD_PERIOD: Duration = Duration::from_millis(2);

/// What the loop knows when it has nothing at hand.
#[derive(Clone, Copy, Debug)]
pub struct LoopView {
    /// It has more to do itself: connections to resume, answers of its own, messages of peers.
    pub has_work: bool,
    /// Jobs wait in the queue.
    pub jobs_wait: bool,
    /// The last brief sleep brought nothing.
    pub brief_sleep_was_idle: bool,
    /// Pieces of a streamed response follow one another closely.
    pub stream_is_quick: bool,
}

/// What [`loop_sleep`] decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopSleep {
    /// It does not: it looks at the poll set and goes on.
    No,
    /// It sleeps briefly (`brief_sleep`), and threads may leave it asleep for a batch.
    Brief,
    /// It sleeps until something happens or is due ([`poll_timeout`]).
    UntilWoken,
}

/// Whether the loop sleeps.
///
/// With jobs in the queue it sleeps briefly, so that threads need not wake it for each reply and that it finds out when
/// they stand still. A brief sleep that brought nothing is followed by a long one, so that a queue behind a slow
/// request does not make it spin; not so when a thread is parked that it could notify. A generator that yields piece
/// after piece is awaited in the same way: a wake-up for each would cost more than the pieces.
#[inline]
pub fn loop_sleep(view: LoopView, has_parked_threads: impl FnOnce() -> bool) -> LoopSleep {
    if view.has_work {
        LoopSleep::No
    } else if view.jobs_wait && (!view.brief_sleep_was_idle || has_parked_threads())
        || view.stream_is_quick && !view.brief_sleep_was_idle
    {
        LoopSleep::Brief
    } else {
        LoopSleep::UntilWoken
    }
}

/// Fast jobs in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct FastJobs {
    pub(super) count: usize,
    /// Their mean service time in microseconds.
    pub(super) mean_micros: u32,
}

/// How the loop sleeps briefly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BriefSleep {
    /// On the poll set ([`SleepMode::Timed`]).
    Timed(Duration),
    /// As a parked thread ([`SleepMode::Batching`]).
    Batching(Duration),
}

/// How, and for how long. `jobs` is `None` when jobs are not fast.
///
/// The loop may look at nothing while fast jobs wait, and either that many of them that a client that asks now waits
/// longer anyway, or a single one, whose answer is there in a moment and wakes the loop. A loop that wakes for each
/// arrival costs Flask a fifth of its throughput.
#[inline]
pub(super) fn brief_sleep(jobs: Option<FastJobs>) -> BriefSleep {
    let Some(jobs) = jobs else {
        return BriefSleep::Timed(TIMED_SLEEP);
    };
    let count = jobs.count as u64;
    let micros = u64::from(jobs.mean_micros).saturating_mul(count);
    let ahead = Duration::from_micros(micros);
    if ahead >= MUCH_WORK && micros >= BRIEF_JOB_MICROS.saturating_mul(count) {
        BriefSleep::Batching((ahead / BATCHING_PART).min(BATCHING_SLEEP_MAX))
    } else if jobs.count == 1 {
        BriefSleep::Batching(LONE_SLEEP)
    } else {
        BriefSleep::Timed(TIMED_SLEEP)
    }
}

/// The poll set's timeout for a loop that sleeps until something happens: until the earliest instant of `due`, but at
/// most `sleep_max`, so that the heartbeat goes on, and at most `OFFLOAD_PERIOD` while jobs wait that a peer worker
/// could take.
#[inline]
pub fn poll_timeout<const N: usize>(
    now: Instant,
    sleep_max: Duration,
    awaits_peer: bool,
    due: [Option<Instant>; N],
) -> Duration {
    let mut time = sleep_max;
    if awaits_peer {
        time = time.min(OFFLOAD_PERIOD);
    }
    for at in due.into_iter().flatten() {
        time = time.min(at.saturating_duration_since(now));
    }
    // The poll set counts whole milliseconds; a loop that wakes one too early would only spin until the time.
    time + Duration::from_micros(999)
}

/// Notices that jobs wait and none is taken.
#[derive(Clone, Copy, Debug)]
pub struct StallDetector {
    /// How many jobs had been taken at the last look.
    jobs_taken: usize,
    /// How long the loop has slept since the pool last moved or stalled. Only that counts: while the loop works itself,
    /// it may be what keeps the threads from their processor.
    asleep: Duration,
    /// Since when the pool has not moved.
    still_since: Instant,
}

impl StallDetector {
    /// As if the pool had just moved.
    pub fn new(now: Instant) -> Self {
        Self {
            jobs_taken: 0,
            asleep: Duration::ZERO,
            still_since: now,
        }
    }

    /// Called before a sleep. Jobs that have waited for a timed sleep's time, and none was taken, are a stall:
    /// the threads that are awake are all held up in the application, and another one is needed. Returns how long it
    /// has lasted, once for each such time.
    #[inline]
    pub fn look(&mut self, jobs_wait: bool, jobs_taken: usize, now: Instant) -> Option<Duration> {
        if !jobs_wait || jobs_taken != self.jobs_taken {
            *self = Self {
                jobs_taken,
                ..Self::new(now)
            };
            return None;
        }
        if self.asleep < TIMED_SLEEP {
            return None;
        }
        self.asleep = Duration::ZERO;
        Some(now.saturating_duration_since(self.still_since))
    }

    /// The loop has slept while jobs waited.
    #[inline]
    pub fn note_sleep(&mut self, lasted: Duration) {
        self.asleep += lasted;
    }
}

#[cfg(test)]
mod tests;
