//! Failures of clients in close succession: the first is a line in the log, the others one more.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Failures within this time of the first are one more line.
const COALESCING: Duration = Duration::from_secs(5);

/// How the log calls one of them, and several.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) one: &'static str,
    pub(super) several: &'static str,
}

/// See the module.
#[derive(Debug)]
pub(super) struct FailureSeries {
    words: Words,
    current: Option<Series>,
}

#[derive(Debug)]
struct Series {
    began: Instant,
    more: u64,
    /// The last of them, for the log.
    last: String,
}

impl FailureSeries {
    pub(super) fn new(words: Words) -> Self {
        Self {
            words,
            current: None,
        }
    }

    /// One more has come. `what` follows the words in the log.
    pub(super) fn note(&mut self, what: &dyn Display, now: Instant) {
        match &mut self.current {
            Some(series) => {
                series.more += 1;
                series.last = what.to_string();
            }
            None => {
                log::info!("{} {what}", self.words.one);
                self.current = Some(Series {
                    began: now,
                    more: 0,
                    last: String::new(),
                });
            }
        }
    }

    /// Called a few times a second: is the series over?
    pub(super) fn on_heartbeat(&mut self, now: Instant) {
        let is_over = |series: &mut Series| now.duration_since(series.began) >= COALESCING;
        if let Some(Series { more, last, .. }) = self.current.take_if(is_over)
            && more > 0
        {
            log::info!(
                "{more} more {} within {} s, the last {last}",
                self.words.several,
                COALESCING.as_secs()
            );
        }
    }

    /// How many the next line is about, while a series lasts.
    #[cfg(test)]
    pub(super) fn more(&self) -> Option<u64> {
        self.current.as_ref().map(|series| series.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_after_the_first_wait_for_the_end_of_their_series() {
        let words = Words {
            one: "It failed",
            several: "failed",
        };
        let (mut failures, now) = (FailureSeries::new(words), Instant::now());
        for _ in 0..3 {
            failures.note(&"here", now);
        }
        assert_eq!(failures.more(), Some(2));
        failures.on_heartbeat(now + COALESCING / 2);
        assert_eq!(failures.more(), Some(2));
        failures.on_heartbeat(now + COALESCING);
        assert_eq!(failures.more(), None);
    }
}
