//! The event loop: wait, collect what has happened, move each thing once, and again.
//!
//! One iteration: events of the poll set (accept, read, write, wake-up, signals), then replies of the pool, then
//! connections that had more to read, then deadlines. Everything in an iteration is bounded. The loop's thread never waits
//! for anything but the poll set, and never touches the interpreter while it serves.

use std::io;
use std::time::{Duration, Instant};

use mio::event::Event as PollEvent;
use mio::{Events, Poll, Token};
use nix::sys::signal::Signal;

use crate::config::Config;
use crate::net::Listener;
use crate::pool::Application;
use crate::scoreboard::SlotState;

use super::connection::SocketEvent;
use super::connections::Connections;
use super::descriptors::{Descriptor, Descriptors};
use super::heartbeat::{Figures, Heartbeat};
use super::listeners::{Attempt, Listeners};
use super::replies;
use super::services::Services;
use super::shutdown::Next;
use super::siblings::Siblings;
use super::sleep::Progress;
use super::timed_out::TimedOutRequests;
use super::tokens::{self, Source};

/// A worker accepts at most this many connections in one iteration, so that the others get their share of a burst.
const ITERATION_ACCEPTS: usize = 16;
/// A stream whose pieces come within this of one another is awaited with short sleeps.
const QUICK_STREAM: Duration = Duration::from_millis(1);
/// How many events are taken from the poll set in one iteration at most.
const ITERATION_EVENTS: usize = 512;

/// Every reason why the loop moves something.
#[derive(Clone, Copy, Debug)]
enum Event {
    Accept(usize),
    Connection(Token, SocketEvent),
    Descriptor(Descriptor),
    Woken,
}

/// See the module.
pub(super) struct EventLoop<'a> {
    pub(super) poll: Poll,
    pub(super) events: Events,
    pub(super) listeners: Listeners,
    pub(super) connections: Connections,
    pub(super) connections_max: usize,
    pub(super) timed_out: TimedOutRequests,
    pub(super) services: Services,
    pub(super) descriptors: Descriptors,
    pub(super) application: &'a dyn Application,
    pub(super) heartbeat: Heartbeat,
    /// The last short sleep brought nothing, so the next one is long.
    pub(super) short_sleep_was_idle: bool,
    /// The last round found replies and did not look at the poll set.
    pub(super) skipped_poll: bool,
    pub(super) progress: Progress,
    /// When pieces of streamed responses were last written: more may follow at once.
    pub(super) streamed: Option<Instant>,
    /// The last pieces followed others so closely that the next are waited for.
    pub(super) stream_is_quick: bool,
    pub(super) siblings: Option<Siblings>,
    /// There may be messages of siblings although none was announced.
    pub(super) more_messages: bool,
    /// Messages of siblings wait for descriptors.
    pub(super) messages_wait: bool,
}

/// What a loop is made of.
pub(super) struct Parts<'a, 'b> {
    pub(super) poll: Poll,
    pub(super) listeners: Vec<Listener>,
    pub(super) descriptors: Descriptors,
    pub(super) services: Services,
    pub(super) siblings: Option<Siblings>,
    pub(super) application: &'a dyn Application,
    pub(super) config: &'b Config,
    pub(super) parent: Option<i32>,
}

impl<'a> EventLoop<'a> {
    /// A loop that does not accept yet.
    ///
    /// # Errors
    /// The poll set refused something.
    pub(super) fn new(parts: Parts<'a, '_>) -> io::Result<Self> {
        let Parts {
            poll,
            listeners,
            descriptors,
            services,
            siblings,
            application,
            config,
            parent,
        } = parts;
        let now = services.clock.now();
        let workers = &config.workers;
        let slot = services.slot().clone();
        let mut event_loop = Self {
            listeners: Listeners::new(listeners, &poll)?,
            connections: Connections::new(poll.registry().try_clone()?),
            connections_max: workers.worker_connections.max(1),
            timed_out: TimedOutRequests::new(workers.request_timeout, now),
            heartbeat: Heartbeat::new(slot, workers.timeout, parent),
            events: Events::with_capacity(ITERATION_EVENTS),
            short_sleep_was_idle: false,
            skipped_poll: false,
            progress: Progress {
                taken: 0,
                asleep: Duration::ZERO,
                still_since: now,
            },
            streamed: None,
            stream_is_quick: false,
            more_messages: false,
            messages_wait: false,
            poll,
            services,
            descriptors,
            application,
            siblings,
        };
        event_loop.more_messages = event_loop.listen_to_siblings()?;
        Ok(event_loop)
    }

