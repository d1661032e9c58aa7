//! The arbiter's start, its forks, and its end.

use std::convert::Infallible;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::*;
use crate::arbiter::binary_upgrade::{self, ExecError};
use crate::arbiter::fork::{self, Inheritance, Side};
use crate::arbiter::fork_server::{ForkServerContext, ServerExit, open_control};
use crate::arbiter::listeners;
use crate::arbiter::outcome::{EXIT_CHILD_FAILED, EXIT_UNHANDLED, Start};
use crate::arbiter::start_error::StartError;
use crate::arbiter::stopping::{StopLimit, millis};
use crate::arbiter::supervision::{PRELOAD_FAILED, STOP_MARGIN, preload_end};
use crate::arbiter::{runtime::WorkerInfo, signals::Blocked, spawner::ClaimError};
use crate::config::VERSION;
use crate::scoreboard::Scoreboard;

impl<'r> Arbiter<'r> {
    /// # Errors
    /// The system has no room for another server.
    pub(in crate::arbiter) fn new(
        runtime: &'r mut dyn Runtime,
        start: Start,
    ) -> Result<Self, StartError> {
        let workers = &start.config.workers;
        let scoreboard = children::roomy_scoreboard(workers.workers, workers.threads);
        let signals = signals::install(&signals::ARBITER_SIGNALS);
        Ok(Self {
            runtime,
            log: start.log,
            pid: getpid(),
            started_at: monotonic_ms(),
            signals: signals.map_err(StartError::Signals)?,
            stopping: Stopping::default(),
            certificates: CertificateWatch::start(&start.config, start.tickets, monotonic_ms())?,
            rollout: Rollout::new(start.config),
            listeners: Listeners::new(start.inherited, start.from_old_master),
            channels: None,
            children: Children::new().map_err(StartError::Descriptors)?,
            fork_servers: ForkServers::default(),
            spawner: Spawner::new(scoreboard.map_err(StartError::Scoreboard)?),
            upgrade: BinaryUpgrade::of(start.old_master),
            pidfile: OwnPidfile::default(),
            control: ControlServer::default(),
            deferred_reload: DeferredReload::default(),
            admin: None,
            dashboard: Dashboard::default(),
            notifier: Notifier::new(&start.supervisor),
            gauges: Gauges::new(start.log),
            wear: WearCheck::default(),
            crashes: CrashLog::default(),
            watchdog: Watchdog::new(monotonic_ms()),
            reloads: 0,
        })
    }

    /// Everything before the first fork.
    ///
    /// # Errors
    /// Why the server cannot start.
    pub(in crate::arbiter) fn start(&mut self) -> Result<(), StartError> {
        let new = self.rollout.num_workers();
        self.hook(Hook::NworkersChanged { new, old: None })?;
        log::info!("Starting ferricorn {VERSION}");
        self.runtime.set_title(&self.title());
        self.move_pidfile()?;
        self.hook(Hook::OnStarting)?;
        let (runtime, signals) = (&mut *self.runtime, &self.signals);
        self.listeners.open(self.rollout.config(), |wait| {
            !signals::wait_for_stop(runtime, signals, wait)
        })?;
        let listening = self.listeners.describe(self.rollout.config());
        log::info!("Listening at: {listening} ({})", self.pid);
        self.channels = Channels::between(new).map(Arc::new);
        if let Some(address) = &self.rollout.config().control.admin_bind {
            let admin = AdminServer::open(address, monotonic_ms());
            self.admin = Some(admin.map_err(StartError::AdminAddress)?);
        }
        log::info!("Using worker: {}", self.rollout.config().workers.kind());
        self.hook(Hook::WhenReady)?;
        Ok(())
    }

    /// Forks. The one place of the arbiter where it does. Returns how the child goes on, in the child.
    pub(super) fn fork(&mut self, request: ForkRequest) -> Result<Option<Outcome>, HookError> {
        match request {
            ForkRequest::Worker => self.fork_worker(),
            ForkRequest::ForkServer => Ok(self.fork_server()),
            ForkRequest::NewMaster => Ok(self.fork_new_master()),
        }
    }

