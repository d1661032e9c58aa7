//! The control interface as the arbiter serves it: polled and moved by its loop like everything else.
//!
//! Commands that are signals are sent as signals, to this process, so that they are logged and ordered like any other;
//! what only shows is answered at once. Only `stack` takes time: see `stack_requests`.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::children::Children;
use super::stack_requests::{Asker, StackError, StackRequests};
use super::supervision::Stage;
use super::worker_handle::WorkerHandle;
use crate::config::Config;
use crate::control::{
    ClientId, Clients, ControlSocket, ListenerView, OpenError, Request, WorkerView,
};
use crate::net::{BindAddress, Bound, Listener};
use crate::scoreboard::{SlotState, monotonic_ms};

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("Worker {0} not found")]
    NoWorker(i32),
    #[error("The server is stopping")]
    Stopping,
    #[error("{}", .0.desc())]
    Signal(nix::errno::Errno),
}

/// The socket, its clients, and what they wait for.
#[derive(Debug, Default)]
pub(super) struct ControlServer {
    socket: Option<ControlSocket>,
    /// Whose settings the socket follows.
    followed: Option<Arc<Config>>,
    /// A path that another server had is tried again then.
    retry_at: Option<u64>,
    clients: Clients,
    stacks: StackRequests,
}

impl ControlServer {
    pub(super) fn stacks(&mut self) -> &mut StackRequests {
        &mut self.stacks
    }

    /// What the loop's poll waits for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = PollFd<'_>> {
        let listener = self.socket.iter().map(|socket| socket.listener().as_fd());
        let listener = listener.filter(|_| self.clients.are_accepted());
        let readable = listener.chain(self.stacks.descriptors());
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

    /// Milliseconds that the loop may sleep.
    pub(super) fn patience(&self, now: u64) -> Option<u64> {
        let patience = [self.stacks.patience(now), self.clients.patience(now)];
        patience.into_iter().flatten().min()
    }

    /// The socket follows its settings, which a reload may change.
    pub(super) fn follow(&mut self, config: &Arc<Config>, pid: i32, now: u64) {
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
        match ControlSocket::open(path, pid, config.control.control_socket_mode) {
            Ok(socket) => {
                log::info!("Control socket listening at {}", socket.path().display());
                self.socket = Some(socket);
            }
            Err(error) => {
                if matches!(error, OpenError::InUse(_)) {
                    // The other server may be about to leave, as after an upgrade.
                    self.retry_at = Some(now + RETRY_MS);
                }
                if !tried_before {
                    log::warn!("No control socket: {error}");
                }
            }
        }
    }

    /// Requests that are whole, at most one of each client, and whether there may be more.
    pub(super) fn receive(&mut self, now: u64) -> Vec<(ClientId, Request)> {
        match &self.socket {
            Some(socket) => self.clients.receive(socket.listener(), now),
            None => Vec::new(),
        }
    }

    pub(super) fn have_more(&self) -> bool {
        self.socket.is_some() && self.clients.have_more()
    }

    pub(super) fn answer<E: std::fmt::Display>(
        &mut self,
        client: ClientId,
        id: &Value,
        result: Result<Value, E>,
    ) {
        let message = match result {
            Ok(data) => json!({"id": id, "status": "ok", "data": data}),
            Err(error) => json!({"id": id, "status": "error", "error": error.to_string()}),
        };
        self.clients.answer(client, &message, monotonic_ms());
    }

    /// Asks a worker for its stacks; they are passed on when they come.
    pub(super) fn request_stacks(
        &mut self,
        client: ClientId,
        id: &Value,
        pid: i32,
        (children, now): (&Children, u64),
    ) {
        let requested = match children.by_pid(Pid::from_raw(pid)) {
            Some(worker) => {
                let asker = Asker::Control(client, id.clone());
                self.stacks.request(asker, worker, now)
            }
            None => {
                return self.answer::<CommandError>(client, id, Err(CommandError::NoWorker(pid)));
            }
        };
        if let Err(error) = requested {
            self.answer::<_>(client, id, Err(error));
        }
    }

    /// Passes on the stacks that have come. Returns those for connections of `admin_bind`.
    pub(super) fn answer_stacks(
        &mut self,
        children: &Children,
        now: u64,
    ) -> Vec<(u64, Result<Value, StackError>)> {
        let mut others = Vec::new();
        for answer in self.stacks.collect(children, now) {
            match answer.asker {
                Asker::Control(client, id) => self.answer(client, &id, answer.result),
                Asker::Admin(number) => others.push((number, answer.result)),
            }
        }
        others
    }

    /// Answers that cannot be given any more are not given; the file is removed.
    pub(super) fn close(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.unlink();
        }
    }
}

fn is_same(a: &Config, b: &Config) -> bool {
    let (a, b) = (&a.control, &b.control);
    (&a.control_socket, a.control_socket_mode) == (&b.control_socket, b.control_socket_mode)
}

/// The loop handles it like one that an operator has sent.
pub(super) fn signal_self(pid: Pid, signal: Signal, data: Value) -> Result<Value, CommandError> {
    match kill(pid, signal) {
        Ok(()) => Ok(data),
        Err(errno) => Err(CommandError::Signal(errno)),
    }
}

/// It gets TERM, and as one that is to go it is replaced at once.
pub(super) fn replace_worker(children: &mut Children, pid: i32, now: u64) -> Value {
    let Some(worker) = children.by_pid_mut(Pid::from_raw(pid)) else {
        let error = CommandError::NoWorker(pid).to_string();
        return json!({"success": false, "error": error});
    };
    match worker.stage() {
        Stage::Booting | Stage::Serving => worker.retire(Signal::SIGTERM, now),
        _ => worker.send(Signal::SIGTERM),
    }
    json!({"success": true, "killed": pid})
}

/// A worker as `show workers` shows it.
pub(super) fn worker_view(worker: &WorkerHandle) -> WorkerView<'_> {
    WorkerView {
        pid: worker.pid().as_raw(),
        age: worker.age(),
        generation: worker.generation(),
        forked_at: worker.forked_at(),
        booted: matches!(
            worker.slot().reported_state(),
            SlotState::Serving | SlotState::Draining
        ),
        aborted: matches!(worker.stage(), Stage::Aborted | Stage::Killed),
        retiring: worker.stage() == Stage::Retiring,
        slot: worker.slot(),
    }
}

/// A listener as `show listeners` shows it.
pub(super) fn listener_view(bound: &Bound) -> ListenerView {
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
