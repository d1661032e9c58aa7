//! Moving means that the policy decides by: how long jobs last, whether they wait, whether connections are kept.
//!
//! Pure, as `policy.rs` is: an estimate and what was seen go in, the next estimate comes out.

use std::time::Duration;

/// The mean service time moves by one part in this many of a difference.
const SERVICE_WEIGHT: u32 = 8;
/// The same of the share of jobs that wait,
const WAITING_WEIGHT: u32 = 16;
/// of the share of jobs that may be in a convoy,
const SUSPECT_WEIGHT: u32 = 8;
/// and of the share of connections that bring one request only.
const ONE_REQUEST_WEIGHT: u32 = 8;
/// Shares are counted in parts of this.
pub(super) const ALL_JOBS: u32 = 1024;

/// A mean that moves by `1 / weight` of the difference to `sample`.
const fn moving_mean(mean: u32, sample: u32, weight: u32) -> u32 {
    mean - mean / weight + sample / weight
}

/// The same of a share, in parts of [`ALL_JOBS`].
const fn moving_share(share: u32, is_one: bool, weight: u32) -> u32 {
    moving_mean(share, if is_one { ALL_JOBS } else { 0 }, weight)
}

/// The mean service time in microseconds after a job that lasted `lasted`.
#[inline]
pub(super) fn service_mean(mean: u32, lasted: Duration) -> u32 {
    let micros = u32::try_from(lasted.as_micros()).unwrap_or(u32::MAX);
    moving_mean(mean, micros, SERVICE_WEIGHT)
}

/// The share of jobs that wait, after one that did or did not.
#[inline]
pub(super) fn waiting_share(share: u32, has_waited: bool) -> u32 {
    moving_share(share, has_waited, WAITING_WEIGHT)
}

/// The share of jobs that may be in a convoy, after one that may or may not.
pub(super) fn suspect_share(share: u32, is_suspect: bool) -> u32 {
    moving_share(share, is_suspect, SUSPECT_WEIGHT)
}

/// The share of the last connections that brought one request only.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneRequestShare(u32);

impl OneRequestShare {
    /// A connection that has brought requests is over; it was kept open for more than one, or was not.
    #[inline]
    pub fn note(&mut self, was_kept: bool) {
        self.0 = moving_share(self.0, !was_kept, ONE_REQUEST_WEIGHT);
    }

    /// Whether it is more than half.
    pub(super) fn is_most(self) -> bool {
        self.0 > ALL_JOBS / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_what_is_seen_and_never_overflows() {
        let mut mean = 2000;
        for _ in 0..100 {
            mean = service_mean(mean, Duration::from_micros(80));
        }
        assert!((70..=90).contains(&mean), "{mean}");
        for _ in 0..1000 {
            mean = service_mean(mean, Duration::MAX);
        }
        assert!(mean > u32::MAX - 100, "{mean}");
    }

    #[test]
    fn a_share_follows_what_is_seen() {
        let mut share = 0;
        for number in 0..1000 {
            share = waiting_share(share, number % 4 == 0);
        }
        assert!((ALL_JOBS / 8..ALL_JOBS / 2).contains(&share), "{share}");
        for _ in 0..100 {
            share = waiting_share(share, false);
        }
        assert!(share < ALL_JOBS / 32, "{share}");
    }

    #[test]
    fn most_connections_bring_one_request_when_few_are_kept() {
        let mut share = OneRequestShare::default();
        assert!(!share.is_most(), "nothing is known");
        (0..100).for_each(|number| share.note(number % 4 == 0));
        assert!(share.is_most());
        (0..100).for_each(|number| share.note(number % 4 != 0));
        assert!(!share.is_most());
    }
}
