//! A client's socket in the simulation: plain, or with a TLS session over it that moves as far as the seed lets it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use nix::sys::socket::{MsgFlags, recv};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::config::HttpProtocol;
use crate::tls::{Certificates, Publisher, settings_for_tests};

/// What one write has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// Bytes of the client's plan that the server can read whole now.
    pub(super) counted: usize,
    /// Bytes that moved: also those of a handshake.
    pub(super) moved: usize,
}

/// How the server has ended its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Orderly,
    Reset,
}

#[derive(Debug)]
pub(super) enum ClientSocket {
    Plain(UnixStream),
    Tls(Box<TlsSocket>),
}

#[derive(Debug)]
pub(super) struct TlsSocket {
    stream: UnixStream,
    session: ClientConnection,
    /// How many bytes of the plan stand before the handshake and are to come.
    plain_left: usize,
    /// The server has answered in plain text: there will be no handshake.
    is_refused: bool,
    /// The first byte of a record has come.
    has_read: bool,
    /// Encrypted, and not yet all with the server.
    held_back: usize,
    /// Whether `close_notify` goes before the end.
    is_polite: bool,
    notified: bool,
}

impl ClientSocket {
    /// The first `plain_bytes` of the plan are said before the handshake.
    pub(super) fn with_tls(stream: UnixStream, plain_bytes: usize, is_polite: bool) -> Self {
        Self::Tls(Box::new(TlsSocket {
            stream,
            session: world_of_tls().session(),
            plain_left: plain_bytes,
            is_refused: false,
            has_read: false,
            held_back: 0,
            is_polite,
            notified: false,
        }))
    }

    /// HTTP/2 is what the client offers.
    pub(super) fn with_tls_and_http2(stream: UnixStream) -> Self {
        let mut socket = Self::with_tls(stream, 0, true);
        if let Self::Tls(tls) = &mut socket {
            let mut client = ClientConfig::clone(&world_of_tls().client);
            client.alpn_protocols = vec![b"h2".to_vec()];
            let name = ServerName::try_from("localhost").unwrap();
            tls.session = ClientConnection::new(Arc::new(client), name).unwrap();
        }
        socket
    }

    /// Write some of `bytes`, the next of the plan, or what is left of those that were given last.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Written {
        match self {
            // A server that has closed takes nothing more; what it has said is still to be read.
            Self::Plain(stream) => {
                let written = stream.write(bytes).unwrap_or(0);
                Written {
                    counted: written,
                    moved: written,
                }
            }
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    /// Read at most `len` bytes of the wire. Returns how many moved.
    pub(super) fn read(&mut self, len: usize, into: &mut Vec<u8>) -> Result<usize, End> {
        match self {
            Self::Plain(stream) => read_plain(stream, len, into),
            Self::Tls(tls) => tls.read(len, into),
        }
    }

    /// Say that nothing more will come. Returns whether that was possible.
    pub(super) fn shut(&mut self) -> bool {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) if tls.session.is_handshaking() => return false,
            Self::Tls(tls) => {
                if tls.is_polite && !std::mem::replace(&mut tls.notified, true) {
                    tls.session.send_close_notify();
                }
                let _ = tls.flush();
                if tls.session.wants_write() {
                    return false;
                }
                &mut tls.stream
            }
        };
        // The other side may be gone already.
        let _ = stream.shutdown(Shutdown::Write);
        true
    }
}

fn read_plain(stream: &mut UnixStream, len: usize, into: &mut Vec<u8>) -> Result<usize, End> {
    let mut buffer = vec![0; len];
    match stream.read(&mut buffer) {
        Ok(0) if len > 0 => Err(End::Orderly),
        Ok(read) => {
            into.extend_from_slice(&buffer[..read]);
            Ok(read)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(_) => Err(End::Reset),
    }
}

impl TlsSocket {
    /// A page begins with a letter, a record with a number below 32.
    fn is_answered_in_plain_text(&self) -> bool {
        let mut first = [0];
        let seen = recv(self.stream.as_raw_fd(), &mut first, MsgFlags::MSG_PEEK);
        seen == Ok(1) && first[0].is_ascii_alphabetic()
    }

    /// Returns how many bytes of ciphertext moved.
    fn flush(&mut self) -> io::Result<usize> {
        let mut moved = 0;
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.stream) {
                Ok(len) => moved += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    fn write(&mut self, bytes: &[u8]) -> Written {
        if self.is_refused {
            return Written::default();
        }
        if self.plain_left > 0 {
            let bytes = &bytes[..bytes.len().min(self.plain_left)];
            let written = self.stream.write(bytes).unwrap_or(0);
            self.plain_left -= written;
            return Written {
                counted: written,
                moved: written,
            };
        }
        // As large as a record at most, so that the server has all of what was given or none.
        let bytes = &bytes[..bytes.len().min(16_000)];
        let mut written = Written::default();
        let Ok(moved) = self.flush() else {
            return written;
        };
        written.moved = moved;
        if self.session.is_handshaking() || self.notified {
            return written;
        }
        if self.held_back == 0 && !self.session.wants_write() && !bytes.is_empty() {
            self.held_back = self.session.writer().write(bytes).unwrap_or(0);
            written.moved += self.flush().unwrap_or(0);
        }
        if !self.session.wants_write() {
            written.counted = std::mem::take(&mut self.held_back);
        }
        written
    }

    fn read(&mut self, len: usize, into: &mut Vec<u8>) -> Result<usize, End> {
        if len == 0 {
            return Ok(0);
        }
        self.is_refused |= !self.has_read && self.is_answered_in_plain_text();
        if self.is_refused {
            return read_plain(&mut self.stream, len, into);
        }
        match self
            .session
            .read_tls(&mut (&mut self.stream).take(len as u64))
        {
            Ok(0) => Err(End::Reset),
            Ok(moved) => {
                self.has_read = true;
                let state = self.session.process_new_packets().expect("good records");
                let start = into.len();
                into.resize(start + state.plaintext_bytes_to_read(), 0);
                let mut reader = self.session.reader();
                reader.read_exact(&mut into[start..]).expect("it is there");
                match state.peer_has_closed() {
                    true => Err(End::Orderly),
                    false => Ok(moved),
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(_) => Err(End::Reset),
        }
    }
}

/// One certificate for all seeds: to make one takes longer than to play some of them.
pub(super) struct WorldOfTls {
    pub(super) certificates: Arc<Certificates>,
    client: Arc<ClientConfig>,
}

impl WorldOfTls {
    fn session(&self) -> ClientConnection {
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(self.client.clone(), name).unwrap()
    }
}

pub(super) fn world_of_tls() -> &'static WorldOfTls {
    static WORLD: OnceLock<WorldOfTls> = OnceLock::new();
    WORLD.get_or_init(|| {
        let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = signed.cert.pem() + &signed.signing_key.serialize_pem();
        file.write_all(text.as_bytes()).unwrap();
        let mut settings = settings_for_tests(file.path(), file.path());
        // Clients that offer nothing speak HTTP/1.
        settings.http_protocols = vec![HttpProtocol::H2, HttpProtocol::H1];
        let loaded = crate::tls::load(&settings, 1_800_000_000).unwrap();
        let mut publisher = Publisher::new(None).unwrap();
        publisher.publish(loaded.material).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(signed.cert.der().clone()).unwrap();
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        WorldOfTls {
            certificates: publisher.certificates(),
            client: Arc::new(client),
        }
    })
}
