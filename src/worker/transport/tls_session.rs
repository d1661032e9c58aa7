//! A TLS session without a socket of its own: from the client's first message to its last record.
//!
//! The session copies what it is given, so that it is given about a record at a time: it keeps 4 KiB for incoming bytes,
//! and nothing else of a connection that is idle.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::ProtocolVersion;
use rustls::server::{Accepted, AcceptedAlert, Acceptor, ServerConnection};
use thiserror::Error;

use super::refused_handshake::{ClientAge, RefusedHandshake};
use crate::tls::Server;

/// The session encrypts at most this many bytes before they are written: four records, so that a large body costs one
/// system call for them together.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// It takes no more while it holds this much plaintext (rustls' own limit).
const PLAINTEXT_BYTES_MAX: usize = 16 * 1024;
/// What it keeps for incoming records at least.
const BUFFER_BYTES: usize = 4096;

/// Why a handshake has failed.
#[derive(Debug, Error)]
pub(in crate::worker) enum HandshakeError {
    #[error("the client closed the connection")]
    Ended,
    #[error("it took too long (client_header_timeout)")]
    TimedOut,
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// How far the session is.
enum Stage {
    /// The client's first message is not whole.
    Hello(Box<Acceptor>, Arc<Server>, ClientAge),
    /// The handshake goes on, or is done.
    Begun(Box<ServerConnection>),
    /// There will be none; the client has not yet got the reason.
    Refused(RefusedHandshake),
}

/// See the module.
pub(super) struct Session {
    stage: Stage,
    /// Bytes of the client for which there was no room.
    unread: Vec<u8>,
    /// The client has said that nothing more will come.
    has_ended: bool,
    /// More than [`BUFFER_BYTES`] came at once.
    is_grown: bool,
}

/// What sending has done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) bytes: usize,
    /// Nothing is left to be sent.
    pub(super) is_all: bool,
}

impl Session {
    /// The client's first bytes are `hello`. They are looked at when the session is resumed.
    pub(super) fn new(server: Arc<Server>, hello: &[u8]) -> Self {
        Self {
            stage: Stage::Hello(Box::default(), server, ClientAge::of(hello)),
            unread: hello.to_vec(),
            has_ended: false,
            is_grown: false,
        }
    }

    /// The handshake, when it has begun.
    pub(super) fn begun(&self) -> Option<&ServerConnection> {
        match &self.stage {
            Stage::Begun(session) => Some(session),
            _ => None,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.begun().is_none_or(|session| session.is_handshaking())
    }

    /// The handshake is over, and a session ticket is all that is to be sent: in TLS 1.3 the client has the last word, and the
    /// ticket comes after it.
    pub(super) fn has_ticket(&self) -> bool {
        self.begun().is_some_and(|session| {
            !session.is_handshaking()
                && session.wants_write()
                && session.protocol_version() == Some(ProtocolVersion::TLSv1_3)
        })
    }

    /// The client has said that nothing more will come.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    // In.

    /// Go on with bytes that it had no room for. Returns whether there were some.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub(super) fn resume(&mut self) -> Result<bool, rustls::Error> {
        let unread = std::mem::take(&mut self.unread);
        self.feed(&unread)?;
        Ok(!unread.is_empty())
    }

