//! What this worker gives to its siblings, and takes from them: connections, so that none waits here while a thread
//! is free there.
//!
//! 1. *A new connection* goes where it is best off: to a sibling with a free thread when ours are all busy, else to
//!    one that has clearly fewer connections. Whoever was woken accepts it and passes it on; nobody waits for the right
//!    one to wake up.
//! 2. *A request that waits* while our threads stand still goes to a sibling that has a free one: its connection
//!    travels with the bytes that were read. Only whole requests without a body, on plain connections.
//!
//! The scoreboard tells how the siblings are doing, `net/channel.rs` carries the sockets. What is promised to a sibling
//! counts at once, so that a burst is spread before the sibling has run. A connection that was taken over stays.
//!
//! No message is lost: a sibling that stops empties its way after it has said so, and a sender that finds it stopping
//! after it has sent reads back what is still there. The way of a worker that died is emptied by the others.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use mio::Interest;
use mio::unix::SourceFd;

use crate::http::BodyLength;
use crate::net::Channels;
use crate::pool::policy::{self, OwnLoad, Peer};
use crate::pool::{Job, RequestBody};
use crate::scoreboard::{Slot, SlotState, monotonic_ms};

use super::connection::{Connection, Fate};
use super::core::Core;
use super::descriptors::Descriptor;
use super::event_loop::{EventLoop, descriptor_token, saturating_u32};
use super::stream::Stream;

/// So many messages are taken in one turn.
const TURN_MESSAGES: usize = 64;
/// Head and bytes read behind it; more stays where it is.
const TRAVELLING_BYTES_MAX: usize = 32 * 1024;
/// What a message begins with: its kind and the listener's number.
const HEADER_BYTES: usize = 2;
const KIND_CONNECTION: u8 = 1;

/// The ways to the siblings.
#[derive(Debug)]
pub(super) struct Siblings {
    channels: Arc<Channels>,
    /// Requests that wait are handed over too (`handover`).
    relieves: bool,
    /// Slots that had a living worker when we last looked.
    occupied: Vec<bool>,
}

impl Siblings {
    pub(super) fn new(channels: Arc<Channels>, relieves: bool) -> Self {
        Self {
            occupied: vec![false; channels.count()],
            relieves,
            channels,
        }
    }

    /// Requests that wait may find a thread elsewhere.
    pub(super) fn may_relieve(&self) -> bool {
        self.relieves
    }
}

fn peer(index: usize, slot: Slot<'_>) -> Peer {
    Peer {
        slot: index,
        connections: slot.connections_open(),
        threads: slot.threads_count(),
        load: slot.load(),
        reserved: slot.reserved_transfers(),
    }
}

impl Core {
    /// The siblings that can take something now.
    fn peers<'a>(&'a self, siblings: &'a Siblings) -> impl Iterator<Item = Peer> + 'a {
        let now = monotonic_ms();
        let generation = self.slot().generation();
        (0..siblings.channels.count().min(self.slots())).filter_map(move |index| {
            let slot = self.slot_of(index);
            let is_well = index != self.slot_index()
                && slot.state() == SlotState::Serving
                && slot.generation() == generation
                && policy::is_responsive(now, slot.loop_beat_at());
            is_well.then(|| peer(index, slot))
        })
    }

    /// A connection that has brought requests is over; it was kept for more than one, or was not.
    pub(super) fn note_kept(&mut self, was_kept: bool) {
        self.one_request.note(was_kept);
    }

    /// Who should have a new connection instead of us, when we have `connections`.
    fn better_place(&self, siblings: &Siblings, connections: u32) -> Option<usize> {
        let own = OwnLoad {
            connections,
            load: self.load(),
            threads: u32::try_from(self.pool.thread_count()).unwrap_or(u32::MAX),
            are_fast: self.pool.is_fast(),
            one_request: self.one_request,
        };
        policy::place(&own, self.peers(siblings))
    }

