//! A fork after which this process goes on as the child's own child.
//!
//! The fork server of `--preload` may be no child of the arbiter: monitors that count the arbiter's children, as
//! Airflow's does, take each for a worker. So a worker's birth moves the fork server below that worker: the worker forks
//! the process that goes on in the fork server's place, the one before ends, and the arbiter adopts the worker.
//!
//! The application does not notice the process below its worker: made without a signal for its end, it is none that
//! `os.wait` waits for (wait(2), `__WCLONE`).
#![expect(unsafe_code, reason = "forks, one of them without a signal")]

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, pipe2};

use super::own_fork;

/// Which process this is after the fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succession {
    /// The child of the parent, with the pid of its own child.
    Child { successor: Pid },
    /// It goes on in the place of the process that forked, which has ended.
    Successor { child: Pid },
}

/// The system has none for the successor.
#[derive(Debug, thiserror::Error)]
#[error("there is no room for another process")]
struct NoRoom;

/// Forks, and ends this process after `moved(successor)`. `adopter` becomes the child's parent: a process above this
/// one that is a subreaper.
///
/// To be called with one thread. On an error this process goes on, and there is no other.
///
/// # Errors
/// When the system has no room for two other processes.
pub fn fork_with_successor(adopter: Pid, moved: impl FnOnce(Pid)) -> io::Result<Succession> {
    let (pid_read, pid_write) = pipe2(OFlag::O_CLOEXEC)?;
    let (adopted_read, adopted_write) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread, so no lock is held by a thread that the child does not have.
    let forked = own_fork(|| unsafe { fork() });
    match forked? {
        ForkResult::Parent { child } => {
            drop((pid_write, adopted_read, adopted_write));
            let mut pid = [0; 4];
            if File::from(pid_read).read_exact(&mut pid).is_ok() {
                moved(Pid::from_raw(i32::from_le_bytes(pid)));
                leave(0);
            }
            while waitpid(child, None) == Err(Errno::EINTR) {}
            Err(io::Error::other(NoRoom))
        }
        ForkResult::Child => {
            drop(pid_read);
            Ok(divide(adopter, pid_write, (adopted_read, adopted_write)))
        }
    }
}

/// In the child, and in the successor.
fn divide(adopter: Pid, pid_pipe: OwnedFd, adopted: (OwnedFd, OwnedFd)) -> Succession {
    let child = getpid();
    // SAFETY: without flags and without a stack it is a fork whose end sends no signal; this process has one thread.
    match unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) } {
        0 => {
            drop((pid_pipe, adopted.1));
            // A byte, or the end of a child that nothing has adopted.
            let _ = File::from(adopted.0).read(&mut [0]);
            Succession::Successor { child }
        }
        successor @ 1.. => {
            let successor = Pid::from_raw(successor as i32);
            // When it cannot be written the parent stays, and takes back what was made here.
            if File::from(pid_pipe)
                .write_all(&successor.as_raw().to_le_bytes())
                .is_err()
            {
                leave(1);
            }
            wait_for_adoption(adopter);
            let _ = File::from(adopted.1).write_all(b"!");
            Succession::Child { successor }
        }
        _ => leave(1),
    }
}

fn wait_for_adoption(adopter: Pid) {
    let deadline = Instant::now() + ADOPTION_MAX;
    while getppid() != adopter && Instant::now() < deadline {
        std::thread::sleep(ADOPTION_POLL);
    }
}

/// A process below this one whose end sends no signal.
#[derive(Debug)]
pub struct QuietChild(AtomicI32);

impl QuietChild {
    #[must_use]
    pub fn new(pid: Option<Pid>) -> Self {
        Self(AtomicI32::new(pid.map_or(0, Pid::as_raw)))
    }

    /// Takes it away if it has ended. True when there is none any more.
    pub fn reap(&self) -> bool {
        let pid = self.0.load(Ordering::Relaxed);
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
        if pid != 0 && waitpid(Pid::from_raw(pid), Some(flags)) == Ok(WaitStatus::StillAlive) {
            return false;
        }
        self.0.store(0, Ordering::Relaxed);
        true
    }
}

/// Ends this process without its exit handlers.
fn leave(code: i32) -> ! {
    // SAFETY: it does not return, and runs no code of this process.
    unsafe { libc::_exit(code) }
}

/// The parent ends within microseconds; under load within the milliseconds that it waits for a core.
const ADOPTION_MAX: Duration = Duration::from_secs(5);
const ADOPTION_POLL: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;

    /// The process that forks must have one thread, which a test's has not: it is a child without any other.
    #[test]
    fn the_successor_is_below_the_child_and_the_adopter_has_the_child() {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let adopter = getpid();
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        // SAFETY: the child makes system calls, and ends by one.
        let first = match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                let mut pipe = File::from(write);
                let mut tell = |kind: u8, pid: Pid| {
                    let mut bytes = [kind; 5];
                    bytes[1..].copy_from_slice(&pid.as_raw().to_le_bytes());
                    let _ = pipe.write_all(&bytes);
                };
                match fork_with_successor(adopter, |pid| tell(b'm', pid)) {
                    Ok(Succession::Child { successor }) => {
                        tell(b'c', getpid());
                        // `wait` does not see the successor, which still runs or not.
                        let seen = waitpid(None, Some(WaitPidFlag::WNOHANG));
                        tell(b'w', Pid::from_raw(i32::from(seen == Err(Errno::ECHILD))));
                        let successor = QuietChild::new(Some(successor));
                        while !successor.reap() {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        leave(7);
                    }
                    Ok(Succession::Successor { child }) => {
                        tell(b's', child);
                        leave(0);
                    }
                    Err(_) => leave(9),
                }
            }
        };
        drop(write);
        let mut bytes = Vec::new();
        File::from(read).read_to_end(&mut bytes).unwrap();
        let told = |kind: u8| {
            let message = bytes.chunks_exact(5).find(|one| one[0] == kind).unwrap();
            i32::from_le_bytes(message[1..].try_into().unwrap())
        };
        assert_eq!(waitpid(first, None), Ok(WaitStatus::Exited(first, 0)));
        let child = Pid::from_raw(told(b'c'));
        assert_eq!(
            waitpid(child, None),
            Ok(WaitStatus::Exited(child, 7)),
            "adopted"
        );
        assert_eq!(told(b's'), child.as_raw());
        assert!(told(b'm') > 1 && told(b'm') != child.as_raw());
        assert_eq!(told(b'w'), 1, "nothing to wait for");
    }
}
