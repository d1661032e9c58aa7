//! What the arbiter sends to statsd: how many workers there are, and how many connections wait in the kernel.

use super::listeners::Listeners;
use crate::config::Statsd;
use crate::logging::Log;
use crate::logging::statsd::Metric;
use crate::net;

/// What was sent last.
#[derive(Debug)]
pub(super) struct Gauges {
    log: Log,
    workers: Option<usize>,
    backlog_at: u64,
}

impl Gauges {
    pub(super) fn new(log: Log) -> Self {
        Self {
            log,
            workers: None,
            backlog_at: 0,
        }
    }

    /// Sends the number of workers when it has changed, and the backlog once a second.
    pub(super) fn report(
        &mut self,
        config: &Statsd,
        workers: usize,
        listeners: &Listeners,
        now: u64,
    ) {
        if config.statsd_host.is_none() {
            return;
        }
        if self.workers.replace(workers) != Some(workers) {
            self.log.metric(Metric::Gauge, "gunicorn.workers", workers);
        }
        if config.enable_backlog_metric && now.saturating_sub(self.backlog_at) >= BACKLOG_PERIOD_MS
        {
            self.backlog_at = now;
            let waiting = listeners.iter();
            let waiting: u32 = waiting
                .filter_map(|bound| net::backlog(&bound.listener))
                .sum();
            self.log
                .metric(Metric::Histogram, "gunicorn.backlog", waiting);
        }
    }
}

/// The loop's own period is a second; a little less, so that none is left out.
const BACKLOG_PERIOD_MS: u64 = 900;
