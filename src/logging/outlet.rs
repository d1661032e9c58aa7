//! `Outlet`: lines to a descriptor, without making the caller wait.
//!
//! What the descriptor does not take at once waits in a bounded buffer, in order. What finds no room there is dropped,
//! counted, and reported once when lines flow again. In a worker a thread writes what waits, and all where a write may
//! wait. A process that forks (the arbiter, the fork server) has none: there `flush` tries again.
//!
//! Invariants: lines are kept and dropped whole. A line that was begun is ended before another one begins.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::whole_lines::{self, Dropped};
use super::write_mode::WriteMode;
use super::writer::{PENDING_BYTES_MAX, Writer};

/// See the module.
#[derive(Debug)]
pub(super) struct Outlet {
    mode: WriteMode,
    /// Lines that were not taken yet.
    pending: Vec<u8>,
    /// The process whose lines they are: a forked child leaves them to its parent.
    pending_of: u32,
    /// The last write was taken.
    flows: bool,
    dropped: Dropped,
    thread: Thread,
}

#[derive(Debug)]
enum Thread {
    /// This process forks.
    Forbidden,
    /// In the process of this id; not in its children.
    Allowed(u32),
    Runs(Writer),
}

impl Outlet {
    pub(super) fn of(fd: BorrowedFd<'_>) -> Self {
        Self {
            mode: WriteMode::of(fd),
            pending: Vec::new(),
            pending_of: 0,
            flows: true,
            dropped: Dropped::default(),
            thread: Thread::Forbidden,
        }
    }

    /// Writes whole lines, or keeps or drops them.
    pub(super) fn write(&mut self, fd: BorrowedFd<'_>, lines: &[u8]) {
        if self.running().is_some_and(|writer| !writer.is_idle()) || self.mode.may_wait() {
            return self.leave(fd, lines);
        }
        self.flush(fd);
        let mut rest = lines;
        if self.pending.is_empty() {
            self.put(fd, &mut rest);
        }
        if !rest.is_empty() {
            self.leave(fd, rest);
        }
    }

    /// Leaves lines to the thread, if this process may have one. Otherwise they wait for `flush`, and where a write may wait
    /// it is made here.
    fn leave(&mut self, fd: BorrowedFd<'_>, lines: &[u8]) {
        if let Some(writer) = self.writer(fd) {
            return writer.push(lines);
        }
        self.flush(fd);
        let mut rest = lines;
        if self.pending.is_empty() {
            self.put(fd, &mut rest);
        }
        self.keep(rest);
    }

    /// Writes what is pending, as far as it is taken.
    pub(super) fn flush(&mut self, fd: BorrowedFd<'_>) {
        if self.pending.is_empty() {
            return;
        }
        if self.pending_of != std::process::id() {
            return self.pending.clear();
        }
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        self.put(fd, &mut rest);
        let taken = pending.len() - rest.len();
        self.pending = pending;
        self.pending.drain(..taken);
        if self.pending.is_empty() && self.pending.capacity() > KEPT_CAPACITY {
            self.pending = Vec::new();
        }
    }

    pub(super) fn is_remote(&self) -> bool {
        self.mode.is_remote()
    }

    /// Takes over from the outlet of the settings before: its counts, and what it has kept if that goes to the same file.
    pub(super) fn succeed(&mut self, before: Self, is_same_file: bool) {
        self.dropped = before.dropped;
        if is_same_file {
            self.pending = before.pending;
            self.pending_of = before.pending_of;
        } else {
            self.dropped.add(whole_lines::count(&before.pending));
        }
    }

    /// This process was forked: what its parent has kept and dropped is the parent's.
    pub(super) fn forked(&mut self) {
        self.pending.clear();
        self.dropped = Dropped::default();
    }

    /// Lets a thread write from now on, when a write may wait. To be called in a process that will not fork.
    pub(super) fn allow_thread(&mut self) {
        self.thread = Thread::Allowed(std::process::id());
    }

    /// The thread that writes what is not taken at once, if this process may have one.
    fn writer(&mut self, fd: BorrowedFd<'_>) -> Option<&Writer> {
        if let Thread::Allowed(pid) = self.thread
            && pid == std::process::id()
        {
            let writer = Writer::start(fd, self.mode.piece_bytes_max(), &mut self.pending);
            // Without a thread to be had the write is made here, and may wait.
            self.thread = writer.map_or(Thread::Forbidden, Thread::Runs);
        }
        self.running()
    }

    fn running(&self) -> Option<&Writer> {
        match &self.thread {
            Thread::Runs(writer) if writer.is_of_this_process() => Some(writer),
            Thread::Runs(_) | Thread::Allowed(_) | Thread::Forbidden => None,
        }
    }

    /// Another file is behind the descriptor now. What is pending goes to it.
    ///
    /// # Errors
    /// When no descriptor is left for the thread: then it goes on to write to the old file.
    pub(super) fn retarget(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.mode = WriteMode::of(fd);
        match self.running() {
            Some(writer) => writer.redirect(fd),
            None => Ok(()),
        }
    }

    /// Gives what is pending until `until` to be taken.
    pub(super) fn close(&mut self, fd: BorrowedFd<'_>, until: Instant) {
        if let Some(writer) = self.running() {
            return writer.drain(until);
        }
        loop {
            self.flush(fd);
            let left = until.saturating_duration_since(Instant::now());
            if self.pending.is_empty() || left.is_zero() {
                return;
            }
            let mut ready = [PollFd::new(fd, PollFlags::POLLOUT)];
            // A pipe can have room and not take a line: then it is asked again a little later.
            let wait = PollTimeout::try_from(left.min(CLOSE_STEP)).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut ready, wait);
        }
    }

    /// How many lines were dropped, once lines flow again.
    pub(super) fn take_dropped(&mut self) -> Option<u64> {
        let by_thread = match self.running() {
            Some(writer) if !writer.is_idle() => return None,
            Some(writer) => writer.take_dropped(),
            None => None,
        };
        let own = match self.flows && self.pending.is_empty() {
            true => self.dropped.take(),
            false => None,
        };
        match (by_thread, own) {
            (None, own) => own,
            (Some(lines), own) => Some(lines + own.unwrap_or(0)),
        }
    }

    /// How many lines were ever dropped.
    pub(super) fn dropped_total(&self) -> u64 {
        let by_thread = self.running().map_or(0, Writer::dropped_total);
        self.dropped.total() + by_thread
    }

    /// Advances `rest` past what is done with: taken, or refused for good.
    fn put(&mut self, fd: BorrowedFd<'_>, rest: &mut &[u8]) {
        while !rest.is_empty() {
            let piece = whole_lines::piece(rest, self.mode.piece_bytes_max());
            match self.mode.put(fd, &rest[..piece]) {
                Ok(taken) => {
                    self.flows = true;
                    *rest = &rest[taken..];
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.flows = false;
                    return;
                }
                // A full disk, a pipe without a reader: there is nothing to wait for.
                Err(_) => {
                    self.flows = false;
                    self.dropped.add(whole_lines::count(&rest[..piece]));
                    *rest = &rest[piece..];
                }
            }
        }
    }

    /// Keeps the lines for which there is room.
    fn keep(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let fits =
            whole_lines::fitting(lines, PENDING_BYTES_MAX.saturating_sub(self.pending.len()));
        self.pending_of = std::process::id();
        self.pending.extend_from_slice(&lines[..fits]);
        self.dropped.add(whole_lines::count(&lines[fits..]));
    }
}

/// An empty buffer that is larger is given back.
const KEPT_CAPACITY: usize = 64 * 1024;
const CLOSE_STEP: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;
