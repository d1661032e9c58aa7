//! The control interface as the arbiter serves it: polled and moved by its loop like everything else.
//!
//! Commands that are signals are sent as signals, to ourselves, so that they are logged and ordered like any other;
//! what only shows is answered at once. Only `stack` takes time: see `stacks`.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::line::{self, Line, WorkerLine};
use super::stacks::Question;
use super::workers::{Stage, WorkerHandle};
use super::{Arbiter, Leave};
use crate::config::Config;
use crate::control::{
    self, ClientId, Clients, Command, ListenerView, OpenError, Request, Socket, View, WorkerView,
};
use crate::net::{BindAddress, Listener};
use crate::scoreboard::{SlotState, monotonic_ms};

#[derive(Debug, Default)]
pub(super) struct Control {
    socket: Option<Socket>,
    /// Whose settings the socket follows.
    followed: Option<Arc<Config>>,
    /// A path that another server had is tried again then.
    retry_at: Option<u64>,
    clients: Clients,
    /// By the worker's age.
    pub(super) lines: BTreeMap<u64, Line>,
    pub(super) questions: Vec<Question>,
    pub(super) last_question: u32,
    counters: Counters,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) started_at: u64,
    pub(super) killed: u64,
    pub(super) reloads: u64,
}

impl Control {
    pub(super) fn new() -> Self {
        Self {
            counters: Counters {
                started_at: monotonic_ms(),
                ..Counters::default()
            },
            ..Self::default()
        }
    }

    pub(super) fn count(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// What the loop's poll waits for on our behalf.
    pub(super) fn waited(&self) -> impl Iterator<Item = PollFd<'_>> {
        use std::os::fd::AsFd as _;
        let listener = self.socket.iter().map(|socket| socket.listener.as_fd());
        let asked = self.questions.iter();
        let asked = asked.filter_map(|question| self.lines.get(&question.age));
        let readable = listener.chain(asked.map(Line::descriptor));
        let readable = readable.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let clients = self.clients.descriptors().map(|(fd, sends)| {
            let wanted = if sends {
                PollFlags::POLLOUT
            } else {
                PollFlags::POLLIN
            };
            PollFd::new(fd, wanted)
        });
        readable.chain(clients)
    }

    /// How long the loop may sleep on our behalf.
    pub(super) fn patience(&self, now: u64) -> u64 {
        let deadlines = self.questions.iter().map(|question| question.deadline);
        let left = deadlines.map(|deadline| deadline.saturating_sub(now).max(1));
        left.min().unwrap_or(u64::MAX)
    }

    /// The ends of a new worker's line. A worker without one cannot be asked for its stacks; nothing else is missing.
    pub(super) fn new_line(&mut self, age: u64) -> Option<WorkerLine> {
        match line::open() {
            Ok((ours, theirs)) => {
                self.lines.insert(age, ours);
                Some(theirs)
            }
            Err(error) => {
                log::warn!("The next worker cannot be asked for its stacks: {error}");
                None
            }
        }
    }

    /// The socket follows its settings, which a reload may change.
    fn follow(&mut self, config: &Arc<Config>, pid: i32, now: u64) {
        let is_followed = self
            .followed
            .as_ref()
            .is_some_and(|followed| Arc::ptr_eq(followed, config) || is_same(followed, config));
        let is_due = self.retry_at.is_some_and(|at| at <= now);
        if is_followed && !is_due {
            return;
        }
        if !is_followed {
            self.close();
            self.followed = Some(Arc::clone(config));
        }
        let tried_before = self.retry_at.take().is_some();
        let Some(path) = &config.control.control_socket else {
            return;
        };
        match Socket::open(path, pid, config.control.control_socket_mode) {
            Ok(socket) => {
                log::info!("Control socket listening at {}", socket.path.display());
                self.socket = Some(socket);
            }
            Err(error) => {
                if matches!(error, OpenError::InUse(_)) {
                    // The other one may be about to leave, as after an upgrade.
                    self.retry_at = Some(now + RETRY_MS);
                }
                if !tried_before {
                    log::warn!("No control socket: {error}");
                }
            }
        }
    }

    /// Answers that cannot be given any more are not given; the file goes.
    pub(super) fn close(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.unlink();
        }
    }

    pub(super) fn answer(&mut self, client: ClientId, id: &Value, outcome: Result<Value, String>) {
        let message = match outcome {
            Ok(data) => json!({"id": id, "status": "ok", "data": data}),
            Err(error) => json!({"id": id, "status": "error", "error": error}),
        };
        self.clients.answer(client, &message, monotonic_ms());
    }
}

fn is_same(a: &Config, b: &Config) -> bool {
    (&a.control.control_socket, a.control.control_socket_mode)
        == (&b.control.control_socket, b.control.control_socket_mode)
}

