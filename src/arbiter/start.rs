//! The arbiter's start: everything before the first fork.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::getpid;

use super::pidfile::Pidfile;
use super::policy::Backoff;
use super::reload::parse_addresses;
use super::signals;
use super::stop::Tally;
use super::workers::{WorkerSet, roomy_board};
use super::{Arbiter, Hook, Host, Outcome, Start};
use crate::config::{Config, VERSION};
use crate::net::{self, BindOptions, Bound};

impl<'h> Arbiter<'h> {
    pub(super) fn new(host: &'h mut dyn Host, start: Start) -> Result<Self, String> {
        let board = roomy_board(start.config.workers, start.config.threads);
        let signals = signals::install(&signals::ARBITER_SIGNALS);
        Ok(Self {
            host,
            pid: getpid(),
            num_workers: start.config.workers,
            inherited: start.inherited,
            listeners: Vec::new(),
            pidfile: None,
            signals: signals.map_err(|error| format!("signals cannot be handled: {error}"))?,
            board: board.map_err(|error| format!("no memory for the scoreboard: {error}"))?,
            config: start.config,
            workers: WorkerSet::default(),
            age: 0,
            generation: 1,
            next_generation: 1,
            rollout: None,
            backoff: Backoff::default(),
            started: false,
            stopping: false,
            stops_at: None,
            marked_at: 0,
            tally: Tally::default(),
        })
    }

    /// Everything before the first fork. The error is how the program ends.
    pub(super) fn start(&mut self) -> Result<(), Outcome> {
        let new = self.num_workers;
        self.start_hook(Hook::NworkersChanged { new, old: None })?;
        log::info!("Starting ferricorn {VERSION}");
        if let Some(path) = &self.config.pidfile {
            let pidfile = Pidfile::create(path, self.pid.as_raw());
            self.pidfile = Some(pidfile.map_err(|error| Outcome::Refused(error.to_string()))?);
        }
        self.start_hook(Hook::OnStarting)?;
        self.listeners = self.open_listeners()?;
        log::info!("Listening at: {} ({})", self.describe_listeners(), self.pid);
        let threads = self.config.threads;
        let plural = if threads == 1 { "" } else { "s" };
        log::info!("Using worker: hybrid ({threads} thread{plural})");
        self.start_hook(Hook::WhenReady)
    }

    fn start_hook(&mut self, hook: Hook) -> Result<(), Outcome> {
        self.call_hook(hook).map_err(Outcome::Refused)
    }

    fn open_listeners(&mut self) -> Result<Vec<Arc<Bound>>, Outcome> {
        let options = bind_options(&self.config);
        if !self.inherited.is_empty() {
            let adopted = net::adopt_all(&self.inherited, &options);
            let adopted = adopted.map_err(|error| {
                Outcome::Refused(format!("cannot use the sockets of systemd: {error}"))
            })?;
            return Ok(adopted.into_iter().map(Arc::new).collect());
        }
        let addresses = parse_addresses(&self.config).map_err(Outcome::Refused)?;
        let (host, signals) = (&mut *self.host, &self.signals);
        let bound = net::bind_all(&addresses, &options, || !told_to_stop(host, signals));
        match bound {
            Ok(bound) => Ok(bound.into_iter().map(Arc::new).collect()),
            Err(error) => {
                log::error!("{error}");
                Err(Outcome::Master(1))
            }
        }
    }
}

pub(super) fn bind_options(config: &Config) -> BindOptions {
    BindOptions {
        backlog: config.backlog,
        umask: config.umask,
        reuse_port: config.reuse_port,
        owner: Some((config.user, config.group)),
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
