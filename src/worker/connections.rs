//! The worker's connections: a slab with generations, so that a [`ConnId`] names one connection for its whole life, and lists
//! of those that are to be moved again soon. Those that the application has hijacked are not in the slab (`bridges.rs`).

use std::io;
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use slab::Slab;

use crate::fork_guard;
use crate::pool::{ConnId, Job, Peer, Reply};

use super::bridges::Bridges;
use super::connection::{Action, Connection};
use super::dispatch::Dispatch;
use super::events::{self, SocketEvent};
use super::http1::TimedOut;
use super::requests::Requests;
use super::shared_io::SharedIo;
use super::shortage::Shortage;
use super::transport::Transport;

/// See the module.
#[derive(Debug)]
pub(super) struct Connections {
    slab: Slab<Connection>,
    /// The generation that the next connection gets. Nothing of the old ones is left when it wraps, after 2^32 of them.
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
        self.iter().filter(|one| one.is_idle()).count()
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
        requests: &mut Requests,
        io: &SharedIo,
    ) -> ConnId {
        fork_guard::own(&transport);
        let entry = self.slab.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("a slot fits 32 bits: descriptors do");
        let id = ConnId::new(slot, self.next_generation);
        self.next_generation = self.next_generation.wrapping_add(1);
        requests.dispatch.connection_opened(id);
        let connection = entry.insert(Connection::new(id, transport, peer, listener, requests, io));
        let registered = connection
            .transport()
            .register(&self.registry, events::of_connection(id));
        if let Err(error) = registered {
            log::debug!("A connection could not be registered: {error}");
            self.close(id, requests);
        }
        id
    }

    /// Move a connection by one step, and do what comes of it. Returns false when the connection is gone.
    fn act(
        &mut self,
        id: ConnId,
        requests: &mut Requests,
        io: &mut SharedIo,
        step: impl FnOnce(&mut Connection, &mut Requests, &mut SharedIo) -> Action,
    ) -> bool {
        let Some(connection) = self.get_mut(id) else {
            return false;
        };
        let action = step(connection, requests, io);
        self.apply(id, action, requests);
        true
    }

    fn apply(&mut self, id: ConnId, action: Action, requests: &mut Requests) {
        match action {
            Action::Wait => {}
            Action::Idle => self.has_room = true,
            Action::FlushLater => self.to_flush.push(id),
            Action::Resume => self.to_resume.push(id),
            Action::Close => self.close(id, requests),
        }
    }

    /// The poll set has news of a socket. The event may be of a connection that is gone: a descriptor of its socket that
    /// another process or the application holds keeps it in the poll set.
    pub(super) fn on_event(
        &mut self,
        token: Token,
        event: SocketEvent,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        let connection = events::slot_of(token)
            .and_then(|slot| self.slab.get_mut(slot))
            .filter(|connection| events::of_connection(connection.id()) == token);
        let Some(connection) = connection else {
            return self.bridges.on_event(token, requests.clock.now());
        };
        let id = connection.id();
        let action = connection.on_event(event, requests, io);
        self.apply(id, action, requests);
    }

    /// The application has replied.
    ///
    /// # Errors
    /// The reply itself when its connection is gone, or does not wait for it any more.
    pub(super) fn on_reply(
        &mut self,
        id: ConnId,
        reply: Reply,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Result<(), Reply> {
        let Some(connection) = self.get_mut(id) else {
            return Err(reply);
        };
        let (action, late) = connection.on_reply(reply, requests, io);
        let id = connection.id();
        self.apply(id, action, requests);
        late.map_or(Ok(()), Err)
    }

    /// The loop has answered a request itself.
    ///
    /// # Errors
    /// The job itself when its connection is gone.
    pub(super) fn on_own_answer(
        &mut self,
        job: Box<Job>,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Result<(), Box<Job>> {
        let id = job.conn;
        let Some(connection) = self.get_mut(id) else {
            return Err(job);
        };
        let action = connection.on_own_answer(job, requests, io);
        let id = connection.id();
        self.apply(id, action, requests);
        Ok(())
    }

    fn close(&mut self, id: ConnId, requests: &mut Requests) {
        if let Some(connection) = self.remove(id, &requests.dispatch) {
            connection.close(requests);
            requests.drops.give_back(requests.dispatch.pool());
        }
    }

    fn remove(&mut self, id: ConnId, dispatch: &Dispatch) -> Option<Connection> {
        self.get(id)?;
        dispatch.connection_left(id);
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
    pub(super) fn resume(&mut self, requests: &mut Requests, io: &mut SharedIo) {
        let mut waiting = std::mem::take(&mut self.to_resume).into_iter();
        for id in waiting.by_ref() {
            self.act(id, requests, io, Connection::resume);
            if io.writes.is_exhausted() {
                break;
            }
        }
        // Those that got nothing of this budget come first in the next iteration.
        let resumed = std::mem::take(&mut self.to_resume);
        self.to_resume.extend(waiting.chain(resumed));
        self.bridges.resume(requests.clock.now());
    }

    /// Pieces of streamed responses came in this iteration.
    pub(super) fn has_to_flush(&self) -> bool {
        !self.to_flush.is_empty()
    }

    /// Write them.
    pub(super) fn flush_streams(&mut self, requests: &mut Requests, io: &mut SharedIo) {
        let mut to_flush = std::mem::take(&mut self.to_flush);
        for id in to_flush.drain(..) {
            self.act(id, requests, io, Connection::flush_scheduled);
        }
        self.to_flush = to_flush;
    }

    /// Move those whose deadline is over.
    pub(super) fn expire(&mut self, requests: &mut Requests, io: &mut SharedIo) {
        let mut up = Vec::new();
        requests.clock.take_up(&mut up);
        for id in up {
            self.act(
                id,
                requests,
                io,
                |connection, requests, io| match connection.has_expired(id, &mut requests.clock) {
                    true => connection.on_deadline(id, requests, io),
                    false => Action::Wait,
                },
            );
        }
    }

    /// All deadlines are later by a pause in which nothing was read.
    pub(super) fn excuse(&mut self, pause: Duration) {
        self.slab.iter_mut().for_each(|(_, one)| one.excuse(pause));
    }

    /// Close a connection for another client.
    pub(super) fn evict(
        &mut self,
        id: ConnId,
        shortage: Shortage,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        self.act(id, requests, io, |connection, requests, io| {
            connection.evict(shortage, requests, io)
        });
    }

    /// The worker drains.
    pub(super) fn begin_drain(&mut self, requests: &mut Requests, io: &mut SharedIo) {
        for id in self.ids() {
            self.act(id, requests, io, Connection::begin_drain);
        }
    }

    /// Close all. Returns how many had a request under way.
    pub(super) fn close_all(&mut self, requests: &mut Requests) -> usize {
        let busy = self.len() - self.idle_count() + self.hijacked.len();
        self.hijacked.clear();
        self.bridges.close_all();
        for id in self.ids() {
            self.close(id, requests);
        }
        busy
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        self.iter().map(Connection::id).collect()
    }

    /// The application has had the request of `id` for too long. Returns what the client has seen; `None` when it has
    /// left before.
    pub(super) fn time_out(
        &mut self,
        id: ConnId,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Option<TimedOut> {
        let connection = self.get_mut(id)?;
        let (seen, action) = connection.time_out(id, requests, io);
        let id = connection.id();
        self.apply(id, action, requests);
        Some(seen)
    }

    // Connections that live on elsewhere.

    /// The application uses the socket itself from here on. That may have been noted after the conversation was over
    /// and the connection with it.
    pub(super) fn hijack(&mut self, id: ConnId, dispatch: &Dispatch) {
        self.hijacked.push(id);
        if let Some(connection) = self.remove(id, dispatch) {
            match connection.into_transport().into_bridge() {
                Ok((client, theirs)) => self.bridges.open(id, client, theirs, &self.registry),
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
        dispatch: &Dispatch,
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
            self.give_up(id, dispatch);
        }
        sent.is_some()
    }

    /// Take in what another worker has read of a connection.
    pub(super) fn resume_transferred(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        self.act(id, requests, io, |connection, requests, io| {
            connection.resume_transferred(bytes, requests, io)
        });
    }

    fn give_up(&mut self, id: ConnId, dispatch: &Dispatch) {
        if let Some(connection) = self.remove(id, dispatch) {
            connection.into_transport().give_up(&self.registry);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::worker::requests::tests::for_tests;

    fn worker() -> (mio::Poll, Connections, Requests, SharedIo) {
        let poll = mio::Poll::new().unwrap();
        let connections = Connections::new(poll.registry().try_clone().unwrap());
        let (requests, io) = for_tests();
        (poll, connections, requests, io)
    }

    fn connect(
        connections: &mut Connections,
        requests: &mut Requests,
        io: &SharedIo,
    ) -> (ConnId, UnixStream) {
        let (ours, theirs) = Transport::pair();
        (connections.open(ours, Peer::Unix, 0, requests, io), theirs)
    }

    #[test]
    fn an_id_does_not_name_the_next_connection_in_its_slot() {
        let (_poll, mut connections, mut requests, mut io) = worker();
        let (first, _one) = connect(&mut connections, &mut requests, &io);
        assert!(connections.act(first, &mut requests, &mut io, |_, _, _| Action::Close));
        let (second, _other) = connect(&mut connections, &mut requests, &io);
        assert_eq!(first.slot, second.slot);
        assert!(connections.get(first).is_none() && connections.get(second).is_some());
        assert!(connections.take_room());
    }

    #[test]
    fn a_hijacked_connection_counts_until_its_request_is_over() {
        let (_poll, mut connections, mut requests, io) = worker();
        let (id, _client) = connect(&mut connections, &mut requests, &io);
        connections.hijack(id, &requests.dispatch);
        assert_eq!((connections.len(), connections.len_with_hijacked()), (0, 1));
        assert!(connections.is_hijacked(id) && connections.end_hijacked(id));
        assert_eq!(connections.len_with_hijacked(), 0);
        assert!(!connections.end_hijacked(id));
    }
}
