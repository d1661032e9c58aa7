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
use std::time::Duration;

use mio::Interest;
use mio::unix::SourceFd;

use crate::net::Channels;
use crate::scoreboard::{Slot, SlotState, monotonic_ms};

use super::descriptors::Descriptor;
use super::dispatch::saturating_u32;
use super::event_loop::EventLoop;
use super::replies;
use super::services::Services;
use super::tokens;
use super::transport::Transport;
use super::worker_slot::WorkerSlot;

/// A sibling whose loop has not turned for so long is not counted on. An idle one turns once a second.
const SILENT_MS: u64 = 2500;
/// So many messages are taken in one turn.
const TURN_MESSAGES: usize = 64;
/// While requests wait here, a sibling that has become free is looked for so often.
pub(super) const RELIEF_PERIOD: Duration = Duration::from_millis(2);
/// One worker may have more connections than another by this part of its own before a new one is passed on.
const SLACK_PART: u32 = 32;
const SLACK_ONE_SHOTS: u32 = 4;
/// What a message begins with: its kind and the listener's number.
const HEADER_BYTES: usize = 2;
const KIND_CONNECTION: u8 = 1;

/// The ways to the siblings.
#[derive(Debug)]
pub(super) struct Siblings {
    slot: WorkerSlot,
    channels: Arc<Channels>,
    /// Requests that wait are handed over too (`handover`).
    relieves: bool,
    /// Slots that had a living worker when we last looked.
    occupied: Vec<bool>,
}

/// How a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    slot: usize,
    connections: u32,
    /// Threads without a request.
    free: u32,
}

impl Siblings {
    pub(super) fn new(slot: WorkerSlot, channels: Arc<Channels>, relieves: bool) -> Self {
        Self {
            slot,
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

fn standing(slot: usize, board: Slot<'_>) -> Standing {
    let promised = board.promised();
    let busy = board.load().saturating_add(promised);
    Standing {
        slot,
        connections: board.connections_open().saturating_add(promised),
        free: board.threads_count().saturating_sub(busy),
    }
}

impl Siblings {
    /// The siblings that can take something now.
    fn standings(&self) -> impl Iterator<Item = Standing> + '_ {
        let now = monotonic_ms();
        let generation = self.slot.get().generation();
        let board = self.slot.scoreboard();
        (0..self.channels.count().min(board.slots())).filter_map(move |index| {
            let slot = board.slot(index);
            let is_well = index != self.slot.index()
                && slot.state() == SlotState::Serving
                && slot.generation() == generation
                && now.saturating_sub(slot.loop_beat_at()) < SILENT_MS;
            is_well.then(|| standing(index, slot))
        })
    }

    /// Who should have a new connection instead of us, when we have `connections`.
    fn better_place(&self, connections: u32, services: &Services) -> Option<usize> {
        let dispatch = &services.dispatch;
        let pool = dispatch.pool();
        let best = self
            .standings()
            .min_by_key(|sibling| (sibling.free == 0, sibling.connections))?;
        let slack = if pool.is_fast() && dispatch.connections_are_short() {
            // A connection that is over in a moment is not worth the way.
            connections / 2 + SLACK_ONE_SHOTS
        } else {
            connections / SLACK_PART
        };
        let threads = u32::try_from(pool.thread_count()).unwrap_or(u32::MAX);
        let we_are_busy = dispatch.load() >= threads;
        // Requests that last microseconds make everybody look busy and free in turn: then only connections count.
        let gives_for_thread = we_are_busy && best.free > 0 && !pool.is_fast();
        if gives_for_thread && best.connections <= connections + slack {
            return Some(best.slot);
        }
        let is_as_free = best.free > 0 || we_are_busy;
        (is_as_free && best.connections + slack < connections).then_some(best.slot)
    }

    /// The sibling with the most free threads.
    fn freest(&self) -> Option<usize> {
        self.standings()
            .filter(|sibling| sibling.free > 0)
            .max_by_key(|sibling| sibling.free)
            .map(|sibling| sibling.slot)
    }

    /// Reserve a place with the worker of `slot` and send it a message and a socket.
    fn send(&self, slot: usize, message: &[u8], socket: BorrowedFd<'_>) -> io::Result<Delivery> {
        let theirs = self.slot.scoreboard().slot(slot);
        theirs.promise();
        if let Err(error) = self.channels.send(slot, message, socket) {
            theirs.redeem();
            return Err(error);
        }
        // Pairs with the fence in `empty_way`: either the sibling sees the message or we see that it stops.
        fence(Ordering::SeqCst);
        self.slot.get().add_passed_on(1);
        Ok(match theirs.state() {
            SlotState::Serving => Delivery::Done,
            _ => Delivery::ToTakeBack,
        })
    }
}

/// What became of a message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Done,
    /// The other worker stops, and may have looked for messages for the last time.
    ToTakeBack,
}

impl EventLoop<'_> {
    /// How we are doing, at the end of a turn.
    pub(super) fn tell_siblings(&self) {
        if self.siblings.is_some() {
            let slot = self.services.accounting.slot();
            slot.set_load(self.services.dispatch.load());
            slot.set_connections_open(saturating_u32(self.connections.len()));
        }
    }

