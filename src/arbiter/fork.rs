//! From arbiter to worker: what surrounds the fork, and what the child keeps of it.
//!
//! The fork itself is the host's, because Python wants to know of it. It is safe because the arbiter has one
//! thread: no lock of ours can be held by a thread that the child does not have. All signals are blocked
//! around it; see `signals`.
//!
//! The child does not go on inside the arbiter: its `WorkerSeat` travels up as `Leave::Child`, and everything
//! else of the arbiter is dropped on the way, which closes its descriptors and does nothing besides.

use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

use super::signals::{self, Blocked};
use super::workers::{Stage, WorkerHandle, roomy_board};
use super::{Arbiter, Forked, Hook, Leave, WorkerLine, WorkerView};
use crate::config::Config;
use crate::fork_guard;
use crate::net::{Channels, Listener};
use crate::scoreboard::{Scoreboard, Slot, monotonic_ms};

/// All that a worker inherits from the arbiter.
///
/// The worker's duties:
/// - a byte on `booted` once it accepts connections; `Slot::loop_beat` at least once a second from then on,
///   also while it drains;
/// - on a short timer (a second) stop when `is_orphan` says that the arbiter is gone;
/// - at `max_requests`: `Slot::ask_to_go`, a byte on `booted`, and go on serving;
/// - TERM: set the slot to `SlotState::Draining` and stop within `graceful_timeout`;
///   QUIT and INT: stop at once; ABRT: the `worker_abort` hook, exit 1; USR1: reopen logs. Until it installs
///   its own handlers, TERM, QUIT, INT and ABRT end the process and the others have no effect.
#[derive(Debug)]
pub struct WorkerSeat {
    /// Its slot of the scoreboard.
    pub index: usize,
    /// Workers are numbered in the order of their forks.
    pub age: u64,
    pub listeners: Vec<Listener>,
    pub config: Arc<Config>,
    pub scoreboard: Arc<Scoreboard>,
    /// A byte on it means "look at my slot": it serves, it asks to go, it drains.
    pub booted: OwnedFd,
    /// On which the arbiter asks for stacks.
    pub line: Option<WorkerLine>,
    /// The arbiter.
    pub parent: Pid,
    /// The ways to its siblings; `None` when connections do not move.
    pub channels: Option<Arc<Channels>>,
    /// Ask for a successor after this many requests; the jitter is in it.
    pub max_requests: Option<u64>,
}

impl WorkerSeat {
    #[must_use]
    pub fn slot(&self) -> Slot<'_> {
        self.scoreboard.slot(self.index)
    }

    /// The kernel tells us of the arbiter's death by TERM, but forgets that when the worker changes its
    /// user; so the worker also looks for itself.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        getppid() != self.parent
    }
}

