//! USR2: another master beside this one, from the same command line, on the same sockets. It may be a newer version.
//!
//! 1. USR2 forks. The child runs `pre_exec`, lets the listening sockets survive the exec, and becomes the new master.
//!    It learns from `GUNICORN_PID` whose successor it is and from `GUNICORN_FD` which descriptors are listeners:
//!    gunicorn's names, so that gunicorn can hand over to us and we to it.
//! 2. Both masters accept from the same queues, so nothing is lost. The new one has `.2` behind its pidfile's name.
//! 3. The operator ends the old master (TERM), or first only its workers (WINCH), which a HUP brings back.
//! 4. When the old master is gone, the new one is promoted: it takes the pidfile's name and owns the socket files. When
//!    the new one goes first, everything is as it was.
//!
//! While both live, neither removes a socket file: the other may still be found under it.

use std::os::fd::AsRawFd as _;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{Pid, getpid, getppid};

use super::pidfile::Pidfile;
use super::policy::Death;
use super::signals::{self, Blocked};
use super::{Arbiter, Forked, Hook, Leave};

impl Arbiter<'_> {
    pub(super) fn start_upgrade(&mut self) -> Result<(), Leave> {
        if let Some(pid) = self.upgrade {
            log::warn!("USR2 signal ignored. Child exists (pid:{pid}).");
            return Ok(());
        }
        if let Some(pid) = self.elder {
            log::warn!("USR2 signal ignored. Parent exists (pid:{pid}).");
            return Ok(());
        }
        let forked = Blocked::new().and_then(|blocked| Ok((self.host.fork()?, blocked)));
        match forked {
            Err(error) => log::error!("Cannot start a new master: {error}"),
            Ok((Forked::Parent(pid), _)) => {
                log::info!("Upgrade: a new master is started (pid:{pid})");
                self.upgrade = Some(pid);
            }
            Ok((Forked::Child, blocked)) => {
                let reason = match self.become_master(blocked) {
                    Ok(never) => match never {},
                    Err(reason) => reason,
                };
                log::error!("The new master cannot be executed: {reason}");
                return Err(Leave::ChildFailed);
            }
        }
        Ok(())
    }

    /// In the child. Returns only when it fails.
    fn become_master(&mut self, blocked: Blocked) -> Result<std::convert::Infallible, String> {
        let failed = |error: std::io::Error| error.to_string();
        signals::leave_to_next_program().map_err(failed)?;
        let old = std::mem::replace(&mut self.pid, getpid());
        self.call_hook(Hook::PreExec)?;
        let mut variables = vec![("GUNICORN_PID".to_owned(), old.to_string())];
        if self.inherited.is_empty() {
            let mut numbers = Vec::new();
            for bound in &self.listeners {
                fcntl(&bound.listener, FcntlArg::F_SETFD(FdFlag::empty()))
                    .map_err(|errno| errno.to_string())?;
                numbers.push(bound.listener.as_raw_fd().to_string());
            }
            variables.push(("GUNICORN_FD".to_owned(), numbers.join(",")));
        } else {
            // systemd's own numbers are still open, and stay where they are.
            variables.push(("LISTEN_PID".to_owned(), self.pid.to_string()));
            variables.push(("LISTEN_FDS".to_owned(), self.inherited.len().to_string()));
        }
        if self.notifier.watches() {
            variables.push(("WATCHDOG_PID".to_owned(), self.pid.to_string()));
        }
        // The mask would survive the exec.
        drop(blocked);
        Err(self.host.execute_again(&variables).to_string())
    }

    /// True when it was the new master that has gone.
    pub(super) fn bury_upgrade(&mut self, pid: Pid, death: Death) -> bool {
        if self.upgrade != Some(pid) {
            return false;
        }
        self.upgrade = None;
        match death {
            Death::Exit(0) => log::info!("Upgrade: the new master (pid:{pid}) has gone."),
            _ => log::error!("Upgrade failed: the new master (pid:{pid}) ended with {death:?}."),
        }
        if self.num_workers == 0 {
            log::warn!("There are no workers: send HUP or TTIN.");
        }
        true
    }

    /// Terminals send WINCH when their size changes, so in the foreground it must not stop the workers. A daemon, and
    /// a master that has a successor, get it from an operator.
    pub(super) fn on_winch(&mut self) -> Result<(), Leave> {
        if !self.config.process.daemon && self.upgrade.is_none() {
            log::debug!("SIGWINCH ignored. Not daemonized");
            return Ok(());
        }
        log::info!("graceful stop of workers");
        self.set_num_workers(0)
    }

    /// The successor of a master that is gone takes its place.
    pub(super) fn promote(&mut self) {
        let Some(elder) = self.elder.filter(|elder| getppid() != *elder) else {
            return;
        };
        log::info!("Master has been promoted.");
        log::debug!("The master before (pid:{elder}) has gone");
        self.elder = None;
        self.notify_promoted();
        self.host.name_process(&self.process_name());
        let Some(path) = self.config.process.pidfile.clone() else {
            return;
        };
        match Pidfile::create(&path, self.pid.as_raw()) {
            Ok(pidfile) => {
                if let Some(second) = self.pidfile.replace(pidfile) {
                    second.unlink();
                }
            }
            Err(error) => log::error!("{error}"),
        }
    }

    pub(super) fn process_name(&self) -> String {
        let second = if self.elder.is_some() { ".2" } else { "" };
        format!("master [{}{second}]", self.config.process.proc_name)
    }
}
