//! One client connection: what it is made of (`link.rs`), and the protocol that it speaks now.
//!
//! Lives on the event loop's thread from accept to close. Each entry point returns an [`Action`] for the loop. A connection
//! begins with HTTP/1, which may leave it to HTTP/2: because its first bytes are HTTP/2's preface, because ALPN has chosen it, or
//! because a request asks for it. Here alone one protocol takes over from another, behind the step that has decided it.
//!
//! HTTP/2 stands in `http2.rs`. HTTP/1 stands here, because it is little more than the connection: at most one request is under
//! way; nothing is read for the next one until the response is written, so the kernel's buffer holds the client back.
//! `receive.rs` is its way in, `advance.rs` what comes next, `early_end.rs` what ends before it is done.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use crate::net::unacknowledged_bytes;
use crate::pool::{ConnId, Job, Peer, Reply};

pub(super) use super::connection_lifecycle::Action;
use super::connection_lifecycle::{Lifecycle, Spare, State};
use super::events::SocketEvent;
use super::http1::{Client, Http1, TimedOut};
use super::http2::Http2;
use super::link::{Link, is_quiet};
use super::loop_clock::Clock;
use super::preamble::Preamble;
use super::read_side::ReadSide;
use super::requests::Requests;
use super::shared_io::SharedIo;
use super::shortage::Shortage;
use super::transport::{Ending, Transport};
use super::usage::Usage;
use super::write_side::WriteSide;

mod advance;
mod early_end;
mod handshaking;
mod receive;

/// What another worker gets of a connection's request; one with more stays where it is. It fits the buffer that it is
/// received in, and three of them fit a channel.
const TRANSFER_BYTES_MAX: usize = 60 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    protocol: Protocol,
    link: Link,
}

/// What the connection speaks.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most connections never leave HTTP/1, and would pay for a box with an allocation"
)]
enum Protocol {
    Http1 { preamble: Preamble, http1: Http1 },
    Http2(Box<Http2>),
}

/// A connection of HTTP/1, borrowed for one step.
#[derive(Debug)]
struct Http1Connection<'a> {
    preamble: &'a mut Preamble,
    http1: &'a mut Http1,
    link: &'a mut Link,
    /// What takes over behind this step.
    successor: Option<Box<Http2>>,
}

/// What makes a step: the protocol, with what it works with.
enum Speaker<'a, 'b> {
    Http1(&'b mut Http1Connection<'a>),
    Http2(&'b mut Http2, &'b mut Link),
}

impl Connection {
    /// A connection that was accepted by `listener`, or by another worker's of that number.
    pub(super) fn new(
        id: ConnId,
        transport: Transport,
        peer: Peer,
        listener: usize,
        requests: &mut Requests,
        io: &SharedIo,
    ) -> Self {
        let policy = &requests.policy;
        let is_trusted = policy.trusts(peer);
        let expects_tls = io.handshakes.are_expected();
        let cleartext = policy.http2_cleartext(is_trusted);
        let (preamble, http1) = match policy.speaks_uwsgi() {
            true => (
                Preamble::Uwsgi {
                    then_tls: expects_tls,
                },
                Http1::uwsgi(),
            ),
            false => (
                Preamble::new(policy.expects_proxy_header(), expects_tls, cleartext),
                Http1::default(),
            ),
        };
        Self {
            protocol: Protocol::Http1 { preamble, http1 },
            link: Link {
                client: Client::new(id, peer, is_trusted, listener),
                transport: match expects_tls {
                    true => transport.with_tls(),
                    false => transport,
                },
                read: ReadSide::default(),
                write: WriteSide::default(),
                lifecycle: Lifecycle::new(id, &mut requests.clock),
                usage: Usage::New,
            },
        }
    }

    pub(super) fn id(&self) -> ConnId {
        self.link.client.conn()
    }

    /// The number of the listener that has accepted it.
    pub(super) fn listener(&self) -> usize {
        self.link.client.listener()
    }

    /// How many bytes the client has not acknowledged.
    pub(super) fn unacknowledged_bytes(&self) -> Option<u32> {
        unacknowledged_bytes(&self.link.transport)
    }

