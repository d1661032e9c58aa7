//! ferricorn: a WSGI HTTP server for UNIX.
pub mod arbiter;
pub mod config;
pub mod http;
#[cfg(feature = "python")]
pub mod launcher;
pub mod logging;
pub mod net;
pub mod pool;
#[cfg(feature = "python")]
pub mod python;
pub mod scoreboard;
pub mod worker;