    fn fork_worker(&mut self) -> Result<Option<Outcome>, HookError> {
        let age = self.spawner.next_age();
        self.hook(Hook::PreFork(WorkerInfo::unborn(age)))?;
        let birth = match self.claim_slot(None) {
            Ok(birth) => birth,
            Err(error) => {
                self.cannot_start(&error);
                return Ok(None);
            }
        };
        let channel = self.control.stacks().open_channel(age);
        match fork::fork(self.runtime) {
            Err(error) => {
                self.give_up(&birth);
                self.cannot_start(&error);
            }
            Ok(Side::Parent(pid)) => {
                self.spawner.use_age(age);
                self.children.add(WorkerHandle::new(pid, birth));
            }
            Ok(Side::Child(blocked)) => {
                let inheritance = self.inheritance(&birth.scoreboard);
                let entered = inheritance.become_worker(&birth, channel, blocked);
                return Ok(Some(Outcome::child(entered.map(Outcome::Worker))));
            }
        }
        Ok(None)
    }

    /// A slot on the current scoreboard, or with `--preload` on that of the fork server.
    fn claim_slot(&mut self, scoreboard: Option<Arc<Scoreboard>>) -> Result<Birth, ClaimError> {
        let (children, fork_servers) = (&self.children, &self.fork_servers);
        let scoreboard = match scoreboard {
            Some(scoreboard) => scoreboard,
            None => self.spawner.roomy_scoreboard(children, &self.rollout)?,
        };
        let rollout = &self.rollout;
        let birth =
            self.spawner
                .claim(scoreboard, children, fork_servers, rollout, monotonic_ms())?;
        if self.stopping.is_delayed() {
            birth.scoreboard.slot(birth.slot).announce_stop();
        }
        Ok(birth)
    }

