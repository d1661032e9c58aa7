//! The worker's connections: a slab with generations, so that a [`ConnId`] names one connection for its whole life, and the
//! lists of those that are to be moved again in this iteration or the next.
//!
//! Connections that the application has hijacked are not in the slab, but their ids are kept until their requests are over,
//! so that the drain waits for them and the log names them:
//!
//! 1. *Possible.* The request's job takes a second descriptor of the socket with it. Nothing is read or written here while a
//!    request is with the pool, so the socket can be used there from that moment. That is done only when nothing was read
//!    behind the head, so no byte can be lost on the way; a client must not send any before it is answered (RFC 9110 section
//!    7.8), and one that does is answered in HTTP.
//! 2. *Hijacked.* The application has used the socket: the connection is dropped here. What the application still answers
//!    goes nowhere: it has written its answer itself.
//! 3. *Not hijacked.* The application answers in HTTP, and the connection continues as any other.

use std::io;
use std::time::Instant;

use mio::{Registry, Token};
use slab::Slab;

use crate::fork_guard;
use crate::pool::{ConnId, Job, Peer, Reply};

use super::bridges::Bridges;
use super::connection::{Action, Connection};
use super::events;
use super::events::SocketEvent;
use super::http1::TimedOut;
use super::services::Services;
use super::transport::Transport;

/// All open connections of the worker.
#[derive(Debug)]
pub(super) struct Connections {
    slab: Slab<Connection>,
    /// The generation that the next connection gets. Wraps after four thousand million connections, by which time
    /// nothing of the old ones is left.
    next_generation: u32,
    registry: Registry,
    /// Those that have more to read or write than their share of an iteration.
    to_resume: Vec<ConnId>,
    /// Those to which pieces of streamed responses came in this iteration.
    to_flush: Vec<ConnId>,
    /// Those that the application has. There are no more than pool threads.
    hijacked: Vec<ConnId>,
    /// Of those, and of such whose request is over: the ones that speak TLS.
    bridges: Bridges,
    /// One has closed, or may be closed for another: a worker that was full can accept again.
    has_room: bool,
}

impl Connections {
    /// Connections are registered with `registry`.
    pub(super) fn new(registry: Registry) -> Self {
        fork_guard::register(&registry);
        Self {
            slab: Slab::new(),
            next_generation: 0,
            registry,
            to_resume: Vec::new(),
            to_flush: Vec::new(),
            hijacked: Vec::new(),
            bridges: Bridges::default(),
            has_room: false,
        }
    }

    /// How many the loop has.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// How many there are with those that the application has.
    pub(super) fn len_with_hijacked(&self) -> usize {
        let is_over = |id: &ConnId| !self.is_hijacked(*id);
        self.slab.len() + self.hijacked.len() + self.bridges.ids().filter(is_over).count()
    }

    /// Called a few times a second.
    pub(super) fn on_heartbeat(&mut self, now: Instant) {
        self.bridges.on_heartbeat(now);
    }

    /// How many are between requests.
    pub(super) fn idle_count(&self) -> usize {
        self.iter()
            .filter(|connection| connection.is_idle())
            .count()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slab.iter().map(|(_, connection)| connection)
    }

    /// The connection, if it is still there.
    pub(super) fn get(&self, id: ConnId) -> Option<&Connection> {
        self.slab
            .get(id.slot as usize)
            .filter(|connection| id.is_on(connection.id()))
    }

    fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.slab
            .get_mut(id.slot as usize)
            .filter(|connection| id.is_on(connection.id()))
    }

    /// Take in a new connection.
    pub(super) fn open(
        &mut self,
        transport: Transport,
        peer: Peer,
        listener: usize,
        services: &mut Services,
    ) -> ConnId {
        fork_guard::own(&transport);
        let entry = self.slab.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("a slot fits 32 bits: descriptors do");
        let id = ConnId::new(slot, self.next_generation);
        self.next_generation = self.next_generation.wrapping_add(1);
        services.dispatch.connection_opened(id);
        let connection = entry.insert(Connection::new(id, transport, peer, listener, services));
        let registered = connection
            .transport()
            .register(&self.registry, events::of_connection(id));
        if let Err(error) = registered {
            log::debug!("A connection could not be registered: {error}");
            self.close(id, services);
        }
        id
    }

    /// Move a connection by one step, and do what comes of it. Returns false when the connection is gone.
    fn act(
        &mut self,
        id: ConnId,
        services: &mut Services,
        step: impl FnOnce(&mut Connection, &mut Services) -> Action,
    ) -> bool {
        let Some(connection) = self.get_mut(id) else {
            return false;
        };
        let action = step(connection, services);
        self.apply(id, action, services);
        true
    }

    fn apply(&mut self, id: ConnId, action: Action, services: &mut Services) {
        match action {
            Action::Wait => {}
            Action::Idle => self.has_room = true,
            Action::FlushLater => self.to_flush.push(id),
            Action::Resume => self.to_resume.push(id),
            Action::Close => self.close(id, services),
        }
    }

    /// The poll set has news of a socket. The event may be of a connection that is gone: a descriptor of its socket that
    /// another process or the application holds keeps it in the poll set.
    pub(super) fn on_event(&mut self, token: Token, event: SocketEvent, services: &mut Services) {
        let connection = events::slot_of(token)
            .and_then(|slot| self.slab.get_mut(slot))
            .filter(|connection| events::of_connection(connection.id()) == token);
        if let Some(connection) = connection {
            let id = connection.id();
            let action = connection.on_event(event, services);
            self.apply(id, action, services);
        } else {
            self.bridges.on_event(token, services.clock.now());
        }
    }

    /// The application has replied.
    ///
    /// # Errors
    /// The reply itself when its connection is gone, or does not wait for it any more.
    pub(super) fn on_reply(
        &mut self,
        id: ConnId,
        reply: Reply,
        services: &mut Services,
    ) -> Result<(), Reply> {
        let Some(connection) = self.get_mut(id) else {
            return Err(reply);
        };
        let (action, late) = connection.on_reply(reply, services);
        let id = connection.id();
        self.apply(id, action, services);
        late.map_or(Ok(()), Err)
    }

    /// The loop has answered a request itself.
    ///
    /// # Errors
    /// The job itself when its connection is gone.
    pub(super) fn on_own_answer(
        &mut self,
        job: Box<Job>,
        services: &mut Services,
    ) -> Result<(), Box<Job>> {
        let id = job.conn;
        let Some(connection) = self.get_mut(id) else {
            return Err(job);
        };
        let action = connection.on_own_answer(job, services);
        let id = connection.id();
        self.apply(id, action, services);
        Ok(())
    }

    fn close(&mut self, id: ConnId, services: &mut Services) {
        if let Some(connection) = self.remove(id, services) {
            connection.close(services);
            services.drops.give_back(services.dispatch.pool());
        }
        self.has_room = true;
    }

    fn remove(&mut self, id: ConnId, services: &Services) -> Option<Connection> {
        self.get(id)?;
        services.dispatch.connection_left(id);
        self.has_room = true;
        let mut connection = self.slab.remove(id.slot as usize);
        fork_guard::disown(&*connection.transport());
        Some(connection)
    }

    /// Whether a place has become free since this was last asked.
    pub(super) fn take_room(&mut self) -> bool {
        std::mem::take(&mut self.has_room)
    }

    /// Connections wait to be resumed.
    pub(super) fn has_to_resume(&self) -> bool {
        !self.to_resume.is_empty() || self.bridges.has_to_resume()
    }

    /// Resume the connections that used up their share.
    pub(super) fn resume(&mut self, services: &mut Services) {
        let mut waiting = std::mem::take(&mut self.to_resume).into_iter();
        for id in waiting.by_ref() {
            self.act(id, services, Connection::resume);
            if services.writes.is_exhausted() {
                break;
            }
        }
        // Those that got nothing of this budget come first in the next iteration.
        let resumed = std::mem::take(&mut self.to_resume);
        self.to_resume.extend(waiting.chain(resumed));
        self.bridges.resume(services.clock.now());
    }

    /// Pieces of streamed responses came in this iteration.
    pub(super) fn has_to_flush(&self) -> bool {
        !self.to_flush.is_empty()
    }

    /// Write them.
    pub(super) fn flush_streams(&mut self, services: &mut Services) {
        let mut to_flush = std::mem::take(&mut self.to_flush);
        for id in to_flush.drain(..) {
            self.act(id, services, Connection::flush_scheduled);
        }
        self.to_flush = to_flush;
    }

    /// Move those whose deadline is over.
    pub(super) fn expire(&mut self, services: &mut Services) {
        let mut up = Vec::new();
        services.clock.take_up(&mut up);
        for id in up {
            self.act(id, services, |connection, services| {
                if connection.has_expired(id, &mut services.clock) {
                    connection.on_deadline(id, services)
                } else {
                    Action::Wait
                }
            });
        }
    }

    /// The connection that has been idle for longest; those that have sent nothing yet come first.
    pub(super) fn oldest_idle(&self, now: Instant) -> Option<ConnId> {
        self.iter()
            .filter_map(|connection| Some((connection.idle_since(now)?, connection.id())))
            .min_by_key(|(idle_since, _)| *idle_since)
            .map(|(_, id)| id)
    }

    /// Close a connection for another that has come, unless its request is there already: then the worker has one
    /// connection more than it may, until it next accepts.
    pub(super) fn evict(&mut self, id: ConnId, services: &mut Services) {
        self.act(id, services, Connection::close_if_idle);
    }

    /// The worker drains.
    pub(super) fn begin_drain(&mut self, services: &mut Services) {
        for id in self.ids() {
            self.act(id, services, Connection::begin_drain);
        }
    }

    /// Close all. Returns how many had a request under way.
    pub(super) fn close_all(&mut self, services: &mut Services) -> usize {
        let busy = self.len() - self.idle_count() + self.hijacked.len();
        self.hijacked.clear();
        self.bridges.close_all();
        for id in self.ids() {
            self.close(id, services);
        }
        busy
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        self.iter().map(Connection::id).collect()
    }

    /// The application has had the request of `id` for too long. Returns what the client has seen; `None` when it has
    /// left before.
    pub(super) fn time_out(&mut self, id: ConnId, services: &mut Services) -> Option<TimedOut> {
        let connection = self.get_mut(id)?;
        let (seen, action) = connection.time_out(id, services);
        let id = connection.id();
        self.apply(id, action, services);
        Some(seen)
    }

    // Connections that live on elsewhere.

    /// The application uses the socket itself from here on. That may have been noted after the conversation was over
    /// and the connection with it.
    pub(super) fn hijack(&mut self, id: ConnId, services: &Services) {
        self.hijacked.push(id);
        if let Some(connection) = self.remove(id, services) {
            match connection.into_transport().into_bridge() {
                Ok((client, application)) => {
                    self.bridges.open(id, client, application, &self.registry);
                }
                Err(transport) => transport.give_up(&self.registry),
            }
        }
    }

    pub(super) fn is_hijacked(&self, id: ConnId) -> bool {
        self.hijacked.contains(&id)
    }

    /// The request of `id` is over. Returns whether its connection was hijacked.
    pub(super) fn end_hijacked(&mut self, id: ConnId) -> bool {
        let place = self.hijacked.iter().position(|hijacked| *hijacked == id);
        place.map(|at| self.hijacked.swap_remove(at)).is_some()
    }

    /// Transfer a connection, and the request of `job` that waits or what has come of its next one, with `send`. It gets a
    /// message: the listener's number, then the request. Returns false when the connection has to stay.
    pub(super) fn transfer(
        &mut self,
        id: ConnId,
        job: Option<&Job>,
        services: &Services,
        send: impl FnOnce(&[u8], std::os::fd::BorrowedFd<'_>) -> io::Result<()>,
    ) -> bool {
        let sent = self.get(id).and_then(|connection| {
            let listener = u8::try_from(connection.listener()).ok()?;
            let (socket, bytes) = connection.transfer(job)?;
            send(&[&[listener], &bytes[..]].concat(), socket)
                .inspect_err(|error| log::debug!("A connection was not transferred: {error}"))
                .ok()
        });
        if sent.is_some() {
            self.give_up(id, services);
        }
        sent.is_some()
    }

    /// Take in what another worker has read of a connection.
    pub(super) fn resume_transferred(&mut self, id: ConnId, bytes: &[u8], services: &mut Services) {
        self.act(id, services, |connection, services| {
            connection.resume_transferred(bytes, services)
        });
    }

    fn give_up(&mut self, id: ConnId, services: &Services) {
        if let Some(connection) = self.remove(id, services) {
            connection.into_transport().give_up(&self.registry);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::net::UnixStream;

    use super::*;

    fn worker() -> (mio::Poll, Connections, Services) {
        let poll = mio::Poll::new().unwrap();
        let connections = Connections::new(poll.registry().try_clone().unwrap());
        let services = Services::for_tests();
        (poll, connections, services)
    }

    fn connect(connections: &mut Connections, services: &mut Services) -> (ConnId, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = Transport::from(mio::net::UnixStream::from_std(ours));
        (connections.open(ours, Peer::Unix, 0, services), theirs)
    }

    #[test]
    fn an_id_does_not_name_the_next_connection_in_its_slot() {
        let (_poll, mut connections, mut services) = worker();
        let (first, _one) = connect(&mut connections, &mut services);
        assert!(connections.act(first, &mut services, |_, _| Action::Close));
        let (second, _other) = connect(&mut connections, &mut services);
        assert_eq!(first.slot, second.slot);
        assert!(connections.get(first).is_none() && connections.get(second).is_some());
        assert!(connections.take_room());
    }

    #[test]
    fn a_hijacked_connection_counts_until_its_request_is_over() {
        let (_poll, mut connections, mut services) = worker();
        let (id, _client) = connect(&mut connections, &mut services);
        connections.hijack(id, &services);
        assert_eq!((connections.len(), connections.len_with_hijacked()), (0, 1));
        assert!(connections.is_hijacked(id) && connections.end_hijacked(id));
        assert_eq!(connections.len_with_hijacked(), 0);
        assert!(!connections.end_hijacked(id));
    }
}
