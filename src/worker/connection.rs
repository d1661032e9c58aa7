//! One client connection: its socket, its exchange, what it has read and what it has to write.
//!
//! Lives on the event loop's thread from accept to close. `receive.rs` is its way in (bytes to a job),
//! `respond.rs` its way out (replies to bytes) and decides what comes next. Each entry point returns a [`Fate`]; the loop closes
//! the connection when it says so.
//!
//! Invariants: at most one request is in flight; nothing is read for the next one until the response is written; the
//! socket is edge-triggered, so `readable` remembers an edge that was not used up.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::{Exchange, ProxyHeader, ResponseHead, Status};
use crate::pool::{ConnId, Job, Peer, Window};

use super::core::Core;
use super::deadlines::Timer;
use super::inflow::Arriving;
use super::outbox::Outbox;
use super::spool::Spool;
use super::stream::Stream;

/// At a stop, a connection that was used within this time may have sent its next request.
const JUST_NOW: Duration = Duration::from_secs(1);
/// So long it has to arrive.
const LAST_REQUEST: Duration = Duration::from_millis(500);

/// What becomes of a connection after it was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Fate {
    /// It waits for its next event.
    Keep,
    /// It has more to read or write than one turn allows.
    Again,
    /// It is over.
    Close,
}

/// What the deadline that runs is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The first byte of the connection's first request.
    FirstByte,
    /// The rest of a head.
    Head,
    /// More of a body.
    Body,
    /// The pool: no deadline.
    Pool,
    /// The client, to take more of the response.
    Send,
    /// The next request.
    KeepAlive,
    /// The client, to close its side after ours is closed.
    Linger,
}

/// An answer that is encoded but perhaps not yet written, kept for the access log.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) job: Box<Job>,
    pub(super) status: u16,
    /// Why it is not what was asked for; empty if it is.
    pub(super) reason: Cow<'static, str>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    id: ConnId,
    pub(super) stream: Stream,
    pub(super) exchange: Exchange,
    /// Read and not yet consumed. Empty, and without memory, on an idle connection.
    pub(super) inbound: Vec<u8>,
    pub(super) outbox: Outbox,
    /// The request that is being received.
    pub(super) job: Option<Box<Job>>,
    pub(super) spool: Spool,
    /// The body of a request that is already with the pool.
    pub(super) arriving: Option<Arriving>,
    /// What answers a request whose body could not be received, unless the application does.
    pub(super) body_fault: Option<Status>,
    /// The window of the response that is being streamed.
    pub(super) window: Option<Arc<Window>>,
    pub(super) answered: Option<Answered>,
    /// Body bytes of the response that were framed so far.
    pub(super) body_sent: u64,
    /// Body bytes that the response's head has no room for, and that were cut.
    pub(super) cut_bytes: u64,
    /// Status of the response that is being streamed, and its head for the log.
    pub(super) status: u16,
    pub(super) streamed: Option<ResponseHead>,
    /// Who is connected, or whom the PROXY header names.
    pub(super) peer: Peer,
    pub(super) trusted: bool,
    /// The first bytes may be a PROXY header.
    pub(super) awaits_proxy_header: bool,
    pub(super) proxy_header: Option<ProxyHeader>,
    pub(super) listener: usize,
    pub(super) timer: Timer,
    pub(super) waiting: Waiting,
    /// An edge said that there is something to read, and reading has not yet found the end of it.
    pub(super) readable: bool,
    /// The client has closed its side (or everything).
    pub(super) read_closed: bool,
    /// When the first byte of the request that is being received arrived.
    pub(super) began: Instant,
    /// When the last response was written, or the connection was accepted.
    pub(super) idle_since: Instant,
    /// A request was refused: the client may still be sending it.
    pub(super) refused: bool,
    /// The application may take the socket (see `upgrade.rs`).
    pub(super) offered: bool,
    /// A request has come on it.
    pub(super) has_asked: bool,
    /// It was kept after a response.
    pub(super) was_kept: bool,
    /// The client was answered for a request that its thread still has (see `overrun.rs`).
    pub(super) timed_out: bool,
    /// Pieces of a streamed response have come in this turn and are not written.
    pub(super) is_streaming: bool,
}

/// What is known of a connection when it is accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    pub(super) trusted: bool,
    pub(super) awaits_proxy_header: bool,
    pub(super) listener: usize,
}

