//! Settings that are one of a few words.

use std::path::PathBuf;

/// What runs the requests of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerClass {
    Threads,
    /// Greenlets of one hub.
    Gevent,
    /// The same; gevent-websocket's class upgrades requests for WebSockets.
    GeventWebSocket,
    Eventlet,
}

/// A library that makes blocking calls yield to its hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GreenLibrary {
    Gevent,
    Eventlet,
}

impl WorkerClass {
    /// Whose greenlets requests are; `None`: they run on threads.
    #[must_use]
    pub fn library(self) -> Option<GreenLibrary> {
        match self {
            Self::Threads => None,
            Self::Gevent | Self::GeventWebSocket => Some(GreenLibrary::Gevent),
            Self::Eventlet => Some(GreenLibrary::Eventlet),
        }
    }
}

impl GreenLibrary {
    /// Of its package.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gevent => "gevent",
            Self::Eventlet => "eventlet",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadEngine {
    Auto,
    Poll,
    Inotify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    Off,
    V1,
    V2,
    Auto,
}

/// What connections carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Uwsgi,
}

/// The header in which trusted proxies send the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeaders {
    Off,
    XForwardedFor,
    Forwarded,
}

/// What happens to a header whose name has an underscore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderMap {
    Drop,
    Refuse,
    Dangerous,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpProtocol {
    H1,
    H2,
}

/// How HTTP/2 may begin without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Cleartext {
    Off,
    /// With its preface.
    PriorKnowledge,
    /// With an `Upgrade` field in HTTP/1.1.
    Upgrade,
    Both,
}

impl Http2Cleartext {
    pub fn allows_prior_knowledge(self) -> bool {
        matches!(self, Self::PriorKnowledge | Self::Both)
    }

    pub fn allows_upgrade(self) -> bool {
        matches!(self, Self::Upgrade | Self::Both)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsdAddress {
    Udp { host: String, port: u16 },
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

impl LogLevel {
    pub fn is_name(name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        Self::from_name(&name) != Self::Info || name == "info"
    }

    /// An unknown name means info, as in gunicorn.
    pub fn from_name(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "debug" => Self::Debug,
            "warning" => Self::Warning,
            "error" => Self::Error,
            "critical" => Self::Critical,
            _ => Self::Info,
        }
    }

    /// The `log` crate has no level above error, so the level critical lets errors through to the logger, which drops them.
    pub fn filter(self) -> log::LevelFilter {
        match self {
            Self::Debug => log::LevelFilter::Debug,
            Self::Info => log::LevelFilter::Info,
            Self::Warning => log::LevelFilter::Warn,
            Self::Error | Self::Critical => log::LevelFilter::Error,
        }
    }
}

/// `cert_reqs`: whether clients need a certificate. The numbers are those of Python's `ssl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    None = 0,
    Optional = 1,
    Required = 2,
}

impl ClientCertificates {
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Optional),
            2 => Some(Self::Required),
            _ => None,
        }
    }
}

/// `ssl_minimum_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12 = 12,
    Tls13 = 13,
}

/// `keyfile_password`, `admin_token`: where the secret is.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    Text(String),
    Variable(String),
    File(PathBuf),
}

impl Password {
    /// `env:NAME`, `file:PATH`, or the secret itself.
    #[must_use]
    pub fn from_setting(text: &str) -> Self {
        if let Some(name) = text.strip_prefix("env:") {
            Self::Variable(name.to_owned())
        } else if let Some(path) = text.strip_prefix("file:") {
            Self::File(PathBuf::from(path))
        } else {
            Self::Text(text.to_owned())
        }
    }
}

impl std::fmt::Debug for Password {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}
