//! How many threads run a job, and how many of them the application holds up.
//!
//! A thread that runs a job when the loop finds a stall is held up until that job is over: it is not counted on for the next one.
//! A thread that has begun since is not. All numbers are in one word, so each thread is counted once and uncounted once, whatever
//! happens at the same time: a count that stayed too high would wake a thread for every batch from then on.
//!
//! The threads and the loop write. The counts are hints, and nothing else is published by them, so no change needs an order beyond
//! that of the word itself. `tests/model` checks this file.

use super::sync::{AtomicU64, Ordering};

/// One held-up thread. There are 24 bits for it, and as many for threads that run a job: more than a system has threads, or memory for
/// greenlets.
const HELD_UP: u64 = 1;
/// One thread that runs a job.
const BUSY: u64 = 1 << COUNT_BITS;
/// One stall. They are counted modulo 2^16: a job that sees exactly so many would leave a thread counted until the next one.
const STALL: u64 = 1 << (2 * COUNT_BITS);
const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = BUSY - 1;

/// See the module.
#[derive(Debug)]
pub(crate) struct BusyThreads(AtomicU64);

/// When a thread has begun its job: after how many stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BusySince(u64);

impl BusyThreads {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The calling thread runs a job from now on, until [`Self::end`].
    #[inline]
    pub(crate) fn begin(&self) -> BusySince {
        BusySince(self.0.fetch_add(BUSY, Ordering::Relaxed) / STALL)
    }

    /// The job is over.
    #[inline]
    pub(crate) fn end(&self, since: BusySince) {
        self.update(|word| {
            let is_held_up = word / STALL != since.0;
            word - BUSY - if is_held_up { HELD_UP } else { 0 }
        });
    }

    /// All that run a job have run it for long.
    pub(crate) fn note_stall(&self) {
        self.update(|word| {
            let busy = (word / BUSY) & COUNT_MAX;
            ((word & !COUNT_MAX) | busy).wrapping_add(STALL)
        });
    }

    /// How many threads run a job.
    pub(crate) fn count(&self) -> usize {
        ((self.0.load(Ordering::Relaxed) / BUSY) & COUNT_MAX) as usize
    }

    /// How many of them are held up, as far as stalls have shown. They will not come for a job soon.
    #[inline]
    pub(crate) fn held_up(&self) -> usize {
        (self.0.load(Ordering::Relaxed) & COUNT_MAX) as usize
    }

    #[inline]
    fn update(&self, change: impl Fn(u64) -> u64) {
        let mut word = self.0.load(Ordering::Relaxed);
        while let Err(now) =
            self.0
                .compare_exchange_weak(word, change(word), Ordering::Relaxed, Ordering::Relaxed)
        {
            word = now;
        }
    }
}
