//! One client connection's way to the wire: bytes in, bytes out, the end of the stream, and the end of the connection.
//!
//! Plain sockets (`transport/socket.rs`) and TLS over them (`transport/tls.rs`). What reads and writes names no kind of
//! socket. A TLS connection begins with a handshake (`connection/handshaking.rs`): while that goes on nothing else is read or
//! written here.
//!
//! Every call here is non-blocking and retries when a signal interrupts it. Used on the event loop's thread only.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mio::net::{TcpStream, UnixStream};
use mio::{Registry, Token};

use crate::pool::Peer;

mod refused_handshake;
mod socket;
mod tls;
mod tls_session;

pub(super) use self::socket::Ending;
use self::socket::{Next, Socket};
pub(super) use self::tls::{Handshake, Tls};
pub(super) use self::tls_session::HandshakeError;

/// See the module.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(Socket),
    /// Boxed: a plain connection does not pay for it.
    Tls(Box<Tls>),
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(Socket::Tcp(stream))
    }
}

impl From<UnixStream> for Transport {
    fn from(stream: UnixStream) -> Self {
        Self::Plain(Socket::Unix(stream))
    }
}

impl Transport {
    /// A connected socket that another worker has accepted, with its peer. `None` when the client is gone.
    pub(super) fn from_transferred(socket: OwnedFd) -> Option<(Self, Peer)> {
        let (socket, peer) = Socket::from_transferred(socket)?;
        Some((Self::Plain(socket), peer))
    }

