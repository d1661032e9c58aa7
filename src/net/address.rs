//! Listen addresses as the `bind` setting spells them, parsed without touching the system.
//!
//! `Display` gives the form that log lines use: the same as gunicorn's, from Python.

use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// `host` is lower-case, without brackets; empty means every IPv4 address.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
    /// A name in the abstract namespace, without its leading NUL.
    Abstract(Vec<u8>),
    /// A socket that the parent process has opened.
    Fd(RawFd),
}

/// The operator's mistake in a `bind` value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("'{0}' is not a valid port number.")]
    Port(String),
    #[error("'{0}' is not a valid file descriptor.")]
    Fd(String),
    #[error("'{0}' names no unix socket path.")]
    EmptyPath(String),
}

impl BindAddress {
    /// Reads `HOST`, `HOST:PORT`, `:PORT`, `[v6]:PORT`, `tcp://...`, `unix:PATH`, `unix://PATH`,
    /// `unix:@NAME` (abstract) or `fd://N`.
    ///
    /// # Errors
    /// When the port, descriptor or path is not one.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::parse_unix(text, path.strip_prefix("//").unwrap_or(path));
        }
        if let Some(number) = text.strip_prefix("fd://") {
            return match number.parse() {
                Ok(fd) if fd >= 0 => Ok(Self::Fd(fd)),
                _ => Err(AddressError::Fd(number.to_owned())),
            };
        }
        Self::parse_tcp(text.strip_prefix("tcp://").unwrap_or(text))
    }

    fn parse_unix(text: &str, path: &str) -> Result<Self, AddressError> {
        // A NUL cannot be typed; `@` is how systemd, ss(8) and others spell it.
        match path.strip_prefix(['\0', '@']) {
            Some(name) => Ok(Self::Abstract(name.as_bytes().to_vec())),
            None if path.is_empty() => Err(AddressError::EmptyPath(text.to_owned())),
            None => Ok(Self::Unix(PathBuf::from(path))),
        }
    }

    fn parse_tcp(text: &str) -> Result<Self, AddressError> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or(rest))),
            None => match text.split_once(':') {
                // More than one colon and no brackets: a bare IPv6 address.
                Some((_, rest)) if rest.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
                None if text.is_empty() => ("0.0.0.0", None),
                None => (text, None),
            },
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) => digits
                .parse()
                .map_err(|_| AddressError::Port(digits.to_owned()))?,
        };
        Ok(Self::Tcp {
            host: host.to_lowercase(),
            port,
        })
    }
}

impl FromStr for BindAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "('{host}', {port})"),
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "\\x00{}", name.escape_ascii()),
            Self::Fd(fd) => write!(f, "{fd}"),
        }
    }
}

const DEFAULT_PORT: u16 = 8000;

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Result<BindAddress, AddressError> {
        let host = host.to_owned();
        Ok(BindAddress::Tcp { host, port })
    }

    #[test]
    fn tcp_forms() {
        assert_eq!(BindAddress::parse("127.0.0.1:9000"), tcp("127.0.0.1", 9000));
        assert_eq!(BindAddress::parse("LOCALHOST"), tcp("localhost", 8000));
        assert_eq!(BindAddress::parse(":8001"), tcp("", 8001));
        assert_eq!(BindAddress::parse(""), tcp("0.0.0.0", 8000));
        assert_eq!(BindAddress::parse("tcp://0.0.0.0:80"), tcp("0.0.0.0", 80));
        assert_eq!(BindAddress::parse("[::1]:8000"), tcp("::1", 8000));
        assert_eq!(BindAddress::parse("[FE80::1]"), tcp("fe80::1", 8000));
        assert_eq!(BindAddress::parse("::1"), tcp("::1", 8000));
        assert_eq!(BindAddress::parse("tcp://[::]:1"), tcp("::", 1));
    }

    #[test]
    fn unix_and_fd_forms() {
        let unix = |path: &str| Ok(BindAddress::Unix(PathBuf::from(path)));
        assert_eq!(
            BindAddress::parse("unix:/run/app.sock"),
            unix("/run/app.sock")
        );
        assert_eq!(
            BindAddress::parse("unix:///run/app.sock"),
            unix("/run/app.sock")
        );
        assert_eq!(BindAddress::parse("unix:app.sock"), unix("app.sock"));
        assert_eq!(
            BindAddress::parse("unix:\0name"),
            Ok(BindAddress::Abstract(b"name".to_vec()))
        );
        assert_eq!(BindAddress::parse("fd://3"), Ok(BindAddress::Fd(3)));
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text| BindAddress::parse(text).unwrap_err().to_string();
        assert_eq!(
            message("localhost:foo"),
            "'foo' is not a valid port number."
        );
        assert_eq!(
            message("localhost:70000"),
            "'70000' is not a valid port number."
        );
        assert_eq!(message("localhost:"), "'' is not a valid port number.");
        assert_eq!(message("fd://x"), "'x' is not a valid file descriptor.");
        assert_eq!(message("fd://-1"), "'-1' is not a valid file descriptor.");
        assert_eq!(message("unix:"), "'unix:' names no unix socket path.");
    }

    #[test]
    fn display_is_the_python_form() {
        assert_eq!(
            tcp("127.0.0.1", 80).unwrap().to_string(),
            "('127.0.0.1', 80)"
        );
        assert_eq!(BindAddress::Unix("/a".into()).to_string(), "/a");
    }
}
