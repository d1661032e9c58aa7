//! The event loop: wait, collect what has happened, move each thing once, and again.
//!
//! One iteration: events of the poll set (accept, read, write, wake-up, signals), then replies of the pool, then
//! connections that had more to read, then deadlines. Everything in an iteration is bounded. The loop's thread never waits
//! for anything but the poll set, and never touches the interpreter while it serves.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use mio::Poll;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::config::Config;
use crate::logging::Log;
use crate::net::{Channels, Listener};
use crate::pool::{Application, Delegation, HubWakeup, policy};

use super::accept::{Attempt, Listeners};
use super::connections::Connections;
use super::deliver;
use super::descriptors::Descriptors;
use super::events::{self, Descriptor, Event};
use super::eviction::{StuckThreads, make_room, sparest};
use super::loop_heartbeat::{Figures, Heartbeat};
use super::peer_workers::PeerWorkers;
use super::requests::Requests;
use super::shared_io::{SharedIo, renew_budgets};
use super::shortage::Shortage;
use super::sleep::{Awoken, Sleeper};
use super::takeover::Takeover;
use super::timed_out::TimedOutRequests;
use super::worker_slot::WorkerSlot;
use runner::Runner;

mod delegated;
mod runner;
mod worker_stop;

/// A worker accepts at most this many connections in one iteration, so that the others get their share of many.
const ITERATION_ACCEPTS: usize = 16;

/// See the module.
pub(super) struct EventLoop {
    sleeper: Sleeper,
    descriptors: Descriptors,
    listeners: Listeners,
    connections: Connections,
    connections_max: usize,
    /// `None` when the worker is the only one.
    peers: Option<PeerWorkers>,
    takeover: Option<Takeover>,
    stuck_threads: StuckThreads,
    /// `None` without `request_timeout`.
    timed_out: Option<TimedOutRequests>,
    requests: Requests,
    io: SharedIo,
    heartbeat: Heartbeat,
    application: Arc<dyn Application>,
    runner: Runner,
    delegation: Delegation,
}

/// What a loop is made of.
pub(super) struct Parts<'a> {
    pub(super) poll: Poll,
    pub(super) listeners: Vec<Listener>,
    pub(super) descriptors: Descriptors,
    pub(super) requests: Requests,
    pub(super) io: SharedIo,
    pub(super) slot: WorkerSlot,
    pub(super) peers: Option<PeerWorkers>,
    pub(super) channels: Option<Arc<Channels>>,
    pub(super) application: Arc<dyn Application>,
    pub(super) config: &'a Config,
    pub(super) parent: Option<i32>,
    pub(super) log: Option<Log>,
}

impl EventLoop {
    /// A loop that does not accept yet.
    ///
    /// # Errors
    /// The poll set refused something.
    pub(super) fn new(parts: Parts<'_>) -> io::Result<Self> {
        let Parts {
            poll,
            listeners,
            descriptors,
            requests,
            io,
            slot,
            mut peers,
            channels,
            application,
            config,
            parent,
            log,
        } = parts;
        let now = requests.clock.now();
        let workers = &config.workers;
        let registry = poll.registry();
        if let Some(peers) = &mut peers {
            peers.register(registry, events::of_descriptor(Descriptor::Peers))?;
        }
        let takeover = channels.map(|channels| {
            let place = (registry, events::of_descriptor(Descriptor::Left));
            Takeover::new(channels, slot.clone(), listeners.len(), place)
        });
        Ok(Self {
            listeners: Listeners::new(listeners, config.socket.backlog, &poll)?,
            connections: Connections::new(registry.try_clone()?),
            connections_max: workers.worker_connections.max(1),
            stuck_threads: StuckThreads::default(),
            timed_out: workers
                .request_timeout
                .map(|timeout| TimedOutRequests::new(timeout, now)),
            heartbeat: Heartbeat::new(slot, workers.timeout, parent, log),
            sleeper: Sleeper::new(poll, now),
            requests,
            io,
            descriptors,
            peers,
            takeover: takeover.transpose()?,
            application,
            runner: Runner::default(),
            delegation: Delegation::default(),
        })
    }

