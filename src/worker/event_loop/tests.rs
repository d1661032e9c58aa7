//! The loop as a simulation plays it.

use crate::worker::requests::Requests;
use std::time::Duration;

use super::*;
use crate::pool::Peer;
use crate::worker::connection::Connection;
use crate::worker::transport::Transport;

/// What a simulation plays and checks.
impl EventLoop {
    pub(in crate::worker) fn take_in(&mut self, transport: Transport, peer: Peer) {
        self.connections
            .open(transport, peer, 0, &mut self.requests, &self.io);
    }

    pub(in crate::worker) fn poll_at_once(&mut self) -> io::Result<()> {
        renew_budgets(&mut self.io);
        self.sleeper.poll_at_once()
    }

    pub(in crate::worker) fn advance_clock(&mut self, by: Duration) {
        self.requests.clock.advance(by);
    }

    pub(in crate::worker) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter()
    }

    pub(in crate::worker) fn requests(&self) -> &Requests {
        &self.requests
    }
}
