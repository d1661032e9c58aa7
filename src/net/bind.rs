//! Opening listening sockets: all or none, and five attempts for an address that is in use.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, bind,
    connect, listen, setsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, umask};

use super::address::BindAddress;
use super::host_names::{self, NameError};
use super::inherit::{self, AdoptError};
use super::listener::{Bound, Listener};
use super::{address_user, socket_file, unsent};
use crate::fork_guard;

/// The settings of listening sockets.
#[derive(Clone, Debug)]
pub struct BindOptions {
    pub backlog: u32,
    /// For the socket file: gunicorn's default of 0 lets everyone connect.
    pub umask: u32,
    /// With `SO_REUSEPORT`, in this many sockets for each TCP address.
    pub queues: Option<usize>,
    /// Owner of socket files; `None` leaves the creator's.
    pub owner: Option<(u32, u32)>,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self {
            backlog: 2048,
            umask: 0,
            queues: None,
            owner: None,
        }
    }
}

impl BindOptions {
    /// The kernel cuts the number to its own limit; what the type cannot carry asks for that limit.
    fn backlog(&self) -> Backlog {
        i32::try_from(self.backlog)
            .ok()
            .and_then(|backlog| Backlog::new(backlog).ok())
            .unwrap_or(BACKLOG_KERNEL_LIMIT)
    }
}

/// Why there is no listener. What led to it has been logged, attempt by attempt.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("Can't connect to {0}")]
    Refused(BindAddress),
    #[error("'{0}' is not a socket")]
    NotASocket(String),
    /// Its name is being looked up, and the caller does not wait for that.
    #[error("The name in {0} is not resolved yet")]
    Pending(BindAddress),
}

/// What an address is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A second, until the next attempt.
    Attempt,
    /// A moment: its name is being looked up.
    Name,
}

/// Opens every address, all or none. An address that cannot be had is tried five times; `wait` is called in
/// between and stops the attempts by answering false.
///
/// # Errors
/// At the first address that stays refused. Socket files already made are removed again.
pub fn bind_all(
    addresses: &[BindAddress],
    options: &BindOptions,
    mut wait: impl FnMut(Wait) -> bool,
) -> Result<Vec<Bound>, BindError> {
    let mut bound: Vec<Bound> = Vec::with_capacity(addresses.len());
    for address in addresses {
        match bind_queues(address, options, &mut wait) {
            Ok(listeners) => {
                let listeners = listeners.into_iter();
                bound.extend(listeners.map(|listener| Bound::new(address.clone(), listener)));
            }
            Err(error) => {
                bound.iter().for_each(Bound::unlink);
                return Err(error);
            }
        }
    }
    Ok(bound)
}

/// One socket, or with `queues` as many of one TCP address. The first one may be given its port by the kernel.
fn bind_queues(
    address: &BindAddress,
    options: &BindOptions,
    wait: &mut impl FnMut(Wait) -> bool,
) -> Result<Vec<Listener>, BindError> {
    let mut listeners = vec![bind_patiently(address, options, wait)?];
    if let (BindAddress::Tcp { host, .. }, Listener::Tcp(first)) = (address, &listeners[0]) {
        let port = first.local_addr().map_or(0, |address| address.port());
        let queue = BindAddress::Tcp {
            host: host.clone(),
            port,
        };
        for _ in 1..options.queues.unwrap_or(1) {
            listeners.push(bind_patiently(&queue, options, wait)?);
        }
    }
    Ok(listeners)
}

/// Adopts descriptors that systemd opened.
///
/// # Errors
/// When one of them is not a stream socket.
pub fn adopt_all(fds: &[RawFd], options: &BindOptions) -> Result<Vec<Bound>, AdoptError> {
    fds.iter()
        .map(|fd| {
            let listener = inherit::adopt(*fd, options.backlog())?;
            Ok(Bound::new(BindAddress::Fd(*fd), listener))
        })
        .collect()
}

/// For the line "Listening at".
#[must_use]
pub fn describe<'a>(listeners: impl IntoIterator<Item = &'a Listener>) -> String {
    let mut names: Vec<_> = listeners.into_iter().map(Listener::to_string).collect();
    // Several queues of one address.
    names.dedup();
    names.join(",")
}

fn bind_patiently(
    address: &BindAddress,
    options: &BindOptions,
    wait: &mut impl FnMut(Wait) -> bool,
) -> Result<Listener, BindError> {
    for attempt in 0..BIND_ATTEMPTS {
        if !is_known(address, wait) {
            return Err(BindError::Pending(address.clone()));
        }
        match bind_once(address, options) {
            Ok(listener) => return Ok(listener),
            Err(Attempt::NotASocket) => return Err(BindError::NotASocket(address.to_string())),
            Err(Attempt::Failed(error)) => {
                log_attempt(address, &error);
                if attempt == 0 && error.raw_os_error() == Some(Errno::EADDRINUSE as i32) {
                    log_user(address);
                }
                log::debug!("Retrying in 1 second.");
                if !wait(Wait::Attempt) {
                    break;
                }
            }
        }
    }
    Err(BindError::Refused(address.clone()))
}

/// Has the names of all addresses looked up.
pub fn ask_names(addresses: &[BindAddress]) {
    for address in addresses {
        is_known(address, &mut |_| false);
    }
}

