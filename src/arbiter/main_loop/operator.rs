//! What the operator asks for: signals, commands of the control interface, requests of the admin address.

use serde_json::json;

use super::*;
use crate::arbiter::admin_actions::{Action, AdminActions, stack_response};
use crate::arbiter::admin_pages::AdminPages;
use crate::arbiter::admin_response::Answered;
use crate::arbiter::control_server::{
    CommandError, listener_view, replace_worker, signal_self, worker_view,
};
use crate::arbiter::dashboard::Kind;
use crate::arbiter::deferred_reload::Due;
use crate::control::{self, ClientId, Command, Request, View};
use crate::net::Bound;

impl Arbiter<'_> {
    pub(super) fn handle(&mut self, signal: Signal) -> Result<(), HookError> {
        let name = signals::name(signal);
        if signal == Signal::SIGCHLD {
            log::debug!("Handling signal: {name}");
            return Ok(());
        }
        log::info!("Handling signal: {name}");
        match signal {
            Signal::SIGTERM => self.on_term(),
            Signal::SIGINT | Signal::SIGQUIT => self.stopping.request(false),
            Signal::SIGUSR1 => self.reopen_logs(),
            // What changes the workers is of no use to a server that is about to stop.
            _ if self.stopping.is_delayed() => {
                log::info!("Signal {name} has no effect: the server is about to stop.");
            }
            Signal::SIGHUP => self.on_hup()?,
            Signal::SIGTTIN => {
                self.spawner.reset_delays();
                self.change_num_workers(1)?;
            }
            Signal::SIGTTOU if self.rollout.num_workers() > 1 => self.change_num_workers(-1)?,
            Signal::SIGUSR2 => self.upgrade.request(),
            Signal::SIGWINCH => self.on_winch()?,
            _ => {}
        }
        Ok(())
    }

    fn on_term(&mut self) {
        let delay = self.rollout.config().lifecycle.stop_delay;
        if self.stopping.on_term(delay, monotonic_ms()) {
            self.notifier.stopping(self.upgrade.new_master());
            for worker in self.children.iter() {
                worker.slot().announce_stop();
            }
            log::info!(
                "Stopping in {} s; serving requests until then.",
                delay.as_secs()
            );
        }
    }

    pub(super) fn reopen_logs(&mut self) {
        self.runtime.reopen_logs();
        self.children.send_all(Signal::SIGUSR1);
    }

    /// Terminals send WINCH when their size changes, so in the foreground it must not stop the workers. A daemon, and
    /// a master that has a successor, get it from an operator.
    fn on_winch(&mut self) -> Result<(), HookError> {
        let is_daemon = self.rollout.config().process.daemon;
        if !is_daemon && self.upgrade.new_master().is_none() {
            log::debug!("SIGWINCH ignored. Not daemonized");
            return Ok(());
        }
        log::info!("graceful stop of workers");
        self.set_num_workers(0)
    }

    /// TTIN and TTOU.
    fn change_num_workers(&mut self, by: isize) -> Result<(), HookError> {
        let new = self.rollout.resize(by);
        self.set_num_workers(new)
    }

    fn set_num_workers(&mut self, new: usize) -> Result<(), HookError> {
        let old = Some(self.rollout.set_num_workers(new));
        self.hook(Hook::NworkersChanged { new, old })
    }

    fn on_hup(&mut self) -> Result<(), HookError> {
        log::info!("Hang up: Master");
        self.notifier.reloading();
        self.reloads += 1;
        self.dashboard.note(Kind::Reload, "A reload begins");
        match self.deferred_reload.begin(monotonic_ms()) {
            Some(due) => self.reload(due),
            None => Ok(()),
        }
    }

    /// A reload that has waited for names, when its time has come.
    pub(super) fn resume_reload(&mut self) -> Result<(), HookError> {
        match self.deferred_reload.due(monotonic_ms()) {
            Some(due) if !self.stopping.is_stopping() => self.reload(due),
            _ => Ok(()),
        }
    }

    fn reload(&mut self, due: Due) -> Result<(), HookError> {
        // The operator has changed something again: what has not served yet is out of date before it does.
        // What serves already is now the generation to fall back to.
        let older = self.rollout.complete_proven();
        self.abandon_rollout();
        let config = match self.runtime.reload() {
            Ok(config) => config,
            Err(error) => {
                let rest = "The settings are unchanged and the workers keep serving.";
                self.reject_reload(&error, rest, older);
                return Ok(());
            }
        };
        self.runtime.reopen_logs();
        let listeners = match self.listeners.for_config(&config) {
            Ok(listeners) => listeners,
            Err(error) => {
                self.runtime.undo_reload();
                if error.is_pending() && due == Due::First {
                    log::info!("The reload is waiting: {error}");
                    self.deferred_reload.wait_for_names(monotonic_ms());
                    self.leave_listeners(older);
                    return Ok(());
                }
                let rest = "The workers keep serving with the settings they have.";
                self.reject_reload(&error, rest, older);
                return Ok(());
            }
        };
        let before = self.listeners.replace(listeners);
        if self.listeners.differ_from(&before) {
            let listening = self.listeners.describe(&config);
            log::info!("Listening at: {listening} ({})", self.pid);
        }
        let new = config.workers.workers;
        self.rollout.begin(config, before, older);
        self.spawner.reset_delays();
        self.set_num_workers(new)?;
        self.hook(Hook::OnReload)?;
        if let Err(error) = self.move_pidfile() {
            log::error!("{error}");
        }
        Ok(())
    }

    fn reject_reload(
        &mut self,
        error: &dyn std::fmt::Display,
        rest: &str,
        older_listeners: Vec<Arc<Bound>>,
    ) {
        log::error!("Reload failed: {error}");
        log::error!("{rest}");
        self.dashboard.note(Kind::ReloadFailed, error.to_string());
        self.leave_listeners(older_listeners);
        self.notifier
            .reloaded("Reload failed: the settings are unchanged");
    }

    /// The last old worker has been asked to leave.
    pub(super) fn finish_rollout(&mut self) {
        if let Some(listeners) = self.rollout.finish() {
            self.leave_listeners(listeners);
            log::debug!("Generation {} serves", self.rollout.generation());
            self.notifier.reloaded("Reloaded");
            self.dashboard.note(Kind::Reload, "Reloaded");
        }
    }

    pub(super) fn fail_rollout(&mut self, reason: &str) {
        log::error!("Reload failed: {reason}");
        log::error!("The previous workers keep serving.");
        self.dashboard.note(Kind::ReloadFailed, reason);
        self.abandon_rollout();
        self.notifier
            .reloaded("Reload failed: the previous workers keep serving");
    }

    fn abandon_rollout(&mut self) {
        let Some(abandoned) = self.rollout.abandon() else {
            return;
        };
        let now = monotonic_ms();
        let failed = abandoned.generation;
        self.fork_servers.cancel_generation(failed);
        self.fork_servers.dismiss(|one| one == failed, now);
        let failed = |worker: &&mut WorkerHandle| worker.generation() == failed;
        for worker in self.children.iter_mut().filter(failed) {
            if worker.stage() != Stage::Killed {
                worker.retire(Signal::SIGTERM, now);
            }
        }
        self.runtime.undo_reload();
        let mut dropped = self.listeners.replace(abandoned.listeners);
        dropped.extend(abandoned.older_listeners);
        self.leave_listeners(dropped);
    }

    /// What of `listeners` is not listened on any more is left to the workers of before, until these have closed it.
    fn leave_listeners(&mut self, listeners: Vec<Arc<Bound>>) {
        self.unlink_unused(&listeners);
        let current = self.rollout.generation();
        let leaving = self.children.iter();
        let leaving = leaving.filter(|worker| worker.generation() != current);
        let holders: Vec<_> = leaving.map(WorkerHandle::age).collect();
        self.listeners.drop_unused(listeners, &holders);
    }

    /// While two masters live (USR2), the other one may still be found under these addresses.
    pub(super) fn unlink_unused(&self, listeners: &[Arc<Bound>]) {
        if !self.upgrade.both_live() {
            self.listeners.unlink_unused(listeners);
        }
    }

    /// Ends the sockets that no worker accepts from any more, unless the other master (USR2) does.
    pub(super) fn close_dropped(&mut self) {
        let children = &self.children;
        let are_ended = !self.upgrade.both_live();
        self.listeners
            .close_dropped(|age| children.accepts(age), are_ended);
    }

    /// The successor of a master that is gone takes its place.
    pub(super) fn promote(&mut self) {
        if self.upgrade.take_promotion() {
            self.notifier.promoted(self.pid);
            self.runtime.set_title(&self.title());
            if let Err(error) = self.move_pidfile() {
                log::error!("{error}");
            }
        }
    }

    pub(super) fn title(&self) -> String {
        let suffix = self.upgrade.suffix();
        format!(
            "master [{}{suffix}]",
            self.rollout.config().process.proc_name
        )
    }

    /// A master that lives beside the old one writes another file.
    pub(super) fn move_pidfile(&mut self) -> Result<(), crate::arbiter::pidfile::PidfileError> {
        let path = self.rollout.config().process.pidfile.clone();
        let path = path.map(|path| {
            let mut path = path.into_os_string();
            path.push(self.upgrade.suffix());
            std::path::PathBuf::from(path)
        });
        self.pidfile.move_to(path.as_deref(), self.pid.as_raw())
    }

    /// Does all of the control interface that can be done now. Never blocks.
    pub(super) fn serve_control(&mut self) -> Result<(), HookError> {
        let now = monotonic_ms();
        if !self.stopping.is_underway() {
            let config = self.rollout.config();
            self.control.follow(config, self.pid.as_raw(), now);
        }
        for (number, stacks) in self.control.answer_stacks(&self.children, now) {
            let (admin, response) = (self.admin.iter_mut(), stack_response(stacks));
            admin.for_each(|admin| admin.complete(number, &response));
        }
        for _ in 0..ROUNDS_PER_ITERATION {
            for (client, request) in self.control.receive(now) {
                self.carry_out(client, request, now)?;
            }
            if !self.control.have_more() {
                break;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, client: ClientId, request: Request, now: u64) -> Result<(), HookError> {
        let Request { id, command } = request;
        let result = match command {
            Command::Show(topic) => Ok(control::answer(topic, &self.view())),
            Command::Help => Ok(control::help()),
            Command::Dirty => Ok(json!({"success": false, "error": "Dirty arbiter not running"})),
            Command::Stack(pid) => {
                self.control
                    .request_stacks(client, &id, pid, (&self.children, now));
                return Ok(());
            }
            Command::Reload => {
                signal_self(self.pid, Signal::SIGHUP, json!({"status": "reloading"}))
            }
            Command::Reopen => {
                signal_self(self.pid, Signal::SIGUSR1, json!({"status": "reopening"}))
            }
            Command::Shutdown { quick } => {
                let (mode, signal) = match quick {
                    false => ("graceful", Signal::SIGTERM),
                    true => ("quick", Signal::SIGINT),
                };
                signal_self(
                    self.pid,
                    signal,
                    json!({"status": "shutting_down", "mode": mode}),
                )
            }
            Command::WorkerAdd(_) | Command::WorkerRemove(_) | Command::WorkerKill(_)
                if self.stopping.is_stopping() =>
            {
                Err(CommandError::Stopping)
            }
            Command::WorkerAdd(count) => {
                let before = self.rollout.num_workers();
                self.spawner.reset_delays();
                self.change_num_workers(isize::try_from(count).unwrap_or(0))?;
                Ok(json!({"added": count, "previous": before, "total": self.rollout.num_workers()}))
            }
            Command::WorkerRemove(count) => {
                let before = self.rollout.num_workers();
                let removed = count.min(before.saturating_sub(1));
                if removed > 0 {
                    self.change_num_workers(-isize::try_from(removed).unwrap_or(0))?;
                }
                let total = self.rollout.num_workers();
                Ok(json!({"removed": removed, "previous": before, "total": total}))
            }
            Command::WorkerKill(pid) => Ok(replace_worker(&mut self.children, pid, now)),
        };
        self.control.answer(client, &id, result);
        Ok(())
    }

    fn view(&self) -> View<'_> {
        View {
            pid: self.pid.as_raw(),
            now: monotonic_ms(),
            started_at: self.started_at,
            stopping: self.stopping.is_stopping(),
            config: self.rollout.config(),
            target: self.rollout.num_workers(),
            spawned: self.spawner.spawned(),
            killed: self.watchdog.aborted(),
            reloads: self.reloads,
            workers: self.children.iter().map(worker_view).collect(),
            listeners: self.listeners.iter().map(listener_view).collect(),
        }
    }

    /// Serves `admin_bind`, if there is one.
    pub(super) fn serve_admin(&mut self) {
        let Some(mut admin) = self.admin.take() else {
            return;
        };
        let config = Arc::clone(self.rollout.config());
        admin.serve(monotonic_ms(), &config, &mut |asked, token, number| {
            let Some(action) = Action::at(asked.path()) else {
                let pages = AdminPages {
                    has_actions: token.is_set(),
                    view: self.view(),
                    children: &self.children,
                    scoreboard: self.spawner.scoreboard(),
                    dashboard: &self.dashboard,
                    log: self.log,
                    certificate_end: self.certificates.not_after(),
                    is_stopping: self.stopping.is_underway(),
                };
                return Answered::Now(pages.answer(asked));
            };
            let actions = AdminActions {
                pid: self.pid,
                config: &config,
                children: &self.children,
                stacks: self.control.stacks(),
                num_workers: self.rollout.num_workers(),
                is_stopping: self.stopping.is_stopping(),
            };
            actions.answer((action, asked), token, number)
        });
        self.admin = Some(admin);
    }

    /// Reports to statsd and systemd what has changed.
    pub(super) fn report(&mut self) {
        let statsd = &self.rollout.config().statsd;
        let workers = self.children.len();
        self.gauges
            .report(statsd, workers, &self.listeners, monotonic_ms());
        self.notifier.status(
            self.children.count(Stage::Serving),
            self.children.count(Stage::Booting),
            self.children.count(Stage::Retiring),
        );
    }
}

/// Requests that one client may have answered in one iteration of the loop.
const ROUNDS_PER_ITERATION: usize = 16;
