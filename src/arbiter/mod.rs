//! The arbiter: the master process. It owns the listeners, starts workers and keeps them running.
//!
//! One thread, one loop, gunicorn's: wait at most a second for a signal or a worker's readiness byte; act on
//! signals in the order they came; bury the dead; kill the silent; start and retire so that `num_workers`
//! serve.
//!
//! Invariants:
//! - It never starts a thread and never imports the application (but `--preload`, which the launcher does
//!   before): that is what makes its forks safe.
//! - `run` returns twice: in the arbiter with an exit code, and in every worker with its `WorkerSeat`.
//!   Nothing that is dropped on the way out of it removes a file.
//! - What to do is decided in `policy`, by functions without side effects; what is done is done here.

mod admin;
mod burial;
mod fork;
mod host;
mod metrics;
mod pidfile;
mod policy;
mod reload;
pub mod signals;
mod statsd;
mod stop;
mod workers;

use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid};

pub use fork::WorkerSeat;
pub use host::{Forked, Hook, HookEvent, Host, WorkerView};
pub use policy::{EXIT_APP_LOAD, EXIT_BOOT};

use self::admin::Admin;
use self::metrics::Totals;
use self::pidfile::Pidfile;
use self::policy::Backoff;
use self::reload::{Rollout, bind_options, parse_addresses};
use self::workers::{Stage, WorkerHandle, WorkerSet, roomy_board};
use crate::config::{Config, VERSION};
use crate::net::{self, Bound, Channels};
use crate::scoreboard::{Scoreboard, monotonic_ms};

/// What the arbiter starts from.
#[derive(Debug)]
pub struct Start {
    pub config: Arc<Config>,
    /// Descriptors of listening sockets that systemd passed: used instead of `bind`.
    pub inherited: Vec<RawFd>,
}

/// How `run` ended, and in which process.
#[derive(Debug)]
pub enum Outcome {
    /// The server is done; this is its exit code.
    Master(i32),
    /// It could not start, for this reason: one line for the operator, exit code 1.
    Refused(String),
    /// We are in a forked child: the caller becomes this worker.
    Worker(Box<WorkerSeat>),
}

/// Why the loop is left.
enum Leave {
    Child(Box<WorkerSeat>),
    /// In a child that cannot become a worker.
    ChildFailed,
    Stop {
        graceful: bool,
    },
    Halt {
        reason: &'static str,
        code: i32,
    },
    /// A hook raised.
    Failed(String),
}

/// Runs the server until it stops. Returns in workers too: see `Outcome`.
pub fn run(host: &mut dyn Host, start: Start) -> Outcome {
    let mut arbiter = match Arbiter::new(host, start) {
        Ok(arbiter) => arbiter,
        Err(reason) => return Outcome::Refused(reason),
    };
    if let Err(refused) = arbiter.start() {
        arbiter.unlink_files();
        return refused;
    }
    let Err(leave) = arbiter.serve();
    match leave {
        Leave::Child(seat) => Outcome::Worker(seat),
        Leave::ChildFailed => Outcome::Master(EXIT_WORKER_LOST),
        Leave::Stop { graceful } => Outcome::Master(arbiter.halt(graceful, None, 0)),
        Leave::Halt { reason, code } => Outcome::Master(arbiter.halt(true, Some(reason), code)),
        Leave::Failed(reason) => {
            log::error!("Unhandled exception in main loop");
            log::error!("{reason}");
            arbiter.stop(false);
            arbiter.unlink_files();
            Outcome::Master(EXIT_UNHANDLED)
        }
    }
}

struct Arbiter<'h> {
    host: &'h mut dyn Host,
    pid: Pid,
    config: Arc<Config>,
    /// What TTIN and TTOU made of the setting.
    num_workers: usize,
    inherited: Vec<RawFd>,
    listeners: Vec<Arc<Bound>>,
    pidfile: Option<Pidfile>,
    signals: OwnedFd,
    board: Arc<Scoreboard>,
    workers: WorkerSet,
    /// Of the youngest worker.
    age: u64,
    /// Of the workers that are started now. The next reload gets `next_generation + 1`, also after one that
    /// was given up.
    generation: u32,
    next_generation: u32,
    rollout: Option<Rollout>,
    backoff: Backoff,
    /// All workers of the first start have served.
    started: bool,
    stopping: bool,
    told: statsd::Told,
    /// Between the workers.
    channels: Option<Arc<Channels>>,
    /// `admin_bind`.
    admin: Option<Admin>,
    /// What buried workers have counted.
    totals: Totals,
}

