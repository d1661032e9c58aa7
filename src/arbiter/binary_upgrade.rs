//! USR2: another master beside this one, from the same command line, on the same sockets. It may be a newer version.
//!
//! 1. USR2 forks. The child runs `pre_exec`, lets the listening sockets survive the exec, and becomes the new master.
//!    It learns from `GUNICORN_PID` whose successor it is and from `GUNICORN_FD` which descriptors are listeners:
//!    gunicorn's names, so that either program can follow the other.
//! 2. Both masters accept from the same queues, so nothing is lost. The new one has `.2` behind its pidfile's name.
//! 3. The operator ends the old master (TERM), or first only its workers (WINCH), which a HUP brings back.
//! 4. When the old master is gone, the new one is promoted: it takes the pidfile's name and owns the socket files. When
//!    the new one goes first, everything is as it was.
//!
//! While both live, neither removes a socket file: the other may still be found under it.

use std::io;

use nix::unistd::{Pid, getppid};

use super::listeners::Listeners;
use super::runtime::HookError;
use super::supervision::ExitStatus;

/// The master that lives beside this one, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BinaryUpgrade {
    None,
    /// USR2 has come; the new master is about to be forked.
    Requested,
    /// This is the old master, and that is the new one.
    NewMaster(Pid),
    /// This is the new master, and that is the old one.
    OldMaster(Pid),
}

impl BinaryUpgrade {
    pub(super) fn of(old_master: Option<Pid>) -> Self {
        old_master.map_or(Self::None, Self::OldMaster)
    }

    /// USR2.
    pub(super) fn request(&mut self) {
        match self {
            Self::None => *self = Self::Requested,
            Self::Requested => {}
            Self::NewMaster(pid) => log::warn!("USR2 signal ignored. Child exists (pid:{pid})."),
            Self::OldMaster(pid) => log::warn!("USR2 signal ignored. Parent exists (pid:{pid})."),
        }
    }

    /// Whether a new master is to be forked; it is reported once.
    pub(super) fn take_request(&mut self) -> bool {
        let is_requested = *self == Self::Requested;
        if is_requested {
            *self = Self::None;
        }
        is_requested
    }

    pub(super) fn started(&mut self, pid: Pid) {
        log::info!("Upgrade: started a new master (pid:{pid})");
        *self = Self::NewMaster(pid);
    }

    /// A child has ended. True when it was the new master.
    pub(super) fn on_exit(&mut self, pid: Pid, status: ExitStatus) -> bool {
        if *self != Self::NewMaster(pid) {
            return false;
        }
        *self = Self::None;
        match status {
            ExitStatus::Code(0) => log::info!("Upgrade: the new master (pid:{pid}) has exited."),
            _ => log::error!("Upgrade failed: the new master (pid:{pid}) ended with {status}."),
        }
        true
    }

    /// True once, when the old master has gone: this one takes its place.
    pub(super) fn take_promotion(&mut self) -> bool {
        match *self {
            Self::OldMaster(old) if getppid() != old => {
                log::info!("Master has been promoted.");
                log::debug!("The old master (pid:{old}) has exited");
                *self = Self::None;
                true
            }
            _ => false,
        }
    }

    pub(super) fn new_master(self) -> Option<Pid> {
        match self {
            Self::NewMaster(pid) => Some(pid),
            _ => None,
        }
    }

    /// Whether two masters are found under the same addresses.
    pub(super) fn both_live(self) -> bool {
        matches!(self, Self::NewMaster(_) | Self::OldMaster(_))
    }

    /// What stands behind the names of a master that lives beside the old one.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::OldMaster(_) => ".2",
            _ => "",
        }
    }
}

/// Why a new master could not be executed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExecError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Hook(#[from] HookError),
}

/// What the new master finds in its environment. In the child: from now on the listeners survive an exec.
///
/// # Errors
/// A descriptor is not open.
pub(super) fn variables(
    old_master: Pid,
    new_master: Pid,
    listeners: &Listeners,
    has_watchdog: bool,
) -> io::Result<Vec<(String, String)>> {
    let mut variables = vec![("GUNICORN_PID".to_owned(), old_master.to_string())];
    variables.extend(listeners.leave_to_new_master(new_master.as_raw())?);
    if has_watchdog {
        variables.push(("WATCHDOG_PID".to_owned(), new_master.to_string()));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_new_master_at_a_time() {
        let mut upgrade = BinaryUpgrade::of(None);
        assert!(!upgrade.take_request());
        upgrade.request();
        assert!(!upgrade.both_live());
        assert!(upgrade.take_request() && !upgrade.take_request());
        upgrade.started(Pid::from_raw(77));
        upgrade.request();
        assert!(!upgrade.take_request(), "it lives");
        assert_eq!(upgrade.new_master(), Some(Pid::from_raw(77)));
        assert!(upgrade.both_live());
        assert!(!upgrade.on_exit(Pid::from_raw(78), ExitStatus::Code(0)));
        assert!(upgrade.on_exit(Pid::from_raw(77), ExitStatus::Code(1)));
        upgrade.request();
        assert!(upgrade.take_request());
    }

    #[test]
    fn a_new_master_is_promoted_once() {
        let mut upgrade = BinaryUpgrade::of(Some(getppid()));
        assert_eq!(upgrade.suffix(), ".2");
        assert!(!upgrade.take_promotion(), "the old one lives");
        upgrade.request();
        assert!(!upgrade.take_request());
        let mut upgrade = BinaryUpgrade::of(Some(Pid::from_raw(i32::MAX)));
        assert!(upgrade.take_promotion() && !upgrade.take_promotion());
        assert_eq!(upgrade.suffix(), "");
    }
}