    /// Pass a new connection on to a sibling that is better off with it. Returns it when it is ours.
    pub(super) fn place(&mut self, transport: Transport, listener: usize) -> Option<Transport> {
        let Some(siblings) = &self.siblings else {
            return Some(transport);
        };
        let ours = saturating_u32(self.connections.len());
        let connections = ours.saturating_add(self.services.accounting.slot().promised());
        let Some(slot) = siblings.better_place(connections, &self.services) else {
            return Some(transport);
        };
        let Ok(listener) = u8::try_from(listener) else {
            return Some(transport);
        };
        match self.send_to(slot, &[KIND_CONNECTION, listener], transport.as_fd()) {
            Ok(()) => None,
            Err(_) => Some(transport),
        }
    }

    /// Send to the worker of `slot`; what it can no longer take is taken back.
    fn send_to(&mut self, slot: usize, message: &[u8], socket: BorrowedFd<'_>) -> io::Result<()> {
        let Some(siblings) = &self.siblings else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if siblings.send(slot, message, socket)? == Delivery::ToTakeBack {
            self.take_messages(slot);
        }
        Ok(())
    }

    /// Requests wait and our threads stand still: let siblings have them that have threads to spare.
    pub(super) fn relieve(&mut self) {
        while let Some(siblings) = &self.siblings
            && siblings.relieves
            && !self.services.shutdown.is_draining()
            && let Some(slot) = siblings.freest()
            && let Some(job) = self.services.dispatch.take_first()
        {
            let (connections, services) = (&mut self.connections, &mut self.services);
            if connections.get(job.conn).is_none() {
                replies::on_orphan(job, connections, &mut self.timed_out, services);
                continue;
            }
            let Ok(listener) = u8::try_from(job.listener) else {
                return services.dispatch.put_back(job);
            };
            let mut delivery = Delivery::Done;
            let header = [KIND_CONNECTION, listener];
            let sent = connections.transfer(
                job,
                services,
                |message, socket| {
                    delivery = siblings.send(slot, message, socket)?;
                    Ok(())
                },
                header,
            );
            if let Err(job) = sent {
                return services.dispatch.put_back(job);
            }
            if delivery == Delivery::ToTakeBack {
                self.take_messages(slot);
            }
        }
    }

    /// Register for messages. Returns whether there may be any.
    pub(super) fn listen_to_siblings(&self) -> io::Result<bool> {
        let slot = self.services.slot().index();
        let Some(receiver) = self
            .siblings
            .as_ref()
            .and_then(|siblings| siblings.channels.receiver(slot))
        else {
            // A slot beyond the ways: it gets nothing and gives.
            return Ok(false);
        };
        self.poll.registry().register(
            &mut SourceFd(&receiver.as_raw_fd()),
            tokens::of_descriptor(Descriptor::Siblings as usize),
            Interest::READABLE,
        )?;
        Ok(true)
    }

    /// Take in what siblings have passed on.
    pub(super) fn on_siblings(&mut self) {
        self.take_messages(self.services.slot().index());
    }

    /// Take what lies in the way to `slot`, ours or another's.
    fn take_messages(&mut self, slot: usize) {
        for _ in 0..TURN_MESSAGES {
            let Some(siblings) = &self.siblings else {
                return;
            };
            let mut buffer = std::mem::take(&mut self.services.input);
            let received = siblings.channels.receive(slot, &mut buffer);
            if let Ok(Some((len, socket))) = received {
                self.take_over(socket, &buffer[..len]);
                self.services.input = buffer;
                // In this order, so that it is never missing from both counts.
                self.tell_siblings();
                self.services.slot().scoreboard().slot(slot).redeem();
            } else {
                self.services.input = buffer;
                if let Err(error) = received {
                    // Looked at again when the listeners are.
                    self.listeners
                        .log_exhaustion(&error, self.services.clock.now());
                    self.messages_wait = true;
                }
                return;
            }
        }
        // There may be more, and it makes no new edge.
        self.more_messages = slot == self.services.slot().index();
    }

    fn take_over(&mut self, socket: OwnedFd, message: &[u8]) {
        let (Some(&[KIND_CONNECTION, listener]), Some(bytes)) =
            (message.get(..HEADER_BYTES), message.get(HEADER_BYTES..))
        else {
            log::error!("A message from another worker was not understood.");
            return;
        };
        // A client that is gone has no address any more.
        let Some((transport, peer)) = Transport::from_transferred(socket) else {
            return;
        };
        let (connections, services) = (&mut self.connections, &mut self.services);
        let id = connections.open(transport, peer, usize::from(listener), services);
        if !bytes.is_empty() {
            connections.resume_transferred(id, bytes, services);
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
        let board = siblings.slot.scoreboard();
        let mut dead = Vec::new();
        for (index, was_occupied) in siblings.occupied.iter_mut().enumerate() {
            let is_occupied = index < board.slots() && board.slot(index).state() != SlotState::Free;
            if std::mem::replace(was_occupied, is_occupied) && !is_occupied {
                dead.push(index);
            }
        }
        for slot in dead {
            self.take_messages(slot);
        }
    }
}
