//! The scoreboard's clock beside the one of instants, so that a request's start costs one look at a clock.

use std::time::Instant;

use crate::scoreboard::monotonic_ms;

/// The scoreboard's time of an instant, without reading a clock again.
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
    fn a_later_instant_has_a_later_time() {
        let clock = ScoreboardClock::new();
        let begun = clock.at(Instant::now());
        assert!(clock.at(Instant::now() + Duration::from_secs(3)) >= begun + 3000);
    }
}
