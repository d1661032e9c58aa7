//! The line between the arbiter and one worker: stacks are asked for and told on it.
//!
//! Two ways lead back. On `questions` the arbiter sends a number and gets a frame: the number again, then JSON made by
//! a thread of the worker that needs the interpreter. When that does not come, some thread keeps the GIL; then
//! `dump_signal` makes Python's `faulthandler` write what it sees to `dump`, without the interpreter.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::{pipe2, read};

use crate::control::Inbox;
use crate::fork_guard;

/// The worker's ends.
#[derive(Debug)]
pub struct WorkerLine {
    /// Blocking. A question is four bytes, its answer a frame that begins with the same four.
    pub questions: UnixStream,
    /// Non-blocking, so that a dump into a full pipe is cut and not waited for.
    pub dump: OwnedFd,
}

/// The arbiter's ends.
#[derive(Debug)]
pub(super) struct Line {
    questions: UnixStream,
    dump: OwnedFd,
    inbox: Inbox,
}

pub(super) fn open() -> io::Result<(Line, WorkerLine)> {
    let (ours, questions) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (dump_read, dump) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    for end in [&ours, &questions] {
        fork_guard::register(end);
    }
    for end in [&dump_read, &dump] {
        fork_guard::register(end);
    }
    let line = Line {
        questions: ours,
        dump: dump_read,
        inbox: Inbox::new(ANSWER_BYTES_MAX),
    };
    Ok((line, WorkerLine { questions, dump }))
}

impl Line {
    /// False when the worker cannot be asked: it is gone, or has not read hundreds of questions.
    pub(super) fn ask(&mut self, question: u32) -> bool {
        let bytes = question.to_be_bytes();
        self.questions.write(&bytes).is_ok_and(|count| count == 4)
    }

    /// Answers that are whole, each with its question. Bounded: what is left comes the next time.
    pub(super) fn answers(&mut self) -> Vec<(u32, Vec<u8>)> {
        let mut bytes = vec![0; 64 * 1024];
        for _ in 0..READS_PER_TURN {
            match self.questions.read(&mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(count) => self.inbox.push(&bytes[..count]),
            }
        }
        let mut answers = Vec::new();
        // A frame over the limit is not one of ours; the question stays unanswered.
        while let Ok(Some(payload)) = self.inbox.take() {
            if let Some((question, answer)) = payload.split_first_chunk() {
                answers.push((u32::from_be_bytes(*question), answer.to_vec()));
            }
        }
        answers
    }

    /// What `faulthandler` has written since the last call.
    pub(super) fn dumped(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut bytes = [0; 16 * 1024];
        while text.len() < DUMP_BYTES_MAX {
            match read(&self.dump, &mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(count) => text.extend_from_slice(&bytes[..count]),
            }
        }
        text
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.questions.as_fd()
    }
}

/// A signal that nothing else uses: the kernel never sends it, and applications do not know it.
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

const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
const DUMP_BYTES_MAX: usize = 1024 * 1024;
const READS_PER_TURN: usize = 32;
