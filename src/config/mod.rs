//! Settings: one table of them, five places where a value can come from, and one validated, immutable `Config`.
//!
//! The steps: `cli::parse_all` reads the command line and the environment, the config file adds its
//! values, `sources::combine` keeps the winner of each, `validate::validate` makes the `Config`.
//! Nothing here uses Python or sockets. It runs in the launcher, before any thread exists. A new setting is
//! one row in `settings/`; it gets a field of `Config` when Rust code reads it.
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
mod choices;
mod cpus;
mod document;
mod free_memory;
mod help;
mod host;
mod resolved;
mod sections;
mod setting_error;
mod typed;
pub(crate) mod words;

pub use bad_value::BadValue;
pub use check::check;
pub use choices::{
    ClientCertificates, GreenLibrary, HeaderMap, Http2Cleartext, HttpProtocol, LogLevel, Password,
    Protocol, ProxyHeaders, ProxyProtocol, ReloadEngine, StatsdAddress, TlsVersion, WorkerClass,
};
pub use cli::CliOutcome;
pub use cpus::{note_parallel_threads, usable_cores};
pub use document::document;
pub use free_memory::memory_left;
pub use host::start_directory;
pub use peers::AllowedPeers;
pub use resolved::Resolved;
pub use sections::{
    AccessLog, App, Config, Control, Debugging, Http, Http2, Lifecycle, Logging, Process, Proxy,
    RequestLimits, Socket, Statsd, Syslog, Tls, Workers,
};
pub use setting_error::Error;
pub use settings::{Setting, Verdict};
pub use sources::{Environment, RawSettings, Source, combine};
pub use validate::validate;
pub use value::Value;

/// The version in the start-up line, `-v` and `Server:`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
