//! The control channel between the arbiter and one worker: the word to begin, and requests for its stacks.
//!
//! Two channels lead back. On `requests` the arbiter sends a number and gets a frame: the number again, then JSON made by
//! a thread of the worker that needs the interpreter. When that does not come, some thread keeps the GIL; then
//! `dump_signal` makes Python's `faulthandler` write what it sees to `dump`, without the interpreter.
//!
//! A worker of a fork server first waits for the number 0, [`WorkerChannel::wait_for_start`]: it comes when the arbiter
//! knows the worker's pid. When the arbiter gave the spawn request up the channel is closed, and the worker leaves.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read};

use crate::control::Inbox;
use crate::fork_guard;

/// The worker's ends.
#[derive(Debug)]
pub struct WorkerChannel {
    /// Blocking. A request is four bytes, its response a frame that begins with the same four.
    pub requests: UnixStream,
    /// Non-blocking, so that a dump into a full pipe is cut and not waited for.
    pub dump: OwnedFd,
}

/// The arbiter's ends.
#[derive(Debug)]
pub(super) struct ControlChannel {
    requests: UnixStream,
    dump: OwnedFd,
    inbox: Inbox,
}

/// Both sides' ends of a new channel.
pub(super) fn open() -> io::Result<(ControlChannel, WorkerChannel)> {
    let (ours, requests) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (dump_read, dump) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    for end in [&ours, &requests] {
        fork_guard::register(end);
    }
    for end in [&dump_read, &dump] {
        fork_guard::register(end);
    }
    let channel = ControlChannel {
        requests: ours,
        dump: dump_read,
        inbox: Inbox::new(RESPONSE_BYTES_MAX),
    };
    Ok((channel, WorkerChannel { requests, dump }))
}

impl WorkerChannel {
    /// Waits until the arbiter knows this worker.
    ///
    /// # Errors
    /// The arbiter has given this worker up, or is gone.
    pub fn wait_for_start(&mut self) -> io::Result<()> {
        let mut number = [0; 4];
        self.requests.read_exact(&mut number)?;
        if u32::from_be_bytes(number) == START {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

impl ControlChannel {
    /// The worker is known and may begin.
    pub(super) fn start(&mut self) {
        self.request(START);
    }

    /// False when the worker cannot be asked: it is gone, or has not read hundreds of requests.
    pub(super) fn request(&mut self, number: u32) -> bool {
        let bytes = number.to_be_bytes();
        self.requests.write(&bytes).is_ok_and(|count| count == 4)
    }

    /// Responses that are whole, each with its number. Bounded: what is left comes the next time.
    pub(super) fn responses(&mut self) -> Vec<(u32, Vec<u8>)> {
        let mut bytes = vec![0; 64 * 1024];
        for _ in 0..READS_PER_ITERATION {
            match self.requests.read(&mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(count) => self.inbox.push(&bytes[..count]),
            }
        }
        let mut responses = Vec::new();
        // A frame over the limit is no response; the request stays unanswered.
        while let Ok(Some(payload)) = self.inbox.take() {
            if let Some((number, response)) = payload.split_first_chunk() {
                responses.push((u32::from_be_bytes(*number), response.to_vec()));
            }
        }
        responses
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
        self.requests.as_fd()
    }
}

/// No request for stacks has this number.
pub(super) const START: u32 = 0;
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;
const DUMP_BYTES_MAX: usize = 1024 * 1024;
const READS_PER_ITERATION: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_begins_at_the_arbiters_word_or_not_at_all() {
        let (mut arbiter, mut worker) = open().unwrap();
        arbiter.start();
        assert!(worker.wait_for_start().is_ok());
        drop(arbiter);
        assert!(worker.wait_for_start().is_err());
    }

    #[test]
    fn responses_come_with_the_number_of_their_request() {
        let (mut arbiter, mut worker) = open().unwrap();
        assert!(arbiter.request(7));
        let mut number = [0; 4];
        worker.requests.read_exact(&mut number).unwrap();
        worker.requests.write_all(&[0, 0, 0, 6]).unwrap();
        worker.requests.write_all(&number).unwrap();
        assert!(arbiter.responses().is_empty(), "not whole yet");
        worker.requests.write_all(b"[]").unwrap();
        assert_eq!(arbiter.responses(), [(7, b"[]".to_vec())]);
        drop(worker);
        assert!(!arbiter.request(8));
    }

    #[test]
    fn a_frame_that_is_too_long_is_no_response() {
        let (mut arbiter, mut worker) = open().unwrap();
        worker.requests.write_all(&[0xff; 64]).unwrap();
        assert!(arbiter.responses().is_empty());
        assert!(arbiter.dumped().is_empty());
    }
}
