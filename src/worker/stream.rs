//! A client socket of either family.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::pool::Peer;

/// A connected, non-blocking socket.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// A connected socket that another process has accepted, and its peer; `None` when that is gone.
    pub(super) fn of_unknown_family(socket: OwnedFd) -> Option<(Self, Peer)> {
        use nix::sys::socket::{AddressFamily, SockaddrLike as _, SockaddrStorage, getsockname};
        let address: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
        if address.family() == Some(AddressFamily::Unix) {
            let stream = UnixStream::from_std(socket.into());
            return Some((Self::Unix(stream), Peer::Unix));
        }
        let stream = std::net::TcpStream::from(socket);
        let peer = stream.peer_addr().ok()?;
        Some((Self::Tcp(TcpStream::from_std(stream)), Peer::Tcp(peer)))
    }

    /// Say that nothing more will be written.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Let closing reset the connection, so that the peer cannot take its end for the end of a body. A unix socket
    /// has no such thing.
    pub(super) fn reset_on_close(&self) {
        let at_once = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // A socket that is broken already tells the peer as much.
        let _ = nix::sys::socket::setsockopt(self, nix::sys::socket::sockopt::Linger, &at_once);
    }

    /// Register once, for reading and writing, edge-triggered: no further system call is needed for interest.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interest),
            Self::Unix(stream) => stream.register(registry, token, interest),
        }
    }

    /// Leave the poll set.
    pub(super) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