/// Waits until the names of the addresses are known or found to be unknown, as long as `wait` allows it.
///
/// # Errors
/// At the first that is neither.
pub fn look_up(
    addresses: &[BindAddress],
    mut wait: impl FnMut(Wait) -> bool,
) -> Result<(), BindError> {
    ask_names(addresses);
    let pending = addresses
        .iter()
        .find(|address| !is_known(address, &mut wait));
    pending.map_or(Ok(()), |address| Err(BindError::Pending(address.clone())))
}

/// Whether the name of the address is known or found to be unknown.
fn is_known(address: &BindAddress, wait: &mut impl FnMut(Wait) -> bool) -> bool {
    let BindAddress::Tcp { host, .. } = address else {
        return true;
    };
    while host_names::is_pending(host) {
        if !wait(Wait::Name) {
            return false;
        }
    }
    true
}

fn log_attempt(address: &BindAddress, error: &io::Error) {
    let reason = match error.raw_os_error() {
        Some(code) => {
            let errno = Errno::from_raw(code);
            if errno == Errno::EADDRINUSE {
                log::error!("Connection in use: {address}");
            }
            if errno == Errno::EADDRNOTAVAIL {
                log::error!("Invalid address: {address}");
            }
            format!("[Errno {code}] {}", errno.desc())
        }
        None => error.to_string(),
    };
    log::error!("connection to {address} failed: {reason}");
}

/// For the operator who does not know what else listens there.
fn log_user(address: &BindAddress) {
    if let Some(user) = address_user::find(address) {
        log::error!("The address {address} is in use by {user}.");
    }
}

/// Why one attempt did not give a listener.
#[derive(Debug)]
pub(super) enum Attempt {
    Failed(io::Error),
    NotASocket,
}

impl<E: Into<io::Error>> From<E> for Attempt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn bind_once(address: &BindAddress, options: &BindOptions) -> Result<Listener, Attempt> {
    match address {
        BindAddress::Tcp { host, port } => Ok(bind_tcp(host, *port, options)?),
        BindAddress::Unix(path) => bind_path(path, options),
        BindAddress::Abstract(name) => Ok(bind_unix(&UnixAddr::new_abstract(name)?, options)?),
        BindAddress::Fd(fd) => Ok(inherit::adopt(*fd, options.backlog())?),
    }
}

fn bind_tcp(host: &str, port: u16, options: &BindOptions) -> io::Result<Listener> {
    let address = host_names::resolve(host, port).map_err(|error| match error {
        NameError::Io(error) => error,
        error => io::Error::other(error),
    })?;
    let storage = SockaddrStorage::from(address);
    let family = storage.family().unwrap_or(AddressFamily::Inet);
    let socket = new_socket(family)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    // Accepted connections inherit this from the listener, so no call is spent on each of them.
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    unsent::bound(&socket);
    if options.queues.is_some() {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
    bind(socket.as_raw_fd(), &storage)?;
    listen(&socket, options.backlog())?;
    fork_guard::register(&socket);
    Ok(Listener::Tcp(TcpListener::from(socket)))
}

/// The mask is the process's: another thread that binds must not get this one's.
static UMASK: Mutex<()> = Mutex::new(());

pub(super) fn bind_path(path: &Path, options: &BindOptions) -> Result<Listener, Attempt> {
    let address = UnixAddr::new(path)?;
    match std::fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => return Err(Attempt::NotASocket),
        Ok(_) if is_live(&address)? => return Err(Errno::EADDRINUSE.into()),
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let listener = {
        #[cfg(test)]
        tests::have_own_mask();
        let _alone = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = umask(Mode::from_bits_truncate(options.umask));
        let listener = bind_unix(&address, options);
        umask(previous);
        listener?
    };
    if let Some((user, group)) = options.owner {
        socket_file::give_to(path, user, group)?;
    }
    Ok(listener)
}

/// The path is a socket file that no process listens on. Never waits for the process behind it.
#[must_use]
pub fn is_abandoned(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && UnixAddr::new(path).is_ok_and(|address| is_live(&address).is_ok_and(|live| !live))
}

/// A socket file left behind by a dead server refuses; a live server's accepts, or is too busy to.
fn is_live(address: &UnixAddr) -> io::Result<bool> {
    let probe = new_socket(AddressFamily::Unix)?;
    match connect(probe.as_raw_fd(), address) {
        Ok(()) | Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        // A file whose owner keeps us out is not ours to remove.
        Err(Errno::EACCES | Errno::EPERM) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

fn bind_unix(address: &UnixAddr, options: &BindOptions) -> io::Result<Listener> {
    let socket = new_socket(AddressFamily::Unix)?;
    bind(socket.as_raw_fd(), address)?;
    listen(&socket, options.backlog())?;
    fork_guard::register(&socket);
    Ok(Listener::Unix(UnixListener::from(socket)))
}

/// Non-blocking, and closed when the application starts another program.
fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(family, SockType::Stream, flags, None)?)
}

const BIND_ATTEMPTS: usize = 5;
#[cfg(target_os = "linux")]
const BACKLOG_KERNEL_LIMIT: Backlog = Backlog::MAXALLOWABLE;
#[cfg(not(target_os = "linux"))]
const BACKLOG_KERNEL_LIMIT: Backlog = Backlog::MAXCONN;

#[cfg(test)]
mod tests;
