//! The fork server's side: the spawn requests that it gets, and the contexts of the workers that it forks.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{Pid, getpid, getppid, pipe2};

use super::wire;
use crate::arbiter::control_channel::WorkerChannel;
use crate::arbiter::fork::{EnterError, Inheritance, WorkerContext, max_requests};
use crate::arbiter::runtime::{Forked, Runtime};
use crate::arbiter::signals::Blocked;
use crate::config::Config;
use crate::fork_guard::Succession;
use crate::net::{Channels, Listener};
use crate::scoreboard::{Scoreboard, monotonic_ms};
use crate::tls::Certificates;

/// All that a fork server inherits from the arbiter.
///
/// Its duties: import the application, `report_ready` (or `report_exit`), and for each spawn request `fork_worker` and `answer`. In the
/// worker `into_worker` makes the context.
#[derive(Debug)]
pub struct ForkServerContext {
    pub config: Arc<Config>,
    pub scoreboard: Arc<Scoreboard>,
    control: OwnedFd,
    listeners: Vec<Listener>,
    notifier: OwnedFd,
    channels: Option<Arc<Channels>>,
    certificates: Option<Arc<Certificates>>,
    arbiter: Pid,
}

/// Which worker is to be forked.
#[derive(Debug)]
pub struct SpawnRequest {
    pub age: u64,
    slot: usize,
    channel: WorkerChannel,
}

/// Which of the three processes this is after [`ForkServerContext::fork_worker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The worker's pid, if there is one.
    ForkServer(Option<Pid>),
    /// It must end at once, without exit handlers.
    Between,
    /// The pid of the fork server if that is a child of this process now.
    Worker(Option<Pid>),
}

impl ForkServerContext {
    /// In the child: a fork server from now on.
    ///
    /// # Errors
    /// The arbiter is gone, or there are no descriptors left.
    pub(in crate::arbiter) fn enter(
        inheritance: Inheritance<'_>,
        control: OwnedFd,
        blocked: Blocked,
    ) -> Result<Box<Self>, EnterError> {
        let (listeners, notifier) = inheritance.enter(blocked)?;
        Ok(Box::new(Self {
            config: Arc::clone(inheritance.config),
            scoreboard: inheritance.scoreboard,
            control,
            listeners,
            notifier,
            channels: inheritance.channels.cloned(),
            certificates: inheritance.certificates,
            arbiter: inheritance.arbiter,
        }))
    }

    /// # Errors
    /// When the arbiter is gone.
    pub fn report_ready(&self) -> io::Result<()> {
        wire::send_ready(self.control.as_fd())
    }

    /// The application wants this process to end, and does so while it is imported. Without this word its end counts as a
    /// failure, whatever the exit code.
    ///
    /// # Errors
    /// When the arbiter is gone.
    pub fn report_exit(&self, code: i32) -> io::Result<()> {
        wire::send_exit(self.control.as_fd(), code)
    }

    /// Descriptor and name of each listener, as hooks see them.
    #[must_use]
    pub fn listener_infos(&self) -> Vec<(RawFd, String)> {
        self.listeners.iter().map(Listener::info).collect()
    }

    /// Waits for the next request; `None` when there will be no more.
    pub fn next_request(&mut self) -> Option<SpawnRequest> {
        let (age, slot, channel) = wire::receive_request(self.control.as_fd())?;
        Some(SpawnRequest { age, slot, channel })
    }

    /// Forks a worker whose parent is the arbiter.
    ///
    /// This process then goes on below the worker, so that all children of the arbiter are workers. The threads and
    /// children of an application would not move with it: then, and where there is no room for that, it stays.
    ///
    /// # Errors
    /// When the system has no room for another process.
    pub fn fork_worker(&self, runtime: &mut dyn Runtime) -> io::Result<Place> {
        if has_one_thread() && has_no_child() {
            let mut moved = |pid: Pid| {
                // When it cannot be sent the arbiter is gone, and the successor will notice.
                let _ = wire::send_moved(self.control.as_fd(), pid.as_raw());
            };
            match runtime.fork_with_successor(self.arbiter, &mut moved) {
                Ok(Succession::Child { successor }) => return Ok(Place::Worker(Some(successor))),
                Ok(Succession::Successor { child }) => return Ok(Place::ForkServer(Some(child))),
                Err(error) => log::debug!("The fork server cannot move: {error}"),
            }
        }
        Self::fork_beside(runtime)
    }

