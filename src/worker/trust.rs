//! Which peers are trusted to say how a request came to them (`forwarded_allow_ips`).

use crate::config::AllowedPeers;
use crate::pool::Peer;

/// Asked once per connection.
#[derive(Debug)]
pub(super) struct Trust {
    allowed: AllowedPeers,
}

impl Trust {
    pub(super) fn new(allowed: AllowedPeers) -> Self {
        Self { allowed }
    }

    /// Peers on a unix socket are local and always trusted, as in gunicorn.
    pub(super) fn trusts(&self, peer: Peer) -> bool {
        match peer {
            Peer::Tcp(address) => self.allowed.contains(address.ip()),
            Peer::Unix => true,
        }
    }
}
