//! `--preload`: a fork server per generation imports the application and forks that generation's workers.
//!
//! The arbiter itself imports nothing, so a reload can import anew: HUP starts another fork server with the code of
//! then. Memory is shared between a fork server and its workers as gunicorn's is between master and workers.
//!
//! - A worker's birth moves the fork server below the worker: one process forks the worker, the worker forks the process
//!   that goes on, and the first leaves at once (`fork_guard::fork_with_successor`). The arbiter is a subreaper (prctl(2),
//!   `PR_SET_CHILD_SUBREAPER`), so the worker becomes its child: it is signalled, reaped and watched like any. Its children
//!   are the workers and no process besides, as in gunicorn; monitors count them. The youngest worker has the fork server:
//!   TTOU takes the oldest. When that worker ends the arbiter adopts the fork server, until the worker's replacement.
//! - An application with threads or children keeps the fork server where it is, because they do not move. Then the process between
//!   fork server and worker leaves at once, and the fork server stays the arbiter's child.
//! - The arbiter sends spawn requests and goes on; a response is read when it comes. So a fork server that hangs, be it
//!   stopped or in a `pre_fork` hook, holds up nothing but its own workers. After 30 s it is killed.
//! - A response names a pid. Only the fork server can write it, and it is taken only when the kernel confirms that it is a
//!   child of this process. The worker waits at its control channel until then, so that none serves unknown.
//! - The fork server of the generation before stays until a worker of the new one has served: after a reload that
//!   fails, workers that die are replaced by the code that they ran.
//! - The end of the socket ends a fork server. Its workers do not notice.

mod context;
mod server;
mod wire;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Pid;

use self::server::ForkServer;
pub(super) use self::server::ServerExit;
use self::wire::Message;
use super::children::{is_child, is_gone};
use super::control_channel::WorkerChannel;
use super::supervision::{ExitStatus, Member, Stage};
use super::worker_handle::Birth;
use crate::scoreboard::Scoreboard;

pub use context::{ForkServerContext, Place, SpawnRequest};

/// All fork servers, and the spawn requests that they have not answered.
#[derive(Debug, Default)]
pub(super) struct ForkServers {
    servers: Vec<ForkServer>,
    pending: Vec<Pending>,
    /// Answers that were found before they were asked for.
    answers: Vec<SpawnAnswer>,
    /// Unknown children that were reaped while spawn requests were pending: one may be the worker of an answer to come.
    strangers: Vec<(Pid, ExitStatus)>,
}

/// A spawn request under way.
#[derive(Debug)]
struct Pending {
    birth: Birth,
    server: Pid,
    deadline: u64,
    /// The worker is to leave as soon as it exists.
    is_cancelled: bool,
}

/// What became of a spawn request.
#[derive(Debug)]
pub(super) struct SpawnAnswer {
    pub(super) birth: Birth,
    pub(super) is_cancelled: bool,
    pub(super) result: Result<Spawned, SpawnError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spawned {
    Lives(Pid),
    /// It ended before it was known.
    Ended(Pid, ExitStatus),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    #[error("the fork server could not fork")]
    NotForked,
    #[error("the fork server is gone")]
    ServerGone,
    #[error("the fork server named process {0}, which is not a child of this process")]
    Stranger(i32),
    #[error("the fork server cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
}

/// Whether workers of a generation can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// There is no fork server.
    None,
    /// It imports, or is about to be reaped.
    Soon,
    Ready,
}

impl ForkServers {
    /// A fork server has been forked; `control` is this side of its socket.
    pub(super) fn add(
        &mut self,
        pid: Pid,
        generation: u32,
        control: OwnedFd,
        scoreboard: Arc<Scoreboard>,
        now: u64,
    ) {
        log::info!("Preloading the application (pid:{pid})");
        let server = ForkServer::new(pid, generation, control, scoreboard, now);
        self.servers.push(server);
    }

    pub(super) fn availability(&self, generation: u32) -> Availability {
        let of_generation = |server: &ForkServer| server.generation() == generation;
        if self.ready(generation).is_some() {
            Availability::Ready
        } else if self.servers.iter().any(of_generation) {
            Availability::Soon
        } else {
            Availability::None
        }
    }

    fn ready(&self, generation: u32) -> Option<&ForkServer> {
        let is_it = |server: &&ForkServer| server.generation() == generation && server.is_ready();
        self.servers.iter().find(is_it)
    }