    /// Move everything that has something to do, once.
    pub(super) fn iterate(&mut self) -> io::Result<()> {
        if self.heartbeat.is_due(self.requests.clock.now()) {
            self.on_heartbeat();
        }
        if self.io.writes.was_exhausted() {
            // Connections that ran out of budget in the last iteration go first.
            self.connections.resume(&mut self.requests, &mut self.io);
        }
        self.handle_events()?;
        self.requests.dispatch.announce();
        self.handle_replies();
        if self.requests.clock.has_due() {
            self.connections.expire(&mut self.requests, &mut self.io);
        }
        if let Some(timed_out) = &mut self.timed_out
            && timed_out.check(
                &mut self.connections,
                &*self.application,
                &mut self.requests,
                &mut self.io,
            )
        {
            self.begin_drain();
        }
        self.stuck_threads
            .check(&mut self.connections, &mut self.requests, &mut self.io);
        if self.connections.take_room() && self.listeners.are_at_limit() {
            self.listeners.start()?;
        }
        if let Some(peers) = &mut self.peers {
            peers.receive_more(&mut self.connections, &mut self.requests, &mut self.io);
        }
        self.end_iteration();
        if self.requests.shutdown.is_draining() {
            self.advance_shutdown();
        }
        if let Some(peers) = &self.peers {
            peers.publish(self.connections.len(), &self.requests.dispatch);
        }
        Ok(())
    }

    /// Sleep until something happens. Before that, what stands still goes to other workers.
    fn sleep(&mut self) -> io::Result<Awoken> {
        let (requests, io) = (&mut self.requests, &mut self.io);
        let pool = requests.dispatch.pool();
        if pool.hub().is_some_and(HubWakeup::is_lost) {
            return Err(Errno::EBADF.into());
        }
        let watched = self.sleeper.watch(pool, requests.clock.now());
        if watched.is_stuck
            && let Some(peers) = &mut self.peers
        {
            let timed_out = self.timed_out.as_mut();
            peers.offload(&mut self.connections, timed_out, requests, io);
        }
        let has_work = self.connections.has_to_resume()
            || requests.dispatch.has_answered()
            || self.peers.as_ref().is_some_and(PeerWorkers::has_more);
        let awaits_peer =
            watched.jobs_wait && self.peers.as_ref().is_some_and(PeerWorkers::may_offload);
        let (listeners, timed_out) = (&self.listeners, &self.timed_out);
        let next_eviction = self.stuck_threads.next_check();
        let sleep_max = self.heartbeat.period();
        let is_draining = requests.shutdown.is_draining();
        self.sleeper
            .sleep(has_work, watched.jobs_wait, requests, |requests| {
                let now = Instant::now();
                let deadline = requests.clock.next_in(now);
                let due = [
                    listeners.next_check(),
                    next_eviction,
                    requests.dispatch.next_overdue(),
                    timed_out.as_ref().map(TimedOutRequests::next_check),
                    requests.drops.next_check(),
                    is_draining
                        .then(|| requests.shutdown.next_check())
                        .flatten(),
                ];
                let sleep_max = deadline.map_or(sleep_max, |time| time.min(sleep_max));
                policy::poll_timeout(now, sleep_max, awaits_peer, due)
            })
    }

    /// Borrowed buffers go back, log lines go out.
    fn end_iteration(&mut self) {
        let requests = &mut self.requests;
        let (pool, now) = (requests.dispatch.pool(), requests.clock.now());
        if requests.drops.has_some() {
            requests.drops.give_back(pool);
            requests.drops.check(pool, now);
        }
        requests.accounting.flush_due(now);
    }

    fn handle_events(&mut self) -> io::Result<()> {
        let events = self.sleeper.take_events();
        for event in &events {
            match Event::of(event) {
                Event::Accept(listener) => self.accept(listener)?,
                Event::Connection(token, event) => {
                    self.connections
                        .on_event(token, event, &mut self.requests, &mut self.io);
                }
                Event::Descriptor(descriptor) => self.on_descriptor(descriptor),
                Event::Woken => {}
            }
        }
        self.sleeper.give_back(events);
        self.listeners.resume_in_time(self.requests.clock.now())
    }

