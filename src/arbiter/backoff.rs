//! How long a place waits after a worker that never served.
//!
//! A place is a slot of the scoreboard. Each waits for itself: 100 ms after its first failed boot, then twice as long
//! each time, at most a second or the time that the failed boot took, whichever is longer. So a boot that fails at once
//! does not fill the log, one that takes long has at least half of the time, and recovery is never a matter of
//! many seconds. When the last boot of any worker has succeeded nothing waits: the code and the system are able to boot.

use std::collections::BTreeMap;
use std::time::Duration;

/// One delay that grows. Milliseconds of the scoreboard's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delay {
    failures: u32,
    until: u64,
}

impl Delay {
    /// Something that took `took` ms has failed at `now`. Returns how long to wait.
    pub(super) fn failed(&mut self, now: u64, took: u64) -> Duration {
        if now.saturating_sub(self.until) > QUIET_MS {
            self.failures = 0;
        }
        let delay = (FIRST_MS << self.failures.min(16)).min(took.max(MAX_MS));
        self.failures = self.failures.saturating_add(1);
        self.until = now.saturating_add(delay);
        Duration::from_millis(delay)
    }

    /// Milliseconds until the next attempt; 0 means now.
    pub(super) fn remaining(self, now: u64) -> u64 {
        self.until.saturating_sub(now)
    }
}

/// The delays of all places.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    places: BTreeMap<usize, Delay>,
    last_boot_failed: bool,
    /// After an attempt that made no process: the system, and no place, is at fault.
    all: Delay,
}

impl Backoff {
    /// The worker at `place` ended without having served, `took` ms after its fork.
    pub(super) fn boot_failed(&mut self, place: usize, now: u64, took: u64) -> Duration {
        self.last_boot_failed = true;
        self.places.entry(place).or_default().failed(now, took)
    }

    /// There is no process, for want of a slot, a descriptor or memory. Returns how long all wait.
    pub(super) fn start_failed(&mut self, now: u64) -> Duration {
        self.all.failed(now, 0)
    }

    /// The worker at `place` serves.
    pub(super) fn boot_succeeded(&mut self, place: usize) {
        self.last_boot_failed = false;
        self.places.remove(&place);
    }

    /// How many of `missing` workers may be started now.
    pub(super) fn permitted(&self, missing: usize, now: u64) -> usize {
        if self.all.remaining(now) > 0 {
            return 0;
        }
        missing.saturating_sub(self.waiting(now).count())
    }

    /// The place for the next worker: one whose wait is over before one that never failed.
    pub(super) fn choose(&self, free: impl Iterator<Item = usize>, now: u64) -> Option<usize> {
        let is_waiting = |place: &usize| self.waiting(now).any(|waiting| waiting == *place);
        free.filter(|place| !is_waiting(place))
            .min_by_key(|place| (!self.places.contains_key(place), *place))
    }

    /// Milliseconds until a place has waited long enough. `None` when none waits.
    pub(super) fn next_attempt(&self, now: u64) -> Option<u64> {
        let places = self.waiting(now);
        places
            .filter_map(|place| self.places.get(&place))
            .chain([&self.all])
            .map(|delay| delay.remaining(now))
            .filter(|left| *left > 0)
            .min()
    }

    /// The operator has changed something: the next attempts are made at once.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    fn waiting(&self, now: u64) -> impl Iterator<Item = usize> {
        let waits = move |delay: &Delay| self.last_boot_failed && delay.remaining(now) > 0;
        let places = self.places.iter();
        places
            .filter(move |(_, delay)| waits(delay))
            .map(|(place, _)| *place)
    }
}

const FIRST_MS: u64 = 100;
/// A fork and an import that fail at once write a traceback each second then.
const MAX_MS: u64 = 1000;
/// After this long without a failure the next one is the first again.
const QUIET_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_doubles_up_to_a_second_or_the_time_of_the_boot() {
        let mut delay = Delay::default();
        let mut now = 1_000_000;
        let mut waits = Vec::new();
        for _ in 0..6 {
            waits.push(delay.failed(now, 30).as_millis());
            now += delay.remaining(now);
            assert_eq!(delay.remaining(now), 0);
        }
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(delay.failed(now, 2500).as_millis(), 2500);
        now += QUIET_MS * 2;
        assert_eq!(
            delay.failed(now, 2500).as_millis(),
            100,
            "after a quiet time"
        );
    }

    #[test]
    fn each_place_waits_for_itself() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.permitted(3, 5), 3);
        backoff.boot_failed(1, 1000, 10);
        backoff.boot_failed(1, 1000, 10);
        backoff.boot_failed(2, 1000, 10);
        assert_eq!(
            backoff.permitted(3, 1000),
            1,
            "two places wait, the third does not"
        );
        assert_eq!(backoff.choose(0..4, 1000), Some(0));
        assert_eq!(backoff.next_attempt(1000), Some(100));
        assert_eq!(backoff.permitted(3, 1100), 2);
        assert_eq!(backoff.choose(0..4, 1100), Some(2), "its wait is over");
        assert_eq!(backoff.permitted(3, 1200), 3);
        assert_eq!(backoff.next_attempt(1200), None);
    }

    #[test]
    fn nothing_waits_once_a_boot_has_succeeded() {
        let mut backoff = Backoff::default();
        backoff.boot_failed(0, 1000, 10);
        backoff.boot_failed(1, 1000, 10);
        assert_eq!(backoff.permitted(2, 1000), 0);
        backoff.boot_succeeded(1);
        assert_eq!(backoff.permitted(2, 1000), 2);
        backoff.boot_failed(0, 1000, 10);
        assert_eq!(backoff.permitted(2, 1000), 1);
        backoff.reset();
        assert_eq!(backoff.permitted(2, 1000), 2);
    }

    #[test]
    fn all_wait_when_no_process_can_be_made() {
        let mut backoff = Backoff::default();
        backoff.start_failed(1000);
        assert_eq!(backoff.permitted(5, 1000), 0);
        assert_eq!(backoff.next_attempt(1000), Some(100));
        assert_eq!(backoff.permitted(5, 1100), 5);
    }
}
