//! Signals as bytes on a pipe: the handler writes the signal's number, a loop reads it when it gets to it.
//!
//! Used twice: by the arbiter for its own loop, and by a worker, after the fork, for its event loop. One pipe
//! per process is in use at a time; installing again replaces it.
//!
//! Invariants:
//! - The handler checks the process and the pipe and makes one `write`: no lock, no allocation, `errno` left as it was.
//!   In a process that has not installed it, and when the pipe is gone, it lets the signal act by default.
//! - A forked child must not write into the arbiter's pipe, or a signal meant for one worker would reach the
//!   arbiter. So all signals are blocked around the fork (`Blocked`), and the child calls `leave_to_child`
//!   before it lets them through again.
#![expect(
    unsafe_code,
    reason = "installing a signal handler is unsafe by nature"
)]

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, kill, sigaction,
};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{getpid, pipe2, read, write};

use super::runtime::Runtime;
use crate::fork_guard;
use crate::net::Wait;

/// What the arbiter listens to.
pub const ARBITER_SIGNALS: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCHLD,
];

/// Writes the numbers of `signals` to a new pipe from now on, and returns its (non-blocking) read end.
///
/// # Errors
/// When there is no descriptor left, or a signal cannot be caught.
pub fn install(signals: &[Signal]) -> io::Result<OwnedFd> {
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    fork_guard::register(&read_end);
    fork_guard::register(&write_end);
    let inode = identity(write_end.as_fd()).ok_or(io::ErrorKind::Unsupported)?;
    PIPE_INODE.store(inode, Ordering::SeqCst);
    replace_pipe(write_end.into_raw_fd());
    set_all(signals, SigHandler::Handler(write_to_pipe))?;
    Ok(read_end)
}

/// Takes signals again that [`install`] has taken, from handlers that Python has set since.
///
/// # Errors
/// When one of them cannot be caught.
pub fn retake(signals: &[Signal]) -> io::Result<()> {
    set_all(signals, SigHandler::Handler(write_to_pipe))
}

/// The signals that arrived since the last call, in order. Never blocks.
#[must_use]
pub fn arrived(pipe: &OwnedFd) -> Vec<Signal> {
    let mut signals = Vec::new();
    let mut numbers = [0; 64];
    loop {
        match read(pipe, &mut numbers) {
            Ok(0) => break,
            Ok(count) => signals.extend(
                numbers[..count]
                    .iter()
                    .filter_map(|number| Signal::try_from(c_int::from(*number)).ok()),
            ),
            Err(Errno::EINTR) => {}
            Err(_) => break,
        }
    }
    signals
}

/// Waits for TERM, INT or QUIT, without the GIL. True when one has come.
pub(super) fn wait_for_stop(runtime: &mut dyn Runtime, pipe: &OwnedFd, wait: Wait) -> bool {
    let at_most_ms = match wait {
        Wait::Attempt => ATTEMPT_MS,
        Wait::Name => NAME_MS,
    };
    let mut waited = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    runtime.wait(&mut || {
        let _ = poll(&mut waited, PollTimeout::from(at_most_ms));
    });
    let stops = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
    arrived(pipe).iter().any(|signal| stops.contains(signal))
}

/// Puts `signal` before the loop of this process as if it had come. False when no loop has been made yet.
#[must_use]
pub fn deliver(signal: Signal) -> bool {
    let is_installed = PIPE.load(Ordering::SeqCst) != NO_PIPE;
    if is_installed {
        write_to_pipe(signal as c_int);
    }
    is_installed
}

/// What the kernel does about a signal in this process: the address of its handler, or default, or ignore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disposition(usize);

/// Asks the kernel.
///
/// # Errors
/// When the system knows no such signal.
pub fn disposition(signal: Signal) -> io::Result<Disposition> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the call changes nothing without a new action, and `action` has room for the old one.
    let asked = unsafe { libc::sigaction(signal as c_int, std::ptr::null(), action.as_mut_ptr()) };
    Errno::result(asked)?;
    // SAFETY: zeros are a valid `sigaction`, and the call has filled it.
    let action = unsafe { action.assume_init() };
    Ok(Disposition(action.sa_sigaction))
}

