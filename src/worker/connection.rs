//! One client connection: transport, read side, protocol, write side, and what it waits for ([`Lifecycle`]).
//!
//! Lives on the event loop's thread from accept to close. Each entry point returns an [`Action`] for the loop. At most one
//! request is under way; nothing is read for the next one until the response is written, so the kernel's buffer holds the
//! client back.
//!
//! *Lingering close* (nginx's term): closing a socket with unread input would reset it, and the reset can destroy the
//! response before the client has read it (RFC 9112 section 9.6). So the end of the stream is sent first, and what still
//! comes is read and forgotten for a moment.

use std::io;
use std::time::{Duration, Instant};

use crate::http::{ParseError, ProxyParse, Status};
use crate::pool::{ConnId, Job, Peer, Reply};

use super::client::Client;
use super::deadlines::{Deadlines, Timeout, Timer};
use super::dispatch::Usage;
use super::http1::{Arrived, Http1, Part, Refusal, TimedOut};
use super::read_side::{Input, ReadSide};
use super::services::Services;
use super::transport::{Ending, Transport};
use super::write_side::{Progress, WriteError, WriteSide};

/// One connection reads at most this many bytes in one iteration of the loop, so that none starves the others.
const SHARE_BYTES: usize = 512 * 1024;
/// A head, and what comes with it, is read in steps of this many bytes.
const FIRST_BYTES: usize = 16 * 1024;
/// How often a lingering connection is read in one iteration.
const LINGERING_READS: usize = 8;
/// At a stop, a connection that was used within this time may have sent its next request.
const JUST_NOW: Duration = Duration::from_secs(1);
/// Head and bytes read behind it of a connection that is transferred; more stays where it is.
const TRANSFER_BYTES_MAX: usize = 32 * 1024;

/// What the loop does with a connection after one of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Action {
    /// It waits for its next event.
    Wait,
    /// It waits for its next request, and may be closed to make room for another.
    Idle,
    /// What it has queued is to be flushed at the end of the iteration.
    FlushLater,
    /// It has more to read or write than its share of one iteration.
    Resume,
    /// It is over.
    Close,
}

/// What the connection waits for. Its deadline, if it has one, is for this. Assigned in this file only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lifecycle {
    /// The first byte of the connection's first request.
    AwaitingFirstByte { accepted: Instant },
    /// The rest of a head.
    ReceivingHead,
    /// More of a body.
    ReceivingBody,
    /// The application: no deadline.
    Dispatched,
    /// The client, to take more of the response.
    Sending,
    /// The next request.
    KeepAlive { since: Instant },
    /// The client, to close its side after ours is closed.
    LingeringClose,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    transport: Transport,
    read: ReadSide,
    protocol: Http1,
    write: WriteSide,
    lifecycle: Lifecycle,
    timer: Timer,
    usage: Usage,
}

// Entry points.
impl Connection {
    /// A connection that was accepted by `listener`, or by another worker's of that number.
    pub(super) fn new(
        id: ConnId,
        transport: Transport,
        peer: Peer,
        listener: usize,
        services: &mut Services,
    ) -> Self {
        let (policy, now) = (&services.policy, services.clock.now());
        let mut connection = Self {
            client: Client::new(id, peer, policy.trusts(peer), listener),
            transport,
            read: ReadSide::new(policy.expects_proxy_header()),
            protocol: Http1::default(),
            write: WriteSide::default(),
            lifecycle: Lifecycle::AwaitingFirstByte { accepted: now },
            timer: Timer::default(),
            usage: Usage::New,
        };
        connection.arm(Timeout::Header, &mut services.deadlines, now);
        connection
    }

    pub(super) fn id(&self) -> ConnId {
        self.client.conn()
    }