    /// This process stays. The process between ends, and the arbiter adopts its child; before, it writes the worker's pid
    /// to a pipe that no other process has by then: the fork server reads it from the kernel, and not from memory that
    /// workers can write.
    fn fork_beside(runtime: &mut dyn Runtime) -> io::Result<Place> {
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
        let between = match runtime.fork()? {
            Forked::Parent(between) => between,
            Forked::Child => {
                drop(read_end);
                return Ok(fork_from_between(runtime, write_end));
            }
        };
        drop(write_end);
        let mut pid = [0; 4];
        let worker = File::from(read_end).read_exact(&mut pid);
        // Only then is the worker the arbiter's child.
        while waitpid(between, None) == Err(Errno::EINTR) {}
        let worker = worker.map(|()| Pid::from_raw(i32::from_le_bytes(pid)));
        Ok(Place::ForkServer(worker.ok()))
    }

    /// Exit handlers may take their time, and the arbiter takes the end of the socket for that of the process.
    pub fn end_with_process(self) {
        let _ = self.control.into_raw_fd();
    }

    /// # Errors
    /// When the arbiter is gone.
    pub fn answer(&self, request: &SpawnRequest, worker: Option<Pid>) -> io::Result<()> {
        wire::send_answer(
            self.control.as_fd(),
            request.age,
            worker.map_or(0, Pid::as_raw),
        )
    }

    /// In the new worker: waits until it is the arbiter's child and the arbiter knows it.
    ///
    /// # Errors
    /// The arbiter is gone, or has given this worker up.
    pub fn into_worker(
        self,
        request: SpawnRequest,
        fork_server: Option<Pid>,
    ) -> Result<WorkerContext, EnterError> {
        let deadline = monotonic_ms() + ADOPTION_MS;
        while getppid() != self.arbiter {
            if monotonic_ms() > deadline {
                return Err(EnterError::NotAdopted);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        // Not before: the end of the process between would count as the parent's death.
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
        let mut channel = request.channel;
        channel.wait_for_start()?;
        self.scoreboard.keep_only(request.slot)?;
        log::info!("Booting worker with pid: {}", getpid());
        let max_requests = max_requests(&self.config.lifecycle);
        let context = WorkerContext {
            index: request.slot,
            age: request.age,
            listeners: self.listeners,
            config: self.config,
            scoreboard: self.scoreboard,
            notifier: self.notifier,
            channel: Some(channel),
            parent: self.arbiter,
            channels: self.channels,
            certificates: self.certificates,
            max_requests,
            fork_server,
        };
        if context.is_orphan() {
            return Err(EnterError::ArbiterGone);
        }
        Ok(context)
    }
}

fn fork_from_between(runtime: &mut dyn Runtime, pid_pipe: OwnedFd) -> Place {
    match runtime.fork() {
        Ok(Forked::Child) => Place::Worker(None),
        Ok(Forked::Parent(worker)) => {
            // When it cannot be written the arbiter gets no pid, and the worker leaves by itself.
            let _ = File::from(pid_pipe).write_all(&worker.as_raw().to_le_bytes());
            Place::Between
        }
        Err(error) => {
            log::error!("Cannot start a worker: {error}");
            Place::Between
        }
    }
}

/// By the kernel's word: an application's library may have threads that Python does not know.
fn has_one_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// A process that the application has started, as `multiprocessing` does, waits for its parent and is waited for.
fn has_no_child() -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, flags) == Err(Errno::ECHILD)
}

const ADOPTION_MS: u64 = 5000;
