//! The arbiter's loop: it waits for an event, lets each owner do its part, and passes on what one needs of another.
//!
//! `supervision` decides; the owners (children, fork servers, listeners, rollout, ...) do. No step waits for another process.

mod operator;
mod start_stop;

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid};

use super::admin_server::AdminServer;
use super::binary_upgrade::BinaryUpgrade;
use super::certificate_watch::CertificateWatch;
use super::children::{self, Children, Reaped};
use super::control_server::ControlServer;
use super::dashboard::Dashboard;
use super::deferred_reload::DeferredReload;
use super::exit_report::{self, CrashLog};
use super::fork_server::{Availability, ForkServers, Spawned};
use super::gauges::Gauges;
use super::listeners::Listeners;
use super::notifier::Notifier;
use super::outcome::Outcome;
use super::pidfile::OwnPidfile;
use super::rollout::Rollout;
use super::runtime::{Hook, HookError, HookEvent, Runtime};
use super::signals;
use super::spawner::Spawner;
use super::stopping::{End, Stopping};
use super::supervision::{self, Consequence, ExitReport, ExitStatus, Member, Stage};
use super::watchdog::Watchdog;
use super::wear::WearCheck;
use super::worker_handle::{Birth, SlotNews, WorkerHandle};
use crate::logging::Log;
use crate::net::Channels;
use crate::scoreboard::monotonic_ms;

/// The master process. It passes on what its owners need of each other.
pub(super) struct Arbiter<'r> {
    runtime: &'r mut dyn Runtime,
    log: Log,
    pid: Pid,
    started_at: u64,
    signals: OwnedFd,
    stopping: Stopping,
    rollout: Rollout,
    listeners: Listeners,
    certificates: CertificateWatch,
    /// Between the workers.
    channels: Option<Arc<Channels>>,
    children: Children,
    fork_servers: ForkServers,
    spawner: Spawner,
    upgrade: BinaryUpgrade,
    pidfile: OwnPidfile,
    control: ControlServer,
    deferred_reload: DeferredReload,
    /// `admin_bind`.
    admin: Option<AdminServer>,
    dashboard: Dashboard,
    notifier: Notifier,
    gauges: Gauges,
    wear: WearCheck,
    crashes: CrashLog,
    watchdog: Watchdog,
    /// For `show stats`.
    reloads: u64,
}

/// How [`Arbiter::serve`] ended, and in which process.
pub(super) enum Served {
    End(End),
    /// In a forked child.
    Child(Outcome),
}

/// What is to be forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ForkRequest {
    Worker,
    ForkServer,
    NewMaster,
}