    pub(super) fn transport(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// When its deadline is over.
    pub(super) fn due(&self) -> Option<Instant> {
        self.timer.due()
    }

    /// Whether its deadline is over; the set has found an entry for it.
    pub(super) fn has_expired(&mut self, deadlines: &mut Deadlines, now: Instant) -> bool {
        deadlines.expired(self.client.conn(), &mut self.timer, now)
    }

    /// Between requests, with nothing to write: may be closed silently.
    pub(super) fn is_idle(&self) -> bool {
        self.protocol.is_idle() && self.write.is_empty() && self.read.is_empty()
    }

    /// Idle after at least one request.
    pub(super) fn is_kept_alive(&self) -> bool {
        matches!(self.lifecycle, Lifecycle::KeepAlive { .. }) && self.is_idle()
    }

    /// Whether its client was answered for a request that its thread still has.
    pub(super) fn is_timed_out(&self) -> bool {
        self.protocol.is_timed_out()
    }

    /// The poll set has news of the socket. `is_broken`: both directions are gone.
    pub(super) fn on_event(
        &mut self,
        event: SocketEvent,
        services: &mut Services,
    ) -> Action {
        // In a lingering close it only means that the client has closed its side too; what it sent before is still read.
        if event.is_broken && self.lifecycle != Lifecycle::LingeringClose {
            return Action::Close;
        }
        let mut action = Action::Wait;
        if event.is_writable && !self.write.is_empty() {
            action = self.advance(services);
        }
        if action == Action::Wait && (event.is_readable || event.is_read_closed) {
            self.read.on_edge(event.is_read_closed);
            action = self.read(services);
        }
        action
    }

    /// The application has replied.
    pub(super) fn on_reply(&mut self, reply: Reply, services: &mut Services) -> Action {
        let (protocol, write) = (&mut self.protocol, &mut self.write);
        match reply {
            Reply::Whole(job) => return self.answer(job, services),
            Reply::Head(_, streamed) => protocol.begin_response(*streamed, write, services),
            Reply::Data(_, piece) => {
                if !protocol.respond_piece(piece, write, services) {
                    return Action::Wait;
                }
            }
            Reply::Hints(_, hints) => {
                // An interim response is a hint: one that would have to wait is not worth sending.
                if protocol.is_hijackable() || !write.is_empty() {
                    return Action::Wait;
                }
                protocol.hint(&hints, services);
                self.send_encoded(services);
                return self.advance(services);
            }
            Reply::End(job) => {
                self.drop_request_body();
                self.protocol.end_response(job, services);
                self.send_encoded(services);
                return self.advance(services);
            }
            Reply::Abort(job) => {
                self.drop_request_body();
                if self.protocol.abort(job, &self.client, services) {
                    self.read.give_up();
                }
                self.send_encoded(services);
                return self.advance(services);
            }
            Reply::WantsBody(_) => {
                if !protocol.resume_body(services) {
                    return Action::Wait;
                }
                self.send_encoded(services);
                return self.read(services);
            }
            Reply::Overdue(_) | Reply::Hijacked(_) => {
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
    fn answer(&mut self, job: Box<Job>, services: &mut Services) -> Action {
        self.drop_request_body();
        self.protocol.respond(job, &mut self.write, services);
        self.send_encoded(services);
        self.advance(services)
    }

    /// The loop has answered the request itself.
    pub(super) fn on_own_answer(&mut self, job: Box<Job>, services: &mut Services) -> Action {
        if !self.protocol.is_dispatched() {
            services.recycle(job);
            return Action::Wait;
        }
        self.protocol.set_hijackable(false);
        self.answer(job, services)
    }

    /// The iteration's replies are all in: write what came of a streamed response.
    pub(super) fn flush_scheduled(&mut self, services: &mut Services) -> Action {
        if self.write.take_scheduled() {
            self.advance(services)
        } else {
            Action::Wait
        }
    }

    /// Continue where the share of the last iteration ended.
    pub(super) fn resume(&mut self, services: &mut Services) -> Action {
        if !self.write.is_empty() {
            let action = self.advance(services);
            if action != Action::Wait || !self.protocol.wants_body() {
                return action;
            }
        }
        self.read(services)
    }

    /// The deadline is over.
    pub(super) fn on_deadline(&mut self, services: &mut Services) -> Action {
        let (status, what) = match self.lifecycle {
            Lifecycle::ReceivingBody if self.protocol.has_streaming_body() => {
                self.fail_request_body(
                    Status::REQUEST_TIMEOUT,
                    io::ErrorKind::TimedOut,
                    "the request body took too long to arrive (client_body_timeout)",
                );
                return Action::Wait;
            }
            Lifecycle::ReceivingHead => (Status::REQUEST_TIMEOUT, "client_header_timeout"),
            Lifecycle::ReceivingBody => (Status::REQUEST_TIMEOUT, "client_body_timeout"),
            Lifecycle::Dispatched => return Action::Wait,
            Lifecycle::AwaitingFirstByte { .. }
            | Lifecycle::KeepAlive { .. }
            | Lifecycle::LingeringClose => return Action::Close,
            Lifecycle::Sending => {
                log::debug!("Closing a connection whose client reads nothing (send_timeout).");
                self.protocol.note_reason("send_timeout");
                return Action::Close;
            }
        };
        let now = services.clock.now();
        let since = self.protocol.began().unwrap_or(now);
        log::debug!(
            "Request timed out ({what}) after {:?}.",
            now.saturating_duration_since(since)
        );
        let refusal = Refusal::new(status, "The request took too long to arrive", what);
        self.refuse(refusal, None, services);
        self.advance(services)
    }

    /// The application has had the request for too long. Returns what the client has seen.
    pub(super) fn time_out(&mut self, services: &mut Services) -> (TimedOut, Action) {
        let is_hijackable = self.protocol.is_hijackable();
        self.drop_request_body();
        let seen = self.protocol.time_out(services);
        if is_hijackable {
            return (seen, Action::Close);
        }
        self.send_encoded(services);
        (seen, self.advance(services))
    }

    /// The worker stops. A request that is under way gets its answer, which says close. A connection that is idle
    /// closes, unless its next request is there already; one that was used just now, or is new, may have sent a
    /// request that has not yet arrived, so it gets a moment for it.
    pub(super) fn begin_drain(&mut self, services: &mut Services) -> Action {
        if self.lifecycle == Lifecycle::LingeringClose {
            return Action::Wait;
        }
        if !self.is_idle() {
            self.protocol.close_after_this();
            return Action::Wait;
        }
        let used_at = match self.lifecycle {
            Lifecycle::AwaitingFirstByte { accepted: at } | Lifecycle::KeepAlive { since: at } => {
                Some(at)
            }
            _ => None,
        };
        let action = self.close_if_idle(services);
        let now = services.clock.now();
        let was_used = used_at.is_some_and(|at| now.saturating_duration_since(at) < JUST_NOW);
        if action == Action::Close && was_used && !self.read.is_closed() {
            self.await_last_request(services);
            return Action::Wait;
        }
        action
    }

    /// Close, unless the next request is there already.
    pub(super) fn close_if_idle(&mut self, services: &mut Services) -> Action {
        self.read.on_edge(false);
        let action = self.read(services);
        if action == Action::Wait && self.is_idle() {
            Action::Close
        } else {
            action
        }
    }

    /// What another worker needs to answer the request of `job` instead: head and bytes read behind it. `None` when the
    /// connection has to stay.
    pub(super) fn transfer<'a>(
        &'a self,
        job: &'a Job,
    ) -> Option<(std::os::fd::BorrowedFd<'a>, [&'a [u8]; 2])> {
        let (head, behind) = (job.head.bytes(), self.read.buffered());
        let is_transferable = self.protocol.is_transferable()
            && job.socket.is_none()
            && job.body.is_empty()
            && self.write.is_empty()
            && !self.client.has_proxy_header()
            && head.len() + behind.len() <= TRANSFER_BYTES_MAX;
        let socket = self.transport.transferable().filter(|_| is_transferable)?;
        Some((socket, [head, behind]))
    }

    /// Continue with what another worker has read.
    pub(super) fn resume_transferred(&mut self, bytes: &[u8], services: &mut Services) -> Action {
        // A PROXY header would have stood before it.
        self.read.end_preamble();
        self.read.keep(bytes);
        let action = self.receive_buffered(services);
        if action == Action::Wait {
            self.await_input(services);
        }
        action
    }

    /// The connection lives on elsewhere: with the application, or with another worker.
    pub(super) fn give_up(self, registry: &mio::Registry) {
        self.transport.give_up(registry);
    }

    /// The connection is over: wake the thread that it holds, give back what it holds.
    pub(super) fn close(mut self, services: &mut Services) {
        services.dispatch.note_usage(self.usage);
        self.drop_request_body();
        let unsent_bytes = self.write.unsent_bytes();
        let ending = match self.protocol.would_look_whole(self.write.is_empty()) {
            true => Ending::Reset,
            false => Ending::Orderly,
        };
        self.write.close(&mut services.drops);
        self.protocol.close(unsent_bytes, services);
        self.transport.close(ending);
    }
}

/// What the poll set announces.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketEvent {
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    pub(super) is_read_closed: bool,
    pub(super) is_broken: bool,
}

// The way in.
impl Connection {
    /// Whether bytes are wanted now. While a request is with the pool or a response is under way they are not.
    fn wants_input(&self) -> bool {
        self.write.is_empty() && self.protocol.wants_request() || self.protocol.wants_body()
    }

