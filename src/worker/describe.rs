//! Peers and requests as the error log names them.

use crate::pool::{Job, Peer};

/// A peer's address without the port; empty on a unix socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerText(pub(super) Peer);

impl std::fmt::Display for PeerText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.ip() {
            Some(ip) => write!(f, "{ip}"),
            None => Ok(()),
        }
    }
}

/// A request's first line.
pub(super) struct RequestLine<'a>(pub(super) &'a Job);

impl std::fmt::Display for RequestLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = String::from_utf8_lossy(self.0.head.request_line());
        write!(f, "{}", line.escape_debug())
    }
}

/// Log that a response's body is longer than its head, or its status, allows.
pub(super) fn log_overlong_body(job: &Job, status: u16, overlong_bytes: u64) {
    let request = RequestLine(job);
    if (100..200).contains(&status) || matches!(status, 204 | 304) {
        log::warn!("Response to {request} has a body, which its status {status} does not allow.");
    } else {
        log::error!(
            "Response to {request} is {overlong_bytes} bytes longer than its Content-Length; they were not sent."
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_its_address_without_the_port() {
        let tcp = Peer::Tcp(([192, 0, 2, 1], 80).into());
        assert_eq!(PeerText(tcp).to_string(), "192.0.2.1");
        assert_eq!(PeerText(Peer::Unix).to_string(), "");
    }
}
