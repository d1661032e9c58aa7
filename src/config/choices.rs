//! Settings that are one of a few words.

use std::path::PathBuf;

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
