//! Workers that have served long enough: too much memory, too old.
//!
//! No worker is asked to leave here. One that is worn is only marked, and goes on serving; `supervision::reconcile` starts its
//! successor and sends TERM when that one serves, `max_retiring` workers at a time.

use nix::unistd::Pid;

use super::backoff::Delay;
use super::children::Children;
use super::supervision::Stage;
use super::worker_handle::WorkerHandle;

/// When ages and memory were last looked at, and how long workers are spared that were replaced for nothing.
#[derive(Debug, Default)]
pub(super) struct WearCheck {
    checked_at: u64,
    pause: Delay,
}

impl WearCheck {
    /// Looks at ages and memory, once a second at most: a reading of `/proc` costs some microseconds per worker.
    pub(super) fn check(&mut self, children: &mut Children, memory_max_mib: u64, now: u64) {
        if now < self.checked_at + SAMPLE_MS {
            return;
        }
        self.checked_at = now;
        let serving = |worker: &&mut WorkerHandle| {
            worker.stage() == Stage::Serving && !worker.wants_replacement()
        };
        for worker in children.iter_mut().filter(serving) {
            if worker.is_expired(now) {
                let seconds = now.saturating_sub(worker.forked_at()) / 1000;
                log::info!(
                    "Worker (pid:{}) is {seconds} s old (max_worker_lifetime) and is replaced",
                    worker.pid()
                );
                worker.mark_worn();
            } else if memory_max_mib > 0 {
                self.check_memory(worker, memory_max_mib, now);
            }
        }
    }

    fn check_memory(&mut self, worker: &mut WorkerHandle, memory_max_mib: u64, now: u64) {
        let served = now.saturating_sub(worker.since());
        // The limit may be less than the application needs: it is not imported again and again without a pause.
        if self.pause.remaining(now) > 0 {
            return;
        }
        let used = resident_kib(worker.pid()).map(|used| used / 1024);
        let Some(used) = used.filter(|used| *used > memory_max_mib) else {
            return;
        };
        log::warn!(
            "Worker (pid:{}) holds {used} MiB, more than {memory_max_mib} (max_worker_memory), and is replaced",
            worker.pid()
        );
        worker.mark_worn();
        if served < SOON_MS {
            self.pause.failed(now, PAUSE_MAX_MS);
        }
    }
}

/// What the kernel counts as resident, shared pages included: the figure that `top` shows.
pub(super) fn resident_kib(pid: Pid) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse_resident(&status)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// What a process has used of the processors, in Python and outside.
pub(super) fn cpu_ticks(pid: Pid) -> Option<u64> {
    parse_ticks(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// User and system time are fields 14 and 15. The second field, the name, may have spaces and parentheses.
fn parse_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user.saturating_add(system))
}

/// Linux's `USER_HZ`, which is the same on every architecture that Python runs on.
pub(super) const TICKS_PER_SECOND: u64 = 100;

const SAMPLE_MS: u64 = 1000;
/// A worker that is too large this soon after it began to serve has a limit that is too small.
const SOON_MS: u64 = 5000;
const PAUSE_MAX_MS: u64 = 15_000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::arbiter::worker_handle::tests::on_paper;
    use crate::scoreboard::{Scoreboard, SlotState};

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "7 (a) 1 (b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 12345 1 1";
        assert_eq!(parse_ticks(stat), Some(300));
        assert_eq!(parse_ticks("7 (a"), None);
        assert!(cpu_ticks(Pid::this()).is_some());
    }

    #[test]
    fn resident_memory_is_read_from_the_kernels_text() {
        let status = "Name:\tpython\nVmHWM:\t  999999 kB\nVmRSS:\t   20480 kB\nThreads:\t3\n";
        assert_eq!(parse_resident(status), Some(20480));
        assert_eq!(parse_resident("Name:\tzombie\n"), None);
        assert!(resident_kib(Pid::this()).is_some());
    }

    #[test]
    fn old_and_large_workers_are_marked() {
        let scoreboard = Arc::new(Scoreboard::new(2, 1).unwrap());
        let mut children = Children::new().unwrap();
        children.add(on_paper(&scoreboard, 0));
        scoreboard.slot(0).set_state(SlotState::Serving);
        children.read_slots(1000);
        let is_worn = |children: &Children| children.members()[0].wants_replacement;
        let mut wear = WearCheck::default();
        wear.check(&mut children, u64::MAX, 4900);
        assert!(!is_worn(&children));
        wear.check(&mut children, u64::MAX, 5200);
        assert!(!is_worn(&children), "looked at less than a second ago");
        wear.check(&mut children, u64::MAX, 5900);
        assert!(is_worn(&children), "by age");

        let mut children = Children::new().unwrap();
        children.add(on_paper(&scoreboard, 1));
        scoreboard.slot(1).set_state(SlotState::Serving);
        children.read_slots(1000);
        wear.check(&mut children, 1, 6900 - 5000);
        wear.checked_at = 0;
        wear.check(&mut children, 1, 1900);
        assert!(is_worn(&children), "this process has more than a MiB");
        assert!(
            wear.pause.remaining(1900) > 0,
            "so soon that the limit is too small"
        );
    }
}
