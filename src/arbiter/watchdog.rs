//! Aborts and kills what is silent for too long.
//!
//! Silence of a time in which nothing ran is excused: a container that was frozen, a virtual machine that was stopped, SIGSTOP
//! to the whole group. The arbiter's loop never sleeps longer than a second, so a longer iteration is one. A pause of this
//! process alone looks the same; then a worker that hangs is found that much later. The time of hooks does not count.

use super::children::Children;
use super::fork_server::ForkServers;
use super::supervision::Timeouts;
use crate::config::Config;
use crate::logging::Log;
use crate::scoreboard::monotonic_ms;

/// See the module.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// The last iteration of the loop.
    seen_at: u64,
    aborted: u64,
}

impl Watchdog {
    pub(super) fn new(now: u64) -> Self {
        Self {
            seen_at: now,
            aborted: 0,
        }
    }

    /// How many workers it has aborted.
    pub(super) fn aborted(&self) -> u64 {
        self.aborted
    }

    /// Called in each iteration of the loop. After a standstill the others get that time again; returns its milliseconds.
    pub(super) fn excuse(&mut self, children: &mut Children, servers: &mut ForkServers) -> u64 {
        let now = monotonic_ms();
        let length = self.standstill(now);
        if length > 0 {
            children.excuse(length, now);
            servers.excuse(length, now);
        }
        length
    }

    /// Aborts and kills. [`Self::excuse`] comes first.
    pub(super) fn watch(
        &mut self,
        children: &mut Children,
        servers: &mut ForkServers,
        config: &Config,
        log: Log,
    ) {
        let now = monotonic_ms();
        let timeouts = Timeouts {
            boot: config.workers.boot_timeout,
            silence: config.workers.timeout,
            graceful: config.workers.graceful_timeout,
        };
        servers.watch(timeouts.boot, timeouts.graceful, now);
        self.aborted += children.watch(log, &timeouts, now);
    }

    /// `length` milliseconds were this process's own: a hook of the operator's has run. They are no standstill.
    pub(super) fn was_busy(&mut self, length: u64) {
        self.seen_at = self.seen_at.saturating_add(length);
    }

    fn standstill(&mut self, now: u64) -> u64 {
        let length = now.saturating_sub(self.seen_at);
        self.seen_at = now;
        if length > ITERATION_MS { length } else { 0 }
    }
}

/// The longest sleep of the loop, and what a loaded machine adds to it.
const ITERATION_MS: u64 = 1250;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::arbiter::worker_handle::tests::on_paper;
    use crate::scoreboard::{Scoreboard, SlotState};

    #[test]
    fn an_iteration_that_took_too_long_is_a_standstill() {
        let mut watchdog = Watchdog::new(1000);
        assert_eq!(watchdog.standstill(1000 + ITERATION_MS), 0);
        let length = 90_000 - 1000 - ITERATION_MS;
        assert_eq!(watchdog.standstill(90_000), length);
        assert_eq!(watchdog.standstill(90_001), 0);
        watchdog.was_busy(9000);
        assert_eq!(watchdog.standstill(99_001), 0, "a hook has run");
        watchdog.was_busy(1);
        assert!(watchdog.standstill(200_000) > 100_000, "and after a pause");
        assert_eq!(watchdog.standstill(0), 0, "the clock is monotonic");
    }

    #[test]
    fn a_worker_that_could_not_run_is_not_aborted() {
        let scoreboard = Arc::new(Scoreboard::new(1, 1).unwrap());
        let (mut children, mut servers) = (Children::new().unwrap(), ForkServers::default());
        children.add(on_paper(&scoreboard, 0));
        scoreboard.slot(0).set_state(SlotState::Serving);
        let now = monotonic_ms();
        // Since its fork, a second after the machine has started, nothing ran.
        children.read_slots(1000);
        let mut watchdog = Watchdog::new(1000);
        assert!(watchdog.excuse(&mut children, &mut servers) >= now - 1000);
        let mut config = Config::default();
        config.workers.timeout = Some(Duration::from_secs(2));
        watchdog.watch(&mut children, &mut servers, &config, Log::of_process());
        assert_eq!(watchdog.aborted(), 0);
    }
}
