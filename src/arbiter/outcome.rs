//! What the arbiter starts from, and how it ends.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use nix::unistd::{Pid, getpid};

use super::fork::{EnterError, WorkerContext};
use super::fork_server::ForkServerContext;
use super::notifier::Supervisor;
use super::start_error::StartError;
use crate::config::Config;
use crate::logging::Log;
use crate::net::Listener;

/// What the arbiter starts from.
#[derive(Debug)]
pub struct Start {
    pub log: Log,
    pub config: Arc<Config>,
    /// Descriptors of listening sockets that systemd passed: used instead of `bind`.
    pub inherited: Vec<RawFd>,
    /// Listening sockets of the old master, whose successor this is to be, and that master.
    pub from_old_master: Vec<Listener>,
    pub old_master: Option<Pid>,
    /// The old master's keys of session tickets.
    pub tickets: Option<OwnedFd>,
    /// systemd.
    pub supervisor: Supervisor,
}

/// How `run` ended, and in which process.
#[derive(Debug)]
pub enum Outcome {
    /// This process is done; this is its exit code.
    Exit(i32),
    /// The server could not start: one line for the operator, exit code 1.
    Refused(StartError),
    /// This is a forked child: the caller becomes this worker.
    Worker(Box<WorkerContext>),
    /// This is a forked child: the caller imports the application and forks workers (`--preload`).
    ForkServer(Box<ForkServerContext>),
}

impl Outcome {
    /// In a child: how it goes on, or its end when it cannot.
    pub(super) fn child(entered: Result<Self, EnterError>) -> Self {
        entered.unwrap_or_else(|error| {
            log::error!(
                "This process (pid:{}) cannot take over from the arbiter: {error}",
                getpid()
            );
            Self::Exit(EXIT_CHILD_FAILED)
        })
    }
}

/// gunicorn's `sys.exit(-1)`.
pub(super) const EXIT_UNHANDLED: i32 = 255;
pub(super) const EXIT_CHILD_FAILED: i32 = 1;
