//! The listeners, and whether the worker accepts: always while it serves, but for a pause at the limit of connections, and
//! a moment when the process has no descriptors left.
//!
//! Listeners are level-triggered and exclusive (`EPOLLEXCLUSIVE`): of the workers that sleep on a shared listener one
//! is woken, not all. mio does not offer that, so the registration goes to its epoll instance directly.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{Shutdown, shutdown};

use crate::net::Listener;
use crate::pool::Peer;

use super::events;
use super::transport::Transport;

/// After "too many open files" the listeners rest this long: a client that moves nothing makes room as soon as it may.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// At the limit of connections the worker looks again after this long: a client that still has sent nothing makes room.
const FULL_PAUSE: Duration = Duration::from_millis(250);

/// A listener in the event loop.
#[derive(Debug)]
enum Acceptor {
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
    Accepted(Transport, Peer),
    /// No connection waits, or the worker does not accept now.
    Empty,
    /// The client was gone before it was accepted; there may be another.
    Gone,
    /// One waits, and there is no descriptor for it.
    Exhausted(io::Error),
}

/// Whether the listeners are in the poll set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    On,
    /// The worker has as many connections as it may, and looks again at this time.
    FullUntil(Instant),
    /// No descriptors are left; try again at this time.
    PausedUntil(Instant),
    /// The worker has not begun to serve, or it stops.
    Over,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Listeners {
    acceptors: Vec<Acceptor>,
    /// Connections that may wait at a listener.
    backlog: usize,
    accepting: Accepting,
    epoll: Epoll,
}

impl Listeners {
    /// Listeners that are registered with `poll` when the worker accepts.
    pub(super) fn new(
        listeners: Vec<Listener>,
        backlog: u32,
        poll: &mio::Poll,
    ) -> io::Result<Self> {
        // A duplicate of the descriptor names the same instance, and closing it leaves mio's alone.
        let descriptor = poll.registry().as_fd().try_clone_to_owned()?;
        crate::fork_guard::register(&descriptor);
        Ok(Self {
            acceptors: listeners.into_iter().map(Acceptor::from).collect(),
            backlog: backlog as usize,
            accepting: Accepting::Over,
            epoll: Epoll(descriptor),
        })
    }

    /// Accept a connection that waits.
    pub(super) fn accept(&mut self, listener: usize, now: Instant) -> io::Result<Attempt> {
        if self.accepting != Accepting::On {
            return Ok(Attempt::Empty);
        }
        match self.try_accept(listener) {
            Ok((transport, peer)) => {
                crate::fork_guard::own(&transport);
                Ok(Attempt::Accepted(transport, peer))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Attempt::Empty),
            Err(error) if is_exhaustion(&error) => Ok(Attempt::Exhausted(error)),
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                // Another worker has ended the listener, and this one is about to be asked to stop.
                self.stop(Accepting::PausedUntil(now + EXHAUSTED_PAUSE))?;
                Ok(Attempt::Empty)
            }
            Err(_) => Ok(Attempt::Gone),
        }
    }

    fn try_accept(&self, listener: usize) -> io::Result<(Transport, Peer)> {
        match &self.acceptors[listener] {
            Acceptor::Tcp(listener) => listener
                .accept()
                .map(|(stream, address)| (stream.into(), Peer::Tcp(address))),
            Acceptor::Unix(listener) => listener
                .accept()
                .map(|(stream, _)| (stream.into(), Peer::Unix)),
        }
    }

    /// Begin to accept, or begin again.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        for (index, acceptor) in self.acceptors.iter().enumerate() {
            let token = events::of_listener(index);
            self.epoll
                .add(acceptor, EpollEvent::new(flags, token.0 as u64))?;
        }
        self.accepting = Accepting::On;
        Ok(())
    }

    /// The worker has as many connections as it may.
    pub(super) fn pause_at_limit(&mut self, now: Instant) -> io::Result<()> {
        match self.accepting {
            Accepting::On => self.stop(Accepting::FullUntil(now + FULL_PAUSE)),
            // Its listeners rest for another reason.
            _ => Ok(()),
        }
    }

    /// No descriptors are left for connections that have come.
    pub(super) fn pause_exhausted(&mut self, now: Instant) -> io::Result<()> {
        match self.accepting {
            Accepting::On => self.stop(Accepting::PausedUntil(now + EXHAUSTED_PAUSE)),
            _ => Ok(()),
        }
    }

    /// Whether the worker has as many connections as it may. [`Listeners::start`] ends that pause, when one has closed or
    /// may be closed.
    pub(super) fn are_at_limit(&self) -> bool {
        matches!(self.accepting, Accepting::FullUntil(_))
    }

    /// Accept again when a pause is over.
    pub(super) fn resume_in_time(&mut self, now: Instant) -> io::Result<()> {
        match self.accepting {
            Accepting::PausedUntil(at) | Accepting::FullUntil(at) if at <= now => self.start(),
            _ => Ok(()),
        }
    }

    /// When that is.
    pub(super) fn next_check(&self) -> Option<Instant> {
        match self.accepting {
            Accepting::PausedUntil(at) | Accepting::FullUntil(at) => Some(at),
            _ => None,
        }
    }

    /// Accept the connections that wait, `backlog` per listener at most: that many can have come before the worker stops,
    /// and those that come later are another worker's.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (Transport, Peer, usize)> {
        (0..self.acceptors.len()).flat_map(move |listener| {
            std::iter::from_fn(move || {
                let (transport, peer) = self.try_accept(listener).ok()?;
                Some((transport, peer, listener))
            })
            .take(self.backlog)
        })
    }

    /// The worker stops: the listeners are closed here. `for_all`: the server ends, and no client connects to them any more.
    pub(super) fn close(&mut self, for_all: bool) {
        for acceptor in self.acceptors.iter().filter(|_| for_all) {
            // Another worker may have been faster.
            let _ = shutdown(acceptor.as_fd().as_raw_fd(), Shutdown::Both);
        }
        if let Err(error) = self.stop(Accepting::Over) {
            log::error!("The listeners could not be removed from the poll set: {error}");
        }
        self.acceptors.clear();
    }

    fn stop(&mut self, reason: Accepting) -> io::Result<()> {
        if self.accepting == Accepting::On {
            for acceptor in &self.acceptors {
                self.epoll.delete(acceptor)?;
            }
        }
        self.accepting = reason;
        Ok(())
    }
}