    /// Serve until the worker is stopped. Returns the exit code.
    ///
    /// # Errors
    /// The poll set failed, which no valid state of the worker can cause.
    pub(super) fn run(&mut self) -> io::Result<i32> {
        self.services.arbiter.report(SlotState::Serving);
        self.listeners.start()?;
        while !self.services.shutdown.is_over() {
            self.wait()?;
            self.services.begin_iteration();
            self.iterate()?;
        }
        // What the last step to the end has logged.
        self.services.end_iteration();
        Ok(self.services.shutdown.exit_code())
    }

    /// Move everything that has something to do, once.
    pub(super) fn iterate(&mut self) -> io::Result<()> {
        self.beat();
        if self.services.writes.was_exhausted() {
            // Connections that ran out of budget in the last iteration go first.
            self.connections.resume(&mut self.services);
        }
        self.handle_events()?;
        self.services.dispatch.announce();
        self.handle_replies();
        self.connections.expire(&mut self.services);
        self.check_timed_out();
        if self.connections.take_room() {
            self.listeners.resume_at_limit()?;
        }
        if std::mem::take(&mut self.more_messages) {
            self.on_siblings();
        }
        self.services.end_iteration();
        self.advance_shutdown();
        self.tell_siblings();
        Ok(())
    }

    fn handle_events(&mut self) -> io::Result<()> {
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match classify(event) {
                Event::Accept(listener) => self.accept(listener)?,
                Event::Connection(token, event) => {
                    self.connections.on_event(token, event, &mut self.services);
                }
                Event::Descriptor(descriptor) => self.on_descriptor(descriptor),
                Event::Woken => {}
            }
        }
        self.events = events;
        self.listeners.resume_in_time(self.services.clock.now())
    }

    /// Take in the connections that wait at a listener.
    fn accept(&mut self, listener: usize) -> io::Result<()> {
        for _ in 0..ITERATION_ACCEPTS {
            if self.connections.len() >= self.connections_max
                && !self.connections.evict_oldest_idle(&mut self.services)
            {
                return self.listeners.pause_at_limit();
            }
            match self.listeners.accept(listener, self.services.clock.now())? {
                Attempt::Accepted(transport, peer) => {
                    if let Some(transport) = self.place(transport, listener) {
                        self.connections
                            .open(transport, peer, listener, &mut self.services);
                        self.tell_siblings();
                    }
                }
                Attempt::Gone => {}
                Attempt::Empty => return Ok(()),
            }
        }
        Ok(())
    }

    fn handle_replies(&mut self) {
        let (connections, services) = (&mut self.connections, &mut self.services);
        replies::deliver(connections, &mut self.timed_out, services);
        if connections.flush_streams(services) {
            let now = services.clock.now();
            let last = self.streamed.replace(now);
            self.stream_is_quick =
                last.is_some_and(|last| now.saturating_duration_since(last) < QUICK_STREAM);
        }
        connections.resume(services);
        replies::deliver_own(connections, &mut self.timed_out, services);
        services.dispatch.announce();
    }

    fn check_timed_out(&mut self) {
        let (connections, services) = (&mut self.connections, &mut self.services);
        if self
            .timed_out
            .check(connections, self.application, services)
        {
            self.begin_drain();
        }
    }

    fn on_descriptor(&mut self, descriptor: Descriptor) {
        match descriptor {
            Descriptor::Interrupts => {
                self.descriptors.drain_interrupts();
                self.application.on_interrupt();
            }
            Descriptor::Siblings => self.on_siblings(),
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
                self.application.on_signal(signal as i32);
                self.stop_now(1);
            }
            other => self.application.on_signal(other as i32),
        }
    }

    // A few times a second.

    /// Show the arbiter that the loop is alive, and see whether the arbiter is.
    fn beat(&mut self) {
        let now = self.services.clock.now();
        if !self.heartbeat.is_due(now) {
            return;
        }
        self.services.dispatch.log_shed(now, false);
        crate::logging::tick();
        self.heartbeat.beat(Figures {
            open: self.connections.len_with_hijacked(),
            idle: self.connections.idle_count(),
            queue_length: self.services.dispatch.pool().queue_length(),
        });
        self.more_messages |= std::mem::take(&mut self.messages_wait);
        self.visit_the_dead();
        self.listeners.on_heartbeat(now);
        if self.services.shutdown.is_serving() && self.heartbeat.is_orphan() {
            log::info!(
                "Parent changed, shutting down: <Worker {}>",
                std::process::id()
            );
            self.begin_drain();
        }
    }

    // The stop.

    /// Stop gracefully: take what waits in the accept queue, then no more; close what is idle; finish the rest.
    pub(super) fn begin_drain(&mut self) {
        let services = &mut self.services;
        if !services.shutdown.begin(services.clock.now()) {
            return;
        }
        services.arbiter.report(SlotState::Draining);
        for (transport, peer, listener) in self.listeners.waiting() {
            self.connections.open(transport, peer, listener, services);
        }
        self.empty_way();
        self.listeners.close();
        self.connections.begin_drain(&mut self.services);
    }

    /// Stop at once: whatever is open is closed.
    fn stop_now(&mut self, exit_code: i32) {
        let now = self.services.clock.now();
        self.services.shutdown.stop_now(exit_code, now);
        self.listeners.close();
        self.connections.close_all(&mut self.services);
        self.leave();
    }

    /// Continue to the next phase of the stop when this one is over.
    fn advance_shutdown(&mut self) {
        let services = &mut self.services;
        let now = services.clock.now();
        let open = self.connections.len_with_hijacked();
        match services.shutdown.advance(open, now) {
            Next::Nothing => {}
            Next::Leave => self.leave(),
            Next::Cut => {
                let cut = self.connections.close_all(services);
                if cut > 0 {
                    services.accounting.slot().add_cut(cut as u64);
                    log::warn!(
                        "graceful_timeout is over: {cut} connection(s) with a request under way were cut."
                    );
                }
                self.leave();
            }
        }
        let services = &mut self.services;
        let threads = services.dispatch.pool().live_threads();
        services.shutdown.end(threads, now);
    }

    /// All connections are closed: let the threads leave.
    fn leave(&mut self) {
        let services = &mut self.services;
        services.dispatch.pool().close();
        services.dispatch.log_shed(services.clock.now(), true);
        // The answers of these are not awaited any more.
        while let Some(job) = services.dispatch.pool().pop_front() {
            services.log_gone(&job);
            services.recycle(job);
        }
    }
}

fn classify(event: &PollEvent) -> Event {
    match tokens::source_of(event.token()) {
        Source::Waker => Event::Woken,
        Source::Descriptor(number) => Event::Descriptor(Descriptor::of(number)),
        Source::Listener(listener) => Event::Accept(listener),
        Source::Connection(token) => Event::Connection(
            token,
            SocketEvent {
                is_readable: event.is_readable(),
                is_writable: event.is_writable(),
                is_read_closed: event.is_read_closed(),
                is_broken: event.is_error() || event.is_write_closed(),
            },
        ),
    }
}

/// What a simulation plays and checks.
#[cfg(test)]
impl EventLoop<'_> {
    pub(super) fn take_in(
        &mut self,
        transport: super::transport::Transport,
        peer: crate::pool::Peer,
    ) {
        self.connections
            .open(transport, peer, 0, &mut self.services);
    }

    pub(super) fn poll_at_once(&mut self) -> io::Result<()> {
        self.poll.poll(&mut self.events, Some(Duration::ZERO))
    }

    pub(super) fn advance_clock(&mut self, by: Duration) {
        self.services.clock.advance(by);
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = &super::connection::Connection> {
        self.connections.iter()
    }

    pub(super) fn services(&self) -> &Services {
        &self.services
    }
}
