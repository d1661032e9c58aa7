//! The dead and the silent: reaping, what a death leads to, and the killing of workers that hang.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::policy::{self, Consequence, Death, Fault, Obituary, Patience, Verdict};
use super::workers::{News, Stage, WorkerHandle};
use super::{Arbiter, Hook, Leave};
use crate::scoreboard::{Running, monotonic_ms};

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
            if !self.bury_upgrade(pid, death) && !self.bury_template(pid, death)? {
                // As PID 1 we inherit orphans of anybody.
                log::debug!("Reaped unknown child process (pid:{pid}, {death:?})");
            }
            return Ok(());
        };
        // What it said last may have come after the pipes were last read.
        if worker.look(now) == News::Serves {
            if let Some(rollout) = &mut self.rollout {
                rollout.proven |= worker.generation == self.generation;
            }
        }
        let unproven = self.rollout.as_ref().is_some_and(|rollout| !rollout.proven);
        let obituary = Obituary {
            death,
            stage: worker.stage,
            drained: worker.drains(),
            in_rollout: unproven && worker.generation == self.generation,
            lifetime: Duration::from_millis(now.saturating_sub(worker.forked_at)),
        };
        let consequence = policy::after_death(&obituary, self.started);
        let halts = matches!(consequence, Consequence::Halt { .. }) && !self.stopping;
        if !halts {
            log_death(&worker, death);
        }
        self.tally.count(&worker, &log_lost(&worker, death, now));
        self.totals.add(worker.slot());
        worker.slot().release();
        let killed_for_silence = worker.stage == Stage::Killed && !self.stopping;
        let mut view = worker.view();
        view.aborted |= killed_for_silence;
        self.hook(Hook::ChildExit(view))?;
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
        self.murder_templates();
        let now = monotonic_ms();
        let patience = Patience {
            boot: self.config.workers.boot_timeout,
            silence: self.config.workers.timeout,
            graceful: self.config.workers.graceful_timeout,
        };
        for worker in self.workers.iter_mut() {
            match policy::judge(worker.stage, worker.since, worker.beats(), now, &patience) {
                Verdict::Fine => {}
                Verdict::Abort(fault) => {
                    self.control.count().killed += 1;
                    log_timeout(worker, fault, now);
                    worker.send(Signal::SIGABRT);
                    worker.enter(Stage::Aborted, now);
                }
                Verdict::Kill => {
                    if worker.stage == Stage::Retiring {
                        log::error!(
                            "Worker (pid:{}) did not leave within graceful_timeout",
                            worker.pid
                        );
                    }
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
}

/// The requests that a worker took with it. One that left by itself has told of them already.
fn log_lost(worker: &WorkerHandle, death: Death, now: u64) -> Vec<Running> {
    let lost = worker.slot().running();
    if !matches!(death, Death::Signal(_)) && worker.drains() {
        return lost;
    }
    for request in &lost {
        let client = request.client.map(|client| format!(" from {client}"));
        log::error!(
            "Worker (pid:{}): cut after {} ms: {} {}{}",
            worker.pid,
            now.saturating_sub(request.since_ms),
            request.method.escape_ascii(),
            request.path.escape_ascii(),
            client.unwrap_or_default()
        );
    }
    lost
}