    /// Take in the connections that wait at a listener.
    fn accept(&mut self, listener: usize) -> io::Result<()> {
        let connections = &mut self.connections;
        let (requests, io) = (&mut self.requests, &mut self.io);
        if let Some(peers) = &mut self.peers
            && !peers.receive_stuck(connections, requests, io)
        {
            return self.listeners.pause_exhausted(requests.clock.now());
        }
        for _ in 0..ITERATION_ACCEPTS {
            let now = requests.clock.now();
            let is_full = connections.len() >= self.connections_max;
            let shortage = Shortage::Connections;
            let evicted = is_full
                .then(|| sparest(connections, shortage, now))
                .flatten();
            if is_full && evicted.is_none() {
                return self.listeners.pause_at_limit(now);
            }
            match self.listeners.accept(listener, now)? {
                Attempt::Accepted(transport, peer) => {
                    if let Some(evicted) = evicted {
                        connections.evict(evicted, shortage, requests, io);
                    }
                    let Some(peers) = &mut self.peers else {
                        connections.open(transport, peer, listener, requests, io);
                        continue;
                    };
                    let stays = peers.balance(transport, listener, connections, requests, io);
                    if let Some(transport) = stays {
                        connections.open(transport, peer, listener, requests, io);
                        peers.publish(connections.len(), &requests.dispatch);
                    }
                }
                Attempt::Gone => {}
                Attempt::Empty => return Ok(()),
                Attempt::Exhausted(error) => {
                    let Some((evicted, shortage)) =
                        make_room(connections, &mut io.exhaustion, &error, now)
                    else {
                        return self.listeners.pause_exhausted(now);
                    };
                    // The next attempt gets its descriptor.
                    connections.evict(evicted, shortage, requests, io);
                }
            }
        }
        Ok(())
    }

    fn handle_replies(&mut self) {
        let connections = &mut self.connections;
        let (requests, io) = (&mut self.requests, &mut self.io);
        deliver::replies(connections, self.timed_out.as_mut(), requests, io);
        if connections.has_to_flush() {
            connections.flush_streams(requests, io);
            self.sleeper.note_stream(requests.clock.now());
        }
        if connections.has_to_resume() {
            connections.resume(requests, io);
        }
        if requests.dispatch.may_have_own_answers() {
            deliver::own_answers(connections, self.timed_out.as_mut(), requests, io);
        }
        requests.dispatch.announce();
    }

    fn on_descriptor(&mut self, descriptor: Descriptor) {
        if self.runner.leaves(descriptor) {
            return;
        }
        match descriptor {
            Descriptor::Interrupts => {
                self.descriptors.drain_interrupts();
                self.application.on_interrupt();
            }
            Descriptor::Peers => {
                if let Some(peers) = &mut self.peers {
                    peers.receive(&mut self.connections, &mut self.requests, &mut self.io);
                }
            }
            Descriptor::Left => {
                if let Some(takeover) = &mut self.takeover {
                    takeover.take(&mut self.connections, &mut self.requests, &mut self.io);
                }
            }
            Descriptor::Signals => {
                for signal in self.descriptors.signals() {
                    self.on_signal(signal);
                }
            }
        }
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGTERM => self.begin_drain(),
            Signal::SIGINT | Signal::SIGQUIT => {
                self.application.on_signal(signal as i32);
                self.stop_now(0);
            }
            Signal::SIGABRT => {
                // Before anything that needs the interpreter, which may be what is stuck.
                self.leave_waiting();
                self.application.on_signal(signal as i32);
                self.stop_now(1);
            }
            other => self.application.on_signal(other as i32),
        }
    }

    // A few times a second.

    /// Show the arbiter that the loop is alive, and see whether the arbiter is.
    fn on_heartbeat(&mut self) {
        let now = self.requests.clock.now();
        self.end_series(now, false);
        let figures = Figures {
            open: self.connections.len_with_hijacked(),
            idle: self.connections.idle_count(),
            queue_length: self.requests.dispatch.pool().queue_length(),
            unsent_bytes: self.requests.dispatch.pool().unsent().held(),
        };
        self.heartbeat.publish(figures, now);
        let pool = self.requests.dispatch.pool();
        pool.hub().into_iter().for_each(HubWakeup::check_descriptor);
        if let Some(peers) = &mut self.peers {
            peers.on_heartbeat(&mut self.connections, &mut self.requests, &mut self.io);
        }
        if let Some(takeover) = &mut self.takeover {
            takeover.on_heartbeat(&mut self.connections, &mut self.requests, &mut self.io);
        }
        self.io.exhaustion.on_heartbeat(now);
        self.io.handshakes.refresh();
        self.connections.on_heartbeat(now);
        if self.requests.shutdown.is_serving() && self.heartbeat.is_orphan() {
            let pid = std::process::id();
            log::info!("Parent changed, shutting down: <Worker {pid}>");
            self.begin_drain();
        }
    }
}

#[cfg(test)]
mod tests;
