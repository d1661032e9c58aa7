//! A histogram on the scoreboard: fixed buckets of atomics and the sum of what was recorded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts by powers of two of microseconds: bucket 0 is below 1 µs, bucket `k` is `2^(k-1) .. 2^k` µs, the
/// last one is open-ended (about 18 minutes and more).
#[derive(Clone, Copy, Debug)]
pub struct Histogram<'a>(pub(super) &'a HistogramData);

impl Histogram<'_> {
    /// From any thread of the worker.
    pub fn record(self, duration: Duration) {
        let micros = micros_of(duration);
        self.0.buckets[bucket_of(micros)].fetch_add(1, Ordering::Relaxed);
        self.0.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// From the only thread that ever records here, which saves it the cost of a shared addition.
    pub fn record_alone(self, duration: Duration) {
        let micros = micros_of(duration);
        let add = |counter: &AtomicU64, more: u64| {
            let sum = counter.load(Ordering::Relaxed).wrapping_add(more);
            counter.store(sum, Ordering::Relaxed);
        };
        add(&self.0.buckets[bucket_of(micros)], 1);
        add(&self.0.micros, micros);
    }

    #[must_use]
    pub fn snapshot(self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: std::array::from_fn(|at| self.0.buckets[at].load(Ordering::Relaxed)),
            micros: self.0.micros.load(Ordering::Relaxed),
        }
    }
}

fn micros_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn bucket_of(micros: u64) -> usize {
    let bits = (u64::BITS - micros.leading_zeros()) as usize;
    bits.min(HISTOGRAM_BUCKETS - 1)
}

/// What was recorded so far. Snapshots of several workers can be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    pub counts: [u64; HISTOGRAM_BUCKETS],
    /// The sum of all durations.
    pub micros: u64,
}

impl HistogramSnapshot {
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.micros = self.micros.wrapping_add(other.micros);
    }
}

#[derive(Debug)]
#[repr(C)]
pub(super) struct HistogramData {
    buckets: [AtomicU64; HISTOGRAM_BUCKETS],
    micros: AtomicU64,
}

impl HistogramData {
    pub(super) fn wipe(&self) {
        for counter in self.buckets.iter().chain([&self.micros]) {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

pub const HISTOGRAM_BUCKETS: usize = 32;

#[cfg(test)]
mod tests {
    use crate::scoreboard::Scoreboard;
    use std::time::Duration;

    #[test]
    fn histogram_buckets_are_powers_of_two_of_microseconds() {
        let scoreboard = Scoreboard::new(1, 1).unwrap();
        let (shared, alone) = (
            scoreboard.slot(0).queue_time(),
            scoreboard.slot(0).latency(),
        );
        for micros in [0, 1, 2, 3, 1024, u64::MAX / 1000] {
            shared.record(Duration::from_micros(micros));
            alone.record_alone(Duration::from_micros(micros));
        }
        let counts = shared.snapshot().counts;
        assert_eq!(
            (counts[0], counts[1], counts[2], counts[11], counts[31]),
            (1, 1, 2, 1, 1)
        );
        assert_eq!(shared.snapshot(), alone.snapshot());
        let mut both = shared.snapshot();
        both.add(&alone.snapshot());
        assert_eq!(
            (both.counts[2], both.micros),
            (4, 2 * (1030 + u64::MAX / 1000))
        );
    }
}
