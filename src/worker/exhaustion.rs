//! Running out of descriptors, for the log: once, until it has not happened for a while.

use std::io;
use std::time::{Duration, Instant};

/// After this long without another it is logged again.
const QUIET: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ExhaustionLog {
    /// When it happened last. That was logged.
    last: Option<Instant>,
}

impl ExhaustionLog {
    /// A connection could not be received: no descriptors are left.
    pub(super) fn note(&mut self, error: &io::Error, now: Instant) {
        if self.last.replace(now).is_none() {
            log::error!("Accepting no new connections for a moment: {error} (see `ulimit -n`).");
        }
    }

    /// One can be received, for which another was closed.
    pub(super) fn note_eviction(&mut self, error: &io::Error, now: Instant) {
        if self.last.replace(now).is_none() {
            log::warn!(
                "Closing idle connections to make room for new ones: {error} (see `ulimit -n`)."
            );
        }
    }

    /// Called a few times a second.
    pub(super) fn on_heartbeat(&mut self, now: Instant) {
        self.last = self
            .last
            .filter(|at| now.saturating_duration_since(*at) < QUIET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_news_again_after_a_quiet_time() {
        let (mut log, now) = (ExhaustionLog::default(), Instant::now());
        log.note(&io::ErrorKind::Other.into(), now);
        log.on_heartbeat(now + QUIET / 2);
        assert!(log.last.is_some());
        log.on_heartbeat(now + QUIET);
        assert!(log.last.is_none());
    }
}
