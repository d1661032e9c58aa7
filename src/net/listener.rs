//! A listening socket, and where it was opened.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixListener;

use nix::sys::socket::{Shutdown, shutdown};

use super::address::BindAddress;
use super::host_names::resolve;
use super::socket_file::SocketFile;
use crate::fork_guard;

/// A non-blocking listening socket.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// A second descriptor of the same socket.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let clone = match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }?;
        fork_guard::register(&clone);
        Ok(clone)
    }

    /// Whether `address` means this socket; port 0 means any.
    pub(super) fn is_at(&self, address: &BindAddress) -> bool {
        match (self, address) {
            (Self::Tcp(listener), BindAddress::Tcp { host, port }) => {
                let (Ok(own), Ok(asked)) = (listener.local_addr(), resolve(host, *port)) else {
                    return false;
                };
                own.ip() == asked.ip() && (*port == 0 || own.port() == *port)
            }
            (Self::Unix(listener), BindAddress::Unix(path)) => listener
                .local_addr()
                .is_ok_and(|own| own.as_pathname() == Some(path)),
            (Self::Unix(listener), BindAddress::Abstract(name)) => listener
                .local_addr()
                .is_ok_and(|own| own.as_abstract_name() == Some(name)),
            _ => false,
        }
    }

    /// Its descriptor and name, as hooks see it.
    pub fn info(&self) -> (RawFd, String) {
        (self.as_fd().as_raw_fd(), self.to_string())
    }

    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// As in the log line "Listening at": `http://127.0.0.1:8000`, `http://[::1]:8000`, `unix:/run/app.sock`.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "http://{address}"),
                Err(_) => f.write_str("http://?"),
            },
            Self::Unix(listener) => match listener.local_addr() {
                Ok(address) => match address.as_pathname() {
                    Some(path) => write!(f, "unix:{}", path.display()),
                    None => {
                        let name = address.as_abstract_name().unwrap_or_default();
                        write!(f, "unix:@{}", name.escape_ascii())
                    }
                },
                Err(_) => f.write_str("unix:?"),
            },
        }
    }
}

/// A listener and the address that it was asked for.
#[derive(Debug)]
pub struct Bound {
    pub address: BindAddress,
    pub listener: Listener,
    /// Of a unix address.
    file: Option<SocketFile>,
}

impl Bound {
    /// The listener has just been bound, or taken over.
    #[must_use]
    pub fn new(address: BindAddress, listener: Listener) -> Self {
        let file = match &address {
            BindAddress::Unix(path) => SocketFile::at(path).ok(),
            _ => None,
        };
        Self {
            address,
            listener,
            file,
        }
    }

    /// Ends the listening, also in processes that hold the socket and are none of this server, such as a child that the
    /// application has made by a bare system call: no client connects to it any more, and another server can have the address.
    /// What was opened by the process that started this one is left alone. Only the arbiter calls this, when no worker
    /// accepts any more: what still waits in the accept queue is reset.
    pub fn end(&self) {
        if matches!(self.address, BindAddress::Fd(_)) {
            return;
        }
        // On Linux `shutdown` ends a socket that listens, of TCP and of unix alike. Elsewhere it does nothing.
        let ended = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Err(errno) = ended {
            log::debug!("{} not ended: {}", self.listener, errno.desc());
        }
    }

    /// Removes the socket file, unless another process has put its own in its place. Only the arbiter calls this.
    pub fn unlink(&self) {
        if let Some(file) = &self.file {
            file.unlink();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn what_is_ended_listens_nowhere_and_leaves_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        // As another process holds it.
        let _held = listener.try_clone().unwrap();
        let bound = |address| Bound::new(address, Listener::Tcp(listener.try_clone().unwrap()));
        bound(BindAddress::Fd(7)).end();
        assert!(TcpStream::connect(at).is_ok(), "it is another's");
        let address = BindAddress::Tcp {
            host: "127.0.0.1".to_owned(),
            port: at.port(),
        };
        bound(address).end();
        assert!(TcpStream::connect(at).is_err());
        assert!(TcpListener::bind(at).is_ok());
    }
}
