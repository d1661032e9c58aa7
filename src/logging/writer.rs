//! `Writer`: the thread that writes what a log does not take at once, for a worker that must not wait.
//!
//! Lines wait for it in a buffer of bounded length. It holds no lock while it writes, never sees Python, and nobody
//! waits for it: a write that hangs ends with the process. While lines come in it looks for them every few milliseconds,
//! so that a busy worker wakes it seldom.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::write;

use super::whole_lines::{self, Dropped};

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Whose the thread is: a forked child has none.
    pid: u32,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Lines have come, or have all been written.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    pending: Vec<u8>,
    /// What the lines go to. Another one after the file was opened anew.
    fd: Arc<OwnedFd>,
    thread: Thread,
    /// The last write was taken.
    flows: bool,
    dropped: Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    /// Sleeps until it is woken.
    Asleep,
    /// Looks for lines by itself, soon.
    Dozes,
    Writes,
}

impl Writer {
    /// Starts the thread. It writes what is pending first.
    ///
    /// # Errors
    /// When there are no more threads or descriptors to be had.
    pub(super) fn start(
        fd: BorrowedFd<'_>,
        piece_bytes_max: usize,
        pending: &mut Vec<u8>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                pending: std::mem::take(pending),
                fd: Arc::new(fd.try_clone_to_owned()?),
                thread: Thread::Dozes,
                flows: true,
                dropped: Dropped::default(),
            }),
            changed: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("ferricorn-log".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // Signals are for the main thread, and a write that hangs must not take one.
                let _ = SigSet::all().thread_block();
                of_thread.run(piece_bytes_max);
            })?;
        Ok(Self {
            shared,
            pid: std::process::id(),
        })
    }

    pub(super) fn is_of_this_process(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Everything was written.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        state.pending.is_empty() && state.thread != Thread::Writes
    }

    /// Gives lines to the thread, as far as there is room.
    pub(super) fn push(&self, lines: &[u8]) {
        let mut state = self.shared.lock();
        let room = PENDING_BYTES_MAX.saturating_sub(state.pending.len());
        let fits = whole_lines::fitting(lines, room);
        state.pending.extend_from_slice(&lines[..fits]);
        state.dropped.add(whole_lines::count(&lines[fits..]));
        if state.thread == Thread::Asleep {
            self.shared.changed.notify_all();
        }
    }

    /// The log is behind another descriptor now.
    pub(super) fn redirect(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.shared.lock().fd = Arc::new(fd.try_clone_to_owned()?);
        Ok(())
    }

    /// Waits until all is written, or until `until`.
    pub(super) fn drain(&self, until: Instant) {
        let mut state = self.shared.lock();
        self.shared.changed.notify_all();
        while !state.pending.is_empty() || state.thread == Thread::Writes {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many lines were dropped, once lines flow again.
    pub(super) fn take_dropped(&self) -> Option<u64> {
        let mut state = self.shared.lock();
        let is_over = state.flows && state.pending.is_empty() && state.thread != Thread::Writes;
        match is_over {
            true => state.dropped.take(),
            false => None,
        }
    }

    /// How many lines were ever dropped.
    pub(super) fn dropped_total(&self) -> u64 {
        self.shared.lock().dropped.total()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, piece_bytes_max: usize) {
        let mut lines = Vec::new();
        loop {
            let fd = self.take(&mut lines);
            let (dropped, flows) = write_all(&fd, &lines, piece_bytes_max);
            let mut state = self.lock();
            state.dropped.add(dropped);
            state.flows = flows;
        }
    }

    /// Sleeps until there are lines, takes them all, and says where they go.
    fn take(&self, lines: &mut Vec<u8>) -> Arc<OwnedFd> {
        lines.clear();
        let mut state = self.lock();
        if state.pending.is_empty() {
            state.thread = Thread::Dozes;
            self.changed.notify_all();
            let dozed = self.changed.wait_timeout(state, DOZE);
            state = dozed.unwrap_or_else(PoisonError::into_inner).0;
        }
        while state.pending.is_empty() {
            state.thread = Thread::Asleep;
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.thread = Thread::Writes;
        std::mem::swap(&mut state.pending, lines);
        Arc::clone(&state.fd)
    }
}

/// Returns how many lines the log refused for good, and whether it took the last.
fn write_all(fd: &OwnedFd, lines: &[u8], piece_bytes_max: usize) -> (u64, bool) {
    let mut rest = lines;
    while !rest.is_empty() {
        let piece = whole_lines::piece(rest, piece_bytes_max);
        match write(fd.as_fd(), &rest[..piece]) {
            Ok(taken) => rest = &rest[taken..],
            Err(Errno::EINTR) => {}
            // The open file does not block, so the thread does.
            Err(Errno::EAGAIN) => std::thread::sleep(DOZE),
            Err(_) => return (whole_lines::count(rest), false),
        }
    }
    (0, true)
}

/// What waits to be written is no longer: some ten thousand lines, a hiccup of the reader and not a standstill.
pub(super) const PENDING_BYTES_MAX: usize = 1024 * 1024;
/// While lines come in they wait at most this.
const DOZE: Duration = Duration::from_millis(5);
/// It calls nothing that is deep.
const STACK_BYTES: usize = 128 * 1024;
