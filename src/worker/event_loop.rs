//! The event loop: wait, collect what has happened, move each thing once, and again.
//!
//! One turn: events of the poll set (accept, read, write, wake-up, signals), then replies of the pool, then
//! connections that had more to read, then deadlines. Everything in a turn is bounded. The loop's thread never waits
//! for anything but the poll set, and never touches the interpreter while it serves.

use std::io;
use std::time::{Duration, Instant};

use mio::event::Event as PollEvent;
use mio::{Events, Poll, Token};
use nix::sys::signal::Signal;

use crate::pool::policy::StallDetector;
use crate::pool::{Application, ConnId, Reply};

use super::accept::{Accepting, Acceptor, ListenerSet};
use super::connection::{Fate, Waiting};
use super::connections::{Connections, FIRST_CONNECTION_TOKEN};
use super::core::Core;
use super::descriptors::{Descriptor, Descriptors};
use super::overload::Excess;
use super::shutdown::Phase;
use super::siblings::Siblings;
use super::upgrade::HandedOver;

/// So many replies are handled in one turn at most.
const TURN_REPLIES: usize = 1024;
/// A stream whose pieces come within this of one another is awaited with short sleeps.
const QUICK_STREAM: Duration = Duration::from_millis(1);
/// So many events are taken from the poll set in one turn at most.
const TURN_EVENTS: usize = 512;

const WAKER: Token = Token(0);
const FIRST_DESCRIPTOR: usize = 1;
pub(super) const FIRST_LISTENER: usize = 16;

/// Every reason why the loop moves something.
#[derive(Clone, Copy, Debug)]
enum Event {
    Accept(usize),
    Connection {
        token: Token,
        readable: bool,
        writable: bool,
        read_closed: bool,
        broken: bool,
    },
    Descriptor(Descriptor),
    Woken,
}

/// See the module.
pub(super) struct EventLoop<'a> {
    pub(super) poll: Poll,
    pub(super) events: Events,
    pub(super) listener_set: ListenerSet,
    pub(super) acceptors: Vec<Acceptor>,
    pub(super) accepting: Accepting,
    pub(super) connections: Connections,
    pub(super) connections_max: usize,
    pub(super) handed_over: HandedOver,
    pub(super) core: Core,
    pub(super) descriptors: Descriptors,
    pub(super) application: &'a dyn Application,
    pub(super) phase: Phase,
    pub(super) graceful_timeout: Duration,
    pub(super) exit_code: i32,
    /// The loop sleeps at most this long, so that the heartbeat goes on.
    pub(super) sleep_max: Duration,
    /// The last brief sleep brought nothing, so the next one is long.
    pub(super) brief_sleep_was_idle: bool,
    /// The last round found replies and did not look at the poll set.
    pub(super) skipped_poll: bool,
    pub(super) stalls: StallDetector,
    /// When pieces of streamed responses were last written: more may follow at once.
    pub(super) streamed: Option<Instant>,
    /// The last pieces followed others so closely that the next are waited for.
    pub(super) stream_is_quick: bool,
    /// When there were no descriptors left for the last time. That was logged.
    pub(super) exhausted_at: Option<Instant>,
    pub(super) siblings: Option<Siblings>,
    /// There may be messages of siblings although none was announced.
    pub(super) more_messages: bool,
    /// Messages of siblings wait for descriptors.
    pub(super) messages_wait: bool,
    pub(super) last_beat: Option<Instant>,
    pub(super) parent: Option<i32>,
}

