//! The arbiter's start: everything before the first fork.

use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::unistd::{getpid, pipe2};

use super::admin::Admin;
use super::control::Control;
use super::metrics::Totals;
use super::notify::Notifier;
use super::pidfile::Pidfile;
use super::policy::Backoff;
use super::signals;
use super::stop::Tally;
use super::workers::{WorkerSet, roomy_board};
use super::{Arbiter, Hook, Host, Outcome, Start};
use crate::config::{Config, VERSION};
use crate::fork_guard;
use crate::net::Channels;
use crate::scoreboard::monotonic_ms;

impl<'h> Arbiter<'h> {
    pub(super) fn new(host: &'h mut dyn Host, start: Start) -> Result<Self, String> {
        let board = roomy_board(start.config.workers.workers, start.config.workers.threads);
        let signals = signals::install(&signals::ARBITER_SIGNALS);
        let (nudges, nudge) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .map_err(|errno| format!("no descriptors left: {errno}"))?;
        fork_guard::register(&nudges);
        fork_guard::register(&nudge);
        Ok(Self {
            host,
            nudges,
            nudge,
            templates: Vec::new(),
            pid: getpid(),
            num_workers: start.config.workers.workers,
            inherited: start.inherited,
            handed_over: start.handed_over,
            elder: start.elder,
            upgrade: None,
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
            control: Control::new(),
            started: false,
            stopping: false,
            told: super::statsd::Told::default(),
            stops_at: None,
            marked_at: 0,
            tally: Tally::default(),
            notifier: Notifier::new(&start.supervisor),
            channels: None,
            admin: None,
            totals: Totals::default(),
        })
    }

    /// Everything before the first fork. The error is how the program ends.
    pub(super) fn start(&mut self) -> Result<(), Outcome> {
        let new = self.num_workers;
        self.start_hook(Hook::NworkersChanged { new, old: None })?;
        log::info!("Starting ferricorn {VERSION}");
        self.host.name_process(&self.process_name());
        if let Some(path) = self.pidfile_path() {
            let pidfile = Pidfile::create(&path, self.pid.as_raw());
            self.pidfile = Some(pidfile.map_err(|error| Outcome::Refused(error.to_string()))?);
        }
        self.start_hook(Hook::OnStarting)?;
        self.listeners = self.open_listeners()?;
        log::info!("Listening at: {} ({})", self.describe_listeners(), self.pid);
        self.channels = open_channels(&self.config);
        if let Some(address) = &self.config.control.admin_bind {
            let admin = Admin::open(address, monotonic_ms());
            self.admin = Some(admin.map_err(Outcome::Refused)?);
        }
        let threads = self.config.workers.threads;
        let plural = if threads == 1 { "" } else { "s" };
        log::info!("Using worker: hybrid ({threads} thread{plural})");
        self.start_hook(Hook::WhenReady)
    }

    fn start_hook(&mut self, hook: Hook) -> Result<(), Outcome> {
        self.call_hook(hook).map_err(Outcome::Refused)
    }
}

/// For every worker and its replacement; what goes wrong costs balance only.
fn open_channels(config: &Config) -> Option<Arc<Channels>> {
    if config.workers.workers < 2 {
        return None;
    }
    let count = (config.workers.workers * 2 + 2).min(CHANNELS_MAX);
    match Channels::new(count) {
        Ok(channels) => Some(Arc::new(channels)),
        Err(error) => {
            log::warn!("Connections will not move between workers: {error} (see `ulimit -n`).");
            None
        }
    }
}

/// Workers beyond this many share nothing: each way costs two descriptors in every process.
const CHANNELS_MAX: usize = 64;
