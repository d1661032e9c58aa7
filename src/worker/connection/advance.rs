//! What comes next on a connection: write what is queued; then close, take the next request, or wait. Or another worker goes
//! on with it.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use crate::pool::{ConnId, Job};

use super::{Action, Connection};
use crate::worker::connection_lifecycle::{Pace, Shortage, State};
use crate::worker::events::InputEvent;
use crate::worker::handshakes::Handshakes;
use crate::worker::http1::{Refusal, TimedOut};
use crate::worker::http2::Http2;
use crate::worker::loop_clock::Clock;
use crate::worker::preamble::Preamble;
use crate::worker::requests::Requests;
use crate::worker::shared_io::SharedIo;
use crate::worker::transport::{Handshake, HandshakeError};
use crate::worker::write_side::{Progress, WriteError};

/// At a stop, a connection that was used within this time may have sent its next request.
const JUST_NOW: Duration = Duration::from_secs(1);
/// What another worker gets of a connection's request; one with more stays where it is. It fits the buffer that it is
/// received in, and three of them fit a way.
const TRANSFER_BYTES_MAX: usize = 60 * 1024;
/// Why a connection was closed that another client needed the place of.
const MADE_ROOM: &str = "made room for another client";

impl Connection {
    /// Answer with an error page.
    pub(super) fn refuse(
        &mut self,
        refusal: Refusal,
        job: Option<Box<Job>>,
        requests: &mut Requests,
        encoded: &mut Vec<u8>,
    ) {
        self.read.give_up();
        self.protocol
            .refuse(refusal, job, &self.client, requests, encoded);
        self.send_encoded(encoded);
    }

    pub(super) fn refuse_and_advance(
        &mut self,
        refusal: Refusal,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        self.refuse(refusal, None, requests, &mut io.encoded);
        self.advance(requests, io)
    }

    /// Write what is encoded, and queue what the socket does not take.
    pub(super) fn send_encoded(&mut self, encoded: &mut Vec<u8>) {
        if !encoded.is_empty() {
            self.write.send(encoded, &mut self.transport);
        }
    }

    /// Write what is encoded or queued, and when all is written decide what comes next.
    pub(super) fn advance(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        self.send_encoded(&mut io.encoded);
        if !self.write.is_empty()
            && let Some(action) = self.flush(requests, io)
        {
            return action;
        }
        if self.protocol.on_written(requests) && self.write.has_window() {
            self.write.forget_window();
        }
        if self.protocol.is_closing() {
            return self.begin_close(&mut requests.clock);
        }
        if self.protocol.is_idle() {
            return self.next_request(requests, io);
        }
        // A streamed response has caught up; the next move is the application's.
        self.lifecycle.caught_up();
        // An interim answer (100) was held up by the socket: the body it asked for may have come meanwhile.
        self.await_input(&mut requests.clock);
        if self.wants_input() && self.read.is_ready() {
            return Action::Resume;
        }
        Action::Wait
    }