/// Writes to a descriptor of the application, which may have closed it: then nothing is written.
pub fn write_to_number(number: RawFd, bytes: &[u8]) {
    // SAFETY: the number is the application's and only borrowed for one `write`, which fails when it is closed.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let _ = write(descriptor, bytes);
}

/// `term` of `SIGTERM`, as log lines name signals.
#[must_use]
pub fn name(signal: Signal) -> String {
    signal.as_str().trim_start_matches("SIG").to_lowercase()
}

/// # Errors
/// When one of them cannot be caught.
pub fn reset_to_default(signals: &[Signal]) -> io::Result<()> {
    set_all(signals, SigHandler::SigDfl)
}

/// Makes `signals` arrive without effect. A handler that does nothing, unlike `SIG_IGN`, is not inherited by
/// programs that the application starts.
///
/// # Errors
/// When one of them cannot be caught.
pub fn disregard(signals: &[Signal]) -> io::Result<()> {
    set_all(signals, SigHandler::Handler(do_nothing))
}

/// In a forked child, while signals are blocked: what stops a process stops it again, what is only meant for
/// serving workers (and may be sent to the whole group) has no effect while the worker boots, USR1 is noted for
/// [`take_rotation`], and the arbiter's pipe is closed.
pub(super) fn leave_to_child() -> io::Result<()> {
    replace_pipe(NO_PIPE);
    reset_to_default(&ARBITER_SIGNALS)?;
    disregard(&[
        Signal::SIGHUP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
    ])?;
    set_all(&[Signal::SIGUSR1], SigHandler::Handler(note_rotation))?;
    // Until the worker lets `faulthandler` have it.
    dump_signal().map_or(Ok(()), |signal| disregard(&[signal]))
}

/// Whether USR1 came between the fork and the worker's own handler for it.
#[must_use]
pub fn take_rotation() -> bool {
    ROTATION.swap(false, Ordering::SeqCst)
}

/// In a forked child that is going to execute another program, while signals are blocked. What is meant for a master
/// at work has no effect until the program has handlers of its own: its default would be to kill it. Unlike a handler,
/// "ignore" survives the exec.
pub(super) fn leave_to_next_program() -> io::Result<()> {
    leave_to_child()?;
    let ignored = [
        Signal::SIGHUP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
    ];
    set_all(&ignored, SigHandler::SigIgn)
}

/// All signals wait while this lives, and threads that are started meanwhile never get any.
#[derive(Debug)]
pub struct Blocked {
    before: SigSet,
}

impl Blocked {
    /// # Errors
    /// When the system refuses, which no valid set can cause.
    pub fn new() -> io::Result<Self> {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { before })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let restored = self.before.thread_set_mask();
        debug_assert!(restored.is_ok(), "the mask was the thread's own");
    }
}

/// A signal that nothing else uses: the kernel never sends it, and applications do not use it. It makes a worker's
/// `faulthandler` dump.
#[must_use]
pub fn dump_signal() -> Option<Signal> {
    #[cfg(all(
        target_os = "linux",
        not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc64"))
    ))]
    return Some(Signal::SIGSTKFLT);
    #[cfg(not(all(
        target_os = "linux",
        not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc64"))
    )))]
    return None;
}

fn set_all(signals: &[Signal], handler: SigHandler) -> io::Result<()> {
    // Interrupted reads and writes of the application go on by themselves.
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    OWNER.store(getpid().as_raw(), Ordering::SeqCst);
    for signal in signals {
        // SAFETY: both handlers of this file only do what is allowed in a signal handler.
        unsafe { sigaction(*signal, &action) }?;
        let handler = match handler {
            SigHandler::Handler(handler) => Some(handler),
            _ => None,
        };
        fork_guard::note_handler(*signal, handler);
    }
    Ok(())
}