    /// Take bytes of the client.
    ///
    /// # Errors
    /// The client breaks the protocol, or offers nothing that the settings allow. An alert is to be sent.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        self.is_grown |= bytes.len() > BUFFER_BYTES;
        // RFC 8446 section 6.1: what follows a close_notify is ignored.
        while !bytes.is_empty() && !self.has_ended {
            match &mut self.stage {
                Stage::Hello(acceptor, server, age) => {
                    let age = *age;
                    let taken = read(&mut bytes, |bytes| acceptor.read_tls(bytes));
                    let accepted = match taken
                        .map_or_else(|error| Err((error, None)), |()| accept(acceptor))
                    {
                        Ok(None) => continue,
                        Ok(Some(accepted)) => {
                            let config = server.config_for(&accepted.client_hello()).clone();
                            let begun = accepted.into_connection(config);
                            begun.map_err(|(error, alert)| (error, Some(alert)))
                        }
                        Err(refused) => Err(refused),
                    };
                    match accepted {
                        Ok(mut session) => {
                            session.set_buffer_limit(Some(CHUNK_BYTES));
                            self.stage = Stage::Begun(Box::new(session));
                        }
                        Err((error, alert)) => {
                            let refused = RefusedHandshake::new(&error, alert, age);
                            self.stage = Stage::Refused(refused);
                            return Err(error);
                        }
                    }
                }
                Stage::Begun(session) => {
                    read(&mut bytes, |bytes| session.read_tls(bytes))?;
                    let state = match session.process_new_packets() {
                        Ok(state) => state,
                        Err(error) => {
                            if error == rustls::Error::NoCertificatesPresented
                                && let Some(refused) =
                                    RefusedHandshake::without_certificate(session)
                            {
                                self.stage = Stage::Refused(refused);
                            }
                            return Err(error);
                        }
                    };
                    self.has_ended = state.peer_has_closed();
                    if state.plaintext_bytes_to_read() >= PLAINTEXT_BYTES_MAX {
                        self.unread = bytes.to_vec();
                        return Ok(());
                    }
                }
                Stage::Refused(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Take up to `room` bytes of plaintext. Returns how many.
    pub(super) fn take_plaintext(&mut self, room: usize, into: &mut impl FnMut(&[u8])) -> usize {
        let Stage::Begun(session) = &mut self.stage else {
            return 0;
        };
        let (mut reader, mut taken) = (session.reader(), 0);
        // An error says that there is nothing.
        while taken < room
            && let Ok(chunk @ [_, ..]) = reader.fill_buf()
        {
            let len = chunk.len().min(room - taken);
            into(&chunk[..len]);
            reader.consume(len);
            taken += len;
        }
        taken
    }

    /// The client sends nothing for now: a buffer that has grown becomes small again, as it does before it is read to.
    pub(super) fn shrink(&mut self) {
        struct Nothing;
        impl Read for Nothing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
        if std::mem::take(&mut self.is_grown)
            && let Stage::Begun(session) = &mut self.stage
        {
            let _ = session.read_tls(&mut Nothing);
        }
    }

    // Out.

    /// Encrypt up to [`CHUNK_BYTES`]. Returns how many bytes.
    ///
    /// # Errors
    /// The session has failed.
    pub(super) fn encrypt(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.stage {
            Stage::Begun(session) => session.writer().write_vectored(slices),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.begun().is_some_and(|session| session.wants_write())
    }

    /// Send what is encrypted, as far as `wire` takes it.
    ///
    /// # Errors
    /// Those of `wire`, but for "would block".
    pub(super) fn send(&mut self, io: &mut impl Write) -> io::Result<Sent> {
        let mut bytes = 0;
        loop {
            let result = match &mut self.stage {
                Stage::Begun(session) if session.wants_write() => session.write_tls(io),
                Stage::Refused(alert) => alert.write(io),
                _ => Ok(0),
            };
            match result {
                Ok(0) => {
                    break Ok(Sent {
                        bytes,
                        is_all: true,
                    });
                }
                Ok(len) => bytes += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    break Ok(Sent {
                        bytes,
                        is_all: false,
                    });
                }
                Err(error) => break Err(error),
            }
        }
    }

    /// Say that nothing more will be sent: once, and not after a fatal alert.
    pub(super) fn queue_close_notify(&mut self) {
        if let Stage::Begun(session) = &mut self.stage {
            session.send_close_notify();
        }
    }
}

/// Let rustls read from a slice. Its only error is that it holds too many bytes of an unfinished message.
fn read(
    bytes: &mut &[u8],
    read: impl FnOnce(&mut &[u8]) -> io::Result<usize>,
) -> Result<(), rustls::Error> {
    match read(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(rustls::Error::General(error.to_string())),
    }
}

/// The client's first message, when it is whole; or an error and rustls' alert, if it has one.
fn accept(
    acceptor: &mut Acceptor,
) -> Result<Option<Accepted>, (rustls::Error, Option<AcceptedAlert>)> {
    acceptor
        .accept()
        .map_err(|(error, alert)| (error, Some(alert)))
}