    /// Read until the socket would block, a request is whole, or the share of this iteration is used up.
    fn read(&mut self, services: &mut Services) -> Action {
        let mut input = std::mem::take(&mut services.input);
        let action = if self.lifecycle == Lifecycle::LingeringClose {
            self.discard_input(&mut input)
        } else {
            self.read_into(&mut input, services)
        };
        services.input = input;
        action
    }

    fn read_into(&mut self, buffer: &mut [u8], services: &mut Services) -> Action {
        let mut share = SHARE_BYTES;
        while self.read.is_ready() && self.wants_input() {
            let result = match self.direct_read(share, services) {
                Some(parts) => self.read_direct(parts, services),
                None => self.read_once(buffer, services),
            };
            match result {
                Ok(Input::Bytes(len)) => share = share.saturating_sub(len),
                Ok(Input::Blocked) => break,
                Ok(Input::End) => return self.on_end_of_input(services),
                Err(action) => return action,
            }
            if share == 0 && self.read.is_ready() && self.wants_input() {
                return Action::Resume;
            }
        }
        if self.protocol.is_closing() || self.is_continue_stuck() {
            // Refused on the way in, or asked to continue: the client has to take that first.
            return self.advance(services);
        }
        self.await_input(services);
        Action::Wait
    }

    /// A `100 Continue` waits for the socket.
    fn is_continue_stuck(&self) -> bool {
        !self.write.is_empty() && self.protocol.part() == Some(Part::Body)
    }