impl Arbiter<'_> {
    /// Serves until the server is to end. Returns in forked children too.
    ///
    /// # Errors
    /// A hook raised.
    pub(super) fn serve(&mut self) -> Result<Served, HookError> {
        loop {
            while let Some(request) = self.next_fork() {
                if let Some(child) = self.fork(request)? {
                    return Ok(Served::Child(child));
                }
            }
            self.serve_control()?;
            self.report();
            for signal in self.wait(LOOP_MS) {
                self.handle(signal)?;
                if self.stopping.is_requested() {
                    break;
                }
            }
            if let Some(end) = self.stopping.due(monotonic_ms()) {
                return Ok(Served::End(end));
            }
            self.resume_reload()?;
            self.promote();
            self.read_children()?;
            self.reap()?;
            self.close_dropped();
            self.watchdog
                .excuse(&mut self.children, &mut self.fork_servers);
            let config = self.rollout.config();
            self.certificates.follow(config, monotonic_ms());
            self.watchdog
                .watch(&mut self.children, &mut self.fork_servers, config, self.log);
            let memory_max = config.lifecycle.max_worker_memory;
            let now = monotonic_ms();
            self.wear.check(&mut self.children, memory_max, now);
            if self.admin.is_some() {
                self.dashboard.watch(&self.children, now);
            }
            self.reconcile();
            if let Some(end) = self.stopping.due(monotonic_ms()) {
                return Ok(Served::End(end));
            }
        }
    }

    /// Waits for events, without the GIL. Returns the signals that have come.
    fn wait(&mut self, at_most_ms: u64) -> Vec<Signal> {
        let now = monotonic_ms();
        let patience = [
            self.control.patience(now),
            self.deferred_reload.patience(),
            self.admin.as_ref().and_then(|admin| admin.patience(now)),
            self.admin.as_ref().map(|_| self.dashboard.patience(now)),
            self.notifier.keep_watchdog(now),
            self.spawner.next_attempt(now),
            self.stopping.patience(now),
            self.children.patience(),
        ];
        let timeout = patience.into_iter().flatten().fold(at_most_ms, u64::min);
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let notify_pipe = self.children.notify_pipe().into_iter();
        let readable = notify_pipe.chain([self.signals.as_fd()]);
        let readable = readable.chain(self.fork_servers.descriptors());
        let mut waited: Vec<_> = readable
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .chain(self.admin.iter().flat_map(AdminServer::descriptors))
            .chain(self.control.descriptors())
            .collect();
        self.runtime.wait(&mut || {
            // A signal interrupts the poll, but then its byte is in the pipe; other errors cannot occur.
            let _ = poll(&mut waited, timeout);
        });
        self.serve_admin();
        signals::arrived(&self.signals)
    }

    /// Reads what workers and fork servers report.
    fn read_children(&mut self) -> Result<(), HookError> {
        let now = monotonic_ms();
        for (change, generation, slot) in self.children.read_slots(now) {
            if change == SlotNews::Serves {
                self.rollout.on_serving(generation);
                self.spawner.backoff().boot_succeeded(slot);
            }
        }
        if !self.rollout.is_unproven() {
            let current = self.rollout.generation();
            self.fork_servers.dismiss(|one| one != current, now);
        }
        for answer in self.fork_servers.read(now) {
            let birth = Birth {
                at: now,
                ..answer.birth
            };
            match answer.result {
                Ok(Spawned::Lives(pid)) if !self.is_known(pid) => {
                    self.adopt(pid, birth, answer.is_cancelled);
                }
                Ok(Spawned::Lives(pid)) => {
                    log::error!("The fork server named process {pid}, which is not a new worker");
                    self.give_up(&birth);
                }
                Ok(Spawned::Ended(pid, status)) => {
                    self.children.add(WorkerHandle::new(pid, birth));
                    self.on_exit(pid, status)?;
                }
                Err(error) => {
                    self.give_up(&birth);
                    if !answer.is_cancelled {
                        self.cannot_start(&error);
                    }
                }
            }
        }
        for exit in self.fork_servers.take_lost(now) {
            self.on_fork_server_exit(exit, now);
        }
        self.rollout
            .count_serving(self.children.count(Stage::Serving));
        Ok(())
    }

    /// A worker that a fork server has forked is known from now on.
    fn adopt(&mut self, pid: Pid, birth: Birth, is_cancelled: bool) {
        let (age, now) = (birth.age, birth.at);
        let mut worker = WorkerHandle::new(pid, birth);
        if is_cancelled {
            self.control.stacks().close_channel(age);
            worker.retire(Signal::SIGTERM, now);
        } else {
            self.control.stacks().start_worker(age);
        }
        self.children.add(worker);
    }

    fn is_known(&self, pid: Pid) -> bool {
        self.children.by_pid(pid).is_some() || self.upgrade.new_master() == Some(pid)
    }

    /// Children that have ended.
    fn reap(&mut self) -> Result<(), HookError> {
        while let Some(reaped) = children::reap() {
            match reaped {
                Reaped::Child(pid, status) => self.on_exit(pid, status)?,
                Reaped::Unreadable => {
                    let mut vanished = self.children.vanished();
                    vanished.extend(self.fork_servers.vanished());
                    for pid in vanished {
                        self.on_exit(pid, ExitStatus::Signal(0))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn on_exit(&mut self, pid: Pid, status: ExitStatus) -> Result<(), HookError> {
        let now = monotonic_ms();
        if let Some(worker) = self.children.remove(pid) {
            return self.on_worker_exit(worker, status, now);
        }
        if self.upgrade.on_exit(pid, status) {
            if self.rollout.num_workers() == 0 {
                log::warn!("There are no workers: send HUP or TTIN.");
            }
        } else if let Some(exit) = self.fork_servers.on_exit(pid, status, now) {
            self.on_fork_server_exit(exit, now);
        } else {
            // As PID 1 or a subreaper this process inherits orphans.
            log::debug!("Reaped unknown child process (pid:{pid}, {status})");
            self.fork_servers.note_stranger(pid, status);
        }
        Ok(())
    }

    fn on_worker_exit(
        &mut self,
        mut worker: WorkerHandle,
        status: ExitStatus,
        now: u64,
    ) -> Result<(), HookError> {
        // What it reported last may have come after the slots were last read.
        if worker.read_slot(now) == SlotNews::Serves {
            self.rollout.on_serving(worker.generation());
            self.spawner.backoff().boot_succeeded(worker.slot_number());
        }
        let report = ExitReport {
            status,
            stage: worker.stage(),
            has_served: worker.has_served(),
            in_rollout: self.rollout.is_unproven()
                && worker.generation() == self.rollout.generation(),
        };
        let consequence = supervision::after_exit(&report, self.rollout.has_started());
        let is_stopping = self.stopping.is_underway();
        if is_stopping || !matches!(consequence, Consequence::Halt { .. }) {
            exit_report::log_exit(&worker, status);
        }
        let lost = exit_report::log_lost(&worker, status, now);
        if worker.stage() == Stage::Serving && !lost.is_empty() {
            for line in self.crashes.record(&lost, now) {
                log::error!("{line}");
            }
        }
        self.dashboard.ended(&worker, status, lost.len());
        self.children.close_account(&worker, &lost);
        self.control.stacks().close_channel(worker.age());
        let mut info = worker.info();
        info.aborted |= worker.stage() == Stage::Killed && !is_stopping;
        self.hook(Hook::ChildExit(info))?;
        if !is_stopping {
            self.follow(consequence, &worker, now);
        }
        Ok(())
    }

    fn follow(&mut self, consequence: Consequence, worker: &WorkerHandle, now: u64) {
        match consequence {
            Consequence::Replace => {}
            Consequence::BackOff => {
                let (slot, took) = (worker.slot_number(), now.saturating_sub(worker.forked_at()));
                let delay = self.spawner.backoff().boot_failed(slot, now, took);
                log::warn!(
                    "Worker (pid:{}) ended before it served; the next attempt is in {delay:.1?}",
                    worker.pid()
                );
            }
            Consequence::FailRollout(reason) => self.fail_rollout(reason),
            Consequence::Halt { reason, code } => self.stopping.halt(reason, code),
        }
    }

    /// Living workers, and those that were asked for.
    fn members(&self) -> Vec<Member> {
        let mut members = self.children.members();
        members.extend(self.fork_servers.members());
        members.sort_by_key(|member| member.age);
        members
    }

    /// Retires the workers that the desired state has no place for.
    fn reconcile(&mut self) {
        let desired = self.rollout.desired();
        let changes = supervision::reconcile(&desired, &self.members());
        let now = monotonic_ms();
        for age in changes.retire {
            if let Some(worker) = self.children.by_age_mut(age) {
                worker.retire(Signal::SIGTERM, now);
            } else {
                self.fork_servers.cancel(age);
            }
        }
        if changes.is_current {
            self.finish_rollout();
        }
    }

    /// The next process to fork, if one is wanted and none has to wait.
    fn next_fork(&mut self) -> Option<ForkRequest> {
        if self.stopping.is_requested() {
            return None;
        }
        if self.upgrade.take_request() {
            return Some(ForkRequest::NewMaster);
        }
        loop {
            let now = monotonic_ms();
            let missing = supervision::reconcile(&self.rollout.desired(), &self.members()).spawn;
            if self.spawner.backoff().permitted(missing, now) == 0 {
                return None;
            }
            if !self.rollout.config().app.preload_app {
                return Some(ForkRequest::Worker);
            }
            match self.fork_servers.availability(self.rollout.generation()) {
                Availability::None if self.spawner.preload_delay().remaining(now) == 0 => {
                    return Some(ForkRequest::ForkServer);
                }
                Availability::None | Availability::Soon => return None,
                Availability::Ready => self.request_worker(now),
            }
        }
    }

    fn hook(&mut self, hook: Hook) -> Result<(), HookError> {
        let began = monotonic_ms();
        let called = self.runtime.call_hook(&HookEvent {
            hook,
            pid: self.pid.as_raw(),
            num_workers: self.rollout.num_workers(),
            workers: self.children.iter().map(WorkerHandle::info).collect(),
            listeners: self.listeners.infos(),
            config: self.rollout.config(),
        });
        let took = monotonic_ms().saturating_sub(began);
        self.watchdog.was_busy(took);
        called
    }
}

/// The longest sleep of the loop.
const LOOP_MS: u64 = 1000;