impl Arbiter<'_> {
    /// Moves everything of the control interface that can be moved. Never blocks.
    pub(super) fn serve_control(&mut self) -> Result<(), Leave> {
        let now = monotonic_ms();
        if !self.stopping {
            self.control.follow(&self.config, self.pid.as_raw(), now);
        }
        self.collect_stacks(now);
        for _ in 0..ROUNDS_PER_TURN {
            let Some(socket) = &self.control.socket else {
                break;
            };
            let requests = self.control.clients.receive(&socket.listener, now);
            for (client, request) in requests {
                self.carry_out(client, request)?;
            }
            if !self.control.clients.have_more() {
                break;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, client: ClientId, request: Request) -> Result<(), Leave> {
        let Request { id, command } = request;
        let outcome = match command {
            Command::Show(topic) => Ok(control::answer(topic, &self.view())),
            Command::Help => Ok(control::help()),
            Command::Dirty => Ok(json!({"success": false, "error": "Dirty arbiter not running"})),
            Command::Stack(pid) => match self.workers.iter().find(|one| one.pid.as_raw() == pid) {
                Some(worker) => {
                    let age = worker.age;
                    self.control.ask(client, id, pid, age);
                    return Ok(());
                }
                None => Err(format!("Worker {pid} not found")),
            },
            Command::Reload => self.signal_self(Signal::SIGHUP, json!({"status": "reloading"})),
            Command::Reopen => self.signal_self(Signal::SIGUSR1, json!({"status": "reopening"})),
            Command::Shutdown { quick: false } => {
                let data = json!({"status": "shutting_down", "mode": "graceful"});
                self.signal_self(Signal::SIGTERM, data)
            }
            Command::Shutdown { quick: true } => {
                let data = json!({"status": "shutting_down", "mode": "quick"});
                self.signal_self(Signal::SIGINT, data)
            }
            Command::WorkerAdd(_) | Command::WorkerRemove(_) | Command::WorkerKill(_)
                if self.is_stopping() =>
            {
                Err("The server is stopping".to_owned())
            }
            Command::WorkerAdd(count) => {
                let before = self.num_workers;
                self.backoff.forget();
                self.change_num_workers(isize::try_from(count).unwrap_or(0))?;
                Ok(json!({"added": count, "previous": before, "total": self.num_workers}))
            }
            Command::WorkerRemove(count) => {
                let before = self.num_workers;
                let removed = count.min(before.saturating_sub(1));
                if removed > 0 {
                    self.change_num_workers(-isize::try_from(removed).unwrap_or(0))?;
                }
                let total = self.num_workers;
                Ok(json!({"removed": removed, "previous": before, "total": total}))
            }
            Command::WorkerKill(pid) => Ok(self.replace_worker(pid)),
        };
        self.control.answer(client, &id, outcome);
        Ok(())
    }

    /// Also while `stop_delay` runs.
    fn is_stopping(&self) -> bool {
        self.stopping || self.stops_at.is_some()
    }

    /// The loop handles it like one that an operator has sent.
    fn signal_self(&self, signal: Signal, data: Value) -> Result<Value, String> {
        match kill(self.pid, signal) {
            Ok(()) => Ok(data),
            Err(errno) => Err(errno.desc().to_owned()),
        }
    }

    /// It gets TERM, and as one that is to go it is replaced at once.
    fn replace_worker(&mut self, pid: i32) -> Value {
        let now = monotonic_ms();
        let mut workers = self.workers.iter_mut();
        let Some(worker) = workers.find(|worker| worker.pid.as_raw() == pid) else {
            return json!({"success": false, "error": format!("Worker {pid} not found")});
        };
        worker.send(Signal::SIGTERM);
        if matches!(worker.stage, Stage::Booting | Stage::Serving) {
            worker.enter(Stage::Retiring, now);
        }
        json!({"success": true, "killed": pid})
    }

    fn view(&self) -> View<'_> {
        View {
            pid: self.pid.as_raw(),
            now: monotonic_ms(),
            started_at: self.control.counters.started_at,
            stopping: self.is_stopping(),
            config: &self.config,
            target: self.num_workers,
            spawned: self.age,
            killed: self.control.counters.killed,
            reloads: self.control.counters.reloads,
            workers: self.workers.iter().map(worker_view).collect(),
            listeners: self
                .listeners
                .iter()
                .map(|one| listener_view(one))
                .collect(),
        }
    }
}

fn worker_view(worker: &WorkerHandle) -> WorkerView<'_> {
    WorkerView {
        pid: worker.pid.as_raw(),
        age: worker.age,
        generation: worker.generation,
        forked_at: worker.forked_at,
        booted: matches!(
            worker.slot().state(),
            SlotState::Serving | SlotState::Draining
        ),
        aborted: matches!(worker.stage, Stage::Aborted | Stage::Killed),
        retiring: worker.stage == Stage::Retiring,
        slot: worker.slot(),
    }
}

fn listener_view(bound: &crate::net::Bound) -> ListenerView {
    use std::os::fd::AsFd as _;
    let is_ipv6 = match &bound.listener {
        Listener::Tcp(listener) => listener.local_addr().is_ok_and(|address| address.is_ipv6()),
        Listener::Unix(_) => false,
    };
    ListenerView {
        address: match &bound.address {
            BindAddress::Abstract(name) => format!("unix:@{}", name.escape_ascii()),
            _ => bound.listener.to_string(),
        },
        fd: bound.listener.as_fd().as_raw_fd(),
        is_unix: matches!(bound.listener, Listener::Unix(_)),
        is_ipv6,
    }
}

const RETRY_MS: u64 = 2000;
/// Requests that one client may have answered in one turn of the loop.
const ROUNDS_PER_TURN: usize = 16;