impl Arbiter<'_> {
    /// Forks one worker, or has the template do it. Returns in the arbiter; in the child it is `Leave::Child`.
    pub(super) fn spawn(&mut self) -> Result<(), Leave> {
        let age = self.age + 1;
        let forked = if self.config.app.preload_app {
            self.fork_from_template(age)?
        } else {
            self.fork_here(age)?
        };
        if let Some((pid, slot, board)) = forked {
            let now = monotonic_ms();
            self.age = age;
            board.slot(slot).set_pid(pid.as_raw());
            self.workers.add(WorkerHandle {
                pid,
                age,
                generation: self.generation,
                stage: Stage::Booting,
                since: now,
                forked_at: now,
                board,
                slot,
                expires_at: lifetime(&self.config).map(|lifetime| now.saturating_add(lifetime)),
                worn_out: false,
            });
        }
        Ok(())
    }

    fn fork_here(&mut self, age: u64) -> Result<Option<(Pid, usize, Arc<Scoreboard>)>, Leave> {
        self.hook(Hook::PreFork(WorkerView {
            pid: None,
            age,
            aborted: false,
        }))?;
        let slot = match self.claim_slot() {
            Ok(slot) => slot,
            Err(error) => return self.cannot_fork(&error).map(|()| None),
        };
        let line = self.control.new_line(age);
        let blocked = match Blocked::new() {
            Ok(blocked) => blocked,
            Err(error) => return self.cannot_fork(&error).map(|()| None),
        };
        match self.host.fork() {
            Err(error) => {
                self.board.slot(slot).release();
                drop(blocked);
                self.cannot_fork(&error).map(|()| None)
            }
            Ok(Forked::Child) => Err(self.become_worker(age, slot, line, blocked)),
            Ok(Forked::Parent(pid)) => Ok(Some((pid, slot, Arc::clone(&self.board)))),
        }
    }

    pub(super) fn cannot_fork(&mut self, error: &io::Error) -> Result<(), Leave> {
        let delay = self.backoff.died_young(monotonic_ms());
        log::error!("Cannot start a worker: {error}; trying again in {delay:.1?}");
        Ok(())
    }

    /// A larger board when all slots are taken, or threads were added at a reload: the new one is for the
    /// workers from now on.
    fn claim_slot(&mut self) -> io::Result<usize> {
        let enough_threads = self.board.threads() >= self.config.workers.threads;
        if !enough_threads || self.workers.free_slot(&self.board).is_none() {
            let workers = self.num_workers.max(self.workers.len());
            self.board = roomy_board(workers, self.config.workers.threads)?;
        }
        let slot = self.workers.free_slot(&self.board);
        let slot = slot.ok_or_else(|| io::Error::other("no room on the scoreboard"))?;
        self.prepare_slot(self.board.slot(slot));
        Ok(slot)
    }

    pub(super) fn prepare_slot(&self, slot: Slot<'_>) {
        slot.claim(self.generation);
        if self.stops_at.is_some() {
            slot.announce_stop();
        }
    }

    /// In the child. Signals are let through when `blocked` is dropped, at the end.
    fn become_worker(
        &mut self,
        age: u64,
        slot: usize,
        line: Option<WorkerLine>,
        blocked: Blocked,
    ) -> Leave {
        let pid = getpid();
        let prepared = signals::leave_to_child().and_then(|()| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            let listeners = self.listeners.iter();
            let listeners = listeners.map(|bound| bound.listener.try_clone());
            Ok((
                listeners.collect::<io::Result<Vec<_>>>()?,
                self.nudge.try_clone()?,
            ))
        });
        let (listeners, booted) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                log::error!("Worker (pid:{pid}) cannot take over from the arbiter: {error}");
                return Leave::ChildFailed;
            }
        };
        fork_guard::register(&booted);
        log::info!("Booting worker with pid: {pid}");
        self.host
            .name_process(&format!("worker [{}]", self.config.process.proc_name));
        self.board.slot(slot).set_pid(pid.as_raw());
        let seat = WorkerSeat {
            index: slot,
            age,
            listeners,
            config: Arc::clone(&self.config),
            scoreboard: Arc::clone(&self.board),
            booted,
            line,
            parent: self.pid,
            channels: self.channels.clone(),
            max_requests: max_requests(&self.config),
        };
        drop(blocked);
        if seat.is_orphan() {
            // The arbiter died before its death could be signalled to us.
            return Leave::ChildFailed;
        }
        Leave::Child(Box::new(seat))
    }
}

/// The limit with its jitter, so that workers born together do not retire together.
pub(super) fn max_requests(config: &Config) -> Option<u64> {
    (config.lifecycle.max_requests > 0).then(|| {
        config
            .lifecycle
            .max_requests
            .saturating_add(jitter(config.lifecycle.max_requests_jitter))
    })
}

/// Idem, in milliseconds.
fn lifetime(config: &Config) -> Option<u64> {
    let lifetime = config.lifecycle.max_worker_lifetime?;
    let seconds = lifetime
        .as_secs()
        .saturating_add(jitter(config.lifecycle.max_worker_lifetime_jitter));
    Some(seconds.saturating_mul(1000))
}

/// A random number from 0 to `most`.
fn jitter(most: u64) -> u64 {
    // The standard library's hash keys are random, which is all the randomness that this needs.
    let hasher = std::hash::RandomState::new().build_hasher();
    let random = hasher.finish() ^ u64::from(std::process::id()).wrapping_mul(SPREAD);
    match most {
        0 => 0,
        most => random % most.saturating_add(1).max(1),
    }
}

/// An odd constant that spreads neighbouring process ids over all 64 bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_added_and_bounded() {
        let mut config = Config::default();
        assert_eq!(max_requests(&config), None);
        config.lifecycle.max_requests = 100;
        assert_eq!(max_requests(&config), Some(100));
        config.lifecycle.max_requests_jitter = 10;
        let drawn: Vec<_> = (0..200).filter_map(|_| max_requests(&config)).collect();
        assert!(drawn.iter().all(|limit| (100..=110).contains(limit)));
        assert!(drawn.iter().any(|limit| *limit != drawn[0]));
        config.lifecycle.max_requests_jitter = u64::MAX;
        assert!(max_requests(&config).is_some());
    }
}
