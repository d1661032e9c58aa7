//! A histogram on the scoreboard: fixed buckets of atomics, recorded with one add.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts by powers of two of microseconds: bucket 0 is below 1 µs, bucket `k` is `2^(k-1) .. 2^k` µs, the
/// last one is open-ended (about 18 minutes and more).
#[derive(Clone, Copy, Debug)]
pub struct Histogram<'a>(&'a [AtomicU64; HISTOGRAM_BUCKETS]);

impl<'a> Histogram<'a> {
    pub(super) fn new(buckets: &'a [AtomicU64; HISTOGRAM_BUCKETS]) -> Self {
        Self(buckets)
    }

    pub fn record(self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bits = (u64::BITS - micros.leading_zeros()) as usize;
        self.0[bits.min(HISTOGRAM_BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn snapshot(self) -> [u64; HISTOGRAM_BUCKETS] {
        std::array::from_fn(|bucket| self.0[bucket].load(Ordering::Relaxed))
    }
}

pub const HISTOGRAM_BUCKETS: usize = 32;

#[cfg(test)]
mod tests {
    use crate::scoreboard::Scoreboard;
    use std::time::Duration;

    #[test]
    fn histogram_buckets_are_powers_of_two_of_microseconds() {
        let board = Scoreboard::new(1, 1).unwrap();
        let histogram = board.slot(0).queue_time();
        for micros in [0, 1, 2, 3, 1024, u64::MAX / 1000] {
            histogram.record(Duration::from_micros(micros));
        }
        let counts = histogram.snapshot();
        assert_eq!(
            (counts[0], counts[1], counts[2], counts[11], counts[31]),
            (1, 1, 2, 1, 1)
        );
    }
}