    pub(super) fn transport(&mut self) -> &mut Transport {
        &mut self.link.transport
    }

    /// When its deadline is over.
    #[cfg(test)]
    pub(super) fn due(&self) -> Option<Instant> {
        self.link.lifecycle.due()
    }

    /// Let the protocol make a step. Another one may take over behind it.
    fn step<R>(&mut self, step: impl FnOnce(Speaker<'_, '_>) -> R) -> R {
        match &mut self.protocol {
            Protocol::Http1 { preamble, http1 } => {
                let mut connection = Http1Connection {
                    preamble,
                    http1,
                    link: &mut self.link,
                    successor: None,
                };
                let result = step(Speaker::Http1(&mut connection));
                if let Some(http2) = connection.successor {
                    self.protocol = Protocol::Http2(http2);
                }
                result
            }
            Protocol::Http2(http2) => step(Speaker::Http2(http2, &mut self.link)),
        }
    }

    /// Whether its deadline, or that of its stream, is over; the set has found an entry for it.
    pub(super) fn has_expired(&mut self, id: ConnId, clock: &mut Clock) -> bool {
        match &mut self.protocol {
            Protocol::Http2(http2) if id.stream != 0 => http2.has_expired(id, clock),
            _ => {
                if self.link.lifecycle.is_hurried() {
                    let left = self.unacknowledged_bytes();
                    self.link.lifecycle.await_hurried_client(0, left, clock);
                }
                self.link.lifecycle.has_expired(clock)
            }
        }
    }

    /// Its deadlines, and those of its streams, are later by a pause in which nothing was read.
    pub(super) fn excuse(&mut self, pause: Duration) {
        self.link.lifecycle.excuse(pause);
        if let Protocol::Http2(http2) = &mut self.protocol {
            http2.excuse(pause);
        }
    }

    /// Between requests, with nothing to write: may be closed silently.
    pub(super) fn is_idle(&self) -> bool {
        let is_idle = match &self.protocol {
            Protocol::Http1 { http1, .. } => http1.is_idle(),
            Protocol::Http2(http2) => http2.is_idle(),
        };
        is_idle && is_quiet(&self.link)
    }

    /// Whether it may be closed to make room for another, why, and since when it waits.
    pub(super) fn spare(&self, shortage: Shortage, now: Instant) -> Option<(Spare, Instant)> {
        let stalled_since = match &self.protocol {
            Protocol::Http1 { .. } => None,
            Protocol::Http2(http2) => http2.stalled_since(),
        };
        let lifecycle = &self.link.lifecycle;
        lifecycle.spare(self.is_idle(), stalled_since, shortage, now)
    }

    /// The poll set has news of the socket.
    pub(super) fn on_event(
        &mut self,
        event: SocketEvent,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        // In a lingering close it only means that the client has closed its side too; what it sent before is still read.
        if event.is_broken && !self.link.lifecycle.is_lingering_close() {
            return Action::Close;
        }
        // Before anything is written: what comes after the response looks whether its request is there already.
        self.link.read.on_edge(event.input);
        self.step(|speaker| match speaker {
            Speaker::Http1(http1) => http1.on_event(event, requests, io),
            Speaker::Http2(http2, link) => http2.on_event(event, link, requests, io),
        })
    }

