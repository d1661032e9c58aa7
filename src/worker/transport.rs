//! One client socket: bytes in, bytes out, the end of the stream, and the end of the connection.
//!
//! Plain TCP and unix sockets today. TLS will be one more variant in a file of its own (`transport/tls.rs`) and one arm
//! in each `match` below: while it shakes hands `read` and `write` move the handshake and report "would block", the end
//! of a connection sends `close_notify` before `shutdown(2)`, `send_file` reads and encrypts, and the socket is neither
//! transferable nor hijackable. Nothing else in the worker names a kind of socket.
//!
//! Every call here is non-blocking and retries when a signal interrupts it. Used on the event loop's thread only.

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

use crate::pool::Peer;

/// A file whose file system does not support `sendfile` is copied in steps of this many bytes.
const COPY_STEP_BYTES: usize = 64 * 1024;

/// A connected, non-blocking socket.
#[derive(Debug)]
pub(super) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// What was written is delivered, then the end of the stream.
    Orderly,
    /// The client must not take the end of the stream for the end of a response.
    Reset,
}

impl Transport {
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

    /// Register once, for reading and writing, edge-triggered: no further system call is needed for interest.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interest),
            Self::Unix(stream) => stream.register(registry, token, interest),
        }
    }

    /// Give the socket up to another process or to the application, which holds a descriptor of it: it leaves the poll
    /// set, and closing ours changes nothing for them.
    pub(super) fn give_up(mut self, registry: &Registry) {
        let result = match &mut self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        };
        if let Err(error) = result {
            // It costs wake-ups for nothing, no more: events of unknown connections are ignored.
            log::debug!("A socket could not leave the poll set: {error}");
        }
    }

    /// Read what has arrived. 0 is the end of the stream.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        retry(|| match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        })
    }

    /// Read to behind what `into` holds, as far as its capacity goes. 0 is the end of the stream.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "a transport that decrypts has to change"
    )]
    pub(super) fn read_spare(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        retry(|| Ok(rustix::io::read(&*self, spare_capacity(into))?))
    }

    /// Write as much as the socket takes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        })
    }

    /// Write as much of several slices as the socket takes, with one system call.
    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        retry(|| match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
        })
    }

    /// Send at most `len` bytes of `file` from `offset` on. 0 is the end of the file.
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

    fn copy_file(&mut self, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        let mut bytes = vec![0; len.min(COPY_STEP_BYTES)];
        let read = file.read_at(&mut bytes, offset)?;
        if read == 0 {
            return Ok(0);
        }
        self.write(&bytes[..read])
    }

    /// Send the end of the stream; the client may still send.
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

    /// A second descriptor of the socket for an application that hijacks the connection; `None` when it cannot be had.
    pub(super) fn hijack(&self) -> Option<OwnedFd> {
        self.as_fd().try_clone_to_owned().ok()
    }

    /// The socket for a transfer to another worker; `None` on a transport whose state cannot be transferred.
    pub(super) fn transferable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
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

    fn pair() -> (Transport, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Transport::Unix(UnixStream::from_std(ours)), theirs)
    }

    #[test]
    fn an_empty_socket_would_block_and_a_closed_one_is_at_its_end() {
        let (mut transport, theirs) = pair();
        let error = transport.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        assert_eq!(transport.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn bytes_are_read_behind_those_that_are_there() {
        let (mut transport, mut theirs) = pair();
        theirs.write_all(b"body").unwrap();
        let mut memory = Vec::with_capacity(64);
        memory.extend_from_slice(b"a ");
        assert_eq!(transport.read_spare(&mut memory).unwrap(), 4);
        assert_eq!(memory, b"a body");
    }

    #[test]
    fn the_end_of_the_stream_is_sent_while_the_client_still_sends() {
        let (mut transport, mut theirs) = pair();
        transport.shutdown_write().unwrap();
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
        theirs.write_all(b"late").unwrap();
        assert_eq!(transport.read(&mut [0; 8]).unwrap(), 4);
    }

    #[test]
    fn the_end_is_sent_although_another_process_holds_the_socket() {
        for (ending, is_reset) in [(Ending::Orderly, false), (Ending::Reset, true)] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (ours, _) = listener.accept().unwrap();
            let _held = ours.try_clone().unwrap();
            Transport::Tcp(TcpStream::from_std(ours)).close(ending);
            let end = theirs.read(&mut [0; 8]);
            assert_eq!(end.is_err(), is_reset, "{end:?}");
        }
        let (transport, mut theirs) = pair();
        let _held = transport.hijack().unwrap();
        transport.close(Ending::Reset);
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_file_is_sent_from_an_offset_and_its_end_is_zero() {
        let (mut transport, mut theirs) = pair();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        assert_eq!(transport.send_file(&file, 4, 100).unwrap(), 6);
        assert_eq!(transport.send_file(&file, 10, 100).unwrap(), 0);
        assert_eq!(transport.copy_file(&file, 8, 100).unwrap(), 2);
        let mut text = [0; 8];
        theirs.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"45678989");
    }
}
