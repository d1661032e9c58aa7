//! The one way to fork: what surrounds it, and what a child keeps of the arbiter.
//!
//! The fork itself is the runtime's, because Python has calls around it. It is safe because the arbiter has one
//! thread: no lock can be held by a thread that the child does not have. All signals are blocked around it; see
//! `signals`.
//!
//! The child does not go on inside the arbiter: `run` returns in it with its context, and everything else of the
//! arbiter is dropped on the way, which closes its descriptors and does nothing besides.

use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

use super::children::Children;
use super::control_channel::WorkerChannel;
use super::listeners::Listeners;
use super::runtime::{Forked, Runtime};
use super::signals::{self, Blocked};
use super::worker_handle::Birth;
use crate::config::{Config, Lifecycle};
use crate::net::{Channels, Listener};
use crate::scoreboard::{Scoreboard, Slot};
use crate::tls::Certificates;

/// All that a worker inherits from the arbiter.
///
/// The worker's duties:
/// - a byte on `notifier` once it accepts connections; `Slot::loop_heartbeat` at least once a second from then on,
///   also while it drains;
/// - on a short timer (a second) stop when the arbiter is gone (`is_orphan`);
/// - at `max_requests`: `Slot::ask_to_go`, a byte on `notifier`, and go on serving;
/// - TERM: set the slot to `SlotState::Draining` and stop within `graceful_timeout`;
///   QUIT and INT: stop at once; ABRT: the `worker_abort` hook, exit 1; USR1: reopen logs. Until it installs
///   its own handlers, TERM, QUIT, INT and ABRT end the process and the others have no effect.
#[derive(Debug)]
pub struct WorkerContext {
    /// Its slot of the scoreboard.
    pub index: usize,
    /// Workers are numbered in the order of their forks.
    pub age: u64,
    pub listeners: Vec<Listener>,
    pub config: Arc<Config>,
    pub scoreboard: Arc<Scoreboard>,
    /// A byte on it means "read my slot": it serves, it wants to be replaced, it drains.
    pub notifier: OwnedFd,
    /// On which the arbiter asks for stacks.
    pub channel: Option<WorkerChannel>,
    /// The arbiter.
    pub parent: Pid,
    /// The channels to its peers; `None` when connections do not move.
    pub channels: Option<Arc<Channels>>,
    /// `None`: plain HTTP.
    pub certificates: Option<Arc<Certificates>>,
    /// Ask for a successor after this many requests; the jitter is in it.
    pub max_requests: Option<u64>,
    /// A child that is none of the application's: the fork server, or what is left of it once another worker has it.
    pub fork_server: Option<Pid>,
}

impl WorkerContext {
    #[must_use]
    pub fn slot(&self) -> Slot<'_> {
        self.scoreboard.slot(self.index)
    }

    /// The kernel signals the arbiter's death by TERM, but forgets that when the worker changes its user; so the
    /// worker also looks for itself.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        getppid() != self.parent
    }
}

/// Which side of the fork this is.
pub(super) enum Side {
    Parent(Pid),
    /// Signals wait until it is dropped.
    Child(Blocked),
}

/// Forks.
///
/// # Errors
/// When the system has no room for another process.
pub(super) fn fork(runtime: &mut dyn Runtime) -> io::Result<Side> {
    let blocked = Blocked::new()?;
    Ok(match runtime.fork()? {
        Forked::Parent(pid) => Side::Parent(pid),
        Forked::Child => Side::Child(blocked),
    })
}

/// What the arbiter leaves to a child that goes on as a part of this server.
pub(super) struct Inheritance<'a> {
    pub(super) arbiter: Pid,
    pub(super) config: &'a Arc<Config>,
    pub(super) scoreboard: Arc<Scoreboard>,
    pub(super) listeners: &'a Listeners,
    pub(super) children: &'a Children,
    pub(super) channels: Option<&'a Arc<Channels>>,
    pub(super) certificates: Option<Arc<Certificates>>,
}

/// Why a child of the arbiter cannot be what it was forked for.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    #[error("the arbiter is gone")]
    ArbiterGone,
    #[error("the arbiter did not adopt it")]
    NotAdopted,
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for EnterError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

impl Inheritance<'_> {
    /// In the child: descriptors of its own, the listeners' and the notify pipe's. Signals are let through at the end.
    ///
    /// # Errors
    /// The arbiter is gone, or there are no descriptors left.
    pub(super) fn enter(&self, blocked: Blocked) -> Result<(Vec<Listener>, OwnedFd), EnterError> {
        signals::leave_to_child()?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
        let listeners = self.listeners.try_clone()?;
        let notifier = self.children.clone_notifier()?;
        drop(blocked);
        if getppid() != self.arbiter {
            // It died before its death could be signalled to this process.
            return Err(EnterError::ArbiterGone);
        }
        Ok((listeners, notifier))
    }

    /// In the child: a worker from now on.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub(super) fn become_worker(
        self,
        birth: &Birth,
        channel: Option<WorkerChannel>,
        blocked: Blocked,
    ) -> Result<Box<WorkerContext>, EnterError> {
        let (listeners, notifier) = self.enter(blocked)?;
        self.scoreboard.keep_only(birth.slot)?;
        log::info!("Booting worker with pid: {}", getpid());
        Ok(Box::new(WorkerContext {
            index: birth.slot,
            age: birth.age,
            listeners,
            config: Arc::clone(self.config),
            scoreboard: self.scoreboard,
            notifier,
            channel,
            parent: self.arbiter,
            channels: self.channels.cloned(),
            certificates: self.certificates,
            max_requests: max_requests(&self.config.lifecycle),
            fork_server: None,
        }))
    }
}

/// The limit with its jitter, so that workers born together do not retire together.
pub(super) fn max_requests(lifecycle: &Lifecycle) -> Option<u64> {
    let jitter = || jitter(lifecycle.max_requests_jitter);
    (lifecycle.max_requests > 0).then(|| lifecycle.max_requests.saturating_add(jitter()))
}

/// The longest life in milliseconds, with its jitter.
pub(super) fn max_lifetime(lifecycle: &Lifecycle) -> Option<u64> {
    let lifetime = lifecycle.max_worker_lifetime?;
    let seconds = lifetime
        .as_secs()
        .saturating_add(jitter(lifecycle.max_worker_lifetime_jitter));
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
        let mut config = Config::default().lifecycle;
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
