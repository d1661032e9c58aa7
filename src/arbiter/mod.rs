//! The arbiter: the master process. It owns the listeners, starts workers and keeps them running.
//!
//! One thread, one loop, gunicorn's: wait at most a second for a signal or a worker's readiness byte; act on
//! signals in the order they came; bury the dead; kill the silent; start and retire so that `num_workers`
//! serve.
//!
//! Invariants:
//! - It never starts a thread and never imports the application (`--preload` is the business of a process of its
//!   own, see `template`): that is what makes its forks safe.
//! - `run` returns twice: in the arbiter with an exit code, and in every worker with its `WorkerSeat`.
//!   Nothing that is dropped on the way out of it removes a file.
//! - What to do is decided in `policy`, by functions without side effects; what is done is done here.

mod admin;
mod burial;
mod control;
mod fork;
mod host;
mod line;
mod listeners;
mod metrics;
mod notify;
mod pidfile;
mod policy;
mod recycle;
mod reload;
pub mod signals;
mod stacks;
mod start;
mod statsd;
mod stop;
mod template;
mod upgrade;
mod workers;

use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, read};

pub use fork::WorkerSeat;
pub use host::{Forked, Hook, HookEvent, Host, WorkerView};
pub use line::{WorkerLine, dump_signal};
pub use notify::Supervisor;
pub use policy::{EXIT_APP_LOAD, EXIT_BOOT};
pub use template::{Order, TemplateSeat};

use self::admin::Admin;
use self::control::Control;
use self::metrics::Totals;
use self::notify::Notifier;
use self::pidfile::Pidfile;
use self::policy::{Backoff, Wish};
use self::reload::Rollout;
use self::stop::Tally;
use self::template::Template;
use self::workers::{News, Stage, WorkerHandle, WorkerSet};
use crate::config::Config;
use crate::net::{self, Bound, Channels, Listener};
use crate::scoreboard::{Scoreboard, monotonic_ms};

/// What the arbiter starts from.
#[derive(Debug)]
pub struct Start {
    pub config: Arc<Config>,
    /// Descriptors of listening sockets that systemd passed: used instead of `bind`.
    pub inherited: Vec<RawFd>,
    /// Listening sockets of the master whose successor we are to be, and that master.
    pub handed_over: Vec<Listener>,
    pub elder: Option<Pid>,
    /// systemd.
    pub supervisor: Supervisor,
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
    /// Idem: it imports the application and forks workers (`--preload`).
    Template(Box<TemplateSeat>),
}

/// Why the loop is left.
enum Leave {
    Child(Box<WorkerSeat>),
    Template(Box<TemplateSeat>),
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
        Leave::Template(seat) => Outcome::Template(seat),
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
    handed_over: Vec<Listener>,
    /// The master that lives beside us: the one before us, until it is gone, or the one after us.
    elder: Option<Pid>,
    upgrade: Option<Pid>,
    listeners: Vec<Arc<Bound>>,
    pidfile: Option<Pidfile>,
    signals: OwnedFd,
    /// Both ends of the pipe on which workers say "look at my slot".
    nudges: OwnedFd,
    nudge: OwnedFd,
    templates: Vec<Template>,
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
    control: Control,
    /// All workers of the first start have served.
    started: bool,
    stopping: bool,
    told: statsd::Told,
    /// TERM has come, and `stop_delay` is over then.
    stops_at: Option<u64>,
    /// When ages and memory were last looked at.
    marked_at: u64,
    tally: Tally,
    notifier: Notifier,
    /// Between the workers.
    channels: Option<Arc<Channels>>,
    /// `admin_bind`.
    admin: Option<Admin>,
    /// What buried workers have counted.
    totals: Totals,
}

