//! Sockets that were opened before this program started: systemd's socket activation, `fd://N`, and those of a master
//! whose successor we are.
//!
//! systemd's and the operator's numbers stay open and untouched; what is used is a duplicate. So the same
//! address can be adopted again after a reload, and dropping a listener never closes what belongs to the process that started
//! us. Those of another master are made for us: we own them, and close what we have no use for.
#![expect(
    unsafe_code,
    reason = "a descriptor number from the environment has no owner in the type system"
)]

use std::io;
use std::net::TcpListener;
use std::num::ParseIntError;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt,
    listen, sockopt,
};

use super::{BindAddress, Bound, Listener};
use crate::fork_guard;

/// Why no listener can be made of a descriptor.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("not a stream socket")]
    NotAStream,
    #[error("not a listening socket")]
    NotListening,
    #[error("neither a TCP nor a unix socket")]
    OtherFamily,
    #[error("not the number of a descriptor")]
    NotANumber(#[from] ParseIntError),
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for AdoptError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

impl From<AdoptError> for io::Error {
    fn from(error: AdoptError) -> Self {
        match error {
            AdoptError::System(error) => error,
            error => Self::other(error),
        }
    }
}

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
pub fn adopt(fd: RawFd, backlog: Backlog) -> Result<Listener, AdoptError> {
    if fd < 0 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: the number is only used for the one system call that duplicates it, which fails with EBADF
    // when it is not open; nothing else in this process closes descriptors it does not own.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let socket = borrowed.try_clone_to_owned()?;
    fork_guard::register(borrowed);
    if getsockopt(&socket, sockopt::SockType)? != SockType::Stream {
        return Err(AdoptError::NotAStream);
    }
    if !getsockopt(&socket, sockopt::AcceptConn)? {
        listen(&socket, backlog)?;
    }
    listener_of(socket)
}

/// The listening sockets that another master left open for us, from the value of `GUNICORN_FD`. Must be called once,
/// before anything else is opened; the caller removes the variable.
///
/// # Errors
/// When one of the numbers is no listening stream socket.
pub fn from_old_master(gunicorn_fd: &str) -> Result<Vec<Listener>, AdoptError> {
    let mut numbers = Vec::new();
    for text in gunicorn_fd.split(',').map(str::trim) {
        let number: RawFd = text.parse()?;
        if number > STDERR && !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers.into_iter().map(take).collect()
}

/// Owns an open listening socket from here on.
fn take(fd: RawFd) -> Result<Listener, AdoptError> {
    // SAFETY: the number is only used for calls that fail with EBADF when it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    if !getsockopt(&borrowed, sockopt::AcceptConn)? {
        return Err(AdoptError::NotListening);
    }
    // Not for the programs that the application starts.
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open and a listening socket, and the master that opened it left it to us: nothing else in this
    // process, which has only just started, has opened or taken it.
    listener_of(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives each address the sockets that are bound to it, and returns the addresses for which there are none. Sockets
/// that no address asked for are closed.
#[must_use]
pub fn share_out(
    mut sockets: Vec<Listener>,
    addresses: &[BindAddress],
) -> (Vec<Bound>, Vec<BindAddress>) {
    let (mut taken, mut missing) = (Vec::new(), Vec::new());
    for address in addresses {
        let found = sockets.iter().find(|socket| socket.is_at(address));
        match found.map(Listener::to_string) {
            Some(name) => {
                // All queues of it, when there are several (`reuse_port`).
                let (ours, rest) = sockets
                    .into_iter()
                    .partition(|socket| socket.to_string() == name);
                sockets = rest;
                let bound = |listener| Bound::new(address.clone(), listener);
                taken.extend(<Vec<Listener>>::into_iter(ours).map(bound));
            }
            None => missing.push(address.clone()),
        }
    }
    (taken, missing)
}

fn listener_of(socket: OwnedFd) -> Result<Listener, AdoptError> {
    use std::os::fd::AsRawFd as _;

    fork_guard::register(&socket);
    let family = getsockname::<SockaddrStorage>(socket.as_raw_fd())?.family();
    let listener = match family {
        Some(AddressFamily::Unix) => Listener::Unix(UnixListener::from(socket)),
        Some(AddressFamily::Inet | AddressFamily::Inet6) => {
            super::unsent::bound(&socket);
            Listener::Tcp(TcpListener::from(socket))
        }
        _ => return Err(AdoptError::OtherFamily),
    };
    listener.set_nonblocking()?;
    Ok(listener)
}

const STDERR: RawFd = 2;
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
    fn sockets_of_another_master_are_matched_by_address() {
        let socket = || Listener::Tcp(TcpListener::bind("127.0.0.1:0").unwrap());
        let (one, two) = (socket(), socket());
        let address = |listener: &Listener| match listener {
            Listener::Tcp(listener) => BindAddress::Tcp {
                host: "localhost".to_owned(),
                port: listener.local_addr().unwrap().port(),
            },
            Listener::Unix(_) => unreachable!(),
        };
        let elsewhere = BindAddress::Tcp {
            host: "127.0.0.2".to_owned(),
            port: 0,
        };
        let any = BindAddress::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 0,
        };
        let wanted = [address(&two), elsewhere.clone(), any.clone()];
        let names = [two.to_string(), one.to_string()];
        let (taken, missing) = share_out(vec![one, two], &wanted);
        assert_eq!(missing, [elsewhere]);
        let found: Vec<_> = taken
            .iter()
            .map(|bound| bound.listener.to_string())
            .collect();
        assert_eq!(found, names);
        assert_eq!(taken[1].address, any);
    }

    #[test]
    fn numbers_of_another_master_must_be_listening_sockets() {
        let (mine, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let refused = |numbers: &str| from_old_master(numbers).unwrap_err();
        let own = refused(&mine.as_raw_fd().to_string());
        assert!(matches!(own, AdoptError::NotListening));
        assert!(matches!(refused("1000000"), AdoptError::System(_)));
        assert!(matches!(refused("x"), AdoptError::NotANumber(_)));
        assert!(from_old_master("0,1,2").unwrap().is_empty());
    }

    #[test]
    fn refuses_what_is_no_stream_socket() {
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let refused = |fd| adopt(fd, Backlog::MAXCONN).unwrap_err();
        assert!(matches!(
            refused(datagram.as_raw_fd()),
            AdoptError::NotAStream
        ));
        assert!(matches!(refused(1_000_000), AdoptError::System(_)));
        assert!(matches!(refused(-1), AdoptError::System(_)));
    }
}