fn replace_pipe(write_end: RawFd) {
    let previous = PIPE.swap(write_end, Ordering::SeqCst);
    if previous != NO_PIPE {
        // SAFETY: the number came from `into_raw_fd` in `install`, and the swap gave it to us alone.
        drop(unsafe { OwnedFd::from_raw_fd(previous) });
    }
}

extern "C" fn write_to_pipe(number: c_int) {
    let errno = Errno::last_raw();
    if !is_owner() {
        return take_default_effect(number);
    }
    let pipe = PIPE.load(Ordering::SeqCst);
    if pipe != NO_PIPE {
        // SAFETY: PIPE holds an open descriptor that only `replace_pipe` closes, on the thread that installs
        // signals; when code of the application has closed it, `identity` sees that, and nothing is written.
        let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
        if identity(pipe) == Some(PIPE_INODE.load(Ordering::SeqCst)) {
            // A full pipe means that thousands of signals wait already: one more changes nothing.
            let _ = write(pipe, &[number as u8]);
        } else {
            take_default_effect(number);
        }
    }
    Errno::set_raw(errno);
}

/// The inode of a pipe, which no other file of the process has.
fn identity(pipe: BorrowedFd<'_>) -> Option<u64> {
    let found = fstat(pipe).ok()?;
    let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
    (kind == SFlag::S_IFIFO).then_some(found.st_ino)
}

/// The loop cannot get the signal: this is another process, or code of the application has closed the pipe, as by
/// `os.closerange(3, 256)`. The process must still end when a signal says so. The signal comes again when the handler returns.
/// It comes to the process: the thread that looks at the arbiter's note calls this too, and blocks all signals.
fn take_default_effect(number: c_int) {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    if let Ok(signal) = Signal::try_from(number) {
        // SAFETY: the default is no handler at all. sigaction(2) and kill(2) may be called in a signal handler.
        let _ = unsafe { sigaction(signal, &default) };
        let _ = kill(getpid(), signal);
    }
}

extern "C" fn do_nothing(number: c_int) {
    if !is_owner() {
        take_default_effect(number);
    }
}

extern "C" fn note_rotation(number: c_int) {
    do_nothing(number);
    ROTATION.store(true, Ordering::SeqCst);
}

/// False in a process that was forked by a bare system call: `fork_guard` resets the handlers of all others.
fn is_owner() -> bool {
    OWNER.load(Ordering::SeqCst) == getpid().as_raw()
}

/// The process that has installed the handlers.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// gunicorn's, between two attempts to bind an address.
const ATTEMPT_MS: u16 = 1000;
/// Between two looks whether a name is known.
const NAME_MS: u16 = 10;

static ROTATION: AtomicBool = AtomicBool::new(false);

static PIPE: AtomicI32 = AtomicI32::new(NO_PIPE);
/// Of the pipe in `PIPE`, to know it from what may have its number.
static PIPE_INODE: AtomicU64 = AtomicU64::new(0);
const NO_PIPE: RawFd = -1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_gunicorns() {
        assert_eq!(name(Signal::SIGTERM), "term");
        assert_eq!(name(Signal::SIGUSR1), "usr1");
    }

    #[test]
    fn a_signal_becomes_a_byte_and_then_nothing() {
        let pipe = install(&[Signal::SIGWINCH]).unwrap();
        assert!(arrived(&pipe).is_empty());
        kill(getpid(), Signal::SIGWINCH).unwrap();
        // Another thread of the test process may be the one that runs the handler.
        let seen = std::iter::repeat_with(|| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            arrived(&pipe)
        })
        .take(1000)
        .find(|signals| !signals.is_empty());
        assert_eq!(seen, Some(vec![Signal::SIGWINCH]));

        disregard(&[Signal::SIGWINCH]).unwrap();
        kill(getpid(), Signal::SIGWINCH).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert!(arrived(&pipe).is_empty());
        reset_to_default(&[Signal::SIGWINCH]).unwrap();
    }
}
