//! How far the server is on its way to its end.
//!
//! With `stop_delay` the first TERM only starts that clock. Until it is over everything goes on as before, accepting,
//! respawning and all, but the workers' slots say that the server is not ready for more, so that health checks can.
//! Once the workers have been asked to stop, `StopLimit` says how long the master waits for them and for fork servers.

use std::time::Duration;

/// How the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Requests may finish.
    pub(super) graceful: bool,
    pub(super) reason: Option<&'static str>,
    pub(super) exit_code: i32,
}

impl End {
    /// Of the lines that say so.
    pub(super) fn level(self) -> log::Level {
        match self.exit_code {
            0 => log::Level::Info,
            _ => log::Level::Error,
        }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stopping {
    #[default]
    No,
    /// TERM has come; `stop_delay` is over then.
    Delayed { until: u64 },
    /// The loop ends at once.
    Requested(End),
    /// The workers have been asked to stop.
    Underway,
}

impl Stopping {
    /// TERM. A second one cuts the delay. True when a delay begins.
    pub(super) fn on_term(&mut self, delay: Duration, now: u64) -> bool {
        if delay.is_zero() || *self != Self::No {
            self.request(true);
            return false;
        }
        *self = Self::Delayed {
            until: now.saturating_add(millis(delay)),
        };
        true
    }

    /// The loop is to end. The first request counts.
    pub(super) fn request(&mut self, graceful: bool) {
        self.end(End {
            graceful,
            reason: None,
            exit_code: 0,
        });
    }

    /// The server cannot go on.
    pub(super) fn halt(&mut self, reason: &'static str, exit_code: i32) {
        self.end(End {
            graceful: true,
            reason: Some(reason),
            exit_code,
        });
    }

    fn end(&mut self, end: End) {
        if matches!(self, Self::No | Self::Delayed { .. }) {
            *self = Self::Requested(end);
        }
    }

    /// How to end, when it is time.
    pub(super) fn due(&mut self, now: u64) -> Option<End> {
        if matches!(self, Self::Delayed { until } if *until <= now) {
            self.request(true);
        }
        match self {
            Self::Requested(end) => Some(*end),
            _ => None,
        }
    }

    pub(super) fn is_requested(self) -> bool {
        matches!(self, Self::Requested(_))
    }

    /// The workers are being stopped.
    pub(super) fn begin(&mut self) {
        *self = Self::Underway;
    }

    pub(super) fn is_underway(self) -> bool {
        self == Self::Underway
    }

    pub(super) fn is_delayed(self) -> bool {
        matches!(self, Self::Delayed { .. })
    }

    /// Also while `stop_delay` runs.
    pub(super) fn is_stopping(self) -> bool {
        self != Self::No
    }

    /// Milliseconds that the loop may sleep.
    pub(super) fn patience(self, now: u64) -> Option<u64> {
        match self {
            Self::Delayed { until } => Some(until.saturating_sub(now)),
            _ => None,
        }
    }
}

/// How long a stop waits for other processes.
///
/// Workers have the whole time. Fork servers only run exit handlers once no worker is left: a request cannot be lost by
/// their end, so a fork server that hangs holds the stop no longer than `FORK_SERVER_MAX`.
#[derive(Debug)]
pub(super) struct StopLimit {
    until: u64,
    /// Since when there is no worker.
    without_workers_since: Option<u64>,
}

impl StopLimit {
    pub(super) fn new(patience: Duration, now: u64) -> Self {
        Self {
            until: now.saturating_add(millis(patience)),
            without_workers_since: None,
        }
    }

    /// It ends after `patience` at the latest.
    pub(super) fn shorten(&mut self, patience: Duration, now: u64) {
        self.until = self.until.min(now.saturating_add(millis(patience)));
    }

    /// For `length` milliseconds nothing could run.
    pub(super) fn excuse(&mut self, length: u64) {
        self.until = self.until.saturating_add(length);
        if let Some(since) = &mut self.without_workers_since {
            *since = since.saturating_add(length);
        }
    }

    /// Whether who is left is to be killed. A fork server may still name a worker that was asked for before the stop.
    pub(super) fn is_over(&mut self, has_workers: bool, now: u64) -> bool {
        if has_workers {
            self.without_workers_since = None;
            return now >= self.until;
        }
        let since = *self.without_workers_since.get_or_insert(now);
        now >= self.until || now >= since.saturating_add(millis(FORK_SERVER_MAX))
    }
}

/// What a fork server has for its exit handlers once no worker is left. Agents flush for 2 s (Sentry's
/// `shutdown_timeout`); a second more is for a loaded machine.
const FORK_SERVER_MAX: Duration = Duration::from_secs(3);

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_runs_out_or_is_cut_by_a_second_term() {
        let second = Duration::from_secs(1);
        let mut stopping = Stopping::default();
        assert!(stopping.on_term(second, 1000));
        assert_eq!(stopping.due(1999), None);
        assert_eq!(stopping.patience(1500), Some(500));
        assert!(stopping.due(2000).is_some_and(|end| end.graceful));

        let mut stopping = Stopping::default();
        stopping.on_term(second, 1000);
        assert!(!stopping.on_term(second, 1100));
        assert!(stopping.due(1100).is_some());
    }

    #[test]
    fn the_first_end_counts() {
        let mut stopping = Stopping::default();
        stopping.halt("Worker failed to boot.", 3);
        stopping.request(false);
        let end = stopping.due(0).unwrap();
        assert_eq!((end.graceful, end.exit_code), (true, 3));
        stopping.begin();
        stopping.request(false);
        assert!(stopping.is_underway() && stopping.due(0).is_none());
    }

    #[test]
    fn fork_servers_are_waited_for_no_longer_than_their_exit_handlers_need() {
        let mut limit = StopLimit::new(Duration::from_secs(31), 1000);
        assert!(!limit.is_over(true, 31_999) && limit.is_over(true, 32_000));
        assert!(!limit.is_over(false, 2000));
        assert!(!limit.is_over(false, 4999) && limit.is_over(false, 5000));
        limit.excuse(1000);
        assert!(!limit.is_over(false, 5999) && limit.is_over(false, 6000));
        assert!(!limit.is_over(true, 6000), "one has come late");
        assert!(!limit.is_over(false, 7000) && limit.is_over(false, 10_000));
        limit.shorten(Duration::from_secs(1), 7000);
        assert!(limit.is_over(false, 8000) && limit.is_over(true, 8000));
    }

    #[test]
    fn int_cuts_a_delay_without_grace() {
        let mut stopping = Stopping::default();
        stopping.on_term(Duration::from_secs(9), 0);
        stopping.request(false);
        assert!(!stopping.due(1).unwrap().graceful);
    }
}
