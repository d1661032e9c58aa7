//! One fork server, as the arbiter sees it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wire::{self, Message};
use crate::arbiter::control_channel::WorkerChannel;
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
    /// It was asked to leave, or has closed its socket.
    Leaving,
    Killed,
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

    pub(super) fn was_ready(&self) -> bool {
        self.was_ready
    }

    pub(super) fn was_dismissed(&self) -> bool {
        self.was_dismissed
    }

    pub(super) fn wanted_exit(&self) -> Option<i32> {
        self.wanted_exit
    }

    pub(super) fn age_ms(&self, now: u64) -> u64 {
        now.saturating_sub(self.forked_at)
    }

    pub(super) fn control(&self) -> Option<&OwnedFd> {
        match &self.stage {
            Stage::Importing(control) | Stage::Ready(control) => Some(control),
            Stage::Leaving | Stage::Killed => None,
        }
    }

    /// The next message. `None` when it has no socket any more.
    pub(super) fn receive(&mut self, now: u64) -> Option<Message> {
        let message = wire::receive(self.control()?.as_fd());
        match message {
            Message::Ready => {
                self.was_ready = true;
                match std::mem::replace(&mut self.stage, Stage::Leaving) {
                    Stage::Importing(control) => self.enter(Stage::Ready(control), now),
                    other => self.stage = other,
                }
            }
            Message::Exits { code } => self.wanted_exit = Some(code),
            // It is about to be reaped.
            Message::End => self.enter(Stage::Leaving, now),
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

    pub(super) fn kill(&mut self, now: u64) {
        let _ = kill(self.pid, Signal::SIGKILL);
        self.enter(Stage::Killed, now);
    }

    /// In the middle of an import it would not notice the end of its socket before the import ends.
    pub(super) fn dismiss(&mut self, now: u64) {
        if matches!(self.stage, Stage::Importing(_)) {
            let _ = kill(self.pid, Signal::SIGTERM);
        }
        if self.control().is_some() {
            self.was_dismissed = true;
            self.enter(Stage::Leaving, now);
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
                log::error!("The fork server (pid:{pid}) does not fork and is killed");
            }
            Stage::Leaving if waited > graceful => {
                log::error!("The fork server (pid:{pid}) did not leave and is killed");
            }
            _ => return false,
        }
        self.kill(now);
        true
    }
}
