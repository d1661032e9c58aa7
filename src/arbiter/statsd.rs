//! What the arbiter tells statsd: how many workers there are, and how many connections wait in the kernel.
//!
//! Through the log, as gunicorn does it: a record with the target `metric` is for statsd and no line.

use super::Arbiter;
use crate::net;
use crate::scoreboard::monotonic_ms;

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    workers: Option<usize>,
    backlog_at: u64,
}

impl Arbiter<'_> {
    /// Tells the number of workers when it has changed, and the backlog once a second.
    pub(super) fn tell_metrics(&mut self) {
        if self.config.statsd.statsd_host.is_none() {
            return;
        }
        let workers = self.workers.len();
        if self.told.workers.replace(workers) != Some(workers) {
            log::error!(target: "metric", "gauge gunicorn.workers {workers}");
        }
        let now = monotonic_ms();
        if self.config.statsd.enable_backlog_metric
            && now.saturating_sub(self.told.backlog_at) >= BACKLOG_PERIOD_MS
        {
            self.told.backlog_at = now;
            let waiting = self.listeners.iter();
            let waiting: u32 = waiting
                .filter_map(|bound| net::backlog(&bound.listener))
                .sum();
            log::error!(target: "metric", "histogram gunicorn.backlog {waiting}");
        }
    }
}

/// The loop's own period is as long; a little less, so that none is left out.
const BACKLOG_PERIOD_MS: u64 = 900;
