//! What ends before it is done: an idle connection when the worker stops, one that another client needs the place of, a request
//! whose deadline is over or that the application has for too long, a body that will not come.

use std::io;
use std::time::{Duration, Instant};

use crate::http::Status;

use super::{Action, Connection, Http1Connection, Protocol, Speaker, handshaking};
use crate::worker::connection_lifecycle::{MADE_ROOM, State};
use crate::worker::events::InputEvent;
use crate::worker::http1::{Refusal, TimedOut};
use crate::worker::link::is_quiet;
use crate::worker::requests::Requests;
use crate::worker::shared_io::SharedIo;
use crate::worker::shortage::Shortage;
use crate::worker::transport::HandshakeError;

/// At a stop, a connection that was used within this time may have sent its next request.
const JUST_NOW: Duration = Duration::from_secs(1);

impl Connection {
    /// The worker stops. A request that is under way gets its answer, which says close. A connection that is idle
    /// closes, unless its next request is there already; one that was used just now, or is new, may have sent a
    /// request that has not yet arrived, so it gets a moment for it.
    pub(in crate::worker) fn begin_drain(
        &mut self,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        if self.link.lifecycle.is_lingering_close() {
            return Action::Wait;
        }
        let is_idle = self.is_idle();
        match &mut self.protocol {
            Protocol::Http1 { .. } if is_idle => {}
            Protocol::Http1 { http1, .. } => {
                http1.close_after_this();
                return Action::Wait;
            }
            Protocol::Http2(http2) => {
                return http2.begin_drain(&mut self.link, requests, &mut io.writes);
            }
        }
        let used_at = self.link.lifecycle.used_at();
        let action = self.close_if_idle(requests, io);
        let (lifecycle, clock) = (&mut self.link.lifecycle, &mut requests.clock);
        if lifecycle.is_handshaking() {
            // Its request may be on its way too.
            lifecycle.await_last_request(clock);
            return Action::Resume;
        }
        let now = clock.now();
        let was_used = used_at.is_some_and(|at| now.saturating_duration_since(at) < JUST_NOW);
        if action == Action::Close && was_used && !self.link.read.is_closed() {
            lifecycle.await_last_request(clock);
            return Action::Wait;
        }
        action
    }

    /// Close, unless the next request is there already.
    fn close_if_idle(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        self.link.read.on_edge(InputEvent::Readable);
        let action = self.step(|speaker| match speaker {
            Speaker::Http1(http1) => http1.read(requests, io),
            Speaker::Http2(http2, link) => http2.read(link, requests, io),
        });
        let has_moved = !matches!(action, Action::Wait | Action::Idle);
        if has_moved || !self.is_idle() {
            return action;
        }
        match &mut self.protocol {
            Protocol::Http1 { .. } => Action::Close,
            Protocol::Http2(http2) => http2.evict(&mut self.link, requests, &mut io.writes),
        }
    }

    /// Close for another client, unless it has moved meanwhile: then the worker has one connection more than it may.
    pub(in crate::worker) fn evict(
        &mut self,
        shortage: Shortage,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        if self.link.lifecycle.is_handshaking() {
            let (handshakes, clock) = (&mut io.handshakes, &mut requests.clock);
            let error = HandshakeError::TimedOut;
            return handshaking::fail(&error, &mut self.link, handshakes, clock);
        }
        if self.is_idle() {
            return self.close_if_idle(requests, io);
        }
        self.step(|speaker| match speaker {
            Speaker::Http1(http1) => http1.evict(shortage, requests, io),
            Speaker::Http2(http2, link) => http2.evict(link, requests, &mut io.writes),
        })
    }
}

impl Http1Connection<'_> {
    /// Close for another client, although a request is under way, unless it has moved meanwhile.
    fn evict(&mut self, shortage: Shortage, requests: &mut Requests, io: &mut SharedIo) -> Action {
        if !self.link.lifecycle.is_sending() {
            self.link.read.on_edge(InputEvent::Readable);
            let action = self.read(requests, io);
            if action != Action::Wait || !self.is_spare(shortage, requests.clock.now()) {
                return action;
            }
            if !self.http1.has_streaming_body() {
                let refusal = Refusal::late(MADE_ROOM);
                self.refuse(refusal, None, requests, &mut io.encoded);
            }
        }
        self.http1.note_reason(MADE_ROOM);
        Action::Close
    }

    fn is_spare(&self, shortage: Shortage, now: Instant) -> bool {
        let is_idle = self.http1.is_idle() && is_quiet(self.link);
        let spare = self.link.lifecycle.spare(is_idle, None, shortage, now);
        spare.is_some()
    }

    /// The deadline is over.
    pub(super) fn on_deadline(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        let what = match self.link.lifecycle.state() {
            State::ReceivingBody { .. } if self.http1.has_streaming_body() => {
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
                return handshaking::fail(&HandshakeError::TimedOut, self.link, handshakes, clock);
            }
            State::AwaitingFirstByte { .. }
            | State::AwaitingRequest { .. }
            | State::KeepAlive { .. }
            | State::LingeringClose => return Action::Close,
            State::Sending { .. } => {
                log::debug!(
                    "Closing a connection whose client reads nothing, or too little (send_timeout)."
                );
                self.http1.note_reason("send_timeout");
                return Action::Close;
            }
        };
        let now = requests.clock.now();
        let waited = now.saturating_duration_since(self.http1.began().unwrap_or(now));
        log::debug!("Request timed out ({what}) after {waited:?}.");
        let refusal = Refusal::late(what);
        self.refuse_and_advance(refusal, requests, io)
    }

    /// The application has had the request for too long. Returns what the client has seen.
    pub(super) fn time_out(
        &mut self,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> (TimedOut, Action) {
        let is_hijackable = self.http1.is_hijackable();
        self.drop_request_body();
        let seen = self.http1.time_out(&mut requests.clock, &mut io.encoded);
        if is_hijackable {
            return (seen, Action::Close);
        }
        (seen, self.advance(requests, io))
    }

    /// The rest of a streaming body will not come.
    pub(super) fn fail_request_body(
        &mut self,
        status: Status,
        kind: io::ErrorKind,
        why: &'static str,
    ) {
        self.http1.fail_body(status, kind, why);
        self.link.read.give_up();
        self.link.lifecycle.end_body();
    }

    /// The rest of a streaming body is not wanted. The client may still be sending it.
    pub(super) fn drop_request_body(&mut self) {
        if self.http1.drop_body() {
            self.link.read.give_up();
        }
    }
}