impl EventLoop<'_> {
    /// Serve until the phase is `Stopped`.
    ///
    /// # Errors
    /// The poll set failed, which no valid state of ours can cause.
    pub(super) fn run(&mut self) -> io::Result<()> {
        self.resume_accepting()?;
        while !matches!(self.phase, Phase::Stopped) {
            self.wait()?;
            self.core.tick();
            self.turn()?;
        }
        // What the last step to the end has logged.
        self.core.end_turn();
        Ok(())
    }

    /// Move everything that has something to do, once.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        self.beat();
        if self.core.ran_dry {
            // Who was left over comes before whoever comes now.
            self.go_on();
        }
        self.handle_events()?;
        self.core.announce_jobs();
        self.handle_replies();
        self.go_on();
        self.send_own_answers();
        self.core.announce_jobs();
        self.expire();
        self.check_overruns();
        if std::mem::take(&mut self.core.room_made) && self.accepting == Accepting::Full {
            self.resume_accepting()?;
        }
        if std::mem::take(&mut self.more_messages) {
            self.on_siblings();
        }
        self.core.end_turn();
        self.advance_phase();
        self.tell_siblings();
        Ok(())
    }

    fn handle_events(&mut self) -> io::Result<()> {
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match classify(event) {
                Event::Accept(listener) => self.accept(listener)?,
                Event::Connection {
                    token,
                    readable,
                    writable,
                    read_closed,
                    broken,
                } => {
                    self.on_connection_event(token, readable, writable, read_closed, broken);
                }
                Event::Descriptor(descriptor) => self.on_descriptor(descriptor),
                Event::Woken => {}
            }
        }
        self.events = events;
        if let Accepting::PausedUntil(at) = self.accepting
            && at <= self.core.now
        {
            self.resume_accepting()?;
        }
        Ok(())
    }

    fn on_connection_event(
        &mut self,
        token: Token,
        readable: bool,
        writable: bool,
        read_closed: bool,
        broken: bool,
    ) {
        let Some(connection) = self.connections.at_token(token) else {
            return;
        };
        let id = connection.id();
        let mut fate = Fate::Keep;
        if broken && connection.waiting != Waiting::Linger {
            // Both directions are gone: no answer can reach the client. (Lingering, it only means that the client has
            // closed its side too, and what it has sent before that is still read: see `close_or_linger`.)
            fate = Fate::Close;
        }
        if fate == Fate::Keep && writable {
            fate = connection.on_writable(&mut self.core);
        }
        if fate == Fate::Keep && (readable || read_closed) {
            fate = connection.on_readable(read_closed, &mut self.core);
        }
        self.settle_fate(id, fate);
    }

    fn handle_replies(&mut self) {
        for _ in 0..TURN_REPLIES {
            let Some(reply) = self.core.pool.receive() else {
                break;
            };
            self.on_reply(reply);
        }
        if !self.core.streaming.is_empty() {
            self.write_streamed();
        }
    }

    fn write_streamed(&mut self) {
        let streaming = std::mem::take(&mut self.core.streaming);
        for &id in &streaming {
            if let Some(connection) = self.connections.get_mut(id) {
                let fate = connection.write_streamed(&mut self.core);
                self.settle_fate(id, fate);
            }
        }
        let mut streaming = streaming;
        streaming.clear();
        self.core.streaming = streaming;
        let last = self.streamed.replace(self.core.now);
        self.stream_is_quick =
            last.is_some_and(|last| self.core.now.saturating_duration_since(last) < QUICK_STREAM);
    }

    fn on_reply(&mut self, reply: Reply) {
        let id = match &reply {
            Reply::Whole(job) | Reply::End(job) | Reply::Abort(job) | Reply::Overdue(job) => {
                self.core.job_is_back();
                job.conn
            }
            Reply::Head(id, _) | Reply::Data(id, _) | Reply::Hints(id, _) => *id,
            Reply::WantsBody(id) => *id,
            Reply::Hijacked(id) => return self.on_taken(*id),
        };
        let connection = self.connections.get_mut(id);
        let Some(connection) = connection.filter(|connection| !connection.timed_out) else {
            return self.on_late_reply(reply);
        };
        let core = &mut self.core;
        let fate = match reply {
            Reply::Whole(job) => connection.on_whole(job, core),
            Reply::Head(_, streaming) => connection.on_head_reply(*streaming, core),
            Reply::Hints(_, hints) => connection.on_hints(&hints, core),
            Reply::Data(_, piece) => connection.on_data(piece, core),
            Reply::End(job) => connection.on_end(job, core),
            Reply::Abort(job) => connection.on_abort(job, core),
            Reply::WantsBody(_) => connection.on_wants_body(core),
            Reply::Hijacked(_) => Fate::Keep,
            Reply::Overdue(job) => {
                core.turn_away(job, Excess::Waited);
                Fate::Keep
            }
        };
        self.settle_fate(id, fate);
    }

    /// The connection that a reply is for is gone.
    fn on_late_reply(&mut self, reply: Reply) {
        match reply {
            Reply::Whole(job) | Reply::End(job) | Reply::Abort(job) | Reply::Overdue(job) => {
                self.on_orphaned_job(job);
            }
            Reply::Head(_, streaming) => streaming.window.close(),
            Reply::Data(_, crate::pool::Piece::Borrowed(shared)) => self.core.finished.push(shared),
            Reply::Data(..) | Reply::Hints(..) | Reply::Hijacked(_) | Reply::WantsBody(_) => {}
        }
    }

    pub(super) fn settle_fate(&mut self, id: ConnId, fate: Fate) {
        match fate {
            Fate::Keep => {}
            Fate::Again => self.core.again.push(id),
            Fate::Close => self.close(id),
        }
    }

    pub(super) fn close(&mut self, id: ConnId) {
        if let Some(mut connection) = self.connections.remove(id) {
            self.core.pool.connection_closed(id);
            connection.on_close(&mut self.core);
            self.core.release_finished();
        }
        self.core.room_made = true;
    }

    /// Connections that used up their share of the last turn.
    fn go_on(&mut self) {
        let mut waiting = std::mem::take(&mut self.core.again).into_iter();
        for id in waiting.by_ref() {
            if let Some(connection) = self.connections.get_mut(id) {
                let fate = connection.go_on(&mut self.core);
                self.settle_fate(id, fate);
            }
            if self.core.turn_bytes_left == 0 {
                break;
            }
        }
        // Who had no turn comes before who had one.
        let had_turn = std::mem::take(&mut self.core.again);
        self.core.again.extend(waiting.chain(had_turn));
    }

    fn expire(&mut self) {
        let mut up = Vec::new();
        let now = self.core.now;
        self.core.deadlines.take_up(now, &mut up);
        for id in up {
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            if self.core.deadlines.expired(id, &mut connection.timer, now) {
                let fate = connection.on_deadline(&mut self.core);
                self.settle_fate(id, fate);
            }
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
}

pub(super) fn saturating_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn classify(event: &PollEvent) -> Event {
    let token = event.token();
    match token.0 {
        0 => Event::Woken,
        FIRST_DESCRIPTOR..FIRST_LISTENER => {
            Event::Descriptor(Descriptor::of(token.0 - FIRST_DESCRIPTOR))
        }
        FIRST_LISTENER..FIRST_CONNECTION_TOKEN => Event::Accept(token.0 - FIRST_LISTENER),
        _ => Event::Connection {
            token,
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            broken: event.is_error() || event.is_write_closed(),
        },
    }
}

/// The token of the pool's waker.
pub(super) const fn waker_token() -> Token {
    WAKER
}

/// The token of a descriptor of ours.
pub(super) const fn descriptor_token(descriptor: Descriptor) -> Token {
    Token(FIRST_DESCRIPTOR + descriptor as usize)
}

/// A poll set's events, sized for one turn.
pub(super) fn turn_events() -> Events {
    Events::with_capacity(TURN_EVENTS)
}
