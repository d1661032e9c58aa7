//! HUP: a new generation of workers takes the place of the old one, worker by worker.
//!
//! 1. The host reads the settings again. A mistake in them is logged and nothing else happens.
//! 2. Listeners of new addresses are opened; those that stay are kept, so no connection is refused.
//! 3. A worker of the next generation is started with the new settings, beside the old ones. When it cannot
//!    boot, it was the last of its generation and everything is as before: settings, hooks, listeners, number.
//! 4. When it serves, the new generation is proven. From then on there is no way back, only forward: an old
//!    worker gets TERM for each new one that serves (`policy::plan`), never more than `reload_surge`
//!    processes above the number wanted, and a new worker that dies is tried again, with a growing pause.
//! 5. When the last old worker was told to go, dropped addresses are closed.
//!
//! Nothing here waits, so other signals are heard at any moment of it.

use std::sync::Arc;

use nix::sys::signal::Signal;

use super::workers::Stage;
use super::{Arbiter, Hook, Leave};
use crate::config::Config;
use crate::net::Bound;
use crate::scoreboard::monotonic_ms;

/// What to go back to while a reload is under way.
#[derive(Debug)]
pub(super) struct Rollout {
    previous: Arc<Config>,
    previous_listeners: Vec<Arc<Bound>>,
    /// Sockets that a generation before that one had, whose reload was under way.
    older_listeners: Vec<Arc<Bound>>,
    pub(super) previous_workers: usize,
    previous_generation: u32,
    /// A worker of the new generation has served.
    pub(super) proven: bool,
}

impl Rollout {
    /// For the end of the server: sockets of the generation that was to go.
    pub(super) fn into_listeners(self) -> Vec<Arc<Bound>> {
        let mut listeners = self.previous_listeners;
        listeners.extend(self.older_listeners);
        listeners
    }
}

impl Arbiter<'_> {
    pub(super) fn reload(&mut self) -> Result<(), Leave> {
        log::info!("Hang up: Master");
        self.notify_reloading();
        self.control.count().reloads += 1;
        // The operator has changed something again: what has not served yet is out of date before it does.
        // What serves already is now the generation to fall back to.
        let proven = self.rollout.take_if(|rollout| rollout.proven);
        self.abandon_rollout();
        let mut inherited = proven.map_or_else(Vec::new, Rollout::into_listeners);
        let config = match self.host.reload() {
            Ok(config) => config,
            Err(reason) => {
                log::error!("Reload failed: {reason}");
                log::error!("The settings are unchanged and the workers keep serving.");
                self.drop_unused(&inherited);
                self.notify_reloaded("Reload failed: the settings are unchanged");
                return Ok(());
            }
        };
        self.host.reopen_logs();
        let listeners = match self.listeners_for(&config) {
            Ok(listeners) => listeners,
            Err(reason) => {
                self.host.take_back();
                log::error!("Reload failed: {reason}");
                log::error!("The workers keep serving with the settings they have.");
                self.drop_unused(&inherited);
                self.notify_reloaded("Reload failed: the settings are unchanged");
                return Ok(());
            }
        };
        let previous_listeners = std::mem::replace(&mut self.listeners, listeners);
        let changed = self.listening_changed(&previous_listeners);
        inherited.retain(|bound| {
            !previous_listeners
                .iter()
                .any(|kept| Arc::ptr_eq(kept, bound))
        });
        let rollout = Rollout {
            previous: std::mem::replace(&mut self.config, Arc::clone(&config)),
            previous_listeners,
            older_listeners: inherited,
            previous_workers: self.num_workers,
            previous_generation: self.generation,
            proven: false,
        };
        if changed {
            log::info!("Listening at: {} ({})", self.describe_listeners(), self.pid);
        }
        self.rollout = Some(rollout);
        self.next_generation += 1;
        self.generation = self.next_generation;
        self.backoff.forget();
        self.set_num_workers(config.workers.workers)?;
        self.hook(Hook::OnReload)?;
        self.move_pidfile();
        self.manage()
    }

    /// The last of the elders has been told to go.
    pub(super) fn finish_rollout(&mut self) {
        if let Some(rollout) = self.rollout.take() {
            self.drop_unused(&rollout.into_listeners());
            log::debug!("Generation {} serves", self.generation);
            self.notify_reloaded("Reloaded");
        }
    }

    pub(super) fn fail_rollout(&mut self, reason: &str) {
        log::error!("Reload failed: {reason}");
        log::error!("The previous workers keep serving.");
        self.abandon_rollout();
        self.notify_reloaded("Reload failed: the previous workers keep serving");
    }

    fn abandon_rollout(&mut self) {
        let Some(rollout) = self.rollout.take() else {
            return;
        };
        let now = monotonic_ms();
        let failed = self.generation;
        self.dismiss_templates(|generation| generation == failed);
        for worker in self.workers.iter_mut() {
            if worker.generation == failed && worker.stage != Stage::Killed {
                worker.send(Signal::SIGTERM);
                worker.enter(Stage::Retiring, now);
            }
        }
        self.host.take_back();
        self.config = rollout.previous;
        let mut dropped = std::mem::replace(&mut self.listeners, rollout.previous_listeners);
        dropped.extend(rollout.older_listeners);
        self.drop_unused(&dropped);
        self.num_workers = rollout.previous_workers;
        self.generation = rollout.previous_generation;
    }

    fn listening_changed(&self, before: &[Arc<Bound>]) -> bool {
        self.listeners.len() != before.len()
            || self
                .listeners
                .iter()
                .any(|bound| !before.iter().any(|old| Arc::ptr_eq(old, bound)))
    }
}