    fn read_once(&mut self, buffer: &mut [u8], services: &mut Services) -> Result<Input, Action> {
        // What follows a head is better read to where it stays.
        let is_body = self.protocol.part() == Some(Part::Body) || self.protocol.has_streaming_body();
        let buffer = match is_body {
            true => buffer,
            false => &mut buffer[..FIRST_BYTES],
        };
        let input = self.read.read(buffer, &mut self.transport);
        let input = input.map_err(|_| Action::Close)?;
        if let Input::Bytes(len) = input {
            let action = self.on_input(&buffer[..len], services);
            if action != Action::Wait {
                return Err(action);
            }
        }
        Ok(input)
    }

    fn direct_read(&self, share: usize, services: &Services) -> Option<(usize, usize)> {
        if !self.read.is_empty() {
            return None;
        }
        self.protocol.direct_read(share, services)
    }

    /// Read a large body to where it stays.
    fn read_direct(
        &mut self,
        parts: (usize, usize),
        services: &mut Services,
    ) -> Result<Input, Action> {
        let input =
            self.protocol
                .read_direct(parts, &mut self.read, &mut self.transport, services);
        let input = input.map_err(|_| Action::Close)?;
        if let Input::Bytes(len) = input
            && len == parts.0
        {
            // The last bytes of the body are in.
            if let Err(refusal) = self.feed(&[], services) {
                self.refuse(refusal, None, services);
            }
        }
        Ok(input)
    }

    /// The client has closed its side and everything before that is consumed.
    fn on_end_of_input(&mut self, services: &mut Services) -> Action {
        if self.protocol.has_streaming_body() {
            // It may still read the answer of an application that finds the body incomplete.
            self.fail_request_body(
                Status::BAD_REQUEST,
                io::ErrorKind::UnexpectedEof,
                "the client closed the connection before the end of the request body",
            );
            return Action::Wait;
        }
        if self.protocol.part().is_some() {
            // A truncated request is never shown to the application, and no answer is awaited.
            let reason = "client gone before the end of the request";
            self.protocol.abandon(reason, services);
        }
        Action::Close
    }

