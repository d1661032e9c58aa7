//! Where syslog listens: the setting's forms of an address, the names of facilities, and the socket.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, connect, socket,
};

use crate::net::host_names::{self, NameError};

/// The operator's mistake; worded as gunicorn words it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyslogError {
    #[error("unknown facility name")]
    Facility,
    #[error("invalid syslog address")]
    Address,
    #[error("{} is not a valid port number.", crate::config::value::repr_str(.0))]
    Port(String),
    #[error("syslog host {0} is not known")]
    Host(String),
}

/// A socket of this process.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) fd: OwnedFd,
    pub(super) is_stream: bool,
    /// Where datagrams go, unless it is connected.
    pub(super) to: Option<SockaddrStorage>,
}

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Udp(Host),
    Tcp(Host),
    Unix {
        path: PathBuf,
        /// In the order of trying.
        types: &'static [SockType],
    },
}

/// A name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

impl Address {
    /// `udp://HOST:PORT`, `tcp://HOST:PORT`, `unix://PATH`, `unix://PATH#dgram`, `unix://PATH#stream`.
    pub(super) fn parse(text: &str) -> Result<Self, SyslogError> {
        if let Some(path) = text.strip_prefix("unix://") {
            let (path, kind) = path.split_once('#').unwrap_or((path, ""));
            let types: &[SockType] = match kind {
                "dgram" => &[SockType::Datagram],
                "stream" => &[SockType::Stream],
                _ => &[SockType::Datagram, SockType::Stream],
            };
            let path = PathBuf::from(path);
            return Ok(Self::Unix { path, types });
        }
        if let Some(rest) = text.strip_prefix("udp://") {
            return Ok(Self::Udp(Host::parse(rest)?));
        }
        if let Some(rest) = text.strip_prefix("tcp://") {
            return Ok(Self::Tcp(Host::parse(rest)?));
        }
        Err(SyslogError::Address)
    }

    /// Without waiting for a stream to be connected, or for the address of a name.
    pub(super) fn connect(&self) -> Result<Link, Errno> {
        let open = |family, kind| socket(family, kind, SOCKET_FLAGS, None);
        let family = |to: &SocketAddr| match to {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        match self {
            Self::Udp(host) => {
                let to = host.address()?;
                Ok(Link {
                    fd: open(family(&to), SockType::Datagram)?,
                    is_stream: false,
                    to: Some(SockaddrStorage::from(to)),
                })
            }
            Self::Tcp(host) => {
                let to = host.address()?;
                let fd = open(family(&to), SockType::Stream)?;
                begin_connect(&fd, &SockaddrStorage::from(to))?;
                Ok(Link {
                    fd,
                    is_stream: true,
                    to: None,
                })
            }
            Self::Unix { path, types } => {
                let to = UnixAddr::new(path)?;
                let mut result = Err(Errno::EINVAL);
                for kind in *types {
                    let fd = open(AddressFamily::Unix, *kind)?;
                    let is_stream = *kind == SockType::Stream;
                    result = begin_connect(&fd, &to).map(|()| Link {
                        fd,
                        is_stream,
                        to: None,
                    });
                    if result.is_ok() {
                        break;
                    }
                }
                result
            }
        }
    }
}

/// A stream connects while its first messages wait.
fn begin_connect(fd: &OwnedFd, to: &dyn SockaddrLike) -> Result<(), Errno> {
    match connect(fd.as_raw_fd(), to) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

impl Host {
    /// gunicorn's reading of a host and a port. At the start the name must be known; later it is asked for.
    fn parse(text: &str) -> Result<Self, SyslogError> {
        let (host, rest) = match text.split_once(']') {
            Some((host, rest)) => (host.trim_start_matches('['), rest),
            None => text
                .split_once(':')
                .map_or((text, ""), |(host, _)| (host, &text[host.len()..])),
        };
        let port = match rest.split_once(':') {
            Some((_, port)) => match port.parse::<u16>() {
                Ok(number) if port.bytes().all(|byte| byte.is_ascii_digit()) => number,
                _ => return Err(SyslogError::Port(port.to_owned())),
            },
            None => DEFAULT_PORT,
        };
        let name = match host {
            "" => "localhost".to_owned(),
            host => host.to_ascii_lowercase(),
        };
        match host_names::resolve(&name, port) {
            Ok(_) | Err(NameError::Pending(_)) => Ok(Self { name, port }),
            Err(NameError::Failed(_) | NameError::Io(_)) => Err(SyslogError::Host(name)),
        }
    }

    /// What is known now.
    fn address(&self) -> Result<SocketAddr, Errno> {
        host_names::known(&self.name, self.port).ok_or(Errno::EHOSTUNREACH)
    }
}

/// Its number, by its name in any case.
pub(super) fn facility(name: &str) -> Result<u8, SyslogError> {
    let name = name.to_ascii_lowercase();
    let found = FACILITIES.iter().find(|(known, _)| *known == name);
    found.map(|(_, code)| *code).ok_or(SyslogError::Facility)
}

const FACILITIES: [(&str, u8); 21] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("security", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

const DEFAULT_PORT: u16 = 514;
const SOCKET_FLAGS: SockFlag = SockFlag::SOCK_NONBLOCK.union(SockFlag::SOCK_CLOEXEC);
