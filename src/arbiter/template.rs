//! `--preload`: a template process per generation imports the application and forks that generation's workers.
//!
//! The arbiter itself imports nothing, so a reload can import anew: HUP starts another template with the code of then.
//! Memory is shared between a template and its workers as gunicorn's is between master and workers.
//!
//! - A worker is forked twice over, and the process in between leaves at once. The arbiter is a subreaper
//!   (prctl(2), `PR_SET_CHILD_SUBREAPER`), so the worker becomes its child: it is signalled, reaped and watched like any.
//! - An order is a question and an answer on a socket pair: the template does nothing else, so its answer takes as long
//!   as a fork does. One that does not answer is killed.
//! - The template of the generation before stays until a worker of the new one has served: after a reload that fails,
//!   workers that die are replaced by the code that they ran.
//! - The end of the socket tells a template to go. Its workers do not notice.

mod seat;

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use super::line::WorkerLine;
use super::policy::Death;
use super::signals::{self, Blocked};
use super::workers::roomy_board;
use super::{Arbiter, Forked, Leave};
use crate::fork_guard;
use crate::net::{Listener, send_sockets};
use crate::scoreboard::{Scoreboard, monotonic_ms};

pub use seat::{Order, TemplateSeat};

/// A template as the arbiter knows it.
#[derive(Debug)]
pub(super) struct Template {
    pid: Pid,
    generation: u32,
    /// None when it was told to go.
    control: Option<UnixStream>,
    /// It has imported the application.
    is_ready: bool,
    started_at: u64,
    /// Its workers find their slots here.
    pub(super) board: Arc<Scoreboard>,
}

impl Template {
    /// Asks for a worker. Returns its pid.
    fn order(&self, age: u64, slot: usize, line: Option<&WorkerLine>) -> io::Result<Pid> {
        let mut control = self.control.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let mut order = [0; ORDER_BYTES];
        order[..8].copy_from_slice(&age.to_le_bytes());
        order[8..].copy_from_slice(&(slot as u64).to_le_bytes());
        let ends = line.map(|line| [line.questions.as_fd(), line.dump.as_fd()]);
        send_sockets(
            control.as_fd(),
            &order,
            ends.as_ref().map_or(&[], |ends| &ends[..]),
        )?;
        let mut pid = [0; 4];
        control.read_exact(&mut pid)?;
        match i32::from_le_bytes(pid) {
            pid if pid > 0 => Ok(Pid::from_raw(pid)),
            _ => Err(io::Error::other("the template could not fork")),
        }
    }

    /// What is told to go in the middle of an import would not hear of it before its end.
    fn tell_to_go(&mut self) {
        if self.control.take().is_some() && !self.is_ready {
            let _ = kill(self.pid, Signal::SIGTERM);
        }
    }
}