    /// Bytes have arrived.
    fn on_input(&mut self, bytes: &[u8], services: &mut Services) -> Action {
        if !self.read.is_empty() {
            self.read.keep(bytes);
            return self.receive_buffered(services);
        }
        // The usual case: a whole request in one read is parsed where it lies.
        match self.receive(bytes, services) {
            Ok(consumed) => {
                self.read.keep(&bytes[consumed..]);
                Action::Wait
            }
            Err(refusal) => self.refuse_and_advance(refusal, services),
        }
    }

    /// Continue with what was read before: the rest of a request, or the next of a pipeline.
    fn receive_buffered(&mut self, services: &mut Services) -> Action {
        let buffer = self.read.take();
        match self.receive(&buffer, services) {
            Ok(consumed) => {
                self.read.give_back(buffer, consumed);
                Action::Wait
            }
            Err(refusal) => self.refuse_and_advance(refusal, services),
        }
    }

    /// Consume bytes as far as they are wanted. Returns how many; the rest is to be given again with what follows.
    fn receive(&mut self, bytes: &[u8], services: &mut Services) -> Result<usize, Refusal> {
        if bytes.is_empty() || !self.wants_input() {
            return Ok(0);
        }
        let mut consumed = 0;
        if self.read.expects_proxy_header() {
            let invalid = |error| Refusal::invalid(&error, &self.client);
            match services.policy.parse_proxy_header(bytes, self.client.peer()).map_err(invalid)? {
                ProxyParse::NeedData { .. } => return Ok(0),
                ProxyParse::Absent => {}
                ProxyParse::Present { length, header } => {
                    self.client.apply_proxy_header(header);
                    consumed = length;
                }
            }
            self.read.end_preamble();
            if consumed == bytes.len() {
                return Ok(consumed);
            }
        }
        Ok(consumed + self.feed(&bytes[consumed..], services)?)
    }

    /// Feed the protocol, and dispatch the request that comes of it.
    fn feed(&mut self, bytes: &[u8], services: &mut Services) -> Result<usize, Refusal> {
        let mut consumed = 0;
        loop {
            let rest = &bytes[consumed..];
            let (step, arrived) = self.protocol.receive(rest, &self.client, services)?;
            consumed += step;
            self.send_encoded(services);
            match arrived {
                Arrived::Nothing => return Ok(consumed),
                Arrived::Request(mut job) => {
                    if self.protocol.asks_for_upgrade() && consumed == bytes.len() {
                        job.socket = self.transport.hijack();
                    }
                    self.dispatch(job, services);
                }
                Arrived::BodyOver { is_whole } => {
                    if !is_whole {
                        self.read.give_up();
                    }
                    self.end_body_deadline();
                }
            }
            if consumed == bytes.len() || !self.wants_input() {
                return Ok(consumed);
            }
        }
    }

    /// Hand a request to the pool.
    fn dispatch(&mut self, mut job: Box<Job>, services: &mut Services) {
        job.arrived = services.clock.now();
        job.body_bytes = job.body.len();
        if services.shutdown.is_draining() || !services.deadlines.has_keep_alive() {
            self.protocol.close_after_this();
        }
        if self.usage == Usage::New {
            self.usage = Usage::Asked;
            services.dispatch.newcomer_asked();
        }
        self.timer.clear();
        self.lifecycle = Lifecycle::Dispatched;
        self.protocol.set_hijackable(job.socket.is_some());
        if let Err(job) = services.dispatch.submit(job, &mut services.arbiter) {
            self.drop_request_body();
            let message = "The worker is stopping";
            let refusal = Refusal::new(Status::SERVICE_UNAVAILABLE, message, message);
            self.refuse(refusal, Some(job), services);
        }
    }

    /// Read and forget, until the client closes its side too.
    fn discard_input(&mut self, buffer: &mut [u8]) -> Action {
        for _ in 0..LINGERING_READS {
            match self.read.read(buffer, &mut self.transport) {
                Ok(Input::Bytes(_)) => {}
                Ok(Input::Blocked) => return Action::Wait,
                Ok(Input::End) | Err(_) => return Action::Close,
            }
        }
        Action::Resume
    }

