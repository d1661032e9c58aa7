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

mod check;
mod document;
mod help;
mod host;
mod resolved;
mod typed;
pub(crate) mod words;

use std::path::PathBuf;
use std::time::Duration;

pub use check::check;
pub use cli::CliOutcome;
pub use document::document;
pub use host::start_directory;
pub use peers::AllowedPeers;
pub use resolved::Resolved;
pub use settings::{Setting, Verdict};
pub use sources::{Environment, RawSettings, Source, combine};
pub use validate::validate;
pub use value::Value;

/// The version in the start-up line, `-v` and `Server:`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything the operator decided, checked. Names are gunicorn's; a time of 0 seconds is `None`.
#[derive(Clone, Debug)]
pub struct Config {
    /// The application: the command line's first word, else `wsgi_app` of the config file.
    pub wsgi_app: Option<String>,

    /// As written; `net` parses them.
    pub bind: Vec<String>,
    pub backlog: u32,

    pub workers: usize,
    pub worker_class: WorkerClass,
    /// At least 1.
    pub threads: usize,
    pub worker_connections: usize,
    pub max_requests: u64,
    pub max_requests_jitter: u64,
    pub timeout: Option<Duration>,
    pub graceful_timeout: Duration,
    /// `None`: every response closes its connection.
    pub keepalive: Option<Duration>,
    pub boot_timeout: Option<Duration>,
    pub request_timeout: Option<Duration>,
    /// Requests that wait may move to another worker, with their connections.
    pub handover: bool,
    pub queue_timeout: Option<Duration>,
    /// Requests that may wait for a thread of one worker; 0 is unlimited.
    pub max_queue: usize,
    /// Begins with a slash.
    pub health_path: Option<String>,
    /// As written; `net` parses it.
    pub admin_bind: Option<String>,
    pub client_header_timeout: Option<Duration>,
    pub client_body_timeout: Option<Duration>,
    pub send_timeout: Option<Duration>,

    /// At least 1, as `max_retiring`.
    pub reload_surge: usize,
    pub max_retiring: usize,
    /// MiB; 0 is unlimited.
    pub max_worker_memory: u64,
    pub max_worker_lifetime: Option<Duration>,
    /// Seconds.
    pub max_worker_lifetime_jitter: u64,
    pub stop_delay: Duration,

    pub limit_request_line: usize,
    pub limit_request_fields: usize,
    pub limit_request_field_size: usize,
    /// 0 is unlimited.
    pub limit_request_body: u64,
    pub body_buffer_size: usize,
    pub body_buffer_total: usize,
    pub request_buffering: bool,

    pub reload: bool,
    pub reload_engine: ReloadEngine,
    /// Files and glob patterns, as written.
    pub reload_extra_files: Vec<String>,
    pub spew: bool,
    pub check_config: bool,
    pub print_config: bool,

    pub preload_app: bool,
    pub sendfile: bool,
    pub reuse_port: bool,
    /// Absolute.
    pub chdir: PathBuf,
    pub daemon: bool,
    pub raw_env: Vec<(String, String)>,
    pub pidfile: Option<PathBuf>,
    pub worker_tmp_dir: Option<PathBuf>,
    /// The uid workers change to; the effective one when nothing was asked for.
    pub user: u32,
    pub group: u32,
    pub umask: u32,
    pub initgroups: bool,
    pub tmp_upload_dir: Option<PathBuf>,
    /// Upper-case header name and the value that means https.
    pub secure_scheme_headers: Vec<(String, String)>,
    pub forwarded_allow_ips: AllowedPeers,
    pub pythonpath: Vec<String>,
    pub proxy_protocol: ProxyProtocol,
    pub proxy_allow_ips: AllowedPeers,
    pub proxy_headers: ProxyHeaders,
    /// At least 1.
    pub proxy_headers_hops: usize,
    pub permit_obsolete_folding: bool,
    pub strip_header_spaces: bool,
    pub permit_unconventional_http_method: bool,
    pub permit_unconventional_http_version: bool,
    pub casefold_http_method: bool,
    /// Upper-case; `*` stands for all.
    pub forwarder_headers: Vec<String>,
    pub header_map: HeaderMap,
    /// `None`: ours; empty: no such header.
    pub server_header: Option<String>,

    /// `None`: no access log; `-` is stdout.
    pub accesslog: Option<String>,
    /// `json`, or gunicorn's form.
    pub access_log_format: String,
    /// Of JSON lines; empty: the usual ones.
    pub access_log_fields: Vec<String>,
    /// Paths, and beginnings of paths with `*` behind them.
    pub access_log_exclude: Vec<String>,
    pub access_log_min_status: u16,
    pub access_log_slow: Option<Duration>,
    /// `-` is stderr.
    pub errorlog: String,
    pub loglevel: LogLevel,
    pub capture_output: bool,
    /// `None`: the built-in one.
    pub logger_class: Option<String>,
    pub logconfig: Option<PathBuf>,
    /// `Value::Dict`, empty when unset.
    pub logconfig_dict: Value,
    pub logconfig_json: Option<PathBuf>,
    pub syslog: bool,
    pub syslog_addr: String,
    pub syslog_prefix: Option<String>,
    pub syslog_facility: String,
    pub disable_redirect_access_to_syslog: bool,
    pub enable_stdio_inheritance: bool,
    pub statsd_host: Option<StatsdAddress>,
    pub statsd_prefix: String,
    pub dogstatsd_tags: String,
    pub enable_backlog_metric: bool,

    /// `proc_name`, else the application's name.
    pub proc_name: String,

    /// `None` when `control_socket_disable` is set.
    pub control_socket: Option<PathBuf>,
    pub control_socket_mode: u32,

    /// Every row of the table with its final value and where it came from.
    pub resolved: Resolved,
    /// Lines for the log at start: settings without effect here, names nobody knows.
    pub warnings: Vec<String>,
}

impl Config {
    /// The logs have the built-in form and go where the server writes itself; else they are Python's business.
    pub fn logs_are_built_in(&self) -> bool {
        let has_dict = self
            .logconfig_dict
            .as_dict()
            .is_some_and(|pairs| !pairs.is_empty());
        self.logger_class.is_none()
            && !has_dict
            && self.logconfig.is_none()
            && self.logconfig_json.is_none()
    }

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

/// There is one worker; the two names differ in what they promise about threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerClass {
    Sync,
    Gthread,
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
    #[error("Invalid value for {name}: {value} ({origin}): {message}")]
    Invalid {
        name: &'static str,
        value: String,
        origin: Source,
        message: String,
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
