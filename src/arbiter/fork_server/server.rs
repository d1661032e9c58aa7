//! One fork server, as the arbiter sees it.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::Pid;

use super::wire::{self, Message};
use crate::arbiter::children::{is_child, is_gone};
use crate::arbiter::control_channel::WorkerChannel;
use crate::arbiter::supervision::ExitStatus;
use crate::arbiter::worker_handle::Birth;
use crate::scoreboard::Scoreboard;

#[derive(Debug)]
pub(super) struct ForkServer {
    pid: Pid,
    generation: u32,
    stage: Stage,
    forked_at: u64,
    /// When it entered its stage.
    since: u64,
    was_ready: bool,
    was_dismissed: bool,
    /// It may be a child of a worker.
    has_moved: bool,
    /// The application has ended it by `sys.exit`.
    wanted_exit: Option<i32>,
    /// Its workers find their slots here.
    scoreboard: Arc<Scoreboard>,
}

#[derive(Debug)]
enum Stage {
    /// It imports the application.
    Importing(OwnedFd),
    /// It forks workers.
    Ready(OwnedFd),
    /// It was asked to leave.
    Leaving(OwnedFd),
    Killed(OwnedFd),
    /// Its socket is closed. This process reaps it if it is a child.
    Ended,
}

/// What became of a fork server.
#[derive(Clone, Copy, Debug)]
pub(in crate::arbiter) struct ServerExit {
    pub(in crate::arbiter) pid: Pid,
    pub(in crate::arbiter) generation: u32,
    pub(in crate::arbiter) was_ready: bool,
    /// `None` where another process has reaped it.
    pub(in crate::arbiter) status: Option<ExitStatus>,
    /// It ended as it was asked to.
    pub(in crate::arbiter) was_dismissed: bool,
    /// The exit code that the application asked for by `sys.exit` while it was imported.
    pub(in crate::arbiter) wanted_exit: Option<i32>,
    pub(in crate::arbiter) lived_ms: u64,
}

impl ForkServer {
    pub(super) fn new(
        pid: Pid,
        generation: u32,
        control: OwnedFd,
        scoreboard: Arc<Scoreboard>,
        now: u64,
    ) -> Self {
        Self {
            pid,
            generation,
            stage: Stage::Importing(control),
            forked_at: now,
            since: now,
            was_ready: false,
            was_dismissed: false,
            has_moved: false,
            wanted_exit: None,
            scoreboard,
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn scoreboard(&self) -> &Arc<Scoreboard> {
        &self.scoreboard
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready(_))
    }

    pub(super) fn exit(&self, status: Option<ExitStatus>, now: u64) -> ServerExit {
        let is_orderly = matches!(status, None | Some(ExitStatus::Code(0)));
        ServerExit {
            pid: self.pid,
            generation: self.generation,
            was_ready: self.was_ready,
            was_dismissed: self.was_dismissed && is_orderly,
            status,
            wanted_exit: self.wanted_exit,
            lived_ms: now.saturating_sub(self.forked_at),
        }
    }

    pub(super) fn control(&self) -> Option<&OwnedFd> {
        match &self.stage {
            Stage::Importing(control)
            | Stage::Ready(control)
            | Stage::Leaving(control)
            | Stage::Killed(control) => Some(control),
            Stage::Ended => None,
        }
    }

    /// The next message. `None` when it has no socket any more.
    pub(super) fn receive(&mut self, now: u64) -> Option<Message> {
        let message = wire::receive(self.control()?.as_fd());
        match message {
            Message::Ready => {
                self.was_ready = true;
                match std::mem::replace(&mut self.stage, Stage::Ended) {
                    Stage::Importing(control) => self.enter(Stage::Ready(control), now),
                    other => self.stage = other,
                }
            }
            Message::Exits { code } => self.wanted_exit = Some(code),
            Message::Moved(pid) if pid > 1 => {
                log::debug!("The fork server (pid:{}) is process {pid} now", self.pid);
                self.pid = Pid::from_raw(pid);
                self.has_moved = true;
            }
            Message::Moved(_) => {}
            Message::End => self.enter(Stage::Ended, now),
            Message::None | Message::Answer { .. } => {}
        }
        Some(message)
    }

    /// Sends a spawn request. Does not wait.
    pub(super) fn request(
        &self,
        birth: &Birth,
        channel: &WorkerChannel,
    ) -> Result<(), std::io::Error> {
        match &self.stage {
            Stage::Ready(control) => {
                wire::send_request(control.as_fd(), birth.age, birth.slot, channel)
            }
            _ => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }

    fn enter(&mut self, stage: Stage, now: u64) {
        self.stage = stage;
        self.since = now;
    }

    /// Whether it has ended where this process reaps nothing.
    pub(super) fn is_lost(&self) -> bool {
        let has_ended = matches!(self.stage, Stage::Ended) || is_gone(self.pid);
        self.has_moved && has_ended && !is_child(self.pid)
    }

    /// While its socket is open it lives, so that the pid is not another's.
    pub(super) fn kill(&mut self, now: u64) {
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Importing(control)
            | Stage::Ready(control)
            | Stage::Leaving(control)
            | Stage::Killed(control) => {
                let _ = kill(self.pid, Signal::SIGKILL);
                self.enter(Stage::Killed(control), now);
            }
            Stage::Ended => {
                if is_child(self.pid) {
                    let _ = kill(self.pid, Signal::SIGKILL);
                }
                self.enter(Stage::Ended, now);
            }
        }
    }

    /// In the middle of an import it would not notice the end of its socket before the import ends.
    pub(super) fn dismiss(&mut self, now: u64) {
        if matches!(self.stage, Stage::Importing(_)) {
            let _ = kill(self.pid, Signal::SIGTERM);
        }
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Importing(control) | Stage::Ready(control) => {
                // Its end shows on the other half.
                let _ = shutdown(control.as_raw_fd(), Shutdown::Write);
                // One that was stopped would not notice.
                let _ = kill(self.pid, Signal::SIGCONT);
                self.was_dismissed = true;
                self.enter(Stage::Leaving(control), now);
            }
            other => self.stage = other,
        }
    }

    /// For `length` milliseconds until `now` it could not run.
    pub(super) fn excuse(&mut self, length: u64, now: u64) {
        self.since = self.since.saturating_add(length).min(now);
    }

    /// Kills it when it takes too long. `is_late`: it has not answered a spawn request in time. True when it is killed.
    pub(super) fn watch(
        &mut self,
        boot: Option<Duration>,
        graceful: Duration,
        is_late: bool,
        now: u64,
    ) -> bool {
        let pid = self.pid;
        let waited = Duration::from_millis(now.saturating_sub(self.since));
        match &self.stage {
            Stage::Importing(_) if boot.is_some_and(|limit| waited > limit) => {
                let seconds = waited.as_secs();
                log::error!("The application was not imported within {seconds} s (pid:{pid})");
            }
            Stage::Ready(_) if is_late => {
                log::error!("Killing the fork server (pid:{pid}), which does not fork");
            }
            Stage::Leaving(_) | Stage::Ended if waited > graceful => {
                log::error!("Killing the fork server (pid:{pid}), which did not exit in time");
            }
            _ => return false,
        }
        self.kill(now);
        true
    }
}