/// The process or the system has no descriptors or memory left.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_paused_listener_accepts_nothing_until_it_is_resumed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let poll = mio::Poll::new().unwrap();
        let mut listeners = Listeners::new(vec![Listener::Tcp(listener)], 2, &poll).unwrap();
        let now = Instant::now();
        listeners.start().unwrap();
        let _clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        let attempt = |listeners: &mut Listeners| listeners.accept(0, now).unwrap();
        assert!(matches!(attempt(&mut listeners), Attempt::Accepted(..)));
        listeners.pause_at_limit(now).unwrap();
        assert!(matches!(attempt(&mut listeners), Attempt::Empty));
        listeners.resume_in_time(now).unwrap();
        assert!(matches!(attempt(&mut listeners), Attempt::Empty));
        assert!(listeners.are_at_limit());
        listeners.start().unwrap();
        assert!(matches!(attempt(&mut listeners), Attempt::Accepted(..)));
        listeners.close(false);
        assert_eq!(listeners.waiting().count(), 0);
    }

    #[test]
    fn at_the_limit_it_looks_again_after_a_moment() {
        let poll = mio::Poll::new().unwrap();
        let mut listeners = Listeners::new(Vec::new(), 2, &poll).unwrap();
        let now = Instant::now();
        listeners.start().unwrap();
        listeners.pause_at_limit(now).unwrap();
        let at = listeners.next_check().unwrap();
        listeners.resume_in_time(now).unwrap();
        assert_eq!(listeners.next_check(), Some(at));
        listeners.resume_in_time(at).unwrap();
        assert_eq!(listeners.next_check(), None);
    }

    #[test]
    fn a_stop_takes_no_more_than_the_backlog() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let poll = mio::Poll::new().unwrap();
        let listeners = Listeners::new(vec![Listener::Tcp(listener)], 2, &poll).unwrap();
        let _clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        assert_eq!(listeners.waiting().count(), 2);
        assert_eq!(listeners.waiting().count(), 1);
    }

    #[test]
    fn exhaustion_is_not_a_client_that_left() {
        for (errno, is) in [(Errno::EMFILE, true), (Errno::ECONNABORTED, false)] {
            assert_eq!(is_exhaustion(&errno.into()), is, "{errno}");
        }
    }
}
