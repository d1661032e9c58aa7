//! Settings: one table, five places a value can come from, one checked and immutable `Config`.
//!
//! The walk: `cli::parse_all` reads the command line and the environment, the config file adds its
//! values, `sources::combine` keeps the winner of each, `validate::validate` makes the `Config`.
//! Everything here is free of Python and of sockets; it runs in the launcher, before any thread
//! exists. A new setting is one row in `settings/`; a `Config` field is added only for its reader.
#![forbid(unsafe_code)]

pub mod cli;
pub mod peers;
pub mod settings;
pub mod sources;
pub mod suggest;
pub mod validate;
pub mod value;

mod bad_value;
mod check;
mod document;
mod help;
mod host;
mod resolved;
mod sections;
mod typed;
pub(crate) mod words;

use std::path::PathBuf;

pub use bad_value::BadValue;
pub use check::check;
pub use cli::CliOutcome;
pub use document::document;
pub use host::start_directory;
pub use peers::AllowedPeers;
pub use resolved::Resolved;
pub use sections::{
    AccessLog, App, Control, Debugging, Http, Lifecycle, Logging, Process, Proxy, RequestLimits,
    Socket, Statsd, Syslog, Workers,
};
pub use settings::{Setting, Verdict};
pub use sources::{Environment, RawSettings, Source, combine};
pub use validate::validate;
pub use value::Value;

/// The version in the start-up line, `-v` and `Server:`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything the operator decided, checked. Names are gunicorn's; a time of 0 seconds is `None`.
#[derive(Clone, Debug)]
pub struct Config {
    pub app: App,
    pub socket: Socket,
    pub workers: Workers,
    pub lifecycle: Lifecycle,
    pub http: Http,
    pub limits: RequestLimits,
    pub proxy: Proxy,
    pub debugging: Debugging,
    pub process: Process,
    pub logging: Logging,
    pub access_log: AccessLog,
    pub syslog: Syslog,
    pub statsd: Statsd,
    pub control: Control,

    /// Every row of the table with its final value and where it came from.
    pub resolved: Resolved,
    /// Lines for the log at start: settings without effect here, unknown names.
    pub warnings: Vec<String>,
}

impl Config {
    /// The final value of any row by its name, also of those without a field.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.resolved.value(name)
    }
}

/// gunicorn's defaults (and ours), with no application: what tests start from.
impl Default for Config {
    fn default() -> Self {
        validate::build(RawSettings::default()).expect("the table's own defaults are valid")
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

/// The header in which trusted proxies tell the client's address.
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

    /// The `log` crate has no level above error, so critical lines travel as errors.
    pub fn filter(self) -> log::LevelFilter {
        match self {
            Self::Debug => log::LevelFilter::Debug,
            Self::Info => log::LevelFilter::Info,
            Self::Warning => log::LevelFilter::Warn,
            Self::Error | Self::Critical => log::LevelFilter::Error,
        }
    }
}

/// What the operator got wrong. Display is one line; the launcher prints each after `Error: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("Invalid value for {name}: {value} ({origin}): {reason}")]
    Invalid {
        name: &'static str,
        value: String,
        origin: Source,
        reason: BadValue,
    },
    /// A value gunicorn takes and we do not; the message says what to do instead.
    #[error("{name} = {value} ({origin}) is not available: {message}")]
    Refused {
        name: &'static str,
        value: String,
        origin: Source,
        message: String,
    },
    #[error("No application module specified.")]
    NoApplication,
}
