//! The loop's sign of life for the arbiter, and whether the arbiter lives.

use std::time::{Duration, Instant};

use crate::logging::Log;
use crate::scoreboard::monotonic_ms;

use super::worker_slot::{WorkerSlot, saturating_u32};

/// Between two heartbeats, at least.
const PAUSE: Duration = Duration::from_millis(200);
/// Heartbeats come at least this often, also from a loop that has nothing to do.
const PERIOD_MAX: Duration = Duration::from_secs(1);

/// What the arbiter is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) open: usize,
    pub(super) idle: usize,
    pub(super) queue_length: usize,
    pub(super) unsent_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Heartbeat {
    slot: WorkerSlot,
    last: Option<Instant>,
    period: Duration,
    /// The worker's parent when it was forked; `None` when it has no arbiter.
    parent: Option<i32>,
    log: Option<Log>,
}

impl Heartbeat {
    /// `timeout` is the arbiter's patience: heartbeats must come well within it.
    pub(super) fn new(
        slot: WorkerSlot,
        timeout: Option<Duration>,
        parent: Option<i32>,
        log: Option<Log>,
    ) -> Self {
        Self {
            slot,
            last: None,
            period: timeout.map_or(PERIOD_MAX, |timeout| (timeout / 4).min(PERIOD_MAX)),
            parent,
            log,
        }
    }

    /// The loop sleeps at most this long, so that the heartbeat goes on.
    pub(super) fn period(&self) -> Duration {
        self.period
    }

    /// Whether it is time for one ([`Heartbeat::publish`]).
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.last
            .is_none_or(|last| now.saturating_duration_since(last) >= PAUSE)
    }

    /// Show the arbiter that the loop runs, and how it is doing.
    pub(super) fn publish(&mut self, figures: Figures, now: Instant) {
        self.last = Some(now);
        let slot = self.slot.get();
        slot.loop_heartbeat(monotonic_ms());
        slot.set_connections(saturating_u32(figures.open), saturating_u32(figures.idle));
        slot.report_queue_length(saturating_u32(figures.queue_length));
        slot.set_unsent_bytes(u32::try_from(figures.unsent_bytes).unwrap_or(u32::MAX));
        if let Some(log) = self.log {
            log.tick();
            slot.set_log_lines_dropped(log.dropped_lines());
        }
    }

    /// Whether the arbiter that has forked the worker is gone.
    pub(super) fn is_orphan(&self) -> bool {
        self.parent
            .is_some_and(|parent| nix::unistd::getppid().as_raw() != parent)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::scoreboard::Scoreboard;

    fn heartbeat(timeout: Option<Duration>, parent: Option<i32>) -> Heartbeat {
        let slot = WorkerSlot::new(Arc::new(Scoreboard::new(1, 1).unwrap()), 0);
        Heartbeat::new(slot, timeout, parent, None)
    }

    #[test]
    fn heartbeats_come_within_the_arbiters_patience_and_not_in_every_iteration() {
        let mut heartbeat = heartbeat(Some(Duration::from_secs(2)), None);
        let now = Instant::now();
        assert_eq!(heartbeat.period(), Duration::from_millis(500));
        assert!(heartbeat.is_due(now));
        heartbeat.publish(FIGURES, now);
        assert!(!heartbeat.is_due(now + PAUSE / 2) && heartbeat.is_due(now + PAUSE));
    }

    const FIGURES: Figures = Figures {
        open: 5,
        idle: 2,
        queue_length: 1,
        unsent_bytes: 0,
    };

    #[test]
    fn the_figures_are_on_the_scoreboard() {
        let mut heartbeat = heartbeat(None, None);
        heartbeat.publish(FIGURES, Instant::now());
        let slot = heartbeat.slot.get();
        assert_eq!((slot.connections_open(), slot.connections_idle()), (5, 2));
        assert!(slot.loop_heartbeat_at() > 0);
    }

    #[test]
    fn a_worker_whose_parent_is_another_is_an_orphan() {
        let parent = nix::unistd::getppid().as_raw();
        assert!(!heartbeat(None, None).is_orphan());
        assert!(!heartbeat(None, Some(parent)).is_orphan());
        assert!(heartbeat(None, Some(parent + 1)).is_orphan());
    }
}
