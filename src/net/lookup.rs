//! One look-up of a host name, for a process that does not wait for it: name servers may take half a minute to be silent.
//!
//! A process that forks must not have threads, so there a process of its own asks. It is no child of the one that wants to
//! know, has nothing of the server open, and ends by itself in time. Where threads may be had, one of them asks.
#![expect(
    unsafe_code,
    reason = "what asks is forked here: the arbiter has no thread, and Python no part in it"
)]

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, alarm, fork, pipe2};

use crate::fork_guard;

/// A look-up under way.
#[derive(Debug)]
pub(super) struct Lookup {
    /// Ends behind the answer.
    pipe: File,
    answer: Vec<u8>,
    /// Whose it is: in a process that was forked meanwhile it is nothing.
    pid: u32,
}

/// What has become of a look-up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    NotYet,
    /// With port 0; never empty.
    Found(Vec<SocketAddr>),
    Failed(String),
}

impl Lookup {
    /// Asks, by a thread if this process may have one.
    ///
    /// # Errors
    /// There are no descriptors, processes or threads to be had.
    pub(super) fn start(host: &str, by_thread: bool) -> io::Result<Self> {
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
        fork_guard::register(&read_end);
        fcntl(&read_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (host, answer) = (host.to_owned(), File::from(write_end));
        if by_thread {
            fork_guard::register(&answer);
            std::thread::Builder::new()
                .name("ferricorn-lookup".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    // Signals are for the main thread.
                    let _ = SigSet::all().thread_block();
                    ask(&host, answer);
                })?;
        } else {
            ask_in_process(&host, answer)?;
        }
        Ok(Self {
            pipe: File::from(read_end),
            answer: Vec::new(),
            pid: std::process::id(),
        })
    }

    pub(super) fn is_of_this_process(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Does not wait. Not to be called again after the answer.
    pub(super) fn read(&mut self) -> Answer {
        let mut bytes = [0; 4096];
        loop {
            match self.pipe.read(&mut bytes) {
                Ok(0) => return parse(&self.answer),
                Ok(count) => self.answer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Answer::NotYet,
                Err(error) => return Answer::Failed(error.to_string()),
            }
        }
    }

    /// Waits for the answer, `at_most_ms`.
    pub(super) fn wait(&self, at_most_ms: u16) {
        let mut waited = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut waited, PollTimeout::from(at_most_ms));
    }
}

/// Forks twice, so that there is no child for others to wait for.
fn ask_in_process(host: &str, answer: File) -> io::Result<()> {
    // SAFETY: without `own_fork` the handler of `fork_guard` runs in the child, so nothing of the server is left there. The
    // child calls the C library and never Python, and ends without handlers.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            // It ends at once.
            while waitpid(child, None) == Err(Errno::EINTR) {}
            Ok(())
        }
        ForkResult::Child => {
            // SAFETY: as above.
            if matches!(unsafe { fork() }, Ok(ForkResult::Child)) {
                prepare_process();
                ask(host, answer);
            }
            // SAFETY: the call ends the process at once.
            unsafe { libc::_exit(0) }
        }
    }
}

/// It ends in time, on every signal, and holds no stream that others wait to see the end of.
fn prepare_process() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default is no handler at all.
    let _ = unsafe { sigaction(Signal::SIGALRM, &default) };
    let _ = SigSet::all().thread_unblock();
    alarm::set(LOOKUP_S);
    for stream in 0..=2 as c_int {
        // SAFETY: the standard streams are used by nothing in this process.
        unsafe { libc::close(stream) };
    }
}

fn ask(host: &str, mut answer: File) {
    let text = match (host, 0).to_socket_addrs() {
        Ok(found) => {
            let lines = found.take(ADDRESSES_MAX);
            lines.map(|address| format!("{address}\n")).collect()
        }
        Err(error) => format!("{FAILURE}{error}"),
    };
    // Who has asked may be gone.
    let _ = answer.write_all(text.as_bytes());
}

fn parse(answer: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(answer);
    if let Some(reason) = text.strip_prefix(FAILURE) {
        return Answer::Failed(reason.to_owned());
    }
    let found: Vec<_> = text.lines().filter_map(|line| line.parse().ok()).collect();
    match found.is_empty() {
        true => Answer::Failed("no answer".to_owned()),
        false => Answer::Found(found),
    }
}

/// Before an error's text; no address begins like this.
const FAILURE: char = '!';
/// Two attempts at each of two name servers, with the C library's 5 s for each.
const LOOKUP_S: u32 = 20;
const ADDRESSES_MAX: usize = 32;
/// Modules of the name service have buffers on the stack.
const STACK_BYTES: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_of(host: &str, by_thread: bool) -> Answer {
        let mut lookup = Lookup::start(host, by_thread).unwrap();
        loop {
            lookup.wait(1000);
            match lookup.read() {
                Answer::NotYet => {}
                answer => return answer,
            }
        }
    }

    #[test]
    fn a_process_and_a_thread_find_the_same() {
        let expected = Answer::Found(vec!["127.0.0.1:0".parse().unwrap()]);
        for by_thread in [false, true] {
            // Of the forms of an address only the C library knows this one.
            assert_eq!(answer_of("127.1", by_thread), expected);
            let unknown = answer_of("name.invalid.", by_thread);
            assert!(matches!(unknown, Answer::Failed(_)), "{unknown:?}");
        }
    }

    #[test]
    fn what_ends_without_an_answer_has_failed() {
        assert_eq!(parse(b""), Answer::Failed("no answer".to_owned()));
        assert_eq!(parse(b"!it is"), Answer::Failed("it is".to_owned()));
        let scoped = "[fe80::1%2]:0".parse().unwrap();
        assert_eq!(parse(b"[fe80::1%2]:0\nx\n"), Answer::Found(vec![scoped]));
    }
}
