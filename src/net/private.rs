//! A unix socket that is not for clients: the control interface's.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::Listener;
use super::bind::{Attempt, BindOptions, bind_path};

/// A unix socket for whom `mode` lets in, apart from those that serve: see the control interface. A path that a
/// living process listens on is `AddrInUse`, and a file that is no socket stays.
///
/// # Errors
/// When the path cannot be had.
pub fn bind_private(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let options = BindOptions {
        umask: !mode & 0o777,
        // As many as the system allows, up to this: who finds the queue full gets an error and no answer.
        backlog: 1024,
        ..BindOptions::default()
    };
    match bind_path(path, &options) {
        Ok(Listener::Unix(listener)) => Ok(listener),
        Ok(Listener::Tcp(_)) | Err(Attempt::NotASocket) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is not a socket",
        )),
        Err(Attempt::Failed(error)) => Err(error),
    }
}
