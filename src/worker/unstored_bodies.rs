//! Request bodies that could not be stored, for the log.

use std::io;
use std::time::Instant;

use super::failure_series::{COALESCING, FailureSeries};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct UnstoredBodies(FailureSeries);

impl UnstoredBodies {
    /// One more. The first of a series is logged at once, the others together.
    pub(super) fn note(&mut self, error: &io::Error, now: Instant) {
        if self.0.note(error, now) {
            log::error!("A request body could not be spooled (worker_tmp_dir): {error}");
        }
    }

    /// Log how many more a series had, when it is over or the worker stops.
    pub(super) fn end_series(&mut self, now: Instant, worker_stops: bool) {
        if let Some((more, last)) = self.0.end(now, worker_stops) {
            let seconds = COALESCING.as_secs();
            log::error!(
                "{more} more request bodies could not be spooled within {seconds} s, the last: {last}"
            );
        }
    }
}
