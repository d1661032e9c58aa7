//! The arbiter's listening sockets: opened, taken over, kept across a reload, and let go.
//!
//! With `reuse_port` there are as many sockets of each TCP address as there are workers. The arbiter opens them all
//! and keeps them, and every worker accepts from all of them: the kernel spreads connections over as many queues, and
//! none of these dies with a worker, or waits for one that is gone to be replaced.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::{Arbiter, Host, Outcome, signals};
use crate::config::Config;
use crate::net::{self, BindAddress, BindOptions, Bound};

impl Arbiter<'_> {
    /// At the start. What another master or systemd has opened is not opened again.
    pub(super) fn open_listeners(&mut self) -> Result<Vec<Arc<Bound>>, Outcome> {
        let options = bind_options(&self.config);
        if !self.inherited.is_empty() {
            let adopted = net::adopt_all(&self.inherited, &options);
            let adopted = adopted.map_err(|error| {
                Outcome::Refused(format!("cannot use the sockets of systemd: {error}"))
            })?;
            return Ok(adopted.into_iter().map(Arc::new).collect());
        }
        let addresses = parse_addresses(&self.config).map_err(Outcome::Refused)?;
        let handed_over = std::mem::take(&mut self.handed_over);
        let (taken, missing) = net::inherit::share_out(handed_over, &addresses);
        let (host, signals) = (&mut *self.host, &self.signals);
        let bound = net::bind_all(&missing, &options, || !told_to_stop(host, signals));
        match bound {
            Ok(bound) => Ok(taken.into_iter().chain(bound).map(Arc::new).collect()),
            Err(error) => {
                log::error!("{error}");
                Err(Outcome::Master(1))
            }
        }
    }

    /// At a reload: keeps the listeners whose address is asked for again and opens the others.
    pub(super) fn listeners_for(&self, config: &Config) -> Result<Vec<Arc<Bound>>, String> {
        if !self.inherited.is_empty() {
            return Ok(self.listeners.clone());
        }
        let addresses = parse_addresses(config)?;
        let is_of = |bound: &Arc<Bound>, address: &BindAddress| bound.address == *address;
        let mut listeners: Vec<_> = addresses
            .iter()
            .flat_map(|address| self.listeners.iter().filter(|bound| is_of(bound, address)))
            .cloned()
            .collect();
        let missing: Vec<_> = addresses
            .into_iter()
            .filter(|address| !listeners.iter().any(|bound| is_of(bound, address)))
            .collect();
        let opened = net::bind_all(&missing, &bind_options(config), || false)
            .map_err(|error| error.to_string())?;
        listeners.extend(opened.into_iter().map(Arc::new));
        Ok(listeners)
    }

    /// At the end; only the first call has something to do. Socket files go; what was handed to us stays.
    pub(super) fn close_listeners(&mut self) {
        let mut closed = std::mem::take(&mut self.listeners);
        if let Some(rollout) = self.rollout.take() {
            closed.extend(rollout.into_listeners());
        }
        self.drop_unused(&closed);
    }

    /// Lets go of the addresses that are not listened to any more. While two masters live (USR2), the other one may
    /// still be found under them.
    pub(super) fn drop_unused(&self, listeners: &[Arc<Bound>]) {
        if self.upgrade.is_some() || self.elder.is_some() {
            return;
        }
        for bound in listeners {
            let is_kept = |kept: &Arc<Bound>| kept.address == bound.address;
            if !self.listeners.iter().any(is_kept) {
                bound.unlink();
            }
        }
    }

    pub(super) fn describe_listeners(&self) -> String {
        net::describe(self.listeners.iter().map(|bound| &bound.listener))
    }
}

pub(super) fn parse_addresses(config: &Config) -> Result<Vec<BindAddress>, String> {
    let parsed: Result<Vec<_>, _> = config.socket.bind.iter().map(|text| text.parse()).collect();
    parsed.map_err(|error: net::AddressError| error.to_string())
}

fn bind_options(config: &Config) -> BindOptions {
    BindOptions {
        backlog: config.socket.backlog,
        umask: config.process.umask,
        queues: if config.socket.reuse_port {
            Some(config.workers.workers.clamp(1, QUEUES_MAX))
        } else {
            None
        },
        owner: Some((config.process.user, config.process.group)),
    }
}

/// Waits a second for TERM, INT or QUIT.
fn told_to_stop(host: &mut dyn Host, signals: &OwnedFd) -> bool {
    let mut waited = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    host.wait(&mut || {
        let _ = poll(&mut waited, PollTimeout::from(1000_u16));
    });
    let stops = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
    signals::arrived(signals)
        .iter()
        .any(|signal| stops.contains(signal))
}

/// More queues than cores are of no use, and each is a descriptor in every worker.
const QUEUES_MAX: usize = 64;
