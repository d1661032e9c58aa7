//! Accepting: until the socket would block or the turn's share is used up; paused at the limit of connections, and
//! for a moment when the process has no descriptors left.
//!
//! Listeners are level-triggered and exclusive (`EPOLLEXCLUSIVE`): of the workers that sleep on a shared listener one
//! is woken, not all. mio has no word for that, so the registration goes to its epoll instance directly.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::net::Listener;
use crate::pool::Peer;

use super::stream::Stream;

/// A worker accepts so many connections in one turn at most, so that its siblings get their share of a burst.
pub(super) const TURN_ACCEPTS: usize = 16;
/// After "too many open files" the listeners rest for so long.
pub(super) const EXHAUSTED_PAUSE: Duration = Duration::from_millis(250);

/// A listener in the event loop.
#[derive(Debug)]
pub(super) enum Acceptor {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

impl From<Listener> for Acceptor {
    fn from(listener: Listener) -> Self {
        match listener {
            Listener::Tcp(listener) => Self::Tcp(mio::net::TcpListener::from_std(listener)),
            Listener::Unix(listener) => Self::Unix(mio::net::UnixListener::from_std(listener)),
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// What one attempt to accept gave.
#[derive(Debug)]
pub(super) enum Attempt {
    Accepted(Stream, Peer),
    /// Nobody waits.
    Empty,
    /// The process or the system has no descriptors left.
    Exhausted(io::Error),
    /// The client was gone before it was accepted; there may be another.
    Gone,
}

impl Acceptor {
    pub(super) fn accept(&self) -> Attempt {
        let result = match self {
            Self::Tcp(listener) => {
                listener.accept().map(|(stream, address)| (Stream::Tcp(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener) => listener.accept().map(|(stream, _)| (Stream::Unix(stream), Peer::Unix)),
        };
        match result {
            Ok((stream, peer)) => Attempt::Accepted(stream, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Attempt::Empty,
            Err(error) => match error.raw_os_error().map(nix::errno::Errno::from_raw) {
                Some(
                    nix::errno::Errno::EMFILE
                    | nix::errno::Errno::ENFILE
                    | nix::errno::Errno::ENOBUFS
                    | nix::errno::Errno::ENOMEM,
                ) => Attempt::Exhausted(error),
                _ => Attempt::Gone,
            },
        }
    }
}

/// Whether the listeners are in the poll set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepting {
    On,
    /// The worker has as many connections as it may.
    Full,
    /// No descriptors are left; try again at this time.
    PausedUntil(Instant),
    /// The worker stops.
    Over,
}

/// The poll set's registration of listeners.
#[derive(Debug)]
pub(super) struct ListenerSet {
    epoll: nix::sys::epoll::Epoll,
}

impl ListenerSet {
    /// Share `poll`'s epoll instance.
    pub(super) fn new(poll: &mio::Poll) -> io::Result<Self> {
        // A duplicate of the descriptor names the same instance, and closing it leaves mio's alone.
        let descriptor = nix::unistd::dup(poll.registry())?;
        Ok(Self { epoll: nix::sys::epoll::Epoll(descriptor) })
    }

    pub(super) fn add(&self, acceptor: &Acceptor, token: mio::Token) -> io::Result<()> {
        use nix::sys::epoll::{EpollEvent, EpollFlags};
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        Ok(self.epoll.add(acceptor, EpollEvent::new(flags, token.0 as u64))?)
    }

    pub(super) fn remove(&self, acceptor: &Acceptor) -> io::Result<()> {
        Ok(self.epoll.delete(acceptor)?)
    }
}
