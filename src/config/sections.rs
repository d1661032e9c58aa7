//! `Config` and its sections: plain values, each named as its setting, grouped by who reads them.
//!
//! A time of 0 seconds is `None`. Nothing here changes after validation.

use std::path::PathBuf;
use std::time::Duration;

use super::choices::{
    ClientCertificates, HeaderMap, Http2Cleartext, HttpProtocol, LogLevel, Password, Protocol,
    ProxyHeaders, ProxyProtocol, ReloadEngine, StatsdAddress, TlsVersion, WorkerClass,
};
use super::peers::AllowedPeers;
use super::resolved::Resolved;
use super::value::Value;

/// Everything the operator decided, checked. Names are gunicorn's; a time of 0 seconds is `None`.
#[derive(Clone, Debug)]
pub struct Config {
    pub app: App,
    pub socket: Socket,
    pub workers: Workers,
    pub lifecycle: Lifecycle,
    pub http: Http,
    pub http2: Http2,
    pub limits: RequestLimits,
    pub proxy: Proxy,
    pub debugging: Debugging,
    pub process: Process,
    pub logging: Logging,
    pub access_log: AccessLog,
    pub syslog: Syslog,
    pub statsd: Statsd,
    pub control: Control,
    /// `None`: plain HTTP.
    pub tls: Option<Tls>,

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

/// The application, and the directory and environment in which it is imported.
#[derive(Clone, Debug)]
pub struct App {
    /// The application: the command line's first word, else `wsgi_app` of the config file.
    pub wsgi_app: Option<String>,
    /// Absolute.
    pub chdir: PathBuf,
    pub raw_env: Vec<(String, String)>,
    pub pythonpath: Vec<String>,
    pub preload_app: bool,
}

/// The listening sockets.
#[derive(Clone, Debug)]
pub struct Socket {
    /// As written; `net` parses them.
    pub bind: Vec<String>,
    pub backlog: u32,
    pub reuse_port: bool,
}

/// How many workers there are, and how each takes, holds and runs requests.
#[derive(Clone, Debug)]
pub struct Workers {
    pub workers: usize,
    /// Why `auto` is that number; none where a number was given.
    pub auto: Option<String>,
    pub worker_class: WorkerClass,
    /// Requests that run at a time: threads, or greenlets. At least 1.
    pub threads: usize,
    pub worker_connections: usize,
    pub timeout: Option<Duration>,
    pub graceful_timeout: Duration,
    pub boot_timeout: Option<Duration>,
    pub request_timeout: Option<Duration>,
    /// Waiting requests may move to another worker, with their connections.
    pub handover: bool,
    pub queue_timeout: Option<Duration>,
    /// Requests that may wait for a thread of one worker; 0 is unlimited.
    pub max_queue: usize,
    pub worker_tmp_dir: Option<PathBuf>,
}

impl Workers {
    /// What the log calls a worker.
    #[must_use]
    pub fn kind(&self) -> String {
        match (self.worker_class.library(), self.threads) {
            (Some(library), _) => library.name().to_owned(),
            (None, 1) => "sync".to_owned(),
            (None, threads) => format!("hybrid ({threads} threads)"),
        }
    }
}

/// How workers are replaced and how the server stops.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    /// Requests; 0 is unlimited.
    pub max_requests: u64,
    pub max_requests_jitter: u64,
    /// At least 1, as `max_retiring`.
    pub reload_surge: usize,
    pub max_retiring: usize,
    /// MiB; 0 is unlimited.
    pub max_worker_memory: u64,
    pub max_worker_lifetime: Option<Duration>,
    /// Seconds.
    pub max_worker_lifetime_jitter: u64,
    pub stop_delay: Duration,
}

/// How HTTP is spoken with clients.
#[derive(Clone, Debug)]
pub struct Http {
    /// `None`: every response closes its connection.
    pub keepalive: Option<Duration>,
    pub client_header_timeout: Option<Duration>,
    pub client_body_timeout: Option<Duration>,
    /// Bytes per second; 0 is no minimum.
    pub client_body_min_rate: u32,
    pub send_timeout: Option<Duration>,
    /// Bytes per second; 0 is no minimum.
    pub send_min_rate: u32,
    pub sendfile: bool,
    /// `None`: the built-in one; empty: no such header.
    pub server_header: Option<String>,
    pub header_map: HeaderMap,
    pub permit_obsolete_folding: bool,
    pub strip_header_spaces: bool,
    pub permit_unconventional_http_method: bool,
    pub permit_unconventional_http_version: bool,
    pub casefold_http_method: bool,
}

/// HTTP/2.
#[derive(Clone, Debug)]
pub struct Http2 {
    /// Those that are offered, the preferred one first.
    pub http_protocols: Vec<HttpProtocol>,
    pub http2_cleartext: Http2Cleartext,
    /// At least 1.
    pub http2_max_concurrent_streams: u32,
    pub http2_initial_window_size: u32,
    pub http2_max_frame_size: u32,
    /// 0 is unlimited.
    pub http2_max_header_list_size: u32,
}