    /// Register once, for reading and writing, edge-triggered: no further system call is needed for interest.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.socket_mut().register(registry, token)
    }

    /// Give the socket up to another process or to the application, which holds a descriptor of it: it leaves the poll
    /// set, and closing ours changes nothing for them.
    pub(super) fn give_up(mut self, registry: &Registry) {
        if let Err(error) = self.socket_mut().deregister(registry) {
            // It costs wake-ups for nothing, no more: events of unknown connections are ignored.
            log::debug!("A socket could not be removed from the poll set: {error}");
        }
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.socket_mut(),
        }
    }

    /// Read what has arrived. 0 is the end of the stream.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Tls(tls) => tls.read(into),
        }
    }

    /// As [`Transport::read`], with what [`Transport::has_unannounced_end`] says then: on the way of every request.
    pub(super) fn read_with_end(&mut self, into: &mut [u8]) -> (io::Result<usize>, bool) {
        match self {
            Self::Plain(socket) => (socket.read(into), false),
            Self::Tls(tls) => (tls.read(into), tls.has_ended()),
        }
    }

    /// Read to behind what `into` holds, as far as its capacity goes. 0 is the end of the stream.
    pub(super) fn read_spare(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read_spare(into),
            Self::Tls(tls) => tls.read_spare(into),
        }
    }

    /// Whether the end of the stream has come in what was read, so that the poll set will not announce it.
    pub(super) fn has_unannounced_end(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.has_ended(),
        }
    }

    /// Write as much as the socket takes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(&[IoSlice::new(bytes)]),
        }
    }

    /// As [`Transport::write`], when nothing is written after `bytes`, and the end of the stream is sent at once.
    pub(super) fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_before_end(&[IoSlice::new(bytes)]),
            Self::Tls(tls) => tls.write_before(Next::End, &[IoSlice::new(bytes)]),
        }
    }

    /// Write as much of several slices as the socket takes, with one system call.
    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(slices),
            Self::Tls(tls) => tls.write(slices),
        }
    }

    /// Send at most `len` bytes of `file` from `offset` on. 0 is the end of the file. Until the client has them the socket
    /// may refer to the file: what becomes of its bytes there becomes of those on their way.
    pub(super) fn send_file(&mut self, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.send_file(file, offset, len),
            Self::Tls(tls) => tls.send_file(file, offset, len),
        }
    }

    /// As [`Transport::send_file`], for a file whose bytes may be wiped when they are sent.
    pub(super) fn copy_file(&mut self, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.copy_file(file, offset, len),
            // It encrypts a copy.
            Self::Tls(tls) => tls.send_file(file, offset, len),
        }
    }

    /// Whether bytes wait for the socket that no caller has to write again: an alert, or a key update.
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.has_unsent(),
        }
    }

    /// Send them.
    pub(super) fn send_unsent(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.send_unsent(),
        }
    }

    /// Announce that the end of the stream comes, if this transport does that. Returns whether everything is sent.
    pub(super) fn announce_end(&mut self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => tls.announce_end(),
        }
    }

    /// Send the end of the stream; the client may still send.
    pub(super) fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.shutdown_write(),
            Self::Tls(tls) => tls.shutdown_write(),
        }
    }

    /// Close the connection, see [`Socket::close`].
    pub(super) fn close(self, ending: Ending) {
        match self {
            Self::Plain(socket) => socket.close(ending),
            Self::Tls(tls) => tls.close(ending),
        }
    }

    /// A second descriptor of the socket for an application that hijacks the connection; `None` when it cannot be had.
    /// Over TLS it is one end of a socket pair, and [`Transport::into_bridge`] gives the other.
    pub(super) fn hijack(&mut self) -> Option<OwnedFd> {
        match self {
            Self::Plain(socket) => socket.as_fd().try_clone_to_owned().ok(),
            Self::Tls(tls) => tls.hijack().ok(),
        }
    }

    /// The application has hijacked the connection. Over TLS its bytes are to be carried from and to the second value.
    ///
    /// # Errors
    /// The transport itself: the application has its socket.
    pub(super) fn into_bridge(mut self) -> Result<(Self, UnixStream), Self> {
        match self.tls().and_then(Tls::take_application) {
            Some(application) => Ok((self, application)),
            None => Err(self),
        }
    }

    /// The socket for a transfer to another worker; `None` on a transport whose state cannot be transferred.
    pub(super) fn transferable(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Plain(socket) => Some(socket.as_fd()),
            Self::Tls(_) => None,
        }
    }

    // TLS.

    /// The connection will speak TLS. What comes before its handshake, and an answer to what is none, is plain.
    pub(super) fn with_tls(self) -> Self {
        match self {
            Self::Plain(socket) => Self::Tls(Box::new(Tls::new(socket))),
            Self::Tls(tls) => Self::Tls(tls),
        }
    }

    pub(super) fn tls(&mut self) -> Option<&mut Tls> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => Some(tls),
        }
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) => socket.as_fd(),
            Self::Tls(tls) => tls.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};

    use super::*;

    impl Transport {
        /// Of a connection, and its client.
        pub(in crate::worker) fn pair() -> (Self, std::os::unix::net::UnixStream) {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            (mio::net::UnixStream::from_std(ours).into(), theirs)
        }
    }

    #[test]
    fn an_empty_socket_would_block_and_a_closed_one_is_at_its_end() {
        let (mut transport, theirs) = Transport::pair();
        let error = transport.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        assert_eq!(transport.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn bytes_are_read_behind_those_that_are_there() {
        let (mut transport, mut theirs) = Transport::pair();
        theirs.write_all(b"body").unwrap();
        let mut memory = Vec::with_capacity(64);
        memory.extend_from_slice(b"a ");
        assert_eq!(transport.read_spare(&mut memory).unwrap(), 4);
        assert_eq!(memory, b"a body");
    }

    #[test]
    fn the_end_of_the_stream_is_sent_while_the_client_still_sends() {
        let (mut transport, mut theirs) = Transport::pair();
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
            Transport::from(TcpStream::from_std(ours)).close(ending);
            let end = theirs.read(&mut [0; 8]);
            assert_eq!(end.is_err(), is_reset, "{end:?}");
        }
        let (mut transport, mut theirs) = Transport::pair();
        let _held = transport.hijack().unwrap();
        transport.close(Ending::Reset);
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
    }
}
