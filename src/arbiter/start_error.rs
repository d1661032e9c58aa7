//! Why the server could not start.

use std::io;

use super::certificate_watch::CertificateError;
use super::listeners::ListenError;
use super::pidfile::PidfileError;
use super::runtime::HookError;
use crate::net::AddressError;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no descriptors left")]
    Descriptors(#[source] io::Error),
    #[error("signals cannot be handled")]
    Signals(#[source] io::Error),
    #[error("no memory for the scoreboard")]
    Scoreboard(#[source] io::Error),
    #[error(transparent)]
    Pidfile(#[from] PidfileError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("admin_bind")]
    AdminAddress(#[source] AddressError),
}
