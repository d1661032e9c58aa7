//! Sockets that were opened before this program started: systemd's socket activation and `fd://N`.
//!
//! The number stays open and untouched; what we use is a duplicate of our own. So the same address can be
//! adopted again after a reload, and dropping a listener never closes what belongs to whoever started us.
#![expect(
    unsafe_code,
    reason = "a descriptor number from the environment has no owner in the type system"
)]

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::{
    AddressFamily, Backlog, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt,
    listen, sockopt,
};

use super::Listener;

/// The descriptors that systemd passed to process `own_pid`, from the values of `LISTEN_PID` and
/// `LISTEN_FDS`. The caller removes both variables, so that no child takes them for its own.
#[must_use]
pub fn systemd_fds(listen_pid: Option<&str>, listen_fds: Option<&str>, own_pid: u32) -> Vec<RawFd> {
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u32>().ok());
    if number(listen_pid) != Some(own_pid) {
        return Vec::new();
    }
    let count = number(listen_fds).unwrap_or(0).min(SYSTEMD_FDS_MAX);
    (SYSTEMD_FIRST_FD..).take(count as usize).collect()
}

/// Makes a listener of an open stream socket. One that listens already keeps its backlog.
///
/// # Errors
/// When the number is no open descriptor, or not of a TCP or unix stream socket.
pub fn adopt(fd: RawFd, backlog: Backlog) -> io::Result<Listener> {
    if fd < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the number is only used for the one system call that duplicates it, which fails with EBADF
    // when it is not open; nothing else in this process closes descriptors it does not own.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let socket = borrowed.try_clone_to_owned()?;
    if getsockopt(&socket, sockopt::SockType)? != SockType::Stream {
        return Err(io::Error::other("not a stream socket"));
    }
    if !getsockopt(&socket, sockopt::AcceptConn)? {
        listen(&socket, backlog)?;
    }
    listener_of(socket)
}

fn listener_of(socket: OwnedFd) -> io::Result<Listener> {
    use std::os::fd::AsRawFd as _;

    let family = getsockname::<SockaddrStorage>(socket.as_raw_fd())?.family();
    let listener = match family {
        Some(AddressFamily::Unix) => Listener::Unix(UnixListener::from(socket)),
        Some(AddressFamily::Inet | AddressFamily::Inet6) => {
            super::unsent::bound(&socket);
            Listener::Tcp(TcpListener::from(socket))
        }
        _ => return Err(io::Error::other("neither a TCP nor a unix socket")),
    };
    listener.set_nonblocking()?;
    Ok(listener)
}

const SYSTEMD_FIRST_FD: RawFd = 3;
/// More than anyone passes; keeps a nonsensical number from filling memory.
const SYSTEMD_FDS_MAX: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn systemd_variables_must_be_meant_for_us() {
        assert_eq!(systemd_fds(Some("7"), Some("2"), 7), [3, 4]);
        assert!(systemd_fds(Some("8"), Some("2"), 7).is_empty());
        assert!(systemd_fds(None, Some("2"), 7).is_empty());
        assert!(systemd_fds(Some("7"), Some("x"), 7).is_empty());
        assert!(systemd_fds(Some("7"), None, 7).is_empty());
    }

    #[test]
    fn adopts_a_listening_socket_without_taking_it() {
        let original = TcpListener::bind("127.0.0.1:0").unwrap();
        let adopted = adopt(original.as_raw_fd(), Backlog::MAXCONN).unwrap();
        let expected = format!("http://{}", original.local_addr().unwrap());
        assert_eq!(adopted.to_string(), expected);
        drop(adopted);
        assert!(original.local_addr().is_ok());
    }

    #[test]
    fn refuses_what_is_no_stream_socket() {
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(adopt(datagram.as_raw_fd(), Backlog::MAXCONN).is_err());
        assert!(adopt(1_000_000, Backlog::MAXCONN).is_err());
        assert!(adopt(-1, Backlog::MAXCONN).is_err());
    }
}