    /// The application has replied. Returns the reply too when its client was answered before (`request_timeout`).
    pub(super) fn on_reply(
        &mut self,
        reply: Reply,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> (Action, Option<Reply>) {
        self.step(|speaker| match speaker {
            Speaker::Http1(http1) => http1.on_reply(reply, requests, io),
            Speaker::Http2(http2, link) => http2.on_reply(reply, &link.client, requests),
        })
    }

    /// The loop has answered the request itself.
    pub(super) fn on_own_answer(
        &mut self,
        job: Box<Job>,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        self.step(|speaker| match speaker {
            Speaker::Http1(http1) => http1.on_own_answer(job, requests, io),
            Speaker::Http2(http2, link) => http2.on_own_answer(job, &link.client, requests),
        })
    }

    /// The iteration's replies are all in: write what came of a streamed response.
    pub(super) fn flush_scheduled(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        if !self.link.write.take_scheduled() {
            return Action::Wait;
        }
        self.step(|speaker| match speaker {
            Speaker::Http1(http1) => http1.advance(requests, io),
            // It has taken over since.
            Speaker::Http2(http2, link) => http2.resume(link, requests, io),
        })
    }

    /// Continue where the share of the last iteration ended.
    pub(super) fn resume(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        self.step(|speaker| match speaker {
            Speaker::Http1(http1) => http1.resume(requests, io),
            Speaker::Http2(http2, link) => http2.resume(link, requests, io),
        })
    }

    /// The deadline of the connection, or of its stream, is over.
    pub(super) fn on_deadline(
        &mut self,
        id: ConnId,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        self.step(|speaker| match speaker {
            Speaker::Http1(http1) => http1.on_deadline(requests, io),
            Speaker::Http2(http2, link) => http2.on_deadline(id, link, requests, &mut io.writes),
        })
    }

    /// The application has had the request for too long. Returns what the client has seen.
    pub(super) fn time_out(
        &mut self,
        id: ConnId,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> (TimedOut, Action) {
        self.step(|speaker| match speaker {
            Speaker::Http1(http1) => http1.time_out(requests, io),
            Speaker::Http2(http2, _) => http2.time_out(id, requests),
        })
    }

    /// What another worker needs to go on with this connection: its socket, and the bytes of the request that no thread has
    /// begun. That is the request of `job`, or without one as much as has come of the next. `None`: it has to stay.
    pub(super) fn transfer(&self, job: Option<&Job>) -> Option<(BorrowedFd<'_>, Vec<u8>)> {
        let Protocol::Http1 { preamble, http1 } = &self.protocol else {
            return None;
        };
        let link = &self.link;
        let is_between = link.write.is_empty() && !link.lifecycle.is_lingering_close();
        if link.client.has_proxy_header() || !is_between {
            return None;
        }
        if matches!(link.lifecycle.state(), State::AwaitingFirstByte { .. }) {
            let is_untouched = job.is_none() && link.read.is_empty();
            return is_untouched.then(|| (link.transport.as_fd(), Vec::new()));
        }
        let socket = link.transport.transferable()?;
        if *preamble != Preamble::Over || job.is_some_and(|job| job.socket.is_some()) {
            return None;
        }
        let mut bytes = http1.received(job)?;
        bytes.extend_from_slice(link.read.buffered());
        (bytes.len() <= TRANSFER_BYTES_MAX).then_some((socket, bytes))
    }

    /// Continue with what another worker has read.
    pub(super) fn resume_transferred(
        &mut self,
        bytes: &[u8],
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        self.step(|speaker| match speaker {
            Speaker::Http1(http1) => http1.resume_transferred(bytes, requests, io),
            // No worker transfers it.
            Speaker::Http2(..) => Action::Close,
        })
    }

    /// The connection lives on elsewhere: with the application, or with another worker.
    pub(super) fn into_transport(self) -> Transport {
        self.link.transport
    }

    /// The connection is over: wake the thread that it holds, give back what it holds.
    pub(super) fn close(self, requests: &mut Requests) {
        let mut link = self.link;
        requests.dispatch.note_usage(link.usage);
        let unsent_bytes = link.write.unsent_bytes();
        let ending = match self.protocol {
            Protocol::Http1 { mut http1, .. } => {
                http1.drop_body();
                let would_look_whole = http1.would_look_whole(link.write.is_empty());
                http1.close(link.client.conn(), unsent_bytes, requests);
                match would_look_whole {
                    true => Ending::Reset,
                    false => Ending::Orderly,
                }
            }
            Protocol::Http2(mut http2) => {
                if requests.shutdown.has_cut() {
                    http2.part_at_once(&mut link);
                }
                http2.close(requests);
                Ending::Orderly
            }
        };
        link.write.close(&mut requests.drops);
        link.transport.close(ending);
    }
}

#[cfg(test)]
mod tests;