    /// The rest of a streaming body will not come.
    fn fail_request_body(&mut self, status: Status, kind: io::ErrorKind, why: &'static str) {
        self.protocol.fail_body(status, kind, why);
        self.read.give_up();
        self.end_body_deadline();
    }

    /// The rest of a streaming body is not wanted. The client may still be sending it.
    fn drop_request_body(&mut self) {
        if self.protocol.drop_body() {
            self.read.give_up();
        }
    }

    fn end_body_deadline(&mut self) {
        if self.lifecycle == Lifecycle::ReceivingBody {
            self.lifecycle = Lifecycle::Dispatched;
            self.timer.clear();
        }
    }
}

// The way out, and what comes next.
impl Connection {
    /// Answer with an error page.
    fn refuse(&mut self, refusal: Refusal, job: Option<Box<Job>>, services: &mut Services) {
        self.read.give_up();
        self.protocol.refuse(refusal, job, &self.client, services);
        self.send_encoded(services);
    }

    fn refuse_and_advance(&mut self, refusal: Refusal, services: &mut Services) -> Action {
        self.refuse(refusal, None, services);
        self.advance(services)
    }

    /// Write what is encoded, and queue what the socket does not take.
    fn send_encoded(&mut self, services: &mut Services) {
        if !services.encoded.is_empty() {
            self.write.send(&mut services.encoded, &mut self.transport);
        }
    }

    /// Write what is queued, and when all is written decide what comes next.
    fn advance(&mut self, services: &mut Services) -> Action {
        if !self.write.is_empty()
            && let Some(action) = self.flush(services)
        {
            return action;
        }
        if self.protocol.on_written(services) {
            self.write.forget_window();
        }
        if self.protocol.is_closing() {
            return self.close_or_linger(services);
        }
        if self.protocol.is_idle() {
            return self.next_request(services);
        }
        if self.lifecycle == Lifecycle::Sending {
            // A streamed response has caught up; the next move is the application's.
            self.lifecycle = Lifecycle::Dispatched;
            self.timer.clear();
        }
        // An interim answer (100) was held up by the socket: the body it asked for may have come meanwhile.
        self.await_input(services);
        if self.wants_input() && self.read.is_ready() {
            return Action::Resume;
        }
        Action::Wait
    }

    /// Returns what becomes of the connection when not everything was written.
    fn flush(&mut self, services: &mut Services) -> Option<Action> {
        let flushed = self.write.flush(
            &mut self.transport,
            &mut services.writes,
            &mut services.drops,
        );
        let (action, has_moved) = match flushed {
            Ok(Progress::Done) => return None,
            Ok(Progress::BudgetExhausted) => return Some(Action::Resume),
            Ok(Progress::Blocked { has_moved }) => (Action::Wait, has_moved),
            Ok(Progress::ShareUsed) => (Action::Resume, true),
            Err(WriteError::FileShort) => {
                self.protocol.log_short_file();
                return Some(Action::Close);
            }
            Err(WriteError::Socket(_)) => return Some(Action::Close),
        };
        if has_moved || self.lifecycle != Lifecycle::Sending {
            self.lifecycle = Lifecycle::Sending;
            self.arm(
                Timeout::Send,
                &mut services.deadlines,
                services.clock.now(),
            );
        }
        Some(action)
    }

    /// The response is written and the connection stays: continue with what was pipelined, or wait.
    fn next_request(&mut self, services: &mut Services) -> Action {
        let now = services.clock.now();
        self.lifecycle = Lifecycle::KeepAlive { since: now };
        self.usage = Usage::Kept;
        if !self.read.is_empty() {
            let action = self.receive_buffered(services);
            if action != Action::Wait {
                return action;
            }
            // Refused, or asked to continue by a `100 Continue` that the socket does not take.
            if self.protocol.is_closing() || !self.write.is_empty() {
                return self.advance(services);
            }
        }
        if self.read.is_ready() && self.wants_input() {
            // Read in a later step of this iteration: a client that pipelines must not starve the others.
            return Action::Resume;
        }
        if !self.protocol.is_idle() {
            self.await_input(services);
            return Action::Wait;
        }
        if services.shutdown.is_draining() {
            // The response began before the stop and could not say close.
            self.await_last_request(services);
            return Action::Wait;
        }
        self.arm(Timeout::KeepAlive, &mut services.deadlines, now);
        Action::Idle
    }

