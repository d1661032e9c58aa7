//! The ways between peer workers: one per slot of the scoreboard, made by the arbiter before the first fork, so
//! that every worker has both ends of each.
//!
//! A message is some bytes and a socket. Its reader owns it: the kernel gives it to one reader only, so a sender
//! that finds its receiver gone can read its own message back, and what lies in the way of a dead worker can be taken
//! by any other. Nothing here blocks.
#![expect(
    unsafe_code,
    reason = "a descriptor that arrives with a message is a bare number until it has an owner"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use crate::fork_guard;

/// See the module.
#[derive(Debug)]
pub struct Channels {
    ways: Vec<Way>,
}

#[derive(Debug)]
struct Way {
    send: OwnedFd,
    receive: OwnedFd,
}

/// What [`Channels::receive`] has found.
#[derive(Debug)]
pub enum Received {
    /// How many bytes of the buffer it fills, and its socket.
    Message(usize, OwnedFd),
    /// A message whose socket the kernel has thrown away for want of a descriptor.
    Lost,
    Nothing,
}

impl Channels {
    /// Ways to the slots `0..count`.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub fn new(count: usize) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let way = |_| {
            let (send, receive) =
                socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
            fork_guard::register(&send);
            fork_guard::register(&receive);
            Ok(Way { send, receive })
        };
        Ok(Self {
            ways: (0..count).map(way).collect::<io::Result<_>>()?,
        })
    }

    /// Ways between `workers` workers and their replacements. `None` for a single one, and where there are not enough
    /// descriptors: that costs balance only.
    pub fn between(workers: usize) -> Option<Self> {
        if workers < 2 {
            return None;
        }
        Self::new((workers * 2 + 2).min(WAYS_MAX))
            .inspect_err(|error| {
                log::warn!("Connections will not move between workers: {error} (see `ulimit -n`).");
            })
            .ok()
    }

    /// How many slots have one.
    pub fn count(&self) -> usize {
        self.ways.len()
    }

    /// What becomes readable when a message for `slot` has come.
    pub fn receiver(&self, slot: usize) -> Option<BorrowedFd<'_>> {
        self.ways.get(slot).map(|way| way.receive.as_fd())
    }

    /// Send `bytes` (at least one) and a copy of `socket` to `slot`.
    ///
    /// # Errors
    /// The way is full, or there is none.
    pub fn send(&self, slot: usize, bytes: &[u8], socket: BorrowedFd<'_>) -> io::Result<()> {
        let way = self.ways.get(slot).ok_or(io::ErrorKind::NotFound)?;
        let sockets = [socket.as_raw_fd()];
        sendmsg::<()>(
            way.send.as_raw_fd(),
            &[IoSlice::new(bytes)],
            &[ControlMessage::ScmRights(&sockets)],
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    /// The next message for `slot`.
    ///
    /// # Errors
    /// There is no descriptor left for its socket. The message stays where it is.
    pub fn receive(&self, slot: usize, buffer: &mut [u8]) -> io::Result<Received> {
        let Some(way) = self.ways.get(slot) else {
            return Ok(Received::Nothing);
        };
        // The kernel throws a socket away that finds no number here: see that there is one.
        drop(way.receive.try_clone()?);
        let mut space = nix::cmsg_space!([RawFd; 1]);
        loop {
            let mut slices = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let received = recvmsg::<()>(
                way.receive.as_raw_fd(),
                &mut slices,
                Some(&mut space),
                flags,
            );
            let message = match received {
                Ok(message) => message,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return Ok(Received::Nothing),
            };
            if message.bytes == 0 {
                return Ok(Received::Nothing);
            }
            let socket = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|one| match one {
                    ControlMessageOwned::ScmRights(sockets) => sockets.first().copied(),
                    _ => None,
                })
            });
            let len = message.bytes;
            let Some(number) = socket else {
                // Another thread has taken the last number in this moment.
                return Ok(Received::Lost);
            };
            // SAFETY: the kernel has just made this descriptor for this process, and no other code has its number.
            return Ok(Received::Message(len, unsafe {
                OwnedFd::from_raw_fd(number)
            }));
        }
    }
}

/// Send `bytes` (at least one) and copies of `sockets` on a stream socket, waiting as long as it does.
///
/// # Errors
/// The socket's.
pub fn send_sockets(
    way: BorrowedFd<'_>,
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
        way.as_raw_fd(),
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
pub fn receive_sockets(
    way: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 2]);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL;
    let message = loop {
        match recvmsg::<()>(way.as_raw_fd(), &mut slices, Some(&mut space), flags) {
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

/// Workers beyond this many share nothing: each way costs two descriptors in every process.
const WAYS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn is_empty(channels: &Channels, slot: usize) -> bool {
        matches!(channels.receive(slot, &mut [0; 64]), Ok(Received::Nothing))
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
        let Ok(Received::Message(len, socket)) = channels.receive(1, &mut buffer) else {
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
    fn a_full_way_refuses_instead_of_waiting() {
        let channels = Channels::new(1).unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        let message = vec![b'x'; 32 * 1024];
        let sent = (0..1000)
            .take_while(|_| channels.send(0, &message, socket.as_fd()).is_ok())
            .count();
        assert!((1..1000).contains(&sent), "{sent}");
    }
}
