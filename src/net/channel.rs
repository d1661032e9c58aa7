//! The channels between peer workers: one per slot of the scoreboard, made by the arbiter before the first fork, so
//! that every worker has both ends of each; and channels from an aborted worker to any other, which its successor has too.
//!
//! A message is some bytes and a socket. One process reads a channel at a time ([`Reader`]), and any may: a sender that finds
//! its receiver gone takes its own message back, and what lies in a dead worker's channel is taken by another. Nothing here
//! blocks.
//!
//! *No socket is lost.* The kernel throws a socket away when it is received and finds no descriptor free, and any thread of
//! the process may have taken the last one just now. So a message is first peeked at, which installs a copy of its socket,
//! and taken out only when that copy is there. Two readers that peek would take out each other's messages: a record lock on
//! the channel (fcntl(2)) keeps the second out. The kernel frees it when its process dies, and no forked child has it.
#![expect(
    unsafe_code,
    reason = "a descriptor that arrives with a message is a bare number until it has an owner"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
    recvmsg, sendmsg, socketpair,
};

use crate::fork_guard;

/// See the module.
#[derive(Debug)]
pub struct Channels {
    to_slot: Vec<Channel>,
    /// What lies here is for any worker.
    to_any: Vec<Channel>,
}

#[derive(Debug)]
struct Channel {
    send: OwnedFd,
    receive: OwnedFd,
}

impl Channel {
    fn send(&self, bytes: &[u8], socket: BorrowedFd<'_>) -> io::Result<()> {
        let sockets = [socket.as_raw_fd()];
        sendmsg::<()>(
            self.send.as_raw_fd(),
            &[IoSlice::new(bytes)],
            &[ControlMessage::ScmRights(&sockets)],
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    /// Lock or unlock it for this process.
    fn set_lock(&self, kind: libc::c_int) -> io::Result<()> {
        // SAFETY: all zeros are a valid flock: all of the file, from its start.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        fcntl(&self.receive, FcntlArg::F_SETLK(&lock))?;
        Ok(())
    }
}

/// The one process that reads a channel, until this is dropped.
#[derive(Debug)]
pub struct Reader<'a>(&'a Channel);

impl Channels {
    /// Channels to the slots `0..count`.
    ///
    /// # Errors
    /// The process has no descriptors left, or the system cannot lock a socket.
    pub fn new(count: usize) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let channel = |_: usize| {
            let (send, receive) =
                socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
            fork_guard::register(&send);
            fork_guard::register(&receive);
            let channel = Channel { send, receive };
            drop(Reader::new(&channel)?);
            Ok(channel)
        };
        Ok(Self {
            to_slot: (0..count).map(channel).collect::<io::Result<_>>()?,
            to_any: (0..CHANNELS_TO_ANY)
                .map(channel)
                .collect::<io::Result<_>>()?,
        })
    }

    /// Channels between `workers` workers and their replacements; a single one has no peers. `None` where there are not enough
    /// descriptors: that costs balance, and what waits in a worker that is aborted.
    pub fn between(workers: usize) -> Option<Self> {
        let count = if workers < 2 { 0 } else { workers * 2 + 2 };
        Self::new(count.min(SLOTS_MAX))
            .inspect_err(|error| {
                log::warn!("Connections will not move between workers: {error} (see `ulimit -n`).");
            })
            .ok()
    }

    /// How many slots have one.
    pub fn count(&self) -> usize {
        self.to_slot.len()
    }

    /// What becomes readable when a message for `slot` has come.
    pub fn receiver(&self, slot: usize) -> Option<BorrowedFd<'_>> {
        self.to_slot
            .get(slot)
            .map(|channel| channel.receive.as_fd())
    }

    /// Send `bytes` (at least one) and a copy of `socket` to `slot`.
    ///
    /// # Errors
    /// The channel is full, or there is none.
    pub fn send(&self, slot: usize, bytes: &[u8], socket: BorrowedFd<'_>) -> io::Result<()> {
        let channel = self.to_slot.get(slot).ok_or(io::ErrorKind::NotFound)?;
        channel.send(bytes, socket)
    }

    /// Send `bytes` (at least one) and a copy of `socket` to the worker that looks first.
    ///
    /// # Errors
    /// All channels to any worker are full.
    pub fn send_to_any(&self, bytes: &[u8], socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut sent = Err(io::ErrorKind::NotFound.into());
        for channel in &self.to_any {
            sent = channel.send(bytes, socket);
            if sent.is_ok() {
                break;
            }
        }
        sent
    }

    /// What becomes readable when a message for any worker has come.
    pub fn receivers_of_any(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.to_any.iter().map(|channel| channel.receive.as_fd())
    }

    /// Read the channels to any worker, but those that another process reads.
    pub fn readers_of_any(&self) -> impl Iterator<Item = Reader<'_>> {
        self.to_any
            .iter()
            .filter_map(|channel| Reader::new(channel).ok())
    }

    /// Read the channel to `slot`. `None` where there is none, and while another process reads it.
    pub fn reader(&self, slot: usize) -> Option<Reader<'_>> {
        Reader::new(self.to_slot.get(slot)?).ok()
    }
}

