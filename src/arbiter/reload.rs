//! HUP: a new generation of workers beside the old one, which goes when the new one serves.
//!
//! 1. The host reads the settings again. A mistake in them is logged and nothing else happens.
//! 2. Listeners of new addresses are opened; those that stay are kept, so no connection is refused.
//! 3. Workers of the next generation are started with the new settings (`policy::plan` with a rollout).
//! 4. When all of them serve, the old workers get TERM and dropped addresses are closed. When one cannot
//!    boot, the rest of the new generation gets TERM and everything is as before.

use std::sync::Arc;

use nix::sys::signal::Signal;

use super::workers::Stage;
use super::{Arbiter, Hook, Leave};
use crate::config::Config;
use crate::net::{self, BindAddress, BindOptions, Bound};
use crate::scoreboard::monotonic_ms;

/// What to go back to while a reload is under way.
#[derive(Debug)]
pub(super) struct Rollout {
    previous: Arc<Config>,
    previous_listeners: Vec<Arc<Bound>>,
    previous_workers: usize,
    previous_generation: u32,
}

impl Rollout {
    /// For the end of the server: sockets of the generation that was to go.
    pub(super) fn into_listeners(self) -> Vec<Arc<Bound>> {
        self.previous_listeners
    }
}

impl Arbiter<'_> {
    pub(super) fn reload(&mut self) -> Result<(), Leave> {
        log::info!("Hang up: Master");
        if self.rollout.is_some() {
            // The operator has changed something again: what is half started is out of date.
            self.abandon_rollout();
        }
        let config = match self.host.reload() {
            Ok(config) => config,
            Err(reason) => {
                log::error!("Reload failed: {reason}");
                log::error!("The settings are unchanged and the workers keep serving.");
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
                return Ok(());
            }
        };
        let rollout = Rollout {
            previous: std::mem::replace(&mut self.config, Arc::clone(&config)),
            previous_listeners: std::mem::replace(&mut self.listeners, listeners),
            previous_workers: self.num_workers,
            previous_generation: self.generation,
        };
        if self.listening_changed(&rollout.previous_listeners) {
            log::info!("Listening at: {} ({})", self.describe_listeners(), self.pid);
        }
        self.rollout = Some(rollout);
        self.next_generation += 1;
        self.generation = self.next_generation;
        self.backoff.forget();
        self.set_num_workers(config.workers)?;
        self.hook(Hook::OnReload)?;
        self.move_pidfile();
        self.manage()
    }

    /// All of the new generation serves; its elders have been told to go.
    pub(super) fn finish_rollout(&mut self) {
        if let Some(rollout) = self.rollout.take() {
            for bound in &rollout.previous_listeners {
                if !self.listeners.iter().any(|kept| Arc::ptr_eq(kept, bound)) {
                    bound.unlink();
                }
            }
            log::debug!("Generation {} serves", self.generation);
        }
    }

    pub(super) fn fail_rollout(&mut self, reason: &str) {
        log::error!("Reload failed: {reason}");
        log::error!("The previous workers keep serving.");
        self.abandon_rollout();
    }

    fn abandon_rollout(&mut self) {
        let Some(rollout) = self.rollout.take() else {
            return;
        };
        let now = monotonic_ms();
        let failed = self.generation;
        for worker in self.workers.iter_mut() {
            if worker.generation == failed && worker.stage != Stage::Killed {
                worker.send(Signal::SIGTERM);
                worker.enter(Stage::Retiring, now);
            }
        }
        for bound in &self.listeners {
            if !rollout
                .previous_listeners
                .iter()
                .any(|kept| Arc::ptr_eq(kept, bound))
            {
                bound.unlink();
            }
        }
        self.host.take_back();
        self.config = rollout.previous;
        self.listeners = rollout.previous_listeners;
        self.num_workers = rollout.previous_workers;
        self.generation = rollout.previous_generation;
    }

    /// Keeps the listeners whose address is asked for again and opens the others.
    fn listeners_for(&self, config: &Config) -> Result<Vec<Arc<Bound>>, String> {
        if !self.inherited.is_empty() {
            return Ok(self.listeners.clone());
        }
        let addresses = parse_addresses(config)?;
        let kept = |address: &BindAddress| {
            self.listeners
                .iter()
                .find(|bound| bound.address == *address)
                .cloned()
        };
        let (old, new): (Vec<_>, Vec<_>) = addresses
            .iter()
            .map(|address| (address, kept(address)))
            .partition(|(_, kept)| kept.is_some());
        let missing: Vec<_> = new
            .into_iter()
            .map(|(address, _)| address.clone())
            .collect();
        let mut listeners: Vec<_> = old.into_iter().filter_map(|(_, kept)| kept).collect();
        let opened = net::bind_all(&missing, &bind_options(config), || false)
            .map_err(|error| error.to_string())?;
        listeners.extend(opened.into_iter().map(Arc::new));
        Ok(listeners)
    }

    fn listening_changed(&self, before: &[Arc<Bound>]) -> bool {
        self.listeners.len() != before.len()
            || self
                .listeners
                .iter()
                .any(|bound| !before.iter().any(|old| Arc::ptr_eq(old, bound)))
    }
}

/// What the settings say of listeners.
pub(super) fn bind_options(config: &Config) -> BindOptions {
    BindOptions {
        backlog: config.backlog,
        umask: config.umask,
        reuse_port: config.reuse_port,
        owner: Some((config.user, config.group)),
    }
}

pub(super) fn parse_addresses(config: &Config) -> Result<Vec<BindAddress>, String> {
    let parsed: Result<Vec<_>, _> = config.bind.iter().map(|text| text.parse()).collect();
    parsed.map_err(|error: net::AddressError| error.to_string())
}
