//! Accepting: until the socket would block or the turn's share is used up; paused at the limit of connections, and
//! for a moment when the process has no descriptors left.
//!
//! Listeners are level-triggered and exclusive (`EPOLLEXCLUSIVE`): of the workers that sleep on a shared listener one
//! is woken, not all. mio has no word for that, so the registration goes to its epoll instance directly.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::net::Listener;
use crate::pool::{ConnId, Peer};

use super::connection::{Accepted, Connection, Fate};
use super::connections::token_of;
use super::event_loop::{EventLoop, FIRST_LISTENER};
use super::stream::Stream;

/// A worker accepts so many connections in one turn at most, so that its siblings get their share of a burst.
const TURN_ACCEPTS: usize = 16;
/// After "too many open files" the listeners rest for so long.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(250);

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
            Self::Tcp(listener) => listener
                .accept()
                .map(|(stream, address)| (Stream::Tcp(stream), Peer::Tcp(address))),
            Self::Unix(listener) => listener
                .accept()
                .map(|(stream, _)| (Stream::Unix(stream), Peer::Unix)),
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
        let descriptor = poll.registry().as_fd().try_clone_to_owned()?;
        crate::fork_guard::register_poll_set(&descriptor);
        Ok(Self {
            epoll: nix::sys::epoll::Epoll(descriptor),
        })
    }

    pub(super) fn add(&self, acceptor: &Acceptor, token: mio::Token) -> io::Result<()> {
        use nix::sys::epoll::{EpollEvent, EpollFlags};
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        Ok(self
            .epoll
            .add(acceptor, EpollEvent::new(flags, token.0 as u64))?)
    }

    pub(super) fn remove(&self, acceptor: &Acceptor) -> io::Result<()> {
        Ok(self.epoll.delete(acceptor)?)
    }
}

impl EventLoop<'_> {
    /// Take in who waits at a listener.
    pub(super) fn accept(&mut self, listener: usize) -> io::Result<()> {
        for _ in 0..TURN_ACCEPTS {
            if self.accepting != Accepting::On {
                return Ok(());
            }
            if self.connections.len() >= self.connections_max && !self.evict_oldest_idle() {
                return self.stop_accepting(Accepting::Full);
            }
            match self.acceptors[listener].accept() {
                Attempt::Accepted(stream, peer) => {
                    if let Some(stream) = self.place(stream, listener) {
                        self.take_in(stream, peer, listener);
                        self.tell_siblings();
                    }
                }
                Attempt::Gone => {}
                Attempt::Empty => return Ok(()),
                Attempt::Exhausted(error) => {
                    self.note_exhaustion(&error);
                    return self
                        .stop_accepting(Accepting::PausedUntil(self.core.now + EXHAUSTED_PAUSE));
                }
            }
        }
        Ok(())
    }

    /// No descriptors are left: said once, until it has not happened for a while.
    pub(super) fn note_exhaustion(&mut self, error: &io::Error) {
        if self.exhausted_at.replace(self.core.now).is_none() {
            log::error!("No new connections for a moment: {error} (see `ulimit -n`).");
        }
    }

    /// A connection is there: what is known of it, and in it goes.
    pub(super) fn take_in(&mut self, stream: Stream, peer: Peer, listener: usize) -> ConnId {
        let trust = &self.core.trust;
        let accepted = Accepted {
            stream,
            peer,
            trusted: trust.trusts(peer),
            awaits_proxy_header: trust.expects_proxy_header(),
            listener,
        };
        self.open(accepted)
    }

    /// Take in a new connection and read what it has sent already.
    fn open(&mut self, mut accepted: Accepted) -> ConnId {
        let registry = self.poll.registry();
        let now = self.core.now;
        let mut registered = Ok(());
        let id = self.connections.insert(|id| {
            registered = accepted.stream.register(registry, token_of(id));
            Connection::new(id, accepted, now)
        });
        self.core.pool.connection_opened(id);
        self.core.newcomers += 1;
        if registered.is_err() {
            self.close(id);
        } else if let Some(connection) = self.connections.get_mut(id) {
            connection.start(&mut self.core);
        }
        id
    }

    /// At the limit of connections the one that has been idle for longest makes room, unless its next request is
    /// there already.
    fn evict_oldest_idle(&mut self) -> bool {
        let oldest = self
            .connections
            .iter()
            .filter(|connection| connection.is_kept_alive())
            .min_by_key(|connection| connection.timer.due())
            .map(Connection::id);
        let Some(id) = oldest else { return false };
        let Some(connection) = self.connections.get_mut(id) else {
            return false;
        };
        let fate = connection.close_if_idle(&mut self.core);
        self.settle_fate(id, fate);
        fate == Fate::Close
    }

    pub(super) fn resume_accepting(&mut self) -> io::Result<()> {
        for (index, acceptor) in self.acceptors.iter().enumerate() {
            self.listener_set
                .add(acceptor, mio::Token(FIRST_LISTENER + index))?;
        }
        self.accepting = Accepting::On;
        Ok(())
    }

    pub(super) fn stop_accepting(&mut self, reason: Accepting) -> io::Result<()> {
        if self.accepting == Accepting::On {
            for acceptor in &self.acceptors {
                self.listener_set.remove(acceptor)?;
            }
        }
        self.accepting = reason;
        Ok(())
    }
}
