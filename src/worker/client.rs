//! The other end of a connection, as each of its requests names it.

use crate::http::{ProxyHeader, ProxyRoute};
use crate::pool::{ConnId, Job, Peer};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    conn: ConnId,
    /// The socket's peer, or the client that the PROXY header names.
    peer: Peer,
    /// Whether fields of the socket's peer are trusted, as in gunicorn; a PROXY header does not change that.
    trusted: bool,
    proxy_header: Option<ProxyHeader>,
    /// Which listener accepted the connection.
    listener: usize,
}

impl Client {
    pub(super) fn new(conn: ConnId, peer: Peer, trusted: bool, listener: usize) -> Self {
        Self {
            conn,
            peer,
            trusted,
            proxy_header: None,
            listener,
        }
    }

    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// A PROXY header has named the client.
    pub(super) fn apply_proxy_header(&mut self, header: ProxyHeader) {
        self.proxy_header = Some(header);
        match header.route {
            ProxyRoute::Ip { client, .. } => self.peer = Peer::Tcp(client),
            ProxyRoute::Unix => self.peer = Peer::Unix,
            // A health check of the proxy itself, or a protocol that the header cannot name.
            ProxyRoute::Unknown => {}
        }
    }

    pub(super) fn has_proxy_header(&self) -> bool {
        self.proxy_header.is_some()
    }

    /// Address a new job: its answer comes back to this connection.
    pub(super) fn address(&self, job: &mut Job) {
        job.conn = self.conn;
        job.peer = self.peer;
        job.proxy = self.proxy_header;
        job.trusted = self.trusted;
        job.listener = self.listener;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use super::*;
    use crate::http::{ProxyMode, ProxyParse, parse_proxy_header};

    #[test]
    fn a_proxy_header_names_the_client_and_leaves_trust_to_the_peer() {
        let conn = ConnId {
            slot: 3,
            generation: 1,
        };
        let mut client = Client::new(conn, Peer::Unix, true, 2);
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 80\r\n";
        let parsed = parse_proxy_header(line, ProxyMode::Auto).unwrap();
        let ProxyParse::Present { header, .. } = parsed else {
            panic!("{parsed:?}")
        };
        client.apply_proxy_header(header);
        let mut job = Job::new(Instant::now());
        client.address(&mut job);
        assert_eq!(job.peer, Peer::Tcp(([192, 0, 2, 1], 4000).into()));
        assert!(job.trusted && job.proxy.is_some());
        assert_eq!((job.conn, job.listener), (conn, 2));
    }
}