impl Connection {
    pub(super) fn new(id: ConnId, accepted: Accepted, now: Instant) -> Self {
        let Accepted {
            stream,
            peer,
            trusted,
            awaits_proxy_header,
            listener,
        } = accepted;
        Self {
            id,
            stream,
            exchange: Exchange::default(),
            inbound: Vec::new(),
            outbox: Outbox::default(),
            job: None,
            spool: Spool::default(),
            arriving: None,
            body_fault: None,
            window: None,
            answered: None,
            body_sent: 0,
            cut_bytes: 0,
            status: 0,
            streamed: None,
            peer,
            trusted,
            awaits_proxy_header,
            proxy_header: None,
            listener,
            timer: Timer::default(),
            waiting: Waiting::FirstByte,
            readable: false,
            read_closed: false,
            began: now,
            idle_since: now,
            refused: false,
            offered: false,
            has_asked: false,
            was_kept: false,
            timed_out: false,
            is_streaming: false,
        }
    }

    pub(super) fn id(&self) -> ConnId {
        self.id
    }

    /// Between requests, with nothing to write: may be closed silently.
    pub(super) fn is_idle(&self) -> bool {
        self.exchange.is_idle() && self.outbox.is_empty() && self.inbound.is_empty()
    }

    /// Idle after at least one request.
    pub(super) fn is_kept_alive(&self) -> bool {
        self.waiting == Waiting::KeepAlive && self.is_idle()
    }

    /// Close, unless the next request is there already.
    pub(super) fn close_if_idle(&mut self, core: &mut Core) -> Fate {
        self.readable = true;
        let fate = self.read(core);
        if fate == Fate::Keep && self.is_idle() {
            Fate::Close
        } else {
            fate
        }
    }

    /// Begin the wait for the first request.
    pub(super) fn start(&mut self, core: &mut Core) {
        core.set_deadline(self.id, &mut self.timer, core.timeouts.header);
    }

    /// The worker stops. A request that is under way gets its answer, which says close. A connection that is idle
    /// closes, unless its next request is there already; one that was used just now, or is new, may have sent a
    /// request that has not yet arrived, so it gets a moment for it.
    pub(super) fn begin_drain(&mut self, core: &mut Core) -> Fate {
        if self.waiting == Waiting::Linger {
            return Fate::Keep;
        }
        if !self.is_idle() {
            self.exchange.close_after_this();
            return Fate::Keep;
        }
        let fate = self.close_if_idle(core);
        let was_used = core.now.saturating_duration_since(self.idle_since) < JUST_NOW;
        if fate == Fate::Close && was_used && !self.read_closed {
            self.await_last_request(core);
            return Fate::Keep;
        }
        fate
    }

    /// The worker stops, and the client does not know it yet.
    pub(super) fn await_last_request(&mut self, core: &mut Core) {
        self.waiting = Waiting::KeepAlive;
        core.set_deadline(self.id(), &mut self.timer, Some(LAST_REQUEST));
    }

    /// The deadline is over.
    pub(super) fn on_deadline(&mut self, core: &mut Core) -> Fate {
        match self.waiting {
            Waiting::Body if self.arriving.is_some() => {
                self.break_body(
                    Status::REQUEST_TIMEOUT,
                    std::io::ErrorKind::TimedOut,
                    "the request body took too long to arrive (client_body_timeout)",
                );
                Fate::Keep
            }
            Waiting::Head | Waiting::Body => {
                let what = if self.waiting == Waiting::Head {
                    "client_header_timeout"
                } else {
                    "client_body_timeout"
                };
                log::debug!(
                    "Request timed out ({what}) after {:?}.",
                    core.now.saturating_duration_since(self.began)
                );
                self.refuse(
                    Status {
                        code: 408,
                        reason: "Request Timeout",
                    },
                    "The request took too long to arrive",
                    core,
                );
                self.note_reason(what);
                self.settle(core)
            }
            Waiting::Pool => Fate::Keep,
            Waiting::FirstByte | Waiting::KeepAlive | Waiting::Linger => Fate::Close,
            Waiting::Send => {
                log::debug!("Closing a connection whose client reads nothing (send_timeout).");
                self.note_reason("send_timeout");
                Fate::Close
            }
        }
    }

    /// Forget the body that was being received.
    pub(super) fn drop_spool(&mut self, core: &mut Core) {
        core.spool.give_back(self.spool.held_bytes());
        self.spool = Spool::default();
    }

    /// Whether bytes of the client may be unread when the connection closes.
    pub(super) fn may_have_unread_input(&self) -> bool {
        !self.inbound.is_empty() || self.readable
    }

    /// Go on where the last turn's share ended.
    pub(super) fn go_on(&mut self, core: &mut Core) -> Fate {
        if !self.outbox.is_empty() {
            let fate = self.settle(core);
            if fate != Fate::Keep || !self.wants_arriving() {
                return fate;
            }
        }
        self.read(core)
    }

    /// Whether reading can go on at once.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }
}

/// A peer's address as logs show it: without the port, empty on a unix socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerText(pub(super) Peer);

impl std::fmt::Display for PeerText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.ip() {
            Some(ip) => write!(f, "{ip}"),
            None => Ok(()),
        }
    }
}