impl<'a> Reader<'a> {
    fn new(channel: &'a Channel) -> io::Result<Self> {
        channel.set_lock(libc::F_WRLCK)?;
        Ok(Self(channel))
    }

    /// The next message: how many bytes of `buffer` it fills, and its socket.
    ///
    /// # Errors
    /// There is no descriptor left for its socket. The message stays where it is.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, OwnedFd)>> {
        for _ in 0..MESSAGES_MAX {
            match self.peek(buffer)? {
                Peeked::Empty => return Ok(None),
                Peeked::Worthless => self.throw_away(),
                Peeked::Message(len, socket) => {
                    self.throw_away();
                    return Ok(Some((len, socket)));
                }
            }
        }
        Ok(None)
    }

    /// The first message, with what of it does not fit and its own copy of the socket.
    fn throw_away(&self) {
        let fd = self.0.receive.as_raw_fd();
        while recv(fd, &mut [0], MsgFlags::MSG_DONTWAIT) == Err(Errno::EINTR) {}
    }

    fn peek(&self, buffer: &mut [u8]) -> io::Result<Peeked> {
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let fd = self.0.receive.as_raw_fd();
        let message = loop {
            match recvmsg::<()>(fd, &mut slices, Some(&mut space), flags) {
                Ok(message) => break message,
                Err(Errno::EINTR) => {}
                Err(_) => return Ok(Peeked::Empty),
            }
        };
        let is_cut = message.flags.contains(MsgFlags::MSG_CTRUNC);
        let socket = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|one| match one {
                ControlMessageOwned::ScmRights(sockets) => sockets.first().copied(),
                _ => None,
            })
        });
        let Some(number) = socket else {
            // The system says so when a message has a socket that it cannot give.
            return match is_cut {
                true => Err(Errno::EMFILE.into()),
                false => Ok(Peeked::Worthless),
            };
        };
        // SAFETY: the kernel has just made this descriptor for this process, and no other code has its number.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(Peeked::Message(message.bytes, socket))
    }
}

/// What is first in a channel.
enum Peeked {
    Empty,
    /// It has no socket. No server sends that, but what a worker runs can; and workers to come would meet it too.
    Worthless,
    Message(usize, OwnedFd),
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let unlocked = self.0.set_lock(libc::F_UNLCK);
        debug_assert!(unlocked.is_ok(), "a lock that is held can be given back");
    }
}

