//! Peer workers: this worker offloads connections to them, and takes theirs, so that none waits here while a thread is free
//! there.
//!
//! 1. *A new connection* goes where it is best off (`balance::balance`). The worker that was woken accepts it and passes it
//!    on; the right one need not be woken.
//! 2. *A request that waits* in a stall goes to a peer with a free thread: its connection is transferred with the bytes
//!    that were read. Only whole requests without a large body, on connections that can be transferred.
//!
//! The scoreboard shows how the peers are doing, `net/channel.rs` carries the sockets. A transfer is reserved at the peer
//! before it is sent and counts at once, so that many that come together are spread before the peer has run. A connection that was
//! transferred stays.
//!
//! No message is lost: a peer that stops empties its channel after it has said so, and a sender that finds it stopping
//! after it has sent takes back what is still there. The channel of a worker that died is emptied by the others.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::fork_guard;
use crate::net::Channels;
use crate::pool::balance::{self, PeerLoad};
use crate::scoreboard::{SlotState, monotonic_ms};

use super::connections::Connections;
use super::deliver;
use super::dispatch::Dispatch;
use super::eviction::make_room;
use super::requests::{Requests, recycle};
use super::shared_io::SharedIo;
use super::timed_out::TimedOutRequests;
use super::transport::Transport;
use super::worker_slot::{WorkerSlot, saturating_u32};

/// How many messages are taken in one iteration.
const ITERATION_MESSAGES: usize = 64;

/// Messages that may wait although none was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    None,
    /// There may be more than one iteration takes, and they make no new edge.
    More,
    /// No descriptors were left, or another process was reading: they are looked for at the next heartbeat.
    Stuck,
}

/// How many of the messages that waited were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    All,
    /// As many as one iteration takes.
    Some,
    /// No descriptors were left, or another process was reading.
    Stuck,
}

/// What became of a message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Done,
    /// The peer stops, and may have looked for messages for the last time.
    ToTakeBack,
}

/// The channels to the peers.
#[derive(Debug)]
pub(super) struct PeerWorkers {
    slot: WorkerSlot,
    channels: Arc<Channels>,
    /// Requests that wait are offloaded too (`handover`).
    offloads_requests: bool,
    /// The process of each slot at the last heartbeat; 0 is none.
    occupants: Vec<i32>,
    pending: Pending,
}

impl PeerWorkers {
    pub(super) fn new(slot: WorkerSlot, channels: Arc<Channels>, offloads_requests: bool) -> Self {
        let count = channels.count();
        Self {
            slot,
            channels,
            offloads_requests,
            occupants: vec![0; count],
            pending: Pending::None,
        }
    }

