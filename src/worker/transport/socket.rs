//! A connected, non-blocking TCP or unix socket: bytes as they are on the wire.
//!
//! Every call retries when a signal interrupts it. Used on the event loop's thread only.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use rustix::buffer::spare_capacity;
use rustix::net::{SendAncillaryBuffer, SendFlags};

use crate::pool::Peer;

/// A file that `sendfile` does not send is copied in steps of this many bytes.
const COPY_STEP_BYTES: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(in crate::worker) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Ending {
    /// What was written is delivered, then the end of the stream.
    Orderly,
    /// The client must not take the end of the stream for the end of a response.
    Reset,
}

impl Socket {
    /// A connected socket that another worker has accepted, with its peer. `None` when the client is gone.
    pub(super) fn from_transferred(socket: OwnedFd) -> Option<(Self, Peer)> {
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

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interest),
            Self::Unix(stream) => stream.register(registry, token, interest),
        }
    }

    pub(super) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        retry(|| match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        })
    }

    pub(super) fn read_spare(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        retry(|| Ok(rustix::io::read(self, spare_capacity(into))?))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        })
    }

    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        retry(|| match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
        })
    }

    /// As [`Socket::write_vectored`], when the end of the stream is sent next: it leaves in the last segment of these bytes,
    /// so that the client's system is woken once.
    pub(super) fn write_before_end(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        retry(|| {
            let mut control = SendAncillaryBuffer::default();
            Ok(rustix::net::sendmsg(self, slices, &mut control, flags)?)
        })
    }

    pub(super) fn send_file(&mut self, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        let mut at = i64::try_from(offset).map_err(io::Error::other)?;
        retry(
            || match nix::sys::sendfile::sendfile(&*self, file, Some(&mut at), len) {
                // Not every file system supports it.
                Err(Errno::EINVAL | Errno::ENOSYS) => self.copy_file(file, offset, len),
                sent => Ok(sent?),
            },
        )
    }

    pub(super) fn copy_file(&mut self, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        let mut bytes = vec![0; len.min(COPY_STEP_BYTES)];
        let read = retry(|| file.read_at(&mut bytes, offset))?;
        if read == 0 {
            return Ok(0);
        }
        self.write(&bytes[..read])
    }

    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Close the connection. Its end is sent, and not left to `close(2)`: a process that the application has forked may
    /// hold a descriptor of the socket, and then closing ours sends nothing.
    pub(super) fn close(self, ending: Ending) {
        // The peer of a broken socket has noticed already.
        let _ = match (&self, ending) {
            // Dissolving the association resets a TCP connection, also when another process holds it.
            (Self::Tcp(stream), Ending::Reset) => {
                rustix::net::connect_unspec(stream).map_err(io::Error::from)
            }
            (Self::Tcp(stream), Ending::Orderly) => stream.shutdown(Shutdown::Both),
            // A unix socket has no reset.
            (Self::Unix(stream), _) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// What follows a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Any,
    /// The end of the stream, at once.
    End,
}

/// The socket, as a TLS session writes to it.
pub(super) struct Wire<'a>(pub(super) &'a mut Socket, pub(super) Next);

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.1 {
            Next::Any => self.0.write_vectored(slices),
            Next::End => self.0.write_before_end(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Call again as long as a signal interrupts the call.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_sent_from_an_offset_and_its_end_is_zero() {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut socket = Socket::Unix(UnixStream::from_std(ours));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        assert_eq!(socket.send_file(&file, 4, 100).unwrap(), 6);
        assert_eq!(socket.send_file(&file, 10, 100).unwrap(), 0);
        assert_eq!(socket.copy_file(&file, 8, 100).unwrap(), 2);
        let mut text = [0; 8];
        theirs.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"45678989");
    }
}
