//! The event loop's clock: one instant per iteration, wall-clock seconds and the `Date` field at most once a second.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::http::{HttpDate, ResponseDefaults};

/// See the module.
#[derive(Debug)]
pub(super) struct Clock {
    now: Instant,
    date: HttpDate,
    unix_seconds: i64,
    /// Until when `unix_seconds` holds.
    valid_until: Instant,
    /// The `Server` field's value; empty for none.
    server: Vec<u8>,
}

impl Clock {
    /// `server` is the value of the `Server` field, which goes with the date into every response.
    pub(super) fn new(server: Vec<u8>) -> Self {
        let now = Instant::now();
        let mut clock = Self {
            now,
            date: HttpDate::new(),
            unix_seconds: 0,
            valid_until: now,
            server,
        };
        clock.read_wall_clock();
        clock
    }

    /// The start of this iteration.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Begin an iteration.
    pub(super) fn tick(&mut self) {
        self.now = Instant::now();
        if self.now >= self.valid_until {
            self.read_wall_clock();
        }
    }

    /// Let time pass.
    #[cfg(test)]
    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    fn read_wall_clock(&mut self) {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.unix_seconds = i64::try_from(since.as_secs()).unwrap_or(0);
        self.valid_until =
            self.now + Duration::from_nanos(u64::from(1_000_000_000 - since.subsec_nanos()));
    }

    /// Seconds since the epoch and nanoseconds at `at`, which is in this iteration.
    pub(super) fn unix_time(&self, at: Instant) -> (i64, u32) {
        let left = self.valid_until.saturating_duration_since(at);
        let nanos = 999_999_999_u32.saturating_sub(left.subsec_nanos());
        (self.unix_seconds, nanos)
    }

    /// The fields that every response has.
    pub(super) fn response_defaults(&mut self) -> ResponseDefaults<'_> {
        let date = self.date.at(self.unix_seconds);
        ResponseDefaults {
            server: &self.server,
            date,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_goes_on_within_its_second() {
        let clock = Clock::new(Vec::new());
        let (seconds, nanos) = clock.unix_time(clock.now());
        assert!(seconds > 0 && nanos < 1_000_000_000);
        let later = clock.now() + Duration::from_nanos(u64::from(999_999_999 - nanos));
        let (same, last) = clock.unix_time(later);
        assert!(same == seconds && last > 999_999_000, "{last}");
    }

    #[test]
    fn every_response_names_the_server_and_the_date() {
        let mut clock = Clock::new(b"test".to_vec());
        let defaults = clock.response_defaults();
        assert_eq!(defaults.server, b"test");
        assert!(defaults.date.ends_with(b"GMT"));
    }
}