impl Arbiter<'_> {
    fn serve(&mut self) -> Result<std::convert::Infallible, Leave> {
        self.manage()?;
        self.tell_metrics();
        self.serve_control()?;
        loop {
            for signal in self.wait(LOOP_MS) {
                self.handle(signal)?;
            }
            self.promote();
            self.hear();
            self.reap()?;
            self.murder();
            self.serve_control()?;
            self.mark_worn_out();
            self.manage()?;
            self.tell_metrics();
            self.notify_status();
            if self.stops_at.is_some_and(|at| at <= monotonic_ms()) {
                return Err(Leave::Stop { graceful: true });
            }
        }
    }

    /// Waits for signals and for workers that have something to say, without the GIL.
    fn wait(&mut self, at_most_ms: u64) -> Vec<Signal> {
        let now = monotonic_ms();
        let pause = self.backoff.remaining(now);
        let stop = self.stops_at.map(|at| at.saturating_sub(now));
        let timeout = at_most_ms
            .min(self.control.patience(now))
            .min(self.keep_watchdog())
            .min(if pause > 0 { pause } else { at_most_ms })
            .min(stop.unwrap_or(at_most_ms));
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut waited = template::importing(&self.templates);
        waited.extend([self.signals.as_fd(), self.nudges.as_fd()]);
        let mut waited: Vec<_> = waited
            .into_iter()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .chain(self.admin.iter().flat_map(Admin::waited))
            .collect();
        waited.extend(self.control.waited());
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
            Signal::SIGTERM => self.begin_stop(),
            Signal::SIGINT | Signal::SIGQUIT => Err(Leave::Stop { graceful: false }),
            Signal::SIGUSR1 => {
                self.host.reopen_logs();
                self.workers.send_all(Signal::SIGUSR1);
                Ok(())
            }
            // What changes the workers is of no use to a server that is about to stop.
            _ if self.stops_at.is_some() => {
                log::info!("Signal {name} has no effect: the server is about to stop.");
                Ok(())
            }
            Signal::SIGHUP => self.reload(),
            Signal::SIGTTIN => {
                self.backoff.forget();
                self.change_num_workers(1)
            }
            Signal::SIGTTOU if self.num_workers > 1 => self.change_num_workers(-1),
            Signal::SIGUSR2 => self.start_upgrade(),
            Signal::SIGWINCH => self.on_winch(),
            _ => Ok(()),
        }
    }

    /// TTIN and TTOU. A reload that comes to nothing must not take the operator's change back.
    fn change_num_workers(&mut self, by: isize) -> Result<(), Leave> {
        if let Some(rollout) = &mut self.rollout {
            rollout.previous_workers = rollout.previous_workers.saturating_add_signed(by).max(1);
        }
        self.set_num_workers(self.num_workers.saturating_add_signed(by))
    }

    fn set_num_workers(&mut self, new: usize) -> Result<(), Leave> {
        let old = Some(std::mem::replace(&mut self.num_workers, new));
        self.hook(Hook::NworkersChanged { new, old })
    }

    /// Hears what the workers have to say.
    fn hear(&mut self) {
        let now = monotonic_ms();
        while let Ok(1..) = read(&self.nudges, &mut [0; 64]) {}
        for worker in self.workers.iter_mut() {
            match worker.look(now) {
                News::None => {}
                News::Serves => {
                    log::debug!("Worker (pid:{}) serves", worker.pid);
                    if let Some(rollout) = &mut self.rollout {
                        rollout.proven |= worker.generation == self.generation;
                    }
                }
                News::Leaves => log::debug!("Worker (pid:{}) leaves", worker.pid),
            }
        }
        self.hear_templates();
        self.started |= self.workers.count(Stage::Serving) >= self.num_workers;
    }

    fn manage(&mut self) -> Result<(), Leave> {
        let unproven = self.rollout.as_ref().filter(|rollout| !rollout.proven);
        let wish = Wish {
            target: self.num_workers,
            generation: self.generation,
            unproven: unproven.map(|rollout| rollout.previous_workers),
            reload_surge: self.config.lifecycle.reload_surge,
            max_retiring: self.config.lifecycle.max_retiring,
        };
        let plan = policy::plan(&wish, &self.workers.members());
        let now = monotonic_ms();
        for age in plan.retire {
            if let Some(worker) = self.workers.by_age(age) {
                worker.send(Signal::SIGTERM);
                worker.enter(Stage::Retiring, now);
            }
        }
        if plan.is_current && wish.unproven.is_none() {
            self.finish_rollout();
        }
        if plan.spawn > 0 && self.config.app.preload_app && !self.has_template()? {
            return Ok(());
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
        self.host.hook(&HookEvent {
            hook,
            pid: self.pid.as_raw(),
            num_workers: self.num_workers,
            workers: self.workers.iter().map(WorkerHandle::view).collect(),
            listeners: net::faces(&self.listeners),
            config: &self.config,
        })
    }

    /// A master that lives beside the one before it writes another file.
    fn pidfile_path(&self) -> Option<PathBuf> {
        let mut path = self.config.process.pidfile.clone()?.into_os_string();
        if self.elder.is_some() {
            path.push(".2");
        }
        Some(path.into())
    }

    /// The pidfile follows its setting at a reload.
    fn move_pidfile(&mut self) {
        let wanted = self.pidfile_path();
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

/// The longest sleep of the loop.
const LOOP_MS: u64 = 1000;
/// gunicorn's `sys.exit(-1)`.
const EXIT_UNHANDLED: i32 = 255;
const EXIT_WORKER_LOST: i32 = 1;
