//! The messages between arbiter and fork server: packets on a socket pair, so that each is whole.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use crate::arbiter::control_channel::WorkerChannel;
use crate::fork_guard;
use crate::net::{receive_sockets, send_sockets};

/// What a fork server has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Nothing yet, or nonsense.
    None,
    /// The application is imported.
    Ready,
    /// The application has ended the process by `sys.exit` while it was imported.
    Exits {
        code: i32,
    },
    /// 0 stands for no worker.
    Answer {
        age: u64,
        pid: i32,
    },
    /// The fork server has ended, and goes on as the process of this pid.
    Moved(i32),
    End,
}

pub(super) fn open() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    fork_guard::register(&ours);
    fork_guard::register(&theirs);
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((ours, theirs))
}

/// Arbiter: a worker is wanted. Does not wait.
pub(super) fn send_request(
    control: BorrowedFd<'_>,
    age: u64,
    slot: usize,
    channel: &WorkerChannel,
) -> io::Result<()> {
    let mut bytes = [0; REQUEST_BYTES];
    bytes[..8].copy_from_slice(&age.to_le_bytes());
    bytes[8..].copy_from_slice(&(slot as u64).to_le_bytes());
    let ends = [channel.requests.as_fd(), channel.dump.as_fd()];
    send_sockets(control, &bytes, &ends)
}

/// Arbiter: the next message. Does not wait.
pub(super) fn receive(control: BorrowedFd<'_>) -> Message {
    let mut bytes = [0; ANSWER_BYTES + 1];
    let mut next = || recv(control.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT);
    let received = match next() {
        // The other side ended with requests unread. What it has sent comes after this error.
        Err(Errno::ECONNRESET) => next(),
        received => received,
    };
    match received {
        Ok(0) => Message::End,
        Ok(1) if bytes[0] == READY => Message::Ready,
        Ok(NUMBER_BYTES) if matches!(bytes[0], MOVED | EXITS) => {
            let number = bytes[1..NUMBER_BYTES]
                .try_into()
                .map_or(0, i32::from_le_bytes);
            match bytes[0] {
                MOVED => Message::Moved(number),
                _ => Message::Exits { code: number },
            }
        }
        Ok(ANSWER_BYTES) => {
            let (age, pid) = bytes[..ANSWER_BYTES].split_at(8);
            match (age.try_into(), pid.try_into()) {
                (Ok(age), Ok(pid)) => Message::Answer {
                    age: u64::from_le_bytes(age),
                    pid: i32::from_le_bytes(pid),
                },
                _ => Message::None,
            }
        }
        Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Message::None,
        Err(_) => Message::End,
    }
}

/// Fork server: the application is imported.
pub(super) fn send_ready(control: BorrowedFd<'_>) -> io::Result<()> {
    send(control.as_raw_fd(), &[READY], MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// Fork server: it ends, and the process of this pid goes on in its place.
pub(super) fn send_moved(control: BorrowedFd<'_>, pid: i32) -> io::Result<()> {
    send_number(control, MOVED, pid)
}

/// Fork server: the application ends it while it is imported.
pub(super) fn send_exit(control: BorrowedFd<'_>, code: i32) -> io::Result<()> {
    send_number(control, EXITS, code)
}

fn send_number(control: BorrowedFd<'_>, letter: u8, number: i32) -> io::Result<()> {
    let mut bytes = [letter; NUMBER_BYTES];
    bytes[1..].copy_from_slice(&number.to_le_bytes());
    send(control.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// Fork server: waits for the next request. `None` is the end.
pub(super) fn receive_request(control: BorrowedFd<'_>) -> Option<(u64, usize, WorkerChannel)> {
    let mut bytes = [0; REQUEST_BYTES];
    let (len, ends) = receive_sockets(control, &mut bytes).ok()?;
    let (age, slot) = bytes.split_at(8);
    let [requests, dump] = <[OwnedFd; 2]>::try_from(ends).ok()?;
    let slot = usize::try_from(u64::from_le_bytes(slot.try_into().ok()?)).ok()?;
    let channel = WorkerChannel {
        requests: UnixStream::from(requests),
        dump,
    };
    let age = u64::from_le_bytes(age.try_into().ok()?);
    (len == REQUEST_BYTES).then_some((age, slot, channel))
}

/// Fork server: what became of the request for the worker of this age.
pub(super) fn send_answer(control: BorrowedFd<'_>, age: u64, pid: i32) -> io::Result<()> {
    let mut bytes = [0; ANSWER_BYTES];
    bytes[..8].copy_from_slice(&age.to_le_bytes());
    bytes[8..].copy_from_slice(&pid.to_le_bytes());
    send(control.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

const READY: u8 = b'r';
const MOVED: u8 = b'm';
const EXITS: u8 = b'x';
/// A letter and a number.
const NUMBER_BYTES: usize = 5;
/// Age and slot.
const REQUEST_BYTES: usize = 16;
/// Age and pid.
const ANSWER_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arbiter::control_channel;

    #[test]
    fn both_sides_understand_each_other() {
        let (arbiter, server) = open().unwrap();
        assert_eq!(receive(arbiter.as_fd()), Message::None);
        send_ready(server.as_fd()).unwrap();
        assert_eq!(receive(arbiter.as_fd()), Message::Ready);
        send_exit(server.as_fd(), 256 + 7).unwrap();
        assert_eq!(receive(arbiter.as_fd()), Message::Exits { code: 263 });
        let (_ours, channel) = control_channel::open().unwrap();
        send_request(arbiter.as_fd(), 7, 3, &channel).unwrap();
        let (age, slot, _channel) = receive_request(server.as_fd()).unwrap();
        assert_eq!((age, slot), (7, 3));
        send_moved(server.as_fd(), 4243).unwrap();
        assert_eq!(receive(arbiter.as_fd()), Message::Moved(4243));
        send_answer(server.as_fd(), 7, 4242).unwrap();
        let answer = Message::Answer { age: 7, pid: 4242 };
        assert_eq!(receive(arbiter.as_fd()), answer);
        drop(server);
        assert_eq!(receive(arbiter.as_fd()), Message::End);
    }

    #[test]
    fn a_fork_server_that_reads_nothing_is_not_waited_for() {
        let (arbiter, _server) = open().unwrap();
        let (_ours, channel) = control_channel::open().unwrap();
        let sent = (0..10_000)
            .take_while(|age| send_request(arbiter.as_fd(), *age, 0, &channel).is_ok())
            .count();
        assert!((1..10_000).contains(&sent), "{sent}");
    }

    #[test]
    fn nonsense_is_no_message() {
        let (arbiter, server) = open().unwrap();
        for bytes in [&b"x"[..], b"rr", b"rrrrr", &[0xff; 11], &[0xff; 100]] {
            send(server.as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
            assert_eq!(receive(arbiter.as_fd()), Message::None, "{bytes:?}");
        }
    }
}