    /// What a child takes with it.
    fn inheritance(&self, scoreboard: &Arc<Scoreboard>) -> Inheritance<'_> {
        Inheritance {
            arbiter: self.pid,
            config: self.rollout.config(),
            scoreboard: Arc::clone(scoreboard),
            listeners: &self.listeners,
            children: &self.children,
            channels: self.channels.as_ref(),
            certificates: self.certificates.for_workers(self.rollout.config()),
        }
    }

    /// There will be no worker of this birth.
    pub(super) fn give_up(&mut self, birth: &Birth) {
        birth.scoreboard.slot(birth.slot).release();
        self.control.stacks().close_channel(birth.age);
    }

    pub(super) fn cannot_start(&mut self, error: &dyn std::fmt::Display) {
        let delay = self.spawner.backoff().start_failed(monotonic_ms());
        log::error!("Cannot start a worker: {error}; trying again in {delay:.1?}");
    }

    fn fork_server(&mut self) -> Option<Outcome> {
        let (children, rollout) = (&self.children, &self.rollout);
        let prepared = self.spawner.grow_for_preload(children, rollout);
        let forked = prepared.and_then(|()| open_control());
        let forked = forked.and_then(|(ours, theirs)| {
            let side = fork::fork(self.runtime)?;
            Ok((side, ours, theirs))
        });
        match forked {
            Err(error) => {
                let delay = self.spawner.preload_delay().failed(monotonic_ms(), 0);
                log::error!("Cannot preload the application: {error}; trying again in {delay:.1?}");
                None
            }
            Ok((Side::Parent(pid), ours, _)) => {
                let scoreboard = Arc::clone(self.spawner.scoreboard());
                let (generation, now) = (self.rollout.generation(), monotonic_ms());
                self.fork_servers
                    .add(pid, generation, ours, scoreboard, now);
                None
            }
            Ok((Side::Child(blocked), _, theirs)) => {
                let inheritance = self.inheritance(self.spawner.scoreboard());
                let entered = ForkServerContext::enter(inheritance, theirs, blocked);
                Some(Outcome::child(entered.map(Outcome::ForkServer)))
            }
        }
    }

    /// Asks the fork server for a worker.
    pub(super) fn request_worker(&mut self, now: u64) {
        let Some(scoreboard) = self.fork_servers.scoreboard(self.rollout.generation()) else {
            return;
        };
        let birth = match self.claim_slot(Some(scoreboard)) {
            Ok(birth) => birth,
            Err(error) => return self.cannot_start(&error),
        };
        let age = birth.age;
        let Some(channel) = self.control.stacks().open_channel(age) else {
            self.give_up(&birth);
            return self.cannot_start(&"no descriptors left");
        };
        match self.fork_servers.request(birth, &channel, now) {
            Ok(()) => self.spawner.use_age(age),
            Err((birth, error)) => {
                self.give_up(&birth);
                self.cannot_start(&error);
            }
        }
    }

    pub(super) fn on_fork_server_exit(&mut self, exit: ServerExit, now: u64) {
        let is_current = exit.generation == self.rollout.generation();
        if self.stopping.is_underway() || exit.was_dismissed || !is_current {
            return;
        }
        if exit.was_ready {
            let pid = exit.pid;
            let status = exit
                .status
                .map_or_else(String::new, |status| format!(" ({status})"));
            log::warn!(
                "The fork server (pid:{pid}) is gone{status}; the application will be imported again for the next worker."
            );
        } else if self.rollout.is_unproven() {
            self.fail_rollout(PRELOAD_FAILED);
        } else if !self.rollout.has_started() {
            let (reason, code) =
                preload_end(exit.wanted_exit, exit.status.unwrap_or(ExitStatus::Code(0)));
            self.stopping.halt(reason, code);
        } else {
            let delay = self.spawner.preload_delay().failed(now, exit.lived_ms);
            log::warn!("{PRELOAD_FAILED} The next attempt is in {delay:.1?}");
        }
    }

    fn fork_new_master(&mut self) -> Option<Outcome> {
        match fork::fork(self.runtime) {
            Err(error) => {
                log::error!("Cannot start a new master: {error}");
                None
            }
            Ok(Side::Parent(pid)) => {
                self.upgrade.started(pid);
                None
            }
            Ok(Side::Child(blocked)) => {
                let Err(error) = self.become_new_master(blocked);
                log::error!("The new master cannot be executed: {error}");
                Some(Outcome::Exit(EXIT_CHILD_FAILED))
            }
        }
    }

    /// In the child. Returns only when it fails.
    fn become_new_master(&mut self, blocked: Blocked) -> Result<Infallible, ExecError> {
        signals::leave_to_next_program()?;
        let old_master = std::mem::replace(&mut self.pid, getpid());
        self.hook(Hook::PreExec)?;
        let has_watchdog = self.notifier.has_watchdog();
        let mut variables =
            binary_upgrade::variables(old_master, self.pid, &self.listeners, has_watchdog)?;
        variables.extend(self.certificates.leave_to_new_master()?);
        // The mask would survive the exec.
        drop(blocked);
        Err(self.runtime.execute_again(&variables).into())
    }

    /// Stops the workers, reports what became of the requests, and removes the files. Returns the exit code.
    pub(in crate::arbiter) fn halt(&mut self, end: End) -> i32 {
        self.stop(end.graceful);
        let requests = self.children.requests();
        log::info!(
            "Requests: {} served, {} refused, {} cut",
            requests.served,
            requests.refused,
            requests.cut
        );
        let level = end.level();
        log::log!(level, "Shutting down: Master");
        if let Some(reason) = end.reason {
            log::log!(level, "Reason: {reason}");
        }
        self.unlink_files();
        if let Err(error) = self.hook(Hook::OnExit) {
            log::error!("{error}");
            return EXIT_UNHANDLED;
        }
        end.exit_code
    }

    /// Closes the listeners, lets the workers finish, and kills those that do not.
    pub(in crate::arbiter) fn stop(&mut self, graceful: bool) {
        self.stopping.begin();
        self.notifier.stopping(self.upgrade.new_master());
        self.close_listeners();
        let now = monotonic_ms();
        self.fork_servers
            .cancel_generation(self.rollout.generation());
        self.fork_servers.dismiss(|_| true, now);
        let graceful_timeout = self.rollout.config().workers.graceful_timeout;
        // A quick stop is not for requests to finish in, only for exit handlers to run.
        let (mut signal, patience) = match graceful {
            true => (Signal::SIGTERM, graceful_timeout + STOP_MARGIN),
            false => (Signal::SIGQUIT, graceful_timeout.min(QUICK_STOP)),
        };
        self.children.retire_all(signal, now);
        let mut limit = StopLimit::new(patience, now);
        self.reap_quietly();
        while !self.is_alone() && !limit.is_over(!self.children.is_empty(), monotonic_ms()) {
            let arrived = self.wait(POLL_MS);
            if arrived.contains(&Signal::SIGUSR1) {
                self.reopen_logs();
            }
            let is_quick = arrived
                .iter()
                .any(|signal| matches!(signal, Signal::SIGINT | Signal::SIGQUIT));
            // A second TERM is none: supervisors send it to the master and to its group, so it comes twice.
            if is_quick && signal == Signal::SIGTERM {
                log::info!("Quick shutdown requested");
                signal = Signal::SIGQUIT;
                let now = monotonic_ms();
                self.children.retire_all(signal, now);
                limit.shorten(QUICK, now);
            }
            self.reap_quietly();
            let (children, servers) = (&mut self.children, &mut self.fork_servers);
            limit.excuse(self.watchdog.excuse(children, servers));
        }
        self.kill_rest();
    }

    fn is_alone(&self) -> bool {
        self.children.is_empty() && self.fork_servers.is_empty()
    }

    fn kill_rest(&mut self) {
        if self.is_alone() {
            return;
        }
        if !self.children.is_empty() {
            log::warn!(
                "Killing {} worker(s) that did not stop in time",
                self.children.len()
            );
        }
        let now = monotonic_ms();
        self.children.kill_all(now);
        self.fork_servers.kill_all(now);
        while !self.is_alone() && monotonic_ms() < now + millis(QUICK) {
            self.wait(POLL_MS);
            self.reap_quietly();
        }
    }

    /// Nothing that a dying worker brings about may keep the server from stopping. The control interface still answers,
    /// so that an operator can see what the stop waits for.
    fn reap_quietly(&mut self) {
        for result in [self.read_children(), self.serve_control()] {
            if let Err(error) = result {
                log::error!("{error}");
            }
        }
        while let Err(error) = self.reap() {
            log::error!("{error}");
        }
        self.close_dropped();
    }

    /// Only the first call has something to do. Socket files are removed; what was handed to this process stays. The
    /// sockets go when the workers have taken what waits in their queues, see `close_dropped`.
    fn close_listeners(&mut self) {
        let mut closed = self.listeners.replace(Vec::new());
        closed.extend(self.rollout.take_listeners());
        self.unlink_unused(&closed);
        if !self.upgrade.both_live() && listeners::are_own(&closed) {
            let holders = self.children.end_listeners();
            self.listeners.drop_unused(closed, &holders);
        }
    }

    pub(in crate::arbiter) fn unlink_files(&mut self) {
        self.close_listeners();
        self.close_dropped();
        self.control.close();
        self.admin.take().into_iter().for_each(AdminServer::close);
        self.pidfile.unlink();
    }
}

/// A signal ends a wait at once; this only bounds the time to notice a deadline.
const POLL_MS: u64 = 100;
const QUICK: Duration = Duration::from_secs(2);
const QUICK_STOP: Duration = Duration::from_secs(5);
