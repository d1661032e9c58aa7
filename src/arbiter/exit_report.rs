//! The log lines of a worker that ended or hangs, and the counters of all requests.

use std::collections::VecDeque;

use nix::sys::signal::Signal;

use super::supervision::{ExitStatus, Fault, Stage};
use super::worker_handle::WorkerHandle;
use crate::logging::Log;
use crate::scoreboard::{Running, Slot};

/// What became of all requests, summed up as workers are reaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestCounters {
    pub(super) served: u64,
    pub(super) refused: u64,
    pub(super) cut: u64,
}

impl RequestCounters {
    /// `lost` is what the worker's threads were running when it ended.
    pub(super) fn add(&mut self, slot: Slot<'_>, lost: &[Running]) {
        let served = slot.requests().saturating_sub(slot.refused());
        self.served = self.served.saturating_add(served);
        self.refused = self.refused.saturating_add(slot.refused());
        // A worker that closed its connections itself has counted them, with those that were still running.
        self.cut = self.cut.saturating_add(slot.cut().max(lost.len() as u64));
    }
}

/// How the worker ended.
pub(super) fn log_exit(worker: &WorkerHandle, status: ExitStatus) {
    let pid = worker.pid();
    match status {
        ExitStatus::Code(0) => {}
        ExitStatus::Code(code) => log::error!("Worker (pid:{pid}) exited with code {code}."),
        ExitStatus::Signal(number) => {
            let signal = Signal::try_from(number);
            let name = signal.map_or("an unknown signal", Signal::as_str);
            match signal {
                Ok(Signal::SIGKILL) if worker.stage() == Stage::Killed => {
                    log::error!("Worker (pid:{pid}) was sent SIGKILL!");
                }
                Ok(Signal::SIGKILL) => {
                    log::error!("Worker (pid:{pid}) was sent SIGKILL! Perhaps out of memory?");
                }
                Ok(Signal::SIGTERM) => log::info!("Worker (pid:{pid}) was sent SIGTERM!"),
                _ => log::warn!("Worker (pid:{pid}) was sent {name}!"),
            }
        }
    }
}

/// Why the worker is aborted.
pub(super) fn log_timeout(log: Log, worker: &WorkerHandle, fault: Fault, now: u64) {
    let pid = worker.pid();
    log.critical(&format_args!("WORKER TIMEOUT (pid:{pid})"));
    let silent = |heartbeat: u64| now.saturating_sub(heartbeat.max(worker.since())) / 1000;
    let heartbeats = worker.heartbeats(now);
    match fault {
        Fault::Boot => log::error!("Worker (pid:{pid}) did not boot within {} s", silent(0)),
        Fault::EventLoop => log::error!(
            "Worker (pid:{pid}): event loop stalled for {} s",
            silent(heartbeats.event_loop)
        ),
        Fault::Python => log::error!(
            "Worker (pid:{pid}): no Python code has run for {} s",
            silent(heartbeats.python)
        ),
    }
}

/// The requests that ended with the worker. One that left by itself has logged them already.
pub(super) fn log_lost(worker: &WorkerHandle, status: ExitStatus, now: u64) -> Vec<Running> {
    let lost = worker.slot().running();
    if !matches!(status, ExitStatus::Signal(_)) && worker.is_draining() {
        return lost;
    }
    for request in &lost {
        let client = request.client.map(|client| format!(" from {client}"));
        log::error!(
            "Worker (pid:{}): cut after {} ms: {} {}{}",
            worker.pid(),
            now.saturating_sub(request.since_ms),
            request.method.escape_ascii(),
            request.path.escape_ascii(),
            client.unwrap_or_default()
        );
    }
    lost
}

/// Which requests were running in the crashes of late.
#[derive(Debug, Default)]
pub(super) struct CrashLog {
    crashes: VecDeque<Crash>,
}