    /// The sibling with the most free threads.
    fn freest(&self, siblings: &Siblings) -> Option<usize> {
        policy::freest_peer(self.peers(siblings))
    }
}

impl EventLoop<'_> {
    /// How we are doing, at the end of a turn.
    pub(super) fn tell_siblings(&self) {
        if self.siblings.is_some() {
            let slot = self.core.slot();
            slot.set_load(self.core.load());
            slot.set_connections_open(saturating_u32(self.connections.len()));
        }
    }

    /// Pass a new connection on to a sibling that is better off with it. Returns it when it is ours.
    pub(super) fn place(&mut self, stream: Stream, listener: usize) -> Option<Stream> {
        let Some(siblings) = &self.siblings else {
            return Some(stream);
        };
        let ours = saturating_u32(self.connections.len());
        let connections = ours.saturating_add(self.core.slot().reserved_transfers());
        let Some(slot) = self.core.better_place(siblings, connections) else {
            return Some(stream);
        };
        let Ok(listener) = u8::try_from(listener) else {
            return Some(stream);
        };
        match self.send_to(slot, &[KIND_CONNECTION, listener], stream.as_fd()) {
            Ok(()) => None,
            Err(_) => Some(stream),
        }
    }

    fn send_to(&mut self, slot: usize, message: &[u8], socket: BorrowedFd<'_>) -> io::Result<()> {
        let Some(siblings) = &self.siblings else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let board = self.core.slot_of(slot);
        board.reserve_transfer();
        if let Err(error) = siblings.channels.send(slot, message, socket) {
            board.release_transfer();
            return Err(error);
        }
        // Pairs with the fence in `empty_way`: either the sibling sees the message or we see that it stops.
        fence(Ordering::SeqCst);
        self.core.slot().add_passed_on(1);
        if board.state() != SlotState::Serving {
            self.take_messages(slot);
        }
        Ok(())
    }

    /// Requests wait and our threads stand still: let siblings have them that have threads to spare.
    pub(super) fn relieve(&mut self) {
        while let Some(siblings) = &self.siblings
            && siblings.relieves
            && !self.core.draining
            && let Some(slot) = self.core.freest(siblings)
            && let Some(job) = self.core.take_first()
        {
            if let Err(job) = self.hand_over(slot, job) {
                self.core.put_first(job);
                return;
            }
        }
    }

    /// Let the worker of `slot` have the request and its connection.
    fn hand_over(&mut self, slot: usize, job: Box<Job>) -> Result<(), Box<Job>> {
        let id = job.conn;
        let Some(connection) = self.connections.get_mut(id) else {
            self.on_orphaned_job(job);
            return Ok(());
        };
        let socket = connection.stream.as_fd().try_clone_to_owned();
        let (Ok(listener), Ok(socket)) = (u8::try_from(job.listener), socket) else {
            return Err(job);
        };
        if !connection.can_travel(&job) {
            return Err(job);
        }
        let mut message = vec![KIND_CONNECTION, listener];
        message.extend_from_slice(job.head.bytes());
        message.extend_from_slice(&connection.inbound);
        if let Err(error) = self.send_to(slot, &message, socket.as_fd()) {
            log::debug!("A connection could not be handed over: {error}");
            return Err(job);
        }
        if let Some(mut connection) = self.connections.remove(id) {
            // The sibling's descriptor would keep it in our poll set.
            let _ = connection.stream.deregister(self.poll.registry());
        }
        self.core.pool.connection_closed(id);
        self.core.recycle(job);
        self.core.room_made = true;
        Ok(())
    }

    /// Hear of messages.
    pub(super) fn listen_to_siblings(&mut self) -> io::Result<()> {
        let slot = self.core.slot_index();
        let Some(receiver) = self
            .siblings
            .as_ref()
            .and_then(|siblings| siblings.channels.receiver(slot))
        else {
            // A slot beyond the ways: it gets nothing and gives.
            self.more_messages = false;
            return Ok(());
        };
        self.poll.registry().register(
            &mut SourceFd(&receiver.as_raw_fd()),
            descriptor_token(Descriptor::Siblings),
            Interest::READABLE,
        )
    }

    /// Take in what siblings have passed on.
    pub(super) fn on_siblings(&mut self) {
        self.take_messages(self.core.slot_index());
    }

    /// Take what lies in the way to `slot`, ours or another's.
    fn take_messages(&mut self, slot: usize) {
        for _ in 0..TURN_MESSAGES {
            let Some(siblings) = &self.siblings else {
                return;
            };
            let mut buffer = std::mem::take(&mut self.core.scratch);
            let received = siblings.channels.receive(slot, &mut buffer);
            if let Ok(Some((len, socket))) = received {
                self.take_over(socket, &buffer[..len]);
                self.core.scratch = buffer;
                // In this order, so that it is never missing from both counts.
                self.tell_siblings();
                self.core.slot_of(slot).release_transfer();
            } else {
                self.core.scratch = buffer;
                if let Err(error) = received {
                    // Looked at again when the listeners are.
                    self.note_exhaustion(&error);
                    self.messages_wait = true;
                }
                return;
            }
        }
        // There may be more, and it makes no new edge.
        self.more_messages = slot == self.core.slot_index();
    }

    fn take_over(&mut self, socket: OwnedFd, message: &[u8]) {
        let (Some(&[KIND_CONNECTION, listener]), Some(bytes)) =
            (message.get(..HEADER_BYTES), message.get(HEADER_BYTES..))
        else {
            log::error!("A message from another worker was not understood.");
            return;
        };
        // A client that is gone has no address any more.
        let Some((stream, peer)) = Stream::of_unknown_family(socket) else {
            return;
        };
        let id = self.take_in(stream, peer, usize::from(listener));
        if bytes.is_empty() {
            return;
        }
        if let Some(connection) = self.connections.get_mut(id) {
            let fate = connection.resume(bytes, &mut self.core);
            self.settle_fate(id, fate);
        }
    }

    /// We stop, and have said so on the scoreboard: what was sent before that is still ours.
    pub(super) fn empty_way(&mut self) {
        if self.siblings.is_none() {
            return;
        }
        // Pairs with the fence in `send_to`.
        fence(Ordering::SeqCst);
        self.more_messages = true;
        while std::mem::take(&mut self.more_messages) {
            self.on_siblings();
        }
    }

    /// Look for workers that have died since the last look: what was sent to them goes to whoever takes it first.
    pub(super) fn visit_the_dead(&mut self) {
        let Some(siblings) = &mut self.siblings else {
            return;
        };
        let mut dead = Vec::new();
        for (index, was_occupied) in siblings.occupied.iter_mut().enumerate() {
            let is_occupied =
                index < self.core.slots() && self.core.slot_of(index).state() != SlotState::Free;
            if std::mem::replace(was_occupied, is_occupied) && !is_occupied {
                dead.push(index);
            }
        }
        for slot in dead {
            self.take_messages(slot);
        }
    }
}

impl Connection {
    /// Whether a request that waits can be answered by another process: nothing of its connection's past matters.
    fn can_travel(&self, job: &Job) -> bool {
        self.exchange.is_dispatched()
            && self.outbox.is_empty()
            && self.arriving.is_none()
            && !self.timed_out
            && job.socket.is_none()
            && matches!(job.body, RequestBody::Empty)
            && matches!(
                self.exchange.body_length(),
                BodyLength::Empty | BodyLength::Known(0)
            )
            && self.proxy_header.is_none()
            && job.head.bytes().len() + self.inbound.len() <= TRAVELLING_BYTES_MAX
    }

    /// Go on with what another worker has read.
    fn resume(&mut self, bytes: &[u8], core: &mut Core) -> Fate {
        // A PROXY header would have stood before it.
        self.awaits_proxy_header = false;
        self.inbound = bytes.to_vec();
        let fate = self.receive_inbound(core);
        if fate == Fate::Keep {
            self.await_input(core);
        }
        fate
    }
}
