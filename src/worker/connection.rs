//! One client connection: transport, read side, protocol, write side, and what it waits for ([`Lifecycle`]). `receive.rs` is
//! the way in, this file what is done with a connection and what comes next.
//!
//! Lives on the event loop's thread from accept to close. Each entry point returns an [`Action`] for the loop. Over
//! HTTP/1 at most one request is under way; nothing is read for the next one until the response is written, so the kernel's
//! buffer holds the client back.
//!
//! *Lingering close* (nginx's term): closing a socket with unread input would reset it, and the reset can destroy the
//! response before the client has read it (RFC 9112 section 9.6). So the end of the stream is sent first, and what still
//! comes is read and forgotten for a moment.

use std::io;
use std::time::Instant;

use crate::http::Status;
use crate::pool::{ConnId, Job, Peer, Reply};

pub(super) use super::connection_lifecycle::Action;
use super::connection_lifecycle::{Lifecycle, Shortage, Spare, State};
use super::events::{InputEvent, SocketEvent};
use super::http1::{Client, Http1, Refusal, Wanted};
use super::http2::{Http2, Link};
use super::loop_clock::Clock;
use super::preamble::Preamble;
use super::read_side::ReadSide;
use super::requests::{Requests, recycle};
use super::shared_io::SharedIo;
use super::transport::{Ending, HandshakeError, Transport};
use super::usage::Usage;
use super::write_side::WriteSide;