    /// The scoreboard on which workers of this generation find their slots.
    pub(super) fn scoreboard(&self, generation: u32) -> Option<Arc<Scoreboard>> {
        Some(Arc::clone(self.ready(generation)?.scoreboard()))
    }

    /// Sends a spawn request. Does not wait.
    ///
    /// # Errors
    /// The fork server is gone, or has not read hundreds of requests.
    pub(super) fn request(
        &mut self,
        birth: Birth,
        channel: &WorkerChannel,
        now: u64,
    ) -> Result<(), (Birth, SpawnError)> {
        let Some(server) = self.ready(birth.generation) else {
            return Err((birth, SpawnError::ServerGone));
        };
        let server_pid = server.pid();
        if let Err(error) = server.request(&birth, channel) {
            return Err((birth, error.into()));
        }
        self.pending.push(Pending {
            birth,
            server: server_pid,
            deadline: now + ANSWER_MS,
            is_cancelled: false,
        });
        Ok(())
    }

    /// Workers that were asked for count as workers that boot. One that is not wanted any more counts for nothing: should
    /// it be forked yet, it leaves before it has done anything, and until then it must not have others wait.
    pub(super) fn members(&self) -> impl Iterator<Item = Member> {
        let wanted = self.pending.iter().filter(|pending| !pending.is_cancelled);
        wanted.map(|pending| Member {
            age: pending.birth.age,
            generation: pending.birth.generation,
            stage: Stage::Booting,
            wants_replacement: false,
        })
    }

    /// Whether a pending worker has this slot.
    pub(super) fn holds_slot(&self, slot: usize) -> bool {
        self.pending
            .iter()
            .any(|pending| pending.birth.slot == slot)
    }

    /// The worker is to leave as soon as it exists. False when none of this age is pending.
    pub(super) fn cancel(&mut self, age: u64) -> bool {
        let mut pending = self.pending.iter_mut();
        match pending.find(|pending| pending.birth.age == age) {
            Some(pending) => {
                pending.is_cancelled = true;
                true
            }
            None => false,
        }
    }

    pub(super) fn cancel_generation(&mut self, generation: u32) {
        for pending in &mut self.pending {
            pending.is_cancelled |= pending.birth.generation == generation;
        }
    }

