//! TLS between a socket and the two sides of a connection: bytes of the wire in and out, plaintext on this side.
//!
//! - *Nothing hides.* What the session has decrypted and was not taken is given before the socket is read again, so a read
//!   that does not fill its buffer has emptied both. Only an end of the stream that came as `close_notify` makes no event of
//!   the poll set ([`Tls::has_ended`]).
//! - *Written means sent.* Plaintext counts as written when the socket has taken its ciphertext. Until then the write says
//!   "would block", and the caller repeats it: the bytes are encrypted once, and counted then (`held_back`). So a write queue
//!   that is empty has no ciphertext left, and a slow reader is the write queue's matter.
//! - *No plaintext twice.* One write encrypts [`CHUNK_BYTES`] at most.
//! - *Few system calls.* The ticket of TLS 1.3 waits for the response when the request is there already, and `close_notify`
//!   and the end of the stream leave with the last bytes.
//!
//! Before [`Tls::begin`] and after [`Tls::shutdown_write`] the socket's bytes are given as they are.

use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use mio::net::UnixStream;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustls::ServerConnection;

use crate::tls::Server;

use super::socket::{Ending, Next, Socket, Wire};
use super::tls_session::{CHUNK_BYTES, HandshakeError, Sent, Session};

/// The socket is read in steps of this many bytes, about one record.
const READ_BYTES: usize = 16 * 1024;
/// How often one step of a handshake reads the socket: a client cannot keep the loop in it.
const HANDSHAKE_READS: usize = 8;

/// How far our end of the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// `close_notify` waits for the socket.
    Queued,
    /// The end of the stream is sent.
    Sent,
}

/// See the module.
pub(in crate::worker) struct Tls {
    socket: Socket,
    /// `None` before the handshake.
    session: Option<Session>,
    /// Plaintext that is encrypted, whose ciphertext the socket has not yet taken.
    held_back: usize,
    /// The session ticket waits for the first write. Only the client's next connection needs it.
    is_ticket_held: bool,
    /// The socket's end of the stream was read.
    is_at_end: bool,
    closing: Closing,
    /// The other end of what an application got that may hijack the connection.
    application: Option<UnixStream>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("socket", &self.socket)
            .field("held_back", &self.held_back)
            .field("closing", &self.closing)
            .finish_non_exhaustive()
    }
}

/// How far a handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Handshake {
    Done,
    /// The client has to send or to take something first.
    Blocked,
    /// It has used its share of this iteration.
    ShareUsed,
}