mod advance;
mod receive;

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    transport: Transport,
    preamble: Preamble,
    read: ReadSide,
    protocol: Http1,
    /// What has taken over from HTTP/1.
    http2: Option<Box<Http2>>,
    write: WriteSide,
    lifecycle: Lifecycle,
    usage: Usage,
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
        Self {
            client: Client::new(id, peer, is_trusted, listener),
            transport: match expects_tls {
                true => transport.with_tls(),
                false => transport,
            },
            preamble: match policy.speaks_uwsgi() {
                true => Preamble::Uwsgi {
                    then_tls: expects_tls,
                },
                false => Preamble::new(policy.expects_proxy_header(), expects_tls, cleartext),
            },
            read: ReadSide::default(),
            protocol: match policy.speaks_uwsgi() {
                true => Http1::uwsgi(),
                false => Http1::default(),
            },
            http2: None,
            write: WriteSide::default(),
            lifecycle: Lifecycle::new(id, &mut requests.clock),
            usage: Usage::New,
        }
    }

    pub(super) fn id(&self) -> ConnId {
        self.client.conn()
    }

    /// The number of the listener that has accepted it.
    pub(super) fn listener(&self) -> usize {
        self.client.listener()
    }

    pub(super) fn transport(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// When its deadline is over.
    #[cfg(test)]
    pub(super) fn due(&self) -> Option<Instant> {
        self.lifecycle.due()
    }

    /// HTTP/2, if the connection speaks it, and what it works with.
    fn http2(&mut self) -> Option<(&mut Http2, Link<'_>)> {
        let http2 = self.http2.as_deref_mut()?;
        let link = Link {
            client: &self.client,
            transport: &mut self.transport,
            read: &mut self.read,
            write: &mut self.write,
            lifecycle: &mut self.lifecycle,
            usage: &mut self.usage,
        };
        Some((http2, link))
    }

    /// Whether its deadline, or that of its stream, is over; the set has found an entry for it.
    pub(super) fn has_expired(&mut self, id: ConnId, clock: &mut Clock) -> bool {
        match &mut self.http2 {
            Some(http2) if id.stream != 0 => http2.has_expired(id, clock),
            _ => self.lifecycle.has_expired(clock),
        }
    }

    /// Between requests, with nothing to write: may be closed silently.
    pub(super) fn is_idle(&self) -> bool {
        let is_idle = match &self.http2 {
            None => self.protocol.is_idle(),
            Some(http2) => http2.is_idle(),
        };
        is_idle && self.write.is_empty() && self.read.is_empty()
    }

    /// Whether it may be closed to make room for another, why, and since when it waits.
    pub(super) fn spare(&self, shortage: Shortage, now: Instant) -> Option<(Spare, Instant)> {
        let http2 = self.http2.as_ref();
        let stalled_since = http2.and_then(|http2| http2.stalled_since());
        let lifecycle = &self.lifecycle;
        lifecycle.spare(self.is_idle(), stalled_since, shortage, now)
    }

    /// The poll set has news of the socket.
    pub(super) fn on_event(
        &mut self,
        event: SocketEvent,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        if let Some((http2, mut link)) = self.http2() {
            return http2.on_event(event, &mut link, requests, io);
        }
        // In a lingering close it only means that the client has closed its side too; what it sent before is still read.
        if event.is_broken && !self.lifecycle.is_lingering_close() {
            return Action::Close;
        }
        // Before anything is written: what comes after the response looks whether its request is there already.
        self.read.on_edge(event.input);
        let mut action = Action::Wait;
        if event.is_writable {
            if !self.write.is_empty() {
                action = self.advance(requests, io);
            } else if self.lifecycle.may_have_unsent() {
                action = self.send_unsent(requests, io);
            }
        }
        if action == Action::Wait && event.input != InputEvent::Nothing {
            action = self.read(requests, io);
        }
        action
    }

    /// The application has replied. Returns the reply too when its client was answered before (`request_timeout`).
    pub(super) fn on_reply(
        &mut self,
        reply: Reply,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> (Action, Option<Reply>) {
        if let Some((http2, link)) = self.http2() {
            return http2.on_reply(reply, link.client, requests);
        }
        if self.protocol.is_timed_out() {
            return (Action::Wait, Some(reply));
        }
        (self.on_awaited_reply(reply, requests, io), None)
    }

    fn on_awaited_reply(
        &mut self,
        reply: Reply,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        let (protocol, write) = (&mut self.protocol, &mut self.write);
        match reply {
            Reply::Whole(job) => return self.answer(job, requests, io),
            Reply::Head(_, streamed) => {
                let (clock, encoded) = (&mut requests.clock, &mut io.encoded);
                protocol.begin_response(*streamed, write, clock, encoded);
            }
            Reply::Data(_, piece) => {
                let (encoded, drops) = (&mut io.encoded, &mut requests.drops);
                if !protocol.respond_piece(piece, write, encoded, drops) {
                    return Action::Wait;
                }
            }
            Reply::Hints(_, hints) => {
                // An interim response is a hint: one that would have to wait is not worth sending.
                if protocol.is_hijackable() || !write.is_empty() {
                    return Action::Wait;
                }
                protocol.hint(&hints, &mut io.encoded);
                return self.advance(requests, io);
            }
            Reply::End(job) => {
                self.drop_request_body();
                self.protocol.end_response(job, &mut io.encoded);
                return self.advance(requests, io);
            }
            Reply::Abort(job) => {
                self.drop_request_body();
                if self
                    .protocol
                    .abort(job, &self.client, requests, &mut io.encoded)
                {
                    self.read.give_up();
                }
                return self.advance(requests, io);
            }
            Reply::WantsBody(_) => {
                if !protocol.resume_body(&mut io.encoded) {
                    return Action::Wait;
                }
                self.send_encoded(&mut io.encoded);
                return self.read(requests, io);
            }
            Reply::Overdue(_) | Reply::Hijacked(_) | Reply::Trailers(..) => {
                debug_assert!(false, "not a reply to the connection: {reply:?}");
                return Action::Wait;
            }
        }
        // What the application sends in one iteration leaves in one write.
        if self.write.schedule_flush() {
            Action::FlushLater
        } else {
            Action::Wait
        }
    }

    /// The whole response has come.
    fn answer(&mut self, job: Box<Job>, requests: &mut Requests, io: &mut SharedIo) -> Action {
        if self
            .protocol
            .respond(job, &mut self.write, requests, &mut io.encoded)
        {
            self.read.give_up();
        }
        self.advance(requests, io)
    }

    /// The loop has answered the request itself.
    pub(super) fn on_own_answer(
        &mut self,
        job: Box<Job>,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        if let Some((http2, link)) = self.http2() {
            return http2.on_own_answer(job, link.client, requests);
        }
        if !self.protocol.is_dispatched() {
            recycle(job, requests);
            return Action::Wait;
        }
        self.protocol.set_hijackable(false);
        self.answer(job, requests, io)
    }

    /// The iteration's replies are all in: write what came of a streamed response.
    pub(super) fn flush_scheduled(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        if self.write.take_scheduled() {
            self.advance(requests, io)
        } else {
            Action::Wait
        }
    }

    /// Continue where the share of the last iteration ended.
    pub(super) fn resume(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        if let Some((http2, mut link)) = self.http2() {
            return http2.resume(&mut link, requests, io);
        }
        if !self.write.is_empty() {
            let action = self.advance(requests, io);
            let goes_on = self.protocol.wanted() == Wanted::StreamedBody { has_room: true };
            if action != Action::Wait || !goes_on {
                return action;
            }
        }
        self.read(requests, io)
    }

    /// The deadline is over.
    pub(super) fn on_deadline(
        &mut self,
        id: ConnId,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        if let Some((http2, mut link)) = self.http2() {
            return http2.on_deadline(id, &mut link, requests, &mut io.writes);
        }
        let what = match self.lifecycle.state() {
            State::ReceivingBody { .. } if self.protocol.has_streaming_body() => {
                self.fail_request_body(
                    Status::REQUEST_TIMEOUT,
                    io::ErrorKind::TimedOut,
                    "the request body took too long to arrive (client_body_timeout)",
                );
                return Action::Wait;
            }
            State::ReceivingHead { .. } => "client_header_timeout",
            State::ReceivingBody { .. } => "client_body_timeout",
            State::Dispatched => return Action::Wait,
            State::Handshaking { .. } => {
                let (handshakes, clock) = (&mut io.handshakes, &mut requests.clock);
                return self.fail_handshake(&HandshakeError::TimedOut, handshakes, clock);
            }
            State::AwaitingFirstByte { .. }
            | State::AwaitingRequest { .. }
            | State::KeepAlive { .. }
            | State::LingeringClose => return Action::Close,
            State::Sending { .. } => {
                log::debug!(
                    "Closing a connection whose client reads nothing, or too little (send_timeout)."
                );
                self.protocol.note_reason("send_timeout");
                return Action::Close;
            }
        };
        let now = requests.clock.now();
        let waited = now.saturating_duration_since(self.protocol.began().unwrap_or(now));
        log::debug!("Request timed out ({what}) after {waited:?}.");
        let refusal = Refusal::late(what);
        self.refuse_and_advance(refusal, requests, io)
    }

    /// The connection lives on elsewhere: with the application, or with another worker.
    pub(super) fn into_transport(self) -> Transport {
        self.transport
    }

    /// The connection is over: wake the thread that it holds, give back what it holds.
    pub(super) fn close(mut self, requests: &mut Requests) {
        requests.dispatch.note_usage(self.usage);
        if let Some(http2) = &mut self.http2 {
            http2.close(requests);
        }
        self.drop_request_body();
        let unsent_bytes = self.write.unsent_bytes();
        let ending = match self.protocol.would_look_whole(self.write.is_empty()) {
            true => Ending::Reset,
            false => Ending::Orderly,
        };
        self.write.close(&mut requests.drops);
        self.protocol.close(unsent_bytes, requests);
        self.transport.close(ending);
    }
}

#[cfg(test)]
mod tests;