    /// Register for messages. A slot beyond the channels gets none and sends.
    ///
    /// # Errors
    /// The poll set refused the channel.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let Some(receiver) = self.channels.receiver(self.slot.index()) else {
            return Ok(());
        };
        // Some may have come before.
        self.pending = Pending::More;
        let mut source = SourceFd(&receiver.as_raw_fd());
        registry.register(&mut source, token, Interest::READABLE)
    }

    /// Whether requests that wait may find a thread elsewhere.
    pub(super) fn may_offload(&self) -> bool {
        self.offloads_requests
    }

    /// Messages wait that were not announced.
    pub(super) fn has_more(&self) -> bool {
        self.pending == Pending::More
    }

    /// Publish how this worker is doing.
    pub(super) fn publish(&self, connections: usize, dispatch: &Dispatch) {
        let slot = self.slot.get();
        slot.set_load(dispatch.load());
        slot.set_connections_open(saturating_u32(connections));
    }

    /// The peers that can take something now.
    fn peers(&self) -> impl Iterator<Item = PeerLoad> + '_ {
        let now = monotonic_ms();
        let generation = self.slot.get().generation();
        let scoreboard = self.slot.scoreboard();
        (0..self.occupants.len().min(scoreboard.slots())).filter_map(move |index| {
            let slot = scoreboard.slot(index);
            let is_well = index != self.slot.index()
                && slot.state() == SlotState::Serving
                && slot.generation() == generation
                && balance::is_responsive(now, slot.loop_heartbeat_at());
            is_well.then(|| PeerLoad {
                slot: index,
                connections: slot.connections_open(),
                threads: slot.threads_count(),
                load: slot.load(),
                reserved: slot.reserved_transfers(),
            })
        })
    }

    /// Reserve a place with the worker of `slot`, and send it a message and a socket.
    fn send(&self, slot: usize, message: &[u8], socket: BorrowedFd<'_>) -> io::Result<Delivery> {
        let theirs = self.slot.scoreboard().slot(slot);
        theirs.reserve_transfer();
        if let Err(error) = self.channels.send(slot, message, socket) {
            theirs.release_transfer();
            return Err(error);
        }
        // Pairs with the fence in `drain`: either the peer sees the message, or this worker sees that it stops.
        fence(Ordering::SeqCst);
        self.slot.get().add_passed_on(1);
        Ok(match theirs.state() {
            SlotState::Serving => Delivery::Done,
            _ => Delivery::ToTakeBack,
        })
    }

    /// Pass a new connection on to a peer that is better off with it. Returns it when it stays.
    pub(super) fn balance(
        &self,
        transport: Transport,
        listener: usize,
        connections: &mut Connections,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Option<Transport> {
        let open = saturating_u32(connections.len());
        let own = open.saturating_add(self.slot.get().reserved_transfers());
        let own = requests.dispatch.own_load(own);
        let (Some(slot), Ok(listener)) =
            (balance::balance(&own, self.peers()), u8::try_from(listener))
        else {
            return Some(transport);
        };
        match self.send(slot, &[listener], transport.as_fd()) {
            Ok(delivery) => {
                fork_guard::disown(&transport);
                drop(transport);
                if delivery == Delivery::ToTakeBack {
                    self.take_messages(slot, connections, requests, io);
                }
                None
            }
            Err(_) => Some(transport),
        }
    }

    /// Requests wait and the threads stand still: let the peers that have threads to spare take them.
    pub(super) fn offload(
        &self,
        connections: &mut Connections,
        mut timed_out: Option<&mut TimedOutRequests>,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        while self.may_offload()
            && !requests.shutdown.is_draining()
            && let Some(slot) = balance::freest_peer(self.peers())
            && let Some(job) = requests.dispatch.take_first()
        {
            if connections.get(job.conn).is_none() {
                deliver::orphan(job, connections, timed_out.as_deref_mut(), requests);
                continue;
            }
            let mut delivery = Delivery::Done;
            let send = |message: &[u8], socket: BorrowedFd<'_>| {
                delivery = self.send(slot, message, socket)?;
                Ok(())
            };
            if !connections.transfer(job.conn, Some(&job), &requests.dispatch, send) {
                return requests.dispatch.put_back(job);
            }
            recycle(job, requests);
            if delivery == Delivery::ToTakeBack {
                self.take_messages(slot, connections, requests, io);
            }
        }
    }

    /// Take in what peers have sent.
    pub(super) fn receive(
        &mut self,
        connections: &mut Connections,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        self.pending = match self.take_messages(self.slot.index(), connections, requests, io) {
            Taken::All => Pending::None,
            Taken::Some => Pending::More,
            Taken::Stuck => Pending::Stuck,
        };
    }

    /// Take in what had to wait for descriptors, before a new connection gets them that came later. Returns false when it
    /// still waits.
    pub(super) fn receive_stuck(
        &mut self,
        connections: &mut Connections,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> bool {
        if self.pending == Pending::Stuck {
            self.receive(connections, requests, io);
        }
        self.pending != Pending::Stuck
    }

    /// Take in what was not announced.
    pub(super) fn receive_more(
        &mut self,
        connections: &mut Connections,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        if self.pending == Pending::More {
            self.receive(connections, requests, io);
        }
    }

    /// Take the messages to the worker of `slot`, this one or another.
    fn take_messages(
        &self,
        slot: usize,
        connections: &mut Connections,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Taken {
        let Some(reader) = self.channels.reader(slot) else {
            return Taken::Stuck;
        };
        for _ in 0..ITERATION_MESSAGES {
            let mut buffer = std::mem::take(&mut io.input);
            let taken = reader.receive(&mut buffer).map(|message| {
                let (len, socket) = message?;
                take_in(socket, &buffer[..len], connections, requests, io);
                Some(())
            });
            io.input = buffer;
            match taken {
                Ok(Some(())) => {}
                Ok(None) => return Taken::All,
                Err(error) => {
                    let now = requests.clock.now();
                    let room = make_room(connections, &mut io.exhaustion, &error, now);
                    let Some((evicted, shortage)) = room else {
                        return Taken::Stuck;
                    };
                    connections.evict(evicted, shortage, requests, io);
                }
            }
            // Before the release, so that it is never missing from both counts.
            self.publish(connections.len(), &requests.dispatch);
            self.slot.scoreboard().slot(slot).release_transfer();
        }
        Taken::Some
    }

    /// The worker stops, and its state says so: what was sent before that is still its own.
    pub(super) fn take_all(
        &mut self,
        connections: &mut Connections,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        // Pairs with the fence in `send`.
        fence(Ordering::SeqCst);
        self.pending = Pending::More;
        while self.has_more() {
            self.receive_more(connections, requests, io);
        }
    }

    /// A few times a second: messages that waited for descriptors are looked for again, and those to workers that have
    /// died since the last heartbeat go to the first that takes them.
    pub(super) fn on_heartbeat(
        &mut self,
        connections: &mut Connections,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        if self.pending == Pending::Stuck {
            self.pending = Pending::More;
        }
        let scoreboard = self.slot.scoreboard();
        let mut dead = Vec::new();
        let slots = scoreboard.slots().min(self.occupants.len());
        for (index, occupant) in self.occupants[..slots].iter_mut().enumerate() {
            let slot = scoreboard.slot(index);
            let pid = match slot.state() {
                SlotState::Free => 0,
                _ => slot.pid(),
            };
            let before = std::mem::replace(occupant, pid);
            // A successor may be there already, but it takes messages only when it serves.
            if before != 0 && before != pid && slot.state() != SlotState::Serving {
                dead.push((index, before));
            }
        }
        for (slot, occupant) in dead {
            if self.take_messages(slot, connections, requests, io) != Taken::All {
                // The next heartbeat finds it dead again.
                self.occupants[slot] = occupant;
            }
        }
    }
}

/// Go on with a connection that another worker has transferred with `message`.
pub(super) fn take_in(
    socket: OwnedFd,
    message: &[u8],
    connections: &mut Connections,
    requests: &mut Requests,
    io: &mut SharedIo,
) {
    let Some((&listener, bytes)) = message.split_first() else {
        log::error!("A message from another worker could not be parsed.");
        return;
    };
    // A client that is gone has no address any more.
    let Some((transport, peer)) = Transport::from_transferred(socket) else {
        return;
    };
    let id = connections.open(transport, peer, usize::from(listener), requests, io);
    if !bytes.is_empty() {
        connections.resume_transferred(id, bytes, requests, io);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::scoreboard::Scoreboard;
    use crate::worker::requests::tests::for_tests;

    struct Worker {
        peers: PeerWorkers,
        connections: Connections,
        requests: Requests,
        io: SharedIo,
        _poll: mio::Poll,
    }

    fn worker(scoreboard: &Arc<Scoreboard>, index: usize, channels: &Arc<Channels>) -> Worker {
        let poll = mio::Poll::new().unwrap();
        let (requests, io) = for_tests();
        let slot = WorkerSlot::new(scoreboard.clone(), index);
        slot.get().set_state(SlotState::Serving);
        slot.get().set_pid(1);
        slot.get().set_threads_count(1);
        slot.get().loop_heartbeat(monotonic_ms());
        Worker {
            peers: PeerWorkers::new(slot, channels.clone(), true),
            connections: Connections::new(poll.registry().try_clone().unwrap()),
            requests,
            io,
            _poll: poll,
        }
    }

    impl Worker {
        /// A client connects. Returns whether its connection stays.
        fn accept(&mut self) -> (bool, UnixStream) {
            let (ours, theirs) = Transport::pair();
            let connections = &mut self.connections;
            let (requests, io) = (&mut self.requests, &mut self.io);
            let ours = self.peers.balance(ours, 0, connections, requests, io);
            let stays = ours.is_some();
            if let Some(ours) = ours {
                connections.open(ours, crate::pool::Peer::Unix, 0, requests, io);
            }
            (stays, theirs)
        }

        fn receive(&mut self) {
            self.peers
                .receive(&mut self.connections, &mut self.requests, &mut self.io);
        }
    }

    #[test]
    fn a_new_connection_goes_to_the_peer_that_has_fewer_and_counts_there_at_once() {
        let scoreboard = Arc::new(Scoreboard::new(2, 1).unwrap());
        let channels = Arc::new(Channels::new(2).unwrap());
        let mut first = worker(&scoreboard, 0, &channels);
        let mut second = worker(&scoreboard, 1, &channels);
        let clients = [(); 3].map(|()| first.accept());
        let stays: Vec<bool> = clients.iter().map(|(stays, _)| *stays).collect();
        assert_eq!(stays, [true, false, true]);
        assert_eq!(scoreboard.slot(1).reserved_transfers(), 1);
        second.receive();
        assert_eq!((first.connections.len(), second.connections.len()), (2, 1));
        assert_eq!(scoreboard.slot(1).reserved_transfers(), 0);
    }

    #[test]
    fn what_was_sent_to_a_worker_that_died_goes_to_another() {
        for (state, pid) in [(SlotState::Free, 0), (SlotState::Booting, 2)] {
            goes_to_another(state, pid);
        }
    }

    /// The slot of the dead worker has this state when the other one looks.
    fn goes_to_another(state: SlotState, pid: i32) {
        let scoreboard = Arc::new(Scoreboard::new(2, 1).unwrap());
        let channels = Arc::new(Channels::new(2).unwrap());
        let mut first = worker(&scoreboard, 0, &channels);
        let second = worker(&scoreboard, 1, &channels);
        let connections = &mut first.connections;
        let (requests, io) = (&mut first.requests, &mut first.io);
        first.peers.on_heartbeat(connections, requests, io);
        let (_, _client) = first.accept();
        let (stays, _other) = first.accept();
        assert!(!stays);
        drop(second);
        scoreboard.slot(1).set_state(state);
        scoreboard.slot(1).set_pid(pid);
        let connections = &mut first.connections;
        let (requests, io) = (&mut first.requests, &mut first.io);
        first.peers.on_heartbeat(connections, requests, io);
        assert_eq!(connections.len(), 2);
    }
}