impl<'h> Arbiter<'h> {
    fn new(host: &'h mut dyn Host, start: Start) -> Result<Self, String> {
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
            told: statsd::Told::default(),
            channels: None,
            admin: None,
            totals: Totals::default(),
        })
    }

    /// Everything before the first fork. The error is how the program ends.
    fn start(&mut self) -> Result<(), Outcome> {
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
        self.channels = open_channels(&self.config);
        if let Some(address) = &self.config.admin_bind {
            let admin = Admin::open(address, monotonic_ms());
            self.admin = Some(admin.map_err(Outcome::Refused)?);
        }
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

    fn serve(&mut self) -> Result<std::convert::Infallible, Leave> {
        self.manage()?;
        self.tell_metrics();
        loop {
            for signal in self.wait(LOOP_MS) {
                self.handle(signal)?;
            }
            self.note_booted();
            self.reap()?;
            self.murder();
            self.manage()?;
            self.tell_metrics();
        }
    }

    /// Waits for signals and readiness bytes, without the GIL.
    fn wait(&mut self, at_most_ms: u64) -> Vec<Signal> {
        let pause = self.backoff.remaining(monotonic_ms());
        let timeout = if pause > 0 {
            at_most_ms.min(pause)
        } else {
            at_most_ms
        };
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut waited: Vec<_> = self.workers.boot_pipes();
        waited.push(self.signals.as_fd());
        let mut waited: Vec<_> = waited
            .into_iter()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .chain(self.admin.iter().flat_map(Admin::waited))
            .collect();
        self.host.wait(&mut || {
            // A signal interrupts the poll, but then its byte is in the pipe; other errors cannot occur.
            let _ = poll(&mut waited, timeout);
        });
        self.tend_admin();
        signals::arrived(&self.signals)
    }

    fn handle(&mut self, signal: Signal) -> Result<(), Leave> {
        let name = signals::name(signal);
        if signal == Signal::SIGCHLD {
            log::debug!("Handling signal: {name}");
            return Ok(());
        }
        log::info!("Handling signal: {name}");
        match signal {
            Signal::SIGTERM => Err(Leave::Stop { graceful: true }),
            Signal::SIGINT | Signal::SIGQUIT => Err(Leave::Stop { graceful: false }),
            Signal::SIGHUP => self.reload(),
            Signal::SIGTTIN => {
                self.backoff.forget();
                self.set_num_workers(self.num_workers + 1)
            }
            Signal::SIGTTOU if self.num_workers > 1 => self.set_num_workers(self.num_workers - 1),
            Signal::SIGUSR1 => {
                self.host.reopen_logs();
                self.workers.send_all(Signal::SIGUSR1);
                Ok(())
            }
            Signal::SIGUSR2 | Signal::SIGWINCH => {
                log::warn!("Signal {name} has no effect: upgrading in place is not available yet.");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn set_num_workers(&mut self, new: usize) -> Result<(), Leave> {
        let old = Some(std::mem::replace(&mut self.num_workers, new));
        self.hook(Hook::NworkersChanged { new, old })
    }

    fn note_booted(&mut self) {
        let now = monotonic_ms();
        for worker in self.workers.iter_mut() {
            if worker.read_booted(now) {
                log::debug!("Worker (pid:{}) serves", worker.pid);
            }
        }
        let serving = |worker: &&WorkerHandle| worker.stage == Stage::Serving;
        self.started |= self.workers.iter().filter(serving).count() >= self.num_workers;
    }

    fn manage(&mut self) -> Result<(), Leave> {
        let generation = self.rollout.as_ref().map(|_| self.generation);
        let plan = policy::plan(self.num_workers, generation, &self.workers.members());
        let now = monotonic_ms();
        for age in plan.retire {
            if let Some(worker) = self.workers.by_age(age) {
                worker.send(Signal::SIGTERM);
                worker.enter(Stage::Retiring, now);
            }
        }
        if plan.rolled_out {
            self.finish_rollout();
        }
        for _ in 0..plan.spawn {
            if self.backoff.remaining(now) == 0 {
                self.spawn()?;
            }
        }
        Ok(())
    }

    fn hook(&mut self, hook: Hook) -> Result<(), Leave> {
        self.call_hook(hook).map_err(Leave::Failed)
    }

    fn call_hook(&mut self, hook: Hook) -> Result<(), String> {
        let view = |worker: &WorkerHandle| WorkerView {
            pid: Some(worker.pid.as_raw()),
            age: worker.age,
        };
        self.host.hook(&HookEvent {
            hook,
            pid: self.pid.as_raw(),
            num_workers: self.num_workers,
            workers: self.workers.iter().map(view).collect(),
            config: &self.config,
        })
    }

    fn describe_listeners(&self) -> String {
        net::describe(self.listeners.iter().map(|bound| &bound.listener))
    }

    /// The pidfile follows its setting at a reload.
    fn move_pidfile(&mut self) {
        let wanted = self.config.pidfile.clone();
        if self.pidfile.as_ref().map(Pidfile::path) == wanted.as_deref() {
            return;
        }
        let created = wanted.map(|path| Pidfile::create(&path, self.pid.as_raw()));
        match created.transpose() {
            Ok(pidfile) => {
                if let Some(old) = std::mem::replace(&mut self.pidfile, pidfile) {
                    old.unlink();
                }
            }
            Err(error) => log::error!("{error}"),
        }
    }
}

/// For every worker and its replacement; what goes wrong costs balance only.
fn open_channels(config: &Config) -> Option<Arc<Channels>> {
    if config.workers < 2 {
        return None;
    }
    let count = (config.workers * 2 + 2).min(CHANNELS_MAX);
    match Channels::new(count) {
        Ok(channels) => Some(Arc::new(channels)),
        Err(error) => {
            log::warn!("Connections will not move between workers: {error} (see `ulimit -n`).");
            None
        }
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

/// Workers beyond this many share nothing: each way costs two descriptors in every process.
const CHANNELS_MAX: usize = 64;
/// The longest sleep of the loop.
const LOOP_MS: u64 = 1000;
/// gunicorn's `sys.exit(-1)`.
const EXIT_UNHANDLED: i32 = 255;
const EXIT_WORKER_LOST: i32 = 1;
