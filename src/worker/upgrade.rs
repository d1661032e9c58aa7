//! Upgrades: a connection whose request asks for another protocol can be given away to the application.
//!
//! 1. *Offer.* The request's job takes a second descriptor of the socket with it. Nothing is read or written here
//!    while a request is with the pool, so the socket can be used there from that moment. That is done only when
//!    nothing was read behind the head, so no byte can be lost on the way; a client must not send any before it is
//!    answered (RFC 9110 section 7.8), and one that does is answered in HTTP.
//! 2. *Taken.* The application has used the socket: the connection and its descriptor are dropped, and its id is kept
//!    until the request is over, so that the drain waits for it and the log tells of it. What the application still
//!    answers goes nowhere: it has written its answer itself.
//! 3. *Not taken.* The application answers in HTTP, and the connection goes on as any other.

use std::os::fd::{AsFd, OwnedFd};

use crate::pool::{ConnId, Job};

use super::connection::Connection;
use super::event_loop::EventLoop;

/// Connections that the application has, until their requests are over. There are no more than pool threads.
#[derive(Debug, Default)]
pub(super) struct HandedOver(Vec<ConnId>);

impl HandedOver {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, conn: ConnId) -> bool {
        self.0.contains(&conn)
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
    pub(super) fn offer_socket(&self) -> Option<OwnedFd> {
        self.stream.as_fd().try_clone_to_owned().ok()
    }
}

impl EventLoop<'_> {
    /// The application uses the socket itself from here on. That may have been noted after the conversation was over
    /// and the connection with it.
    pub(super) fn on_taken(&mut self, conn: ConnId) {
        self.handed_over.0.push(conn);
        if let Some(mut connection) = self.connections.remove(conn) {
            debug_assert!(connection.offered, "only what was offered can be taken");
            // The application's descriptor would keep it in the poll set. Failing to leave costs idle wake-ups only.
            let _ = connection.stream.deregister(self.poll.registry());
            self.core.pool.connection_closed(conn);
            self.core.room_made = true;
        }
    }

    /// A job comes back whose connection is not in the loop: it was given away, or its client is gone.
    pub(super) fn on_orphaned_job(&mut self, job: Box<Job>) {
        let was_overdue = self.core.settle_overrun(&job);
        if self.handed_over.ended(job.conn) {
            self.core.log_upgraded(&job);
        } else if !was_overdue && !job.unlogged {
            self.core.log_gone(&job);
        }
        self.core.recycle(job);
    }
}