impl Arbiter<'_> {
    /// Whether workers can be started now. Starts a template when there is none.
    pub(super) fn has_template(&mut self) -> Result<bool, Leave> {
        if let Some(template) = self.template() {
            return Ok(template.is_ready);
        }
        // One that is about to be reaped may change what there is to start.
        let is_dying = |one: &Template| one.generation == self.generation;
        if !self.templates.iter().any(is_dying) && self.backoff.remaining(monotonic_ms()) == 0 {
            self.start_template()?;
        }
        Ok(false)
    }

    fn template(&self) -> Option<&Template> {
        let is_ours = |one: &&Template| one.generation == self.generation && one.control.is_some();
        self.templates.iter().find(is_ours)
    }

    fn start_template(&mut self) -> Result<(), Leave> {
        // Its workers know no other board, so there must be room for those that may still be wanted.
        let prepared = nix::sys::prctl::set_child_subreaper(true)
            .map_err(io::Error::from)
            .and_then(|()| {
                let wanted = self.num_workers + self.workers.len();
                let is_roomy = self.board.slots() >= wanted * 2;
                if !is_roomy || self.board.threads() < self.config.workers.threads {
                    self.board = roomy_board(wanted, self.config.workers.threads)?;
                }
                let (ours, theirs) = UnixStream::pair()?;
                fork_guard::register(&ours);
                fork_guard::register(&theirs);
                ours.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                Ok((ours, theirs, Blocked::new()?))
            });
        let (ours, theirs, blocked) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return self.cannot_fork(&error),
        };
        match self.host.fork() {
            Err(error) => {
                drop(blocked);
                self.cannot_fork(&error)
            }
            Ok(Forked::Child) => Err(self.become_template(theirs, blocked)),
            Ok(Forked::Parent(pid)) => {
                log::info!("Preloading the application (pid:{pid})");
                self.templates.push(Template {
                    pid,
                    generation: self.generation,
                    control: Some(ours),
                    is_ready: false,
                    started_at: monotonic_ms(),
                    board: Arc::clone(&self.board),
                });
                Ok(())
            }
        }
    }

    fn become_template(&mut self, control: UnixStream, blocked: Blocked) -> Leave {
        let prepared = signals::leave_to_child().and_then(|()| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            Ok((
                clone_all(self.listeners.iter().map(|bound| &bound.listener))?,
                self.nudge.try_clone()?,
            ))
        });
        let (listeners, nudge) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                log::error!("The application cannot be preloaded: {error}");
                return Leave::ChildFailed;
            }
        };
        self.host
            .name_process(&format!("template [{}]", self.config.process.proc_name));
        drop(blocked);
        if getppid() != self.pid {
            return Leave::ChildFailed;
        }
        Leave::Template(Box::new(TemplateSeat {
            config: Arc::clone(&self.config),
            scoreboard: Arc::clone(&self.board),
            control,
            listeners,
            nudge,
            channels: self.channels.clone(),
            arbiter: self.pid,
        }))
    }

    /// Has the template fork a worker. `None`: it could not, and the next attempt has to wait.
    pub(super) fn fork_from_template(
        &mut self,
        age: u64,
    ) -> Result<Option<(Pid, usize, Arc<Scoreboard>)>, Leave> {
        let Some(template) = self.template() else {
            return Ok(None);
        };
        let board = Arc::clone(&template.board);
        let Some(slot) = self.workers.free_slot(&board) else {
            let full = io::Error::other("no room on the scoreboard; reload to make some");
            return self.cannot_fork(&full).map(|()| None);
        };
        self.prepare_slot(board.slot(slot));
        let line = self.control.new_line(age);
        match template_order(&self.templates, self.generation, age, slot, line.as_ref()) {
            Ok(pid) => Ok(Some((pid, slot, board))),
            Err(error) => {
                board.slot(slot).release();
                let generation = self.generation;
                for template in &mut self.templates {
                    if template.generation == generation {
                        let _ = kill(template.pid, Signal::SIGKILL);
                        template.control = None;
                    }
                }
                self.cannot_fork(&error).map(|()| None)
            }
        }
    }

    pub(super) fn hear_templates(&mut self) {
        let current = self.generation;
        let settled = self.rollout.as_ref().is_none_or(|rollout| rollout.proven);
        for template in &mut self.templates {
            if settled && template.generation != current {
                template.tell_to_go();
            }
            let Some(control) = template.control.as_mut().filter(|_| !template.is_ready) else {
                continue;
            };
            let heard = control
                .set_nonblocking(true)
                .and_then(|()| control.read(&mut [0]));
            template.is_ready = matches!(heard, Ok(1));
            let _ = control.set_nonblocking(false);
            if matches!(heard, Ok(0)) {
                // It is about to be reaped.
                template.control = None;
            }
        }
    }

    pub(super) fn dismiss_templates(&mut self, is_meant: impl Fn(u32) -> bool) {
        for template in &mut self.templates {
            if is_meant(template.generation) {
                template.tell_to_go();
            }
        }
    }

    /// An import is a boot: it has no more time.
    pub(super) fn murder_templates(&self) {
        let now = monotonic_ms();
        for template in self
            .templates
            .iter()
            .filter(|one| !one.is_ready && one.control.is_some())
        {
            let waited = Duration::from_millis(now.saturating_sub(template.started_at));
            if self
                .config
                .workers
                .boot_timeout
                .is_some_and(|limit| waited > limit)
            {
                log::error!(
                    "The application was not imported within {} s (pid:{})",
                    waited.as_secs(),
                    template.pid
                );
                let _ = kill(template.pid, Signal::SIGKILL);
            }
        }
    }

    /// Returns whether it was a template that has died, after having seen to it.
    pub(super) fn bury_template(&mut self, pid: Pid, death: Death) -> Result<bool, Leave> {
        let Some(position) = self.templates.iter().position(|one| one.pid == pid) else {
            return Ok(false);
        };
        let template = self.templates.remove(position);
        let is_current = template.generation == self.generation;
        let was_told = template.control.is_none() && death == Death::Exit(0);
        if self.stopping || was_told || !is_current {
            return Ok(true);
        }
        if template.is_ready {
            log::warn!(
                "The template (pid:{pid}) is gone ({death:?}); the next worker's application is imported anew."
            );
            return Ok(true);
        }
        let unproven = self.rollout.as_ref().is_some_and(|rollout| !rollout.proven);
        if unproven {
            self.fail_rollout(FAILED);
        } else if !self.started {
            return Err(Leave::Halt {
                reason: FAILED,
                code: EXIT_PRELOAD,
            });
        } else {
            let delay = self.backoff.died_young(monotonic_ms());
            log::warn!("{FAILED} The next attempt is in {delay:.1?}");
        }
        Ok(true)
    }
}

/// Templates that import, and would say so.
pub(super) fn importing(templates: &[Template]) -> Vec<BorrowedFd<'_>> {
    templates
        .iter()
        .filter(|template| !template.is_ready)
        .filter_map(|template| Some(template.control.as_ref()?.as_fd()))
        .collect()
}

fn template_order(
    templates: &[Template],
    generation: u32,
    age: u64,
    slot: usize,
    line: Option<&WorkerLine>,
) -> io::Result<Pid> {
    let template = templates
        .iter()
        .find(|one| one.generation == generation && one.control.is_some());
    template
        .ok_or(io::ErrorKind::NotFound)?
        .order(age, slot, line)
}

fn clone_all<'a>(listeners: impl Iterator<Item = &'a Listener>) -> io::Result<Vec<Listener>> {
    listeners.map(Listener::try_clone).collect()
}

/// Age and slot.
pub(super) const ORDER_BYTES: usize = 16;
/// A fork takes milliseconds, that of a huge process some hundred; the rest is for `pre_fork`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const FAILED: &str = "The application failed to preload.";
/// gunicorn's, which imports in the master.
const EXIT_PRELOAD: i32 = 1;
