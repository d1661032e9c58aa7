//! Failures of clients in close succession: the first is a line in the log, the others one more.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Failures within this time of the first are one more line.
pub(super) const COALESCING: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct FailureSeries {
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
    /// One more has come. Returns whether it is the first, to be logged now.
    pub(super) fn note(&mut self, what: &dyn Display, now: Instant) -> bool {
        match &mut self.current {
            Some(series) => {
                series.more += 1;
                series.last = what.to_string();
                false
            }
            None => {
                self.current = Some(Series {
                    began: now,
                    more: 0,
                    last: String::new(),
                });
                true
            }
        }
    }

    /// Returns how many more a series has had that is over, as all are when the worker stops, and the last of them.
    pub(super) fn end(&mut self, now: Instant, worker_stops: bool) -> Option<(u64, String)> {
        let is_over =
            |series: &mut Series| worker_stops || now.duration_since(series.began) >= COALESCING;
        let Series { more, last, .. } = self.current.take_if(is_over)?;
        (more > 0).then_some((more, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_after_the_first_wait_for_the_end_of_their_series() {
        let (mut failures, now) = (FailureSeries::default(), Instant::now());
        let noted = ["a", "b", "c"].map(|what| failures.note(&what, now));
        assert_eq!(noted, [true, false, false]);
        assert_eq!(failures.end(now + COALESCING / 2, false), None);
        let over = failures.end(now + COALESCING, false);
        assert_eq!(over, Some((2, "c".to_owned())));
        assert!(
            failures.note(&"d", now + COALESCING),
            "a new series has begun"
        );
        assert_eq!(failures.end(now + 2 * COALESCING, false), None);
    }

    #[test]
    fn a_worker_that_stops_waits_for_no_end_of_a_series() {
        let (mut failures, now) = (FailureSeries::default(), Instant::now());
        for what in ["a", "b"] {
            failures.note(&what, now);
        }
        assert_eq!(failures.end(now, true), Some((1, "b".to_owned())));
        assert_eq!(failures.end(now, true), None);
    }
}