impl Tls {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            session: None,
            held_back: 0,
            is_ticket_held: false,
            is_at_end: false,
            closing: Closing::No,
            application: None,
        }
    }

    pub(super) fn hijack(&mut self) -> io::Result<OwnedFd> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        self.application = Some(UnixStream::from_std(ours));
        Ok(theirs.into())
    }

    pub(super) fn take_application(&mut self) -> Option<UnixStream> {
        self.application.take()
    }

    pub(super) fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    // The handshake.

    /// The client's first bytes are `hello`. They are looked at in [`Tls::handshake`].
    pub(in crate::worker) fn begin(&mut self, server: Arc<Server>, hello: &[u8]) {
        self.session = Some(Session::new(server, hello));
    }

    /// Continue the handshake as far as the socket lets it. `is_ending`: the poll set has announced the client's end, and will
    /// not do so again, so that the socket is read until that is seen.
    ///
    /// # Errors
    /// It has failed, and the client was sent the reason if that was possible.
    pub(in crate::worker) fn handshake(
        &mut self,
        is_ending: bool,
    ) -> Result<Handshake, HandshakeError> {
        let result = self.step_handshake(is_ending);
        if result.is_err() {
            // The alert is some bytes on a new connection; a client that is gone needs none.
            let _ = self.send(Next::Any);
        }
        result
    }

    /// What was agreed on. `None` before the client's first message.
    pub(in crate::worker) fn agreed(&self) -> Option<&ServerConnection> {
        self.session.as_ref()?.begun()
    }

    fn step_handshake(&mut self, is_ending: bool) -> Result<Handshake, HandshakeError> {
        let mut scratch = [MaybeUninit::uninit(); READ_BYTES];
        let mut is_drained = false;
        for _ in 0..HANDSHAKE_READS {
            self.is_ticket_held = self.session.as_ref().is_some_and(Session::has_ticket);
            let sent = match self.is_ticket_held {
                true => return Ok(Handshake::Done),
                false => self.send(Next::Any),
            };
            let Some(session) = &mut self.session else {
                return Ok(Handshake::Blocked);
            };
            if !session.is_handshaking() {
                return Ok(Handshake::Done);
            }
            if !sent?.is_all {
                return Ok(Handshake::Blocked);
            }
            if session.resume()? {
                continue;
            }
            if session.has_ended() {
                return Err(HandshakeError::Ended);
            }
            if is_drained {
                return Ok(Handshake::Blocked);
            }
            match rustix::io::read(&self.socket, &mut scratch[..]) {
                Ok(([], _)) => return Err(HandshakeError::Ended),
                Ok((bytes, _)) => {
                    is_drained = bytes.len() < READ_BYTES && !is_ending;
                    session.feed(bytes)?;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Handshake::Blocked),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(Handshake::ShareUsed)
    }

    // In.

    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.is_open() {
            return self.socket.read(into);
        }
        let mut filled = 0;
        self.read_plaintext(into.len(), |bytes| {
            into[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        })
    }

    pub(super) fn read_spare(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        if !self.is_open() {
            return self.socket.read_spare(into);
        }
        let room = into.capacity() - into.len();
        self.read_plaintext(room, |bytes| into.extend_from_slice(bytes))
    }

    /// Whether what comes and goes is encrypted.
    fn is_open(&self) -> bool {
        self.session.is_some() && self.closing == Closing::No
    }

    /// Read until `room` bytes are filled, or the socket and the session are empty.
    fn read_plaintext(&mut self, room: usize, mut into: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut scratch = [MaybeUninit::uninit(); READ_BYTES];
        let (mut filled, mut is_drained, mut would_block) = (0, false, false);
        while let Some(session) = &mut self.session {
            filled += session.take_plaintext(room - filled, &mut into);
            if filled == room || session.has_ended() || self.is_at_end {
                break;
            }
            if session.resume().map_err(io::Error::other)? {
                continue;
            }
            // A part of a record says nothing of what is behind it: an end that came with it makes no further event.
            if is_drained && (filled > 0 || would_block) {
                session.shrink();
                break;
            }
            match rustix::io::read(&self.socket, &mut scratch[..]) {
                // Without a close_notify: HTTP says whether something is missing.
                Ok(([], _)) => self.is_at_end = true,
                Ok((bytes, _)) => {
                    is_drained = bytes.len() < READ_BYTES;
                    let fed = session.feed(bytes);
                    if session.has_unsent() && (fed.is_err() || !self.is_ticket_held) {
                        // An alert, or the answer to a key update. The rest waits for an event or the next write.
                        let _ = self.send(Next::Any);
                    }
                    fed.map_err(io::Error::other)?;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => (is_drained, would_block) = (true, true),
                Err(error) => return Err(error.into()),
            }
        }
        match filled {
            0 if room > 0 && !self.has_ended() => {
                if self.is_ticket_held {
                    self.send(Next::Any)?;
                }
                Err(io::ErrorKind::WouldBlock.into())
            }
            filled => Ok(filled),
        }
    }

    /// The client has sent `close_notify`, or its end of the stream was read.
    pub(super) fn has_ended(&self) -> bool {
        self.is_at_end || self.session.as_ref().is_some_and(Session::has_ended)
    }

    // Out.

    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_before(Next::Any, slices)
    }

    /// Write before `next`: `close_notify` goes with the last bytes when they fit one write.
    pub(super) fn write_before(&mut self, next: Next, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(counted) = self.prepare_write()? {
            return Ok(counted);
        }
        let Some(session) = &mut self.session else {
            return Wire(&mut self.socket, next).write_vectored(slices);
        };
        self.held_back = session.encrypt(slices)?;
        if next == Next::End
            && self.held_back == slices.iter().map(|slice| slice.len()).sum::<usize>()
        {
            session.queue_close_notify();
        }
        // Without bytes to write there is nothing to count.
        Ok(self.count_held_back(next)?.unwrap_or(0))
    }

    /// Send the ciphertext of the last write. Returns how much plaintext counts as written, when there was some.
    fn prepare_write(&mut self) -> io::Result<Option<usize>> {
        if self.closing != Closing::No {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // Anything else that waits leaves with what is written now.
        match self.held_back {
            0 => Ok(None),
            _ => self.count_held_back(Next::Any),
        }
    }

    pub(super) fn send_file(&mut self, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        if let Some(counted) = self.prepare_write()? {
            return Ok(counted);
        }
        let mut bytes = Vec::with_capacity(len.min(CHUNK_BYTES));
        let wanted = bytes.capacity().min(len);
        while bytes.len() < wanted {
            let at = offset + bytes.len() as u64;
            match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // More memory may have been given than was asked for.
        bytes.truncate(len);
        if bytes.is_empty() {
            return Ok(0);
        }
        self.write(&[IoSlice::new(&bytes)])
    }

    /// Send the ciphertext that waits. Returns how much plaintext counts as written now: all that was encrypted when the
    /// socket has taken everything, and about as much as it has taken otherwise. `None` when nothing was held back.
    fn count_held_back(&mut self, next: Next) -> io::Result<Option<usize>> {
        let sent = self.send(next)?;
        let counted = match sent.is_all {
            true => self.held_back,
            false => sent.bytes.min(self.held_back.saturating_sub(1)),
        };
        self.held_back -= counted;
        match counted {
            0 if sent.is_all => Ok(None),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            counted => Ok(Some(counted)),
        }
    }

    /// Send the ciphertext that waits, as far as the socket takes it.
    fn send(&mut self, next: Next) -> io::Result<Sent> {
        self.is_ticket_held = false;
        match &mut self.session {
            Some(session) => session.send(&mut Wire(&mut self.socket, next)),
            None => Ok(Sent {
                bytes: 0,
                is_all: true,
            }),
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        let session = self.session.as_ref().filter(|_| !self.is_ticket_held);
        self.closing == Closing::Queued || session.is_some_and(Session::has_unsent)
    }

    pub(super) fn send_unsent(&mut self) -> io::Result<()> {
        if self.send(Next::Any)?.is_all && self.closing == Closing::Queued {
            self.closing = Closing::Sent;
            self.socket.shutdown_write()?;
        }
        Ok(())
    }

    // The end.

    /// Send `close_notify`. Returns whether the socket has taken it.
    pub(super) fn announce_end(&mut self) -> bool {
        self.queue_close_notify();
        self.send(Next::Any).is_ok_and(|sent| sent.is_all)
    }

    /// `close_notify`, then the end of the stream. What the client still sends is not decrypted.
    pub(super) fn shutdown_write(&mut self) -> io::Result<()> {
        if self.closing == Closing::No {
            self.closing = Closing::Queued;
            self.queue_close_notify();
        }
        self.send_unsent()
    }

    pub(super) fn close(mut self, ending: Ending) {
        if ending == Ending::Orderly {
            // A socket that takes no more has a client that reads no more.
            self.announce_end();
        }
        self.socket.close(ending);
    }

    fn queue_close_notify(&mut self) {
        if let Some(session) = &mut self.session {
            session.queue_close_notify();
        }
    }
}

impl AsFd for Tls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
