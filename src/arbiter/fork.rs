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

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid, pipe2, write};

use super::signals::{self, Blocked};
use super::workers::{Stage, WorkerHandle, roomy_board};
use super::{Arbiter, Forked, Hook, Leave, WorkerView};
use crate::config::Config;
use crate::net::{Channels, Listener};
use crate::scoreboard::{Scoreboard, Slot, SlotState, monotonic_ms};

/// All that a worker inherits from the arbiter.
///
/// The worker's duties:
/// - `report_serving` once it accepts connections; `Slot::loop_beat` at least once a second from then on,
///   also while it drains;
/// - on a short timer (a second) stop when `is_orphan` says that the arbiter is gone;
/// - TERM, or `max_requests`: set the slot to `SlotState::Draining` and stop within `graceful_timeout`;
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
    /// One byte on it means: serving.
    pub booted: OwnedFd,
    /// The arbiter.
    pub parent: Pid,
    /// The ways to its siblings; `None` when connections do not move.
    pub channels: Option<Arc<Channels>>,
    /// Stop after this many requests; the jitter is in it.
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

    /// Tells the arbiter that this worker serves from now on.
    ///
    /// # Errors
    /// When the arbiter is gone.
    pub fn report_serving(&self) -> io::Result<()> {
        let now = monotonic_ms();
        self.slot().loop_beat(now);
        self.slot().set_state(SlotState::Serving);
        write(&self.booted, b"1")?;
        Ok(())
    }
}

impl Arbiter<'_> {
    /// Forks one worker. Returns in the arbiter; in the child it is `Leave::Child`.
    pub(super) fn spawn(&mut self) -> Result<(), Leave> {
        let age = self.age + 1;
        self.hook(Hook::PreFork(WorkerView { pid: None, age }))?;
        let slot = match self.claim_slot() {
            Ok(slot) => slot,
            Err(error) => return self.cannot_fork(&error),
        };
        let pipe = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK);
        let (read_end, write_end) = match pipe {
            Ok(ends) => ends,
            Err(errno) => return self.cannot_fork(&errno.into()),
        };
        let blocked = match Blocked::new() {
            Ok(blocked) => blocked,
            Err(error) => return self.cannot_fork(&error),
        };
        match self.host.fork() {
            Err(error) => {
                self.board.slot(slot).release();
                drop(blocked);
                self.cannot_fork(&error)
            }
            Ok(Forked::Child) => {
                drop(read_end);
                Err(self.become_worker(age, slot, write_end, blocked))
            }
            Ok(Forked::Parent(pid)) => {
                let now = monotonic_ms();
                self.age = age;
                self.board.slot(slot).set_pid(pid.as_raw());
                self.workers.add(WorkerHandle {
                    pid,
                    age,
                    generation: self.generation,
                    stage: Stage::Booting,
                    since: now,
                    forked_at: now,
                    board: Arc::clone(&self.board),
                    slot,
                    booted: Some(read_end),
                });
                Ok(())
            }
        }
    }

    fn cannot_fork(&mut self, error: &io::Error) -> Result<(), Leave> {
        let delay = self.backoff.died_young(monotonic_ms());
        log::error!("Cannot start a worker: {error}; trying again in {delay:.1?}");
        Ok(())
    }

    /// A larger board when all slots are taken, or threads were added at a reload: the new one is for the
    /// workers from now on.
    fn claim_slot(&mut self) -> io::Result<usize> {
        let enough_threads = self.board.threads() >= self.config.threads;
        let free = self.workers.free_slot(&self.board);
        let slot = match free.filter(|_| enough_threads) {
            Some(slot) => slot,
            None => {
                self.board = roomy_board(
                    self.num_workers.max(self.workers.len()),
                    self.config.threads,
                )?;
                0
            }
        };
        self.board.slot(slot).claim(self.generation);
        Ok(slot)
    }

    /// In the child. Signals are let through when `blocked` is dropped, at the end.
    fn become_worker(&self, age: u64, slot: usize, booted: OwnedFd, blocked: Blocked) -> Leave {
        let pid = getpid();
        let prepared = signals::leave_to_child().and_then(|()| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            self.listeners
                .iter()
                .map(|bound| bound.listener.try_clone())
                .collect::<io::Result<Vec<_>>>()
        });
        let listeners = match prepared {
            Ok(listeners) => listeners,
            Err(error) => {
                log::error!("Worker (pid:{pid}) cannot take over from the arbiter: {error}");
                return Leave::ChildFailed;
            }
        };
        log::info!("Booting worker with pid: {pid}");
        self.board.slot(slot).set_pid(pid.as_raw());
        let seat = WorkerSeat {
            index: slot,
            age,
            listeners,
            config: Arc::clone(&self.config),
            scoreboard: Arc::clone(&self.board),
            booted,
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
fn max_requests(config: &Config) -> Option<u64> {
    if config.max_requests == 0 {
        return None;
    }
    // The standard library's hash keys are random, which is all the randomness that this needs.
    let hasher = std::hash::RandomState::new().build_hasher();
    let random = hasher.finish() ^ u64::from(std::process::id()).wrapping_mul(SPREAD);
    let jitter = match config.max_requests_jitter {
        0 => 0,
        most => random % most.saturating_add(1).max(1),
    };
    Some(config.max_requests.saturating_add(jitter))
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
        config.max_requests = 100;
        assert_eq!(max_requests(&config), Some(100));
        config.max_requests_jitter = 10;
        let drawn: Vec<_> = (0..200).filter_map(|_| max_requests(&config)).collect();
        assert!(drawn.iter().all(|limit| (100..=110).contains(limit)));
        assert!(drawn.iter().any(|limit| *limit != drawn[0]));
        config.max_requests_jitter = u64::MAX;
        assert!(max_requests(&config).is_some());
    }
}