/// The sizes that bound a request.
#[derive(Clone, Debug)]
pub struct RequestLimits {
    pub limit_request_line: usize,
    pub limit_request_fields: usize,
    pub limit_request_field_size: usize,
    /// 0 is unlimited.
    pub limit_request_body: u64,
    pub body_buffer_size: usize,
    pub body_buffer_total: usize,
    /// 0 is unlimited.
    pub response_buffer_total: u64,
    pub request_buffering: bool,
}

/// Which peers are proxies, and which of their fields are trusted.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Upper-case header name and the value that means https.
    pub secure_scheme_headers: Vec<(String, String)>,
    pub forwarded_allow_ips: AllowedPeers,
    /// Upper-case; `*` stands for all.
    pub forwarder_headers: Vec<String>,
    pub proxy_protocol: ProxyProtocol,
    pub proxy_allow_ips: AllowedPeers,
    pub protocol: Protocol,
    pub uwsgi_allow_ips: AllowedPeers,
    pub proxy_headers: ProxyHeaders,
    /// At least 1.
    pub proxy_headers_hops: usize,
}

/// For developers of applications.
#[derive(Clone, Debug)]
pub struct Debugging {
    pub reload: bool,
    pub reload_engine: ReloadEngine,
    /// Files and glob patterns, as written.
    pub reload_extra_files: Vec<String>,
    pub spew: bool,
    pub check_config: bool,
    pub print_config: bool,
}

/// The processes: user, group, name, pidfile, in the background or not.
#[derive(Clone, Debug)]
pub struct Process {
    /// `proc_name`, else the application's name.
    pub proc_name: String,
    pub daemon: bool,
    pub pidfile: Option<PathBuf>,
    /// The uid workers change to; the effective one when nothing was asked for.
    pub user: u32,
    pub group: u32,
    pub umask: u32,
    pub initgroups: bool,
}

/// The error log, and what both logs share.
#[derive(Clone, Debug)]
pub struct Logging {
    /// `-` is stderr.
    pub errorlog: String,
    pub loglevel: LogLevel,
    pub capture_output: bool,
    pub enable_stdio_inheritance: bool,
    /// `None`: the built-in one.
    pub logger_class: Option<String>,
    pub logconfig: Option<PathBuf>,
    /// `Value::Dict`, empty when unset.
    pub logconfig_dict: Value,
    pub logconfig_json: Option<PathBuf>,
}

impl Logging {
    /// The logs have the built-in form and the server writes them itself; otherwise Python does.
    pub fn is_built_in(&self) -> bool {
        let dict = self.logconfig_dict.as_dict();
        self.logger_class.is_none()
            && dict.is_none_or(<[_]>::is_empty)
            && self.logconfig.is_none()
            && self.logconfig_json.is_none()
    }
}

/// The access log: where, which requests, in what form.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// `None`: no access log; `-` is stdout.
    pub accesslog: Option<String>,
    /// `json`, or gunicorn's form.
    pub access_log_format: String,
    /// Of JSON lines; empty: the usual ones.
    pub access_log_fields: Vec<String>,
    /// Paths, and prefixes of paths with `*` behind them.
    pub access_log_exclude: Vec<String>,
    pub access_log_min_status: u16,
    pub access_log_slow: Option<Duration>,
}

/// Log lines to a syslog server.
#[derive(Clone, Debug)]
pub struct Syslog {
    pub syslog: bool,
    pub syslog_addr: String,
    pub syslog_prefix: Option<String>,
    pub syslog_facility: String,
    pub disable_redirect_access_to_syslog: bool,
}

/// Metrics to a statsd server.
#[derive(Clone, Debug)]
pub struct Statsd {
    pub statsd_host: Option<StatsdAddress>,
    pub statsd_prefix: String,
    pub dogstatsd_tags: String,
    pub enable_backlog_metric: bool,
}

/// For operators: the control socket, the admin port, the health path.
#[derive(Clone, Debug)]
pub struct Control {
    /// `None` when `control_socket_disable` is set.
    pub control_socket: Option<PathBuf>,
    pub control_socket_mode: u32,
    /// As written; `net` parses it.
    pub admin_bind: Option<String>,
    pub admin_token: Option<Password>,
    /// Begins with a slash.
    pub health_path: Option<String>,
}

/// TLS. Paths are absolute.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Empty when only a key is set, which `tls::load` refuses.
    pub certfile: Vec<PathBuf>,
    /// Empty: the keys stand in the certificates' files.
    pub keyfile: Vec<PathBuf>,
    pub keyfile_password: Option<Password>,
    pub ca_certs: Vec<PathBuf>,
    pub cert_reqs: ClientCertificates,
    pub ssl_crl: Option<PathBuf>,
    /// OpenSSL's syntax.
    pub ciphers: Option<String>,
    pub ssl_minimum_version: TlsVersion,
    /// For ALPN, the preferred one first.
    pub http_protocols: Vec<HttpProtocol>,
}