    /// What the loop's poll waits for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let controls = self.servers.iter().filter_map(ForkServer::control);
        controls.map(OwnedFd::as_fd)
    }

    /// Reads what the fork servers have sent. Returns the answers to spawn requests.
    pub(super) fn read(&mut self, now: u64) -> Vec<SpawnAnswer> {
        for at in 0..self.servers.len() {
            self.read_server(at, now);
        }
        let answers = std::mem::take(&mut self.answers);
        if self.pending.is_empty() {
            self.strangers.clear();
        }
        answers
    }

    fn read_server(&mut self, at: usize, now: u64) {
        for _ in 0..MESSAGES_PER_ITERATION {
            let server = self.servers[at].pid();
            match self.servers[at].receive(now) {
                None | Some(Message::None) => return,
                Some(Message::Ready | Message::Exits { .. }) => {}
                Some(Message::Moved(_)) => self.follow(server, self.servers[at].pid()),
                Some(Message::Answer { age, pid }) => self.answer(server, age, pid),
                Some(Message::End) => self.fail_pending(server),
            }
        }
    }

    /// What was asked of one process is the other's to answer.
    fn follow(&mut self, before: Pid, after: Pid) {
        let of_before = |pending: &&mut Pending| pending.server == before;
        for pending in self.pending.iter_mut().filter(of_before) {
            pending.server = after;
        }
    }

    fn answer(&mut self, server: Pid, age: u64, worker: i32) {
        let is_meant = |pending: &Pending| pending.server == server && pending.birth.age == age;
        let Some(position) = self.pending.iter().position(is_meant) else {
            return;
        };
        let pending = self.pending.swap_remove(position);
        let result = match worker {
            ..=1 => Err(SpawnError::NotForked),
            worker => self.known(Pid::from_raw(worker)),
        };
        self.finish(pending, result);
    }

    /// By the kernel's word, whatever the fork server claims.
    fn known(&mut self, worker: Pid) -> Result<Spawned, SpawnError> {
        let is_server = self.servers.iter().any(|server| server.pid() == worker);
        if is_child(worker) && !is_server {
            return Ok(Spawned::Lives(worker));
        }
        let is_it = |(pid, _): &(Pid, ExitStatus)| *pid == worker;
        match self.strangers.iter().position(is_it) {
            Some(position) => {
                let (pid, status) = self.strangers.swap_remove(position);
                Ok(Spawned::Ended(pid, status))
            }
            None => Err(SpawnError::Stranger(worker.as_raw())),
        }
    }

    fn finish(&mut self, pending: Pending, result: Result<Spawned, SpawnError>) {
        self.answers.push(SpawnAnswer {
            birth: pending.birth,
            is_cancelled: pending.is_cancelled,
            result,
        });
    }

    fn fail_pending(&mut self, server: Pid) {
        let pending = std::mem::take(&mut self.pending);
        let (failed, others): (Vec<_>, Vec<_>) = pending
            .into_iter()
            .partition(|pending| pending.server == server);
        self.pending = others;
        for pending in failed {
            self.finish(pending, Err(SpawnError::ServerGone));
        }
    }

    /// A child that is none of the known ones was reaped.
    pub(super) fn note_stranger(&mut self, pid: Pid, status: ExitStatus) {
        if !self.pending.is_empty() && self.strangers.len() < STRANGERS_MAX {
            self.strangers.push((pid, status));
        }
    }

    /// A child was reaped. `None` when it was no fork server, or goes on as another process.
    pub(super) fn on_exit(&mut self, pid: Pid, status: ExitStatus, now: u64) -> Option<ServerExit> {
        let at = self.servers.iter().position(|server| server.pid() == pid)?;
        // What it has sent before its end still counts.
        self.read_server(at, now);
        if self.servers[at].pid() != pid {
            // It goes on as another process.
            return None;
        }
        Some(self.remove(at, Some(status), now))
    }

    fn remove(&mut self, at: usize, status: Option<ExitStatus>, now: u64) -> ServerExit {
        let server = self.servers.remove(at);
        self.fail_pending(server.pid());
        server.exit(status, now)
    }

    /// Fork servers that have ended below a worker: nothing is reaped here.
    pub(super) fn take_lost(&mut self, now: u64) -> Vec<ServerExit> {
        let mut exits = Vec::new();
        while let Some(at) = self.servers.iter().position(ForkServer::is_lost) {
            // What it has sent before its end still counts.
            self.read_server(at, now);
            exits.push(self.remove(at, None, now));
        }
        exits
    }

    /// Fork servers whose `is_meant(generation)` go.
    pub(super) fn dismiss(&mut self, is_meant: impl Fn(u32) -> bool, now: u64) {
        for server in &mut self.servers {
            if is_meant(server.generation()) {
                server.dismiss(now);
            }
        }
    }

    /// Kills those that take too long: an import is a boot and has no more time; a spawn request has 30 s; one that
    /// was asked to leave has `graceful`.
    pub(super) fn watch(&mut self, boot: Option<Duration>, graceful: Duration, now: u64) {
        let late = self.pending.iter();
        let late: Vec<Pid> = late
            .filter(|pending| pending.deadline <= now)
            .map(|pending| pending.server)
            .collect();
        for at in 0..self.servers.len() {
            let server = &mut self.servers[at];
            let pid = server.pid();
            if server.watch(boot, graceful, late.contains(&pid), now) {
                self.fail_pending(pid);
            }
        }
    }

    /// For `length` milliseconds until `now` nothing could run.
    pub(super) fn excuse(&mut self, length: u64, now: u64) {
        for server in &mut self.servers {
            server.excuse(length, now);
        }
        for pending in &mut self.pending {
            pending.deadline = pending.deadline.saturating_add(length);
        }
    }

    pub(super) fn kill_all(&mut self, now: u64) {
        for server in &mut self.servers {
            let pid = server.pid();
            log::error!("Killing the fork server (pid:{pid}), which did not exit in time");
            server.kill(now);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Fork servers that are gone, although the kernel gave no readable status for them.
    pub(super) fn vanished(&self) -> Vec<Pid> {
        let pids = self.servers.iter().map(ForkServer::pid);
        pids.filter(|pid| is_gone(*pid)).collect()
    }
}

/// Both ends of a fork server's socket: the arbiter's, which does not block, and the fork server's.
///
/// # Errors
/// The process has no descriptor left.
pub(super) fn open_control() -> io::Result<(OwnedFd, OwnedFd)> {
    wire::open()
}

/// A fork takes milliseconds, that of a huge process some hundred; the rest is for `pre_fork`.
const ANSWER_MS: u64 = 30_000;
const MESSAGES_PER_ITERATION: usize = 256;
const STRANGERS_MAX: usize = 1024;

#[cfg(test)]
mod tests;
