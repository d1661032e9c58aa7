//! The dead and the silent: reaping, what a death leads to, and the killing of workers that hang.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::policy::{self, Consequence, Death, Fault, Obituary, Patience, Verdict};
use super::workers::{Stage, WorkerHandle};
use super::{Arbiter, Hook, Leave, WorkerView};
use crate::scoreboard::monotonic_ms;

impl Arbiter<'_> {
    pub(super) fn reap(&mut self) -> Result<(), Leave> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.bury(pid, Death::Exit(code))?,
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.bury(pid, Death::Signal(signal as i32))?;
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                // A status that has no name, as of a real-time signal: the process is gone all the same.
                Err(Errno::EINVAL) => {
                    for pid in self.workers.vanished() {
                        self.bury(pid, Death::Signal(0))?;
                    }
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn bury(&mut self, pid: Pid, death: Death) -> Result<(), Leave> {
        let now = monotonic_ms();
        let Some(mut worker) = self.workers.remove(pid) else {
            log::debug!("Reaped unknown child process (pid:{pid}, {death:?})");
            return Ok(());
        };
        // Its readiness byte may have come after the pipes were last read.
        worker.read_booted(now);
        let obituary = Obituary {
            death,
            stage: worker.stage,
            drained: worker.drains(),
            in_rollout: self.rollout.is_some() && worker.generation == self.generation,
            lifetime: Duration::from_millis(now.saturating_sub(worker.forked_at)),
        };
        let consequence = policy::after_death(&obituary, self.started);
        let halts = matches!(consequence, Consequence::Halt { .. }) && !self.stopping;
        if !halts {
            log_death(&worker, death);
            // What was aborted has said so itself, or was spoken for.
            let is_unexplained = !matches!(worker.stage, Stage::Aborted | Stage::Killed);
            if matches!(death, Death::Signal(_)) && is_unexplained {
                log_in_flight(&worker, now);
            }
        }
        self.totals.add(worker.slot());
        worker.slot().release();
        let (pid, age) = (Some(pid.as_raw()), worker.age);
        self.hook(Hook::ChildExit(WorkerView { pid, age }))?;
        if self.stopping {
            return Ok(());
        }
        match consequence {
            Consequence::Replace => {}
            Consequence::BackOff => {
                let delay = self.backoff.died_young(now);
                log::warn!(
                    "Worker (pid:{}) died early; the next one starts in {delay:.1?}",
                    worker.pid
                );
            }
            Consequence::FailRollout(reason) => self.fail_rollout(reason),
            Consequence::Halt { reason, code } => return Err(Leave::Halt { reason, code }),
        }
        Ok(())
    }

    pub(super) fn murder(&mut self) {
        let now = monotonic_ms();
        let patience = Patience {
            boot: self.config.boot_timeout,
            silence: self.config.timeout,
            graceful: self.config.graceful_timeout,
        };
        for worker in self.workers.iter_mut() {
            match policy::judge(worker.stage, worker.since, worker.beats(), now, &patience) {
                Verdict::Fine => {}
                Verdict::Abort(fault) => {
                    log_timeout(worker, fault, now);
                    worker.send(Signal::SIGABRT);
                    worker.enter(Stage::Aborted, now);
                }
                Verdict::Kill => {
                    worker.send(Signal::SIGKILL);
                    worker.enter(Stage::Killed, now);
                }
            }
        }
    }
}

fn log_death(worker: &WorkerHandle, death: Death) {
    let pid = worker.pid;
    match death {
        Death::Exit(0) => {}
        Death::Exit(code) => log::error!("Worker (pid:{pid}) exited with code {code}."),
        Death::Signal(number) => {
            let signal = Signal::try_from(number);
            let name = signal.map_or("an unknown signal", Signal::as_str);
            match signal {
                Ok(Signal::SIGKILL) if worker.stage == Stage::Killed => {
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

fn log_timeout(worker: &WorkerHandle, fault: Fault, now: u64) {
    let pid = worker.pid;
    log::error!(target: "critical", "WORKER TIMEOUT (pid:{pid})");
    let silent = |beat: u64| now.saturating_sub(beat.max(worker.since)) / 1000;
    let beats = worker.beats();
    match fault {
        Fault::Boot => log::error!("Worker (pid:{pid}) did not boot within {} s", silent(0)),
        Fault::EventLoop => {
            log::error!(
                "Worker (pid:{pid}): its event loop stands still since {} s",
                silent(beats.event_loop)
            );
        }
        Fault::Python => {
            log::error!(
                "Worker (pid:{pid}): no Python code has run since {} s",
                silent(beats.python)
            );
        }
    }
    // A loop that turns tells it itself when it gets ABRT.
    if fault != Fault::Python {
        log_in_flight(worker, now);
    }
}

/// Which requests a worker's threads were in, for how long, and for whom.
fn log_in_flight(worker: &WorkerHandle, now: u64) {
    let pid = worker.pid;
    for running in worker.slot().running() {
        let ms = now.saturating_sub(running.since_ms);
        let (seconds, tenths) = (ms / 1000, ms % 1000 / 100);
        let (method, path) = (running.method.escape_ascii(), running.path.escape_ascii());
        let client = running.client.map(|client| format!(" from {client}"));
        let client = client.unwrap_or_default();
        log::error!(
            "Worker (pid:{pid}): in flight for {seconds}.{tenths} s: {method} {path}{client}"
        );
    }
}
