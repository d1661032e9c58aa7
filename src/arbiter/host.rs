//! What the arbiter asks of its surroundings, so that it needs no Python itself.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use nix::unistd::Pid;

use crate::config::Config;

/// What the arbiter needs from outside: everything that has to do with Python or the log's files.
pub trait Host {
    /// Forks, with Python's before- and after-fork calls around it.
    ///
    /// # Errors
    /// When the system has no room for another process.
    fn fork(&mut self) -> io::Result<Forked>;

    /// Calls a server hook, if the operator set it.
    ///
    /// # Errors
    /// When the hook raised; the text goes to the log.
    fn hook(&mut self, event: &HookEvent<'_>) -> Result<(), String>;

    /// Reads all settings again and applies those of the log.
    ///
    /// # Errors
    /// With the operator's mistake in one line.
    fn reload(&mut self) -> Result<Arc<Config>, String>;

    /// Goes back to the settings before the last `reload`, which came to nothing.
    fn take_back(&mut self);

    fn reopen_logs(&mut self);

    /// Replaces this process by a new run of the command line that started it, in the directory and environment of
    /// then, with `variables` besides. Returns only when that fails.
    fn execute_again(&mut self, variables: &[(String, String)]) -> io::Error;

    /// What `ps` shows: `master [name]`.
    fn name_process(&mut self, name: &str);

    /// Runs `blocking` without the GIL.
    fn wait(&mut self, blocking: &mut (dyn FnMut() + Send));
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
    PreFork(WorkerView),
    ChildExit(WorkerView),
}

/// A worker as hooks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// `None` before its fork.
    pub pid: Option<i32>,
    pub age: u64,
    /// It was silent too long and got ABRT.
    pub aborted: bool,
}

/// A hook and the arbiter as it sees it.
#[derive(Debug)]
pub struct HookEvent<'a> {
    pub hook: Hook,
    pub pid: i32,
    pub num_workers: usize,
    pub workers: Vec<WorkerView>,
    /// Descriptor and name of each listener.
    pub listeners: Vec<(RawFd, String)>,
    pub config: &'a Arc<Config>,
}
