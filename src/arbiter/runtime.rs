//! What the arbiter asks of the interpreter and the log's files, so that it needs no Python itself.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use nix::unistd::Pid;

use crate::config::Config;
use crate::fork_guard::Succession;

/// What the arbiter needs from outside.
pub trait Runtime {
    /// Forks, with Python's before- and after-fork calls around it.
    ///
    /// # Errors
    /// When the system has no room for another process.
    fn fork(&mut self) -> io::Result<Forked>;

    /// Forks, with Python's calls around it, and goes on as the child's child; see `fork_guard::fork_with_successor`.
    ///
    /// # Errors
    /// When the system has no room for two other processes.
    fn fork_with_successor(
        &mut self,
        adopter: Pid,
        moved: &mut dyn FnMut(Pid),
    ) -> io::Result<Succession>;

    /// Calls a server hook, if the operator set it.
    ///
    /// # Errors
    /// When the hook raised.
    fn call_hook(&mut self, event: &HookEvent<'_>) -> Result<(), HookError>;

    /// Reads all settings again and applies those of the log.
    ///
    /// # Errors
    /// With the operator's mistake in one line.
    fn reload(&mut self) -> Result<Arc<Config>, ReloadError>;

    /// Goes back to the settings before the last `reload`, which failed.
    fn undo_reload(&mut self);

    fn reopen_logs(&mut self);

    /// Replaces this process by a new run of the command line that started it, in the directory and environment of
    /// then, with `variables` besides. Returns only when that fails.
    fn execute_again(&mut self, variables: &[(String, String)]) -> io::Error;

    /// What `ps` shows: `master [name]`.
    fn set_title(&mut self, title: &str);

    /// Runs `blocking` without the GIL.
    fn wait(&mut self, blocking: &mut (dyn FnMut() + Send));
}

/// A hook raised.
#[derive(Debug, thiserror::Error)]
#[error("{traceback}")]
pub struct HookError {
    pub traceback: String,
}

/// The settings could not be read again.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct ReloadError {
    pub reason: String,
}

/// Which side of the fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    Child,
    Parent(Pid),
}

/// A hook of the arbiter's process. Those of workers are called by the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    OnStarting,
    WhenReady,
    OnReload,
    OnExit,
    PreExec,
    NworkersChanged { new: usize, old: Option<usize> },
    PreFork(WorkerInfo),
    ChildExit(WorkerInfo),
}

/// A worker as hooks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// `None` before its fork.
    pub pid: Option<i32>,
    pub age: u64,
    /// It was silent for too long and got ABRT.
    pub aborted: bool,
}

impl WorkerInfo {
    /// Before its fork.
    #[must_use]
    pub fn unborn(age: u64) -> Self {
        Self {
            pid: None,
            age,
            aborted: false,
        }
    }
}

/// A hook, and the arbiter as the hook sees it.
#[derive(Debug)]
pub struct HookEvent<'a> {
    pub hook: Hook,
    pub pid: i32,
    pub num_workers: usize,
    pub workers: Vec<WorkerInfo>,
    /// Descriptor and name of each listener.
    pub listeners: Vec<(RawFd, String)>,
    pub config: &'a Arc<Config>,
}
