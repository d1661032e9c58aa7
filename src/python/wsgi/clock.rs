//! The scoreboard's time of an instant that a pool thread has already, without reading a clock again.

use std::time::Instant;

use crate::scoreboard::monotonic_ms;

/// Converts instants to the scoreboard's milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScoreboardClock {
    instant: Instant,
    ms: u64,
}

impl ScoreboardClock {
    pub(super) fn new() -> Self {
        Self {
            instant: Instant::now(),
            ms: monotonic_ms(),
        }
    }

    pub(super) fn at(self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.instant);
        self.ms + u64::try_from(since.as_millis()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_instant_has_the_time_of_the_scoreboard() {
        let clock = ScoreboardClock::new();
        let now = clock.at(Instant::now());
        assert!(monotonic_ms() - now <= 1);
        assert_eq!(
            clock.at(clock.instant + Duration::from_secs(2)),
            clock.ms + 2000
        );
        assert_eq!(
            clock.at(clock.instant - Duration::from_secs(1)),
            clock.ms,
            "never before the start"
        );
    }
}