/// Send `bytes` (at least one) and copies of `sockets` on a stream socket, waiting as long as it does.
///
/// # Errors
/// The socket's.
pub fn send_sockets(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    sockets: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let numbers: Vec<RawFd> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let rights = if numbers.is_empty() {
        &[][..]
    } else {
        &rights[..]
    };
    let slices = [IoSlice::new(bytes)];
    let sent = sendmsg::<()>(
        fd.as_raw_fd(),
        &slices,
        rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    if sent < bytes.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

/// What [`send_sockets`] has sent in one piece: how many bytes of `buffer` it fills (0 is the end), and its sockets, two
/// at most.
///
/// # Errors
/// The socket's.
pub fn receive_sockets(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 2]);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL;
    let message = loop {
        match recvmsg::<()>(fd.as_raw_fd(), &mut slices, Some(&mut space), flags) {
            Err(nix::errno::Errno::EINTR) => {}
            received => break received?,
        }
    };
    let mut sockets = Vec::new();
    for one in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = one {
            for number in numbers {
                // SAFETY: the kernel has just made this descriptor for this process, and no other code has its number.
                sockets.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok((message.bytes, sockets))
}

/// Workers beyond this many share nothing: each channel costs two descriptors in every process.
const SLOTS_MAX: usize = 64;
/// One channel holds about 270 short messages (`net.core.wmem_default` is 208 KiB, and the kernel counts 768 bytes for each).
/// Together these hold the 1,000 connections that `worker_connections` allows.
const CHANNELS_TO_ANY: usize = 4;
/// More than one channel holds.
const MESSAGES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    fn receive(
        channels: &Channels,
        slot: usize,
        buffer: &mut [u8],
    ) -> io::Result<Option<(usize, OwnedFd)>> {
        channels.reader(slot).unwrap().receive(buffer)
    }

    fn is_empty(channels: &Channels, slot: usize) -> bool {
        matches!(receive(channels, slot, &mut [0; 64]), Ok(None))
    }

    #[test]
    fn a_message_without_a_socket_is_in_nobodys_way() {
        let channels = Channels::new(1).unwrap();
        let sender = channels.to_slot[0].send.as_raw_fd();
        for rubbish in [&b"rubbish"[..], b"", &[0; 200]] {
            nix::sys::socket::send(sender, rubbish, MsgFlags::empty()).unwrap();
        }
        let (_ours, theirs) = UnixStream::pair().unwrap();
        channels.send(0, b"hello", theirs.as_fd()).unwrap();
        let received = receive(&channels, 0, &mut [0; 64]).unwrap();
        assert_eq!(received.map(|(len, _)| len), Some(5));
        assert!(is_empty(&channels, 0));
    }

    #[test]
    fn a_socket_arrives_with_its_bytes_to_one_reader() {
        let channels = Channels::new(2).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut buffer = [0; 64];
        assert!(is_empty(&channels, 1));
        channels.send(1, b"hello", theirs.as_fd()).unwrap();
        drop(theirs);
        assert!(is_empty(&channels, 0));
        let Ok(Some((len, socket))) = receive(&channels, 1, &mut buffer) else {
            panic!("no message");
        };
        assert_eq!(&buffer[..len], b"hello");
        UnixStream::from(socket).write_all(b"!").unwrap();
        let mut answer = [0; 1];
        ours.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"!");
        assert!(is_empty(&channels, 1));
        assert!(channels.send(2, b"x", ours.as_fd()).is_err());
    }

    #[test]
    fn a_full_channel_refuses_instead_of_waiting() {
        let channels = Channels::new(1).unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        let message = vec![b'x'; 32 * 1024];
        let sent = (0..1000)
            .take_while(|_| channels.send(0, &message, socket.as_fd()).is_ok())
            .count();
        assert!((1..1000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_thousand_messages_find_room_in_the_channels_to_any_worker_and_each_is_read_once() {
        let channels = Channels::new(0).unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        let message = [b'x'; 120];
        for _ in 0..1000 {
            channels.send_to_any(&message, socket.as_fd()).unwrap();
        }
        let mut received = 0;
        for reader in channels.readers_of_any() {
            while reader.receive(&mut [0; 128]).unwrap().is_some() {
                received += 1;
            }
        }
        assert_eq!(received, 1000);
        let held: Vec<_> = channels.readers_of_any().collect();
        assert!(holds_in_child(|| channels.readers_of_any().count() == 0));
        assert_eq!(held.len(), CHANNELS_TO_ANY);
    }

    /// Whether `child` holds in a child of this process, which has none of its locks.
    fn holds_in_child(child: impl FnOnce() -> bool) -> bool {
        // SAFETY: the C library makes its own locks usable in the child, and the child leaves at once.
        match fork_guard::own_fork(|| unsafe { fork() }).unwrap() {
            ForkResult::Child => {
                let code = i32::from(!child());
                // SAFETY: the call ends the process at once.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => {
                waitpid(child, None).unwrap() == WaitStatus::Exited(child, 0)
            }
        }
    }

    #[test]
    fn one_process_reads_a_channel_at_a_time() {
        let channels = Channels::new(2).unwrap();
        let reader = channels.reader(0);
        assert!(reader.is_some() && channels.reader(2).is_none());
        assert!(holds_in_child(|| channels.reader(0).is_none()));
        assert!(holds_in_child(|| channels.reader(1).is_some()));
        drop(reader);
        assert!(holds_in_child(|| channels.reader(0).is_some()));
    }

    #[test]
    fn a_message_without_a_descriptor_for_its_socket_stays() {
        let channels = Channels::new(1).unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        channels.send(0, b"hello", socket.as_fd()).unwrap();
        assert!(holds_in_child(|| {
            let limits = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 0, limits.1).unwrap();
            let refused = (0..3).all(|_| receive(&channels, 0, &mut [0; 64]).is_err());
            setrlimit(Resource::RLIMIT_NOFILE, limits.0, limits.1).unwrap();
            refused && matches!(receive(&channels, 0, &mut [0; 64]), Ok(Some((5, _))))
        }));
    }
}
