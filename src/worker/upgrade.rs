//! Upgrades: a connection whose request asks for another protocol can be given away to the application.
//!
//! 1. *Offer.* The request's job takes a second descriptor of the socket with it, and the connection leaves the poll
//!    set: from here to the answer nobody but the application may touch the socket. That is done only when nothing was
//!    read behind the head, so no byte can be lost on the way; a client must not send any before it is answered
//!    (RFC 9110 section 7.8), and one that does is answered in HTTP.
//! 2. *Taken.* The application has used the socket: the connection and its descriptor are dropped, and its id is kept
//!    until the request is over, so that the drain waits for it and the log tells of it. What the application still
//!    answers goes nowhere: it has written its answer itself.
//! 3. *Taken back.* It answers in HTTP instead: the connection returns to the poll set and goes on as any other.

use std::os::fd::{AsFd, OwnedFd};

use crate::pool::{ConnId, Job};

use super::connection::Connection;
use super::connections::token_of;
use super::core::Core;
use super::event_loop::EventLoop;

/// Connections that the application has, until their requests are over. There are no more than pool threads.
#[derive(Debug, Default)]
pub(super) struct HandedOver(Vec<ConnId>);

impl HandedOver {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The request of `conn` is over. Returns whether its connection was given away.
    pub(super) fn ended(&mut self, conn: ConnId) -> bool {
        let place = self.0.iter().position(|taken| *taken == conn);
        place.map(|at| self.0.swap_remove(at)).is_some()
    }

    /// Forget them: the worker does not wait for them any longer.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Connection {
    /// Let the application have the socket, if it wants it. A socket that cannot be offered is not: the application
    /// then finds none.
    pub(super) fn offer_socket(&mut self, core: &Core) -> Option<OwnedFd> {
        let descriptor = self.stream.as_fd().try_clone_to_owned().ok()?;
        self.stream.deregister(&core.registry).ok()?;
        self.offered = true;
        Some(descriptor)
    }

    /// The application answers in HTTP. Returns false when the connection cannot go on.
    pub(super) fn take_back(&mut self, core: &Core) -> bool {
        self.offered = false;
        // What came meanwhile is found by the edge that registering gives.
        self.stream
            .register(&core.registry, token_of(self.id()))
            .is_ok()
    }
}

impl EventLoop<'_> {
    /// The application uses the socket itself from here on.
    pub(super) fn on_taken(&mut self, conn: ConnId) {
        let is_offered = self
            .connections
            .get_mut(conn)
            .is_some_and(|connection| connection.offered);
        debug_assert!(is_offered || self.connections.get_mut(conn).is_none());
        if is_offered && self.connections.remove(conn).is_some() {
            self.core.pool.left(conn);
            self.core.room_made = true;
            self.handed_over.0.push(conn);
        }
    }

    /// A job comes back whose connection is not in the loop: it was given away, or its client is gone.
    pub(super) fn on_orphaned_job(&mut self, job: Box<Job>) {
        if self.handed_over.ended(job.conn) {
            self.core.log_upgraded(&job);
        } else {
            self.core.log_gone(&job);
        }
        self.core.recycle(job);
    }
}