    /// Returns what becomes of the connection when not everything was written.
    fn flush(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Option<Action> {
        let flushed = self
            .write
            .flush(&mut self.transport, &mut io.writes, &mut requests.drops);
        let (action, written) = match flushed {
            Ok(Progress::Done) => return None,
            Ok(Progress::BudgetExhausted) => return Some(Action::Resume),
            Ok(Progress::Blocked { written }) => (Action::Wait, written),
            Ok(Progress::ShareUsed { written }) => (Action::Resume, written),
            Err(WriteError::FileShort) => {
                self.protocol.cut_short_file();
                return Some(Action::Close);
            }
            Err(WriteError::Socket) => return Some(Action::Close),
        };
        let pace = match self.protocol.is_hurried() {
            true => Pace::Hurried,
            false => Pace::Ordinary,
        };
        self.lifecycle
            .await_client(written, pace, &mut requests.clock);
        Some(action)
    }

    /// The transport has something of its own to send: a part of a handshake, an alert.
    pub(super) fn send_unsent(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        if !self.transport.has_unsent() {
            return Action::Wait;
        }
        if self.lifecycle.is_handshaking() {
            return self.read(requests, io);
        }
        match self.transport.send_unsent() {
            // The client may have closed its side before ours was closed.
            Ok(()) if self.lifecycle.is_lingering_close() => Action::Resume,
            Ok(()) => Action::Wait,
            Err(_) => Action::Close,
        }
    }

    /// Nothing more will come of the client: close, as soon as the socket has taken the announcement of the end.
    pub(super) fn close_announced(&mut self, clock: &mut Clock) -> Action {
        if self.transport.announce_end() || self.transport.shutdown_write().is_err() {
            return Action::Close;
        }
        self.lifecycle.begin_lingering_close(clock);
        Action::Wait
    }

    /// Continue the TLS handshake. `None` when it is done: requests can be read.
    pub(super) fn handshake(
        &mut self,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Option<Action> {
        if !io.handshakes.take_step() {
            return Some(Action::Resume);
        }
        let tls = self.transport.tls()?;
        match tls.handshake(self.read.is_closed()) {
            Ok(Handshake::Blocked) => Some(Action::Wait),
            Ok(Handshake::ShareUsed) => Some(Action::Resume),
            Ok(Handshake::Done) => {
                self.lifecycle.end_handshake();
                if let Some(agreed) = tls.agreed() {
                    self.client.set_tls(io.handshakes.note_done(agreed));
                }
                // The first request may have come with the client's last message.
                self.read.on_edge(InputEvent::Readable);
                let agreed = self.transport.tls().and_then(|tls| tls.agreed());
                match agreed.and_then(|agreed| agreed.alpn_protocol()) {
                    Some(b"h2") => Some(self.begin_http2(&[], requests, io)),
                    _ => None,
                }
            }
            Err(error) => {
                let (handshakes, clock) = (&mut io.handshakes, &mut requests.clock);
                Some(self.fail_handshake(&error, handshakes, clock))
            }
        }
    }

    /// A TLS handshake has failed, or took too long.
    pub(super) fn fail_handshake(
        &mut self,
        error: &HandshakeError,
        handshakes: &mut Handshakes,
        clock: &mut Clock,
    ) -> Action {
        handshakes.note_failure(self.client.peer(), error, clock.now());
        if !matches!(error, HandshakeError::Tls(_)) || self.transport.shutdown_write().is_err() {
            return Action::Close;
        }
        // The client may still be sending, and a reset would destroy the alert on its way.
        self.lifecycle.begin_lingering_close(clock);
        Action::Resume
    }

    /// HTTP/2 takes over, with what was read.
    pub(super) fn begin_http2(
        &mut self,
        bytes: &[u8],
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        self.http2 = Some(Box::new(Http2::new(&self.client, 0, requests)));
        match self.http2() {
            Some((http2, mut link)) => {
                match http2.begin(bytes, &mut link, requests, &mut io.writes) {
                    // The socket may have more.
                    Action::Wait | Action::Idle => Action::Resume,
                    action => action,
                }
            }
            None => Action::Wait,
        }
    }

    /// The response is written and the connection stays: continue with what was pipelined, or wait.
    fn next_request(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        self.lifecycle.keep_alive(&requests.clock);
        self.usage.note_kept();
        if !self.read.is_empty() {
            let action = self.receive_buffered(requests, io);
            if action != Action::Wait {
                return action;
            }
            // Refused, or asked to continue by a `100 Continue` that the socket does not take.
            if self.protocol.is_closing() || !self.write.is_empty() {
                return self.advance(requests, io);
            }
        }
        if self.read.is_ready() && self.wants_input() {
            // Read in a later step of this iteration: a client that pipelines must not starve the others.
            return Action::Resume;
        }
        if !self.protocol.is_idle() {
            self.await_input(&mut requests.clock);
            return Action::Wait;
        }
        if requests.shutdown.is_draining() {
            // The response began before the stop and could not say close.
            self.lifecycle.await_last_request(&mut requests.clock);
            return Action::Wait;
        }
        self.lifecycle.await_request(&mut requests.clock);
        Action::Idle
    }

    fn begin_close(&mut self, clock: &mut Clock) -> Action {
        if self.lifecycle.is_lingering_close() {
            return Action::Wait;
        }
        self.drop_request_body();
        // An end that the socket does not take now is waited for, and what the client may still send is read first.
        if self.protocol.would_look_whole(true)
            || self.transport.announce_end() && !self.read.may_have_unread()
            || self.transport.shutdown_write().is_err()
        {
            return Action::Close;
        }
        drop(self.read.take());
        self.lifecycle.begin_lingering_close(clock);
        // Not read here: the buffer that is read into may be in use.
        Action::Resume
    }

    /// The worker stops. A request that is under way gets its answer, which says close. A connection that is idle
    /// closes, unless its next request is there already; one that was used just now, or is new, may have sent a
    /// request that has not yet arrived, so it gets a moment for it.
    pub(in crate::worker) fn begin_drain(
        &mut self,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        if let Some((http2, mut link)) = self.http2() {
            return http2.begin_drain(&mut link, requests, &mut io.writes);
        }
        if self.lifecycle.is_lingering_close() {
            return Action::Wait;
        }
        if !self.is_idle() {
            self.protocol.close_after_this();
            return Action::Wait;
        }
        let used_at = self.lifecycle.used_at();
        let action = self.close_if_idle(requests, io);
        if self.lifecycle.is_handshaking() {
            // Its request may be on its way too.
            self.lifecycle.await_last_request(&mut requests.clock);
            return Action::Resume;
        }
        let now = requests.clock.now();
        let was_used = used_at.is_some_and(|at| now.saturating_duration_since(at) < JUST_NOW);
        if action == Action::Close && was_used && !self.read.is_closed() {
            self.lifecycle.await_last_request(&mut requests.clock);
            return Action::Wait;
        }
        action
    }

    /// Close, unless the next request is there already.
    pub(in crate::worker) fn close_if_idle(
        &mut self,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        if let Some((http2, mut link)) = self.http2() {
            return http2.close_if_idle(&mut link, requests, io);
        }
        self.read.on_edge(InputEvent::Readable);
        let action = self.read(requests, io);
        if action == Action::Wait && self.is_idle() {
            Action::Close
        } else {
            action
        }
    }

    /// Close for another client, unless it has moved meanwhile: then the worker has one connection more than it may.
    pub(in crate::worker) fn evict(
        &mut self,
        shortage: Shortage,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        if self.lifecycle.is_handshaking() {
            let (handshakes, clock) = (&mut io.handshakes, &mut requests.clock);
            return self.fail_handshake(&HandshakeError::TimedOut, handshakes, clock);
        }
        if self.is_idle() {
            return self.close_if_idle(requests, io);
        }
        if let Some((http2, mut link)) = self.http2() {
            return http2.evict(&mut link, requests, io);
        }
        if !self.lifecycle.is_sending() {
            self.read.on_edge(InputEvent::Readable);
            let action = self.read(requests, io);
            if action != Action::Wait || self.spare(shortage, requests.clock.now()).is_none() {
                return action;
            }
            if !self.protocol.has_streaming_body() {
                let refusal = Refusal::late(MADE_ROOM);
                self.refuse(refusal, None, requests, &mut io.encoded);
            }
        }
        self.protocol.note_reason(MADE_ROOM);
        Action::Close
    }

    /// The application has had the request for too long. Returns what the client has seen.
    pub(in crate::worker) fn time_out(
        &mut self,
        id: ConnId,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> (TimedOut, Action) {
        if let Some((http2, _)) = self.http2() {
            return http2.time_out(id, requests);
        }
        let is_hijackable = self.protocol.is_hijackable();
        self.drop_request_body();
        let seen = self.protocol.time_out(&mut requests.clock, &mut io.encoded);
        if is_hijackable {
            return (seen, Action::Close);
        }
        (seen, self.advance(requests, io))
    }

    /// What another worker needs to go on with this connection: its socket, and the bytes of the request that no thread has
    /// begun. That is the request of `job`, or without one as much as has come of the next. `None`: it has to stay.
    pub(in crate::worker) fn transfer(
        &self,
        job: Option<&Job>,
    ) -> Option<(BorrowedFd<'_>, Vec<u8>)> {
        let is_between = self.write.is_empty() && !self.lifecycle.is_lingering_close();
        if self.http2.is_some() || self.client.has_proxy_header() || !is_between {
            return None;
        }
        if matches!(self.lifecycle.state(), State::AwaitingFirstByte { .. }) {
            let is_untouched = job.is_none() && self.read.is_empty();
            return is_untouched.then(|| (self.transport.as_fd(), Vec::new()));
        }
        let socket = self.transport.transferable()?;
        if self.preamble != Preamble::Over || job.is_some_and(|job| job.socket.is_some()) {
            return None;
        }
        let mut bytes = self.protocol.received(job)?;
        bytes.extend_from_slice(self.read.buffered());
        (bytes.len() <= TRANSFER_BYTES_MAX).then_some((socket, bytes))
    }

    /// Continue with what another worker has read.
    pub(in crate::worker) fn resume_transferred(
        &mut self,
        bytes: &[u8],
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        self.preamble.pass();
        self.read.keep(bytes);
        let action = self.receive_buffered(requests, io);
        if action == Action::Wait {
            self.await_input(&mut requests.clock);
        }
        action
    }
}
