//! Replacing workers that have served long enough: too many requests, too much memory, too old.
//!
//! Nobody is told to go here. A worker that is worn out is only marked, and goes on serving; `policy::plan` starts
//! its successor and sends TERM when that one serves, `max_retiring` workers at a time.

use std::time::Duration;

use super::Arbiter;
use super::policy::SOON;
use super::workers::{Stage, WorkerHandle};
use crate::scoreboard::monotonic_ms;

impl Arbiter<'_> {
    /// Looks at ages and memory, once a second at most: a reading of `/proc` costs some microseconds per worker.
    pub(super) fn mark_worn_out(&mut self) {
        let now = monotonic_ms();
        if now < self.marked_at + SAMPLE_MS {
            return;
        }
        self.marked_at = now;
        let limit = self.config.lifecycle.max_worker_memory;
        let mut is_hasty = false;
        let serving = |worker: &&mut WorkerHandle| worker.stage == Stage::Serving && !worker.asks();
        for worker in self.workers.iter_mut().filter(serving) {
            let pid = worker.pid;
            if worker
                .expires_at
                .is_some_and(|expires_at| expires_at <= now)
            {
                let seconds = now.saturating_sub(worker.forked_at) / 1000;
                log::info!(
                    "Worker (pid:{pid}) is {seconds} s old (max_worker_lifetime) and is replaced"
                );
                worker.worn_out = true;
            } else if limit > 0 {
                let used = resident_mib(pid.as_raw());
                if let Some(used) = used.filter(|used| *used > limit) {
                    log::warn!(
                        "Worker (pid:{pid}) holds {used} MiB, more than {limit} (max_worker_memory), and is replaced"
                    );
                    worker.worn_out = true;
                    is_hasty |= Duration::from_millis(now - worker.since) < SOON;
                }
            }
        }
        if is_hasty {
            // The limit may be less than the application needs: do not import it again and again without a pause.
            self.backoff.died_young(now);
        }
    }
}

/// What the kernel counts as resident, shared pages included: the figure that `top` shows.
fn resident_mib(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse_resident(&status)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024)
}

const SAMPLE_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_kernels_text() {
        let status = "Name:\tpython\nVmHWM:\t  999999 kB\nVmRSS:\t   20480 kB\nThreads:\t3\n";
        assert_eq!(parse_resident(status), Some(20));
        assert_eq!(parse_resident("Name:\tzombie\n"), None);
        assert!(resident_mib(std::process::id() as i32).is_some());
    }
}