#[derive(Debug)]
struct Crash {
    at: u64,
    /// Method and path of what was running.
    requests: Vec<(Vec<u8>, Vec<u8>)>,
}

impl CrashLog {
    /// A worker was ended by its own fault while it ran `lost`. Returns the lines that are worth a warning: the
    /// requests that were running in crash after crash.
    pub(super) fn record(&mut self, lost: &[Running], now: u64) -> Vec<String> {
        while self.crashes.len() >= CRASHES_MAX
            || self
                .crashes
                .front()
                .is_some_and(|crash| now.saturating_sub(crash.at) > PERIOD_MS)
        {
            self.crashes.pop_front();
        }
        let mut requests: Vec<_> = lost
            .iter()
            .map(|running| (running.method.clone(), running.path.clone()))
            .collect();
        requests.sort_unstable();
        requests.dedup();
        self.crashes.push_back(Crash { at: now, requests });
        self.warnings(now)
    }

    fn warnings(&self, now: u64) -> Vec<String> {
        let Some(last) = self.crashes.back() else {
            return Vec::new();
        };
        let mut warnings = Vec::new();
        for request in &last.requests {
            let same = self.crashes.iter();
            let mut same = same.filter(|crash| crash.requests.contains(request));
            let first = same.next().map_or(now, |crash| crash.at);
            let count = 1 + same.count();
            // At 3, 10, 20, 30, ... crashes: what goes on must not fill the log.
            if count == REPEATED || (count > REPEATED && count % 10 == 0) {
                let (method, path) = request;
                warnings.push(format!(
                    "{} {} crashes its worker again and again: {count} times within {} s",
                    method.escape_ascii(),
                    path.escape_ascii(),
                    now.saturating_sub(first).div_ceil(1000)
                ));
            }
        }
        warnings
    }
}

/// Twice may be chance.
const REPEATED: usize = 3;
const PERIOD_MS: u64 = 5 * 60 * 1000;
const CRASHES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::Scoreboard;

    fn running(path: &[u8]) -> Running {
        Running {
            since_ms: 1,
            client: None,
            method: b"GET".to_vec(),
            path: path.to_vec(),
        }
    }

    #[test]
    fn the_path_of_repeated_crashes_is_named() {
        let mut log = CrashLog::default();
        let [poison, other] = [running(b"/poison\n"), running(b"/other")];
        assert!(
            log.record(&[poison.clone(), other.clone()], 1000)
                .is_empty()
        );
        assert!(log.record(std::slice::from_ref(&poison), 2000).is_empty());
        let lines = log.record(&[poison.clone(), poison.clone()], 4500);
        let line = "GET /poison\\n crashes its worker again and again: 3 times within 4 s";
        assert_eq!(lines, [line]);
        assert!(log.record(&[other], 5000).is_empty(), "twice may be chance");
        for _ in 4..10 {
            assert!(log.record(std::slice::from_ref(&poison), 6000).is_empty());
        }
        assert_eq!(log.record(std::slice::from_ref(&poison), 6000).len(), 1);
        let later = 7000 + PERIOD_MS;
        assert!(log.record(&[poison], later).is_empty(), "forgotten by then");
        assert_eq!(log.crashes.len(), 1);
    }

    #[test]
    fn counters_take_any_number_a_worker_may_write() {
        let scoreboard = Scoreboard::new(1, 1).unwrap();
        let slot = scoreboard.slot(0);
        let mut counters = RequestCounters::default();
        slot.add_requests(5);
        slot.add_refused(2);
        counters.add(slot, &[running(b"/")]);
        let expected = RequestCounters {
            served: 3,
            refused: 2,
            cut: 1,
        };
        assert_eq!(counters, expected);
        slot.add_requests(u64::MAX - 5);
        slot.add_cut(u64::MAX);
        counters.add(slot, &[]);
        counters.add(slot, &[]);
        assert_eq!((counters.served, counters.cut), (u64::MAX, u64::MAX));
    }
}