    fn close_or_linger(&mut self, services: &mut Services) -> Action {
        if self.lifecycle == Lifecycle::LingeringClose {
            return Action::Wait;
        }
        self.drop_request_body();
        if self.protocol.would_look_whole(true)
            || !self.read.may_have_unread()
            || self.transport.shutdown_write().is_err()
        {
            return Action::Close;
        }
        drop(self.read.take());
        self.lifecycle = Lifecycle::LingeringClose;
        self.arm(
            Timeout::LingeringClose,
            &mut services.deadlines,
            services.clock.now(),
        );
        // Not read here: the buffer that is read into may be in use.
        Action::Resume
    }

    // Deadlines.

    fn arm(&mut self, timeout: Timeout, deadlines: &mut Deadlines, now: Instant) {
        deadlines.arm(self.client.conn(), &mut self.timer, timeout, now);
    }

    /// Set the deadline for the input that the connection waits for now.
    fn await_input(&mut self, services: &mut Services) {
        let now = services.clock.now();
        if self.protocol.has_streaming_body() {
            return self.await_streaming_body(services);
        }
        if !self.wants_input() {
            return;
        }
        let (next, timeout) = match (self.protocol.part(), self.lifecycle) {
            // A head has one deadline from its first byte on: a byte now and then must not extend it.
            (Some(Part::Head), Lifecycle::ReceivingHead) => return,
            (Some(Part::Head), _) => (Lifecycle::ReceivingHead, Timeout::Header),
            (Some(Part::Body), _) => (Lifecycle::ReceivingBody, Timeout::Body),
            (None, Lifecycle::AwaitingFirstByte { .. }) => return,
            (None, Lifecycle::KeepAlive { since }) => {
                (Lifecycle::KeepAlive { since }, Timeout::KeepAlive)
            }
            (None, _) => (Lifecycle::KeepAlive { since: now }, Timeout::KeepAlive),
        };
        self.lifecycle = next;
        self.arm(timeout, &mut services.deadlines, now);
    }

    /// While the window has room the next move is the client's, and it has `client_body_timeout` for it.
    fn await_streaming_body(&mut self, services: &mut Services) {
        if self.lifecycle == Lifecycle::Sending {
            return;
        }
        if self.protocol.wants_body() && !self.protocol.wants_continue() {
            self.lifecycle = Lifecycle::ReceivingBody;
            self.arm(
                Timeout::Body,
                &mut services.deadlines,
                services.clock.now(),
            );
        } else {
            self.end_body_deadline();
        }
    }

    /// The worker stops, and the client does not know it yet.
    fn await_last_request(&mut self, services: &mut Services) {
        let now = services.clock.now();
        if !matches!(self.lifecycle, Lifecycle::KeepAlive { .. }) {
            self.lifecycle = Lifecycle::KeepAlive { since: now };
        }
        self.arm(Timeout::LastRequest, &mut services.deadlines, now);
    }
}

#[cfg(test)]
impl Connection {
    /// What must hold after every iteration: the connection waits for the application, or it has a deadline.
    pub(super) fn check_invariants(&self) {
        self.protocol.check_invariants();
        if self.lifecycle == Lifecycle::Dispatched {
            assert!(self.protocol.is_with_application(), "{self:?}");
        } else {
            assert!(self.timer.due().is_some(), "waits for ever: {self:?}");
        }
        if !self.write.is_empty() {
            assert_eq!(self.lifecycle, Lifecycle::Sending, "{self:?}");
        }
        if self.is_idle() {
            assert!(!self.write.has_window(), "{self:?}");
            assert!(!self.protocol.has_answer(), "{self:?}");
                assert_eq!(self.protocol.held_bytes(), 0);
        }
    }

    /// Memory of the body budget that the request holds.
    pub(super) fn held_bytes(&self) -> usize {
        self.protocol.held_bytes()
    }
}
