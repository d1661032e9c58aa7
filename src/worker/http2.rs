//! HTTP/2 on one connection: bytes of the transport become requests on streams, replies become frames.
//!
//! It has the words of HTTP/1's connection. Each step ends in a [turn](Http2::turn): the engine is polled, bodies are taken
//! in, waiting requests are submitted, responses send what they may, and what came of it is written. The connection waits
//! for its streams, and each stream that waits for its client has a deadline of its own.
//!
//! `engine.rs` drives the protocol, `flood_guard.rs` bounds what a client may do, `mux.rs` holds the streams, `response.rs`
//! one response on its way.

use h2::Reason;

use crate::pool::{ConnId, Job, Reply};

use super::connection_lifecycle::{Action, Lifecycle, State};
use super::describe::PeerText;
use super::dispatch::Usage;
use super::events::{InputEvent, SocketEvent};
use super::http1::{Client, TimedOut};
use super::preamble::PREFACE;
use super::read_side::{Input, ReadSide};
use super::services::Services;
use super::transport::Transport;
use super::write_side::{Progress, WriteSide};

use self::engine::{Engine, Polled};
use self::flood_guard::{Flood, FloodGuard, Seen};
use self::mux::Mux;

mod engine;
mod flood_guard;
mod mux;
mod response;

/// So many bytes may wait to be written; then nothing is read either, so that answers to what the client sends are bounded.
const OUTBOX_BYTES: u64 = 256 * 1024;
/// One connection reads and writes at most this many bytes in one iteration of the loop, so that none starves the others.
const SHARE_BYTES: usize = 512 * 1024;
/// A connection that has served so many requests says goodbye: stream numbers end at 2^31.
const REQUESTS_MAX: u64 = 100_000;
/// A connection may always have this many jobs with the pool, if there are fewer threads.
const JOBS_MIN: usize = 2;
/// How often a connection in lingering close is read in one iteration.
const LINGERING_CLOSE_READS: usize = 8;

/// The parts of the connection that are not the protocol's.
#[derive(Debug)]
pub(super) struct Link<'a> {
    pub(super) client: &'a Client,
    pub(super) transport: &'a mut Transport,
    pub(super) read: &'a mut ReadSide,
    pub(super) write: &'a mut WriteSide,
    pub(super) lifecycle: &'a mut Lifecycle,
    pub(super) usage: &'a mut Usage,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Http2 {
    engine: Engine,
    guard: FloodGuard,
    mux: Mux,
    goodbye: Goodbye,
    /// What came and was not yet acted upon.
    seen: Seen,
    /// Bytes of the preface that are still to come.
    preface_left: usize,
    /// A turn is to come in this iteration.
    is_scheduled: bool,
}

/// How far the connection is on the way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goodbye {
    Unsaid,
    /// GOAWAY is sent; requests that were on their way are still taken.
    Said,
    /// No request is under way, and the client has a moment for its last.
    LastWait,
    /// The last GOAWAY is on its way out, or was not worth while.
    Over,
}

impl Http2 {
    pub(super) fn new(client: &Client, services: &Services) -> Self {
        let settings = services.policy.http2();
        let threads = services.dispatch.pool().thread_count();
        Self {
            engine: Engine::new(settings, !services.policy.buffers_requests()),
            guard: FloodGuard::new(settings.http2_max_header_list_size, services.clock.now()),
            mux: Mux::new(
                client.conn(),
                settings.http2_max_concurrent_streams,
                jobs_max(threads),
            ),
            goodbye: Goodbye::Unsaid,
            seen: Seen::default(),
            preface_left: PREFACE.len(),
            is_scheduled: false,
        }
    }

    /// Between requests.
    pub(super) fn is_idle(&self) -> bool {
        self.mux.is_idle() && !self.engine.has_streams() && !self.guard.is_mid_frame()
    }

    /// The poll set has news of the socket.
    pub(super) fn on_event(
        &mut self,
        event: SocketEvent,
        link: &mut Link<'_>,
        services: &mut Services,
    ) -> Action {
        if event.is_broken && !link.lifecycle.is_lingering_close() {
            return Action::Close;
        }
        if event.input != InputEvent::Nothing {
            link.read.on_edge(event.input);
        }
        if event.is_writable && !link.write.is_empty() {
            let action = self.turn(link, services);
            if !link.read.is_ready() || !matches!(action, Action::Wait | Action::Idle) {
                return action;
            }
        } else if event.is_writable
            && link.transport.has_unsent()
            && link.transport.send_unsent().is_err()
        {
            return Action::Close;
        }
        self.read(link, services)
    }

    /// Continue where the share of the last iteration ended, or with what was replied.
    pub(super) fn resume(&mut self, link: &mut Link<'_>, services: &mut Services) -> Action {
        self.is_scheduled = false;
        if link.read.is_ready() && self.wants_input(link) {
            return self.read(link, services);
        }
        self.turn(link, services)
    }

    /// What was read before the connection was known to speak HTTP/2.
    pub(super) fn begin(
        &mut self,
        bytes: &[u8],
        link: &mut Link<'_>,
        services: &mut Services,
    ) -> Action {
        self.receive(bytes, link.client, services);
        self.turn(link, services)
    }

    // In.

    fn wants_input(&self, link: &Link<'_>) -> bool {
        link.lifecycle.is_lingering_close()
            || !self.engine.is_over() && link.write.unsent_bytes() < OUTBOX_BYTES
    }

    fn read(&mut self, link: &mut Link<'_>, services: &mut Services) -> Action {
        let mut buffer = std::mem::take(&mut services.input);
        let action = match link.lifecycle.is_lingering_close() {
            true => discard_input(&mut buffer, link),
            false => self.read_into(&mut buffer, link, services),
        };
        services.input = buffer;
        action
    }

    fn read_into(
        &mut self,
        buffer: &mut [u8],
        link: &mut Link<'_>,
        services: &mut Services,
    ) -> Action {
        let (mut share, mut last) = (SHARE_BYTES, None);
        while link.read.is_ready() && self.wants_input(link) {
            if share == 0 {
                return Action::Resume;
            }
            match link.read.read(buffer, link.transport) {
                Ok(Input::Bytes(len)) => {
                    share = share.saturating_sub(len);
                    self.receive(&buffer[..len], link.client, services);
                    let action = self.turn(link, services);
                    if !matches!(action, Action::Wait | Action::Idle) {
                        return action;
                    }
                    last = Some(action);
                }
                Ok(Input::Blocked) => break,
                // A client that closes its side takes no answers either: the crate has no half-closed connection.
                Ok(Input::End) | Err(_) => return Action::Close,
            }
        }
        // Without bytes it may still be about a reply.
        last.unwrap_or_else(|| self.turn(link, services))
    }

    /// Bytes have arrived: the guard looks at them first.
    fn receive(&mut self, bytes: &[u8], client: &Client, services: &mut Services) {
        let preface = bytes.len().min(self.preface_left);
        self.preface_left -= preface;
        let mut seen = Seen::default();
        let now = services.clock.now();
        let verdict = self.guard.inspect(&bytes[preface..], now, &mut seen);
        if let Err(flood) = verdict {
            self.engine.feed(&bytes[..preface]);
            return self.give_up(flood, client, services);
        }
        self.engine.feed(bytes);
        self.seen.append(seen);
    }

    /// The client breaks the protocol's peace.
    fn give_up(&mut self, flood: Flood, client: &Client, services: &mut Services) {
        log::info!(
            "HTTP/2 connection from ip={} is closed: {}.",
            PeerText(client.peer()),
            flood.what()
        );
        services.accounting.slot().add_refused(1);
        // The preface may just have come: without it there is no GOAWAY.
        let _ = self.engine.poll();
        self.end(flood.code(), services);
    }

    /// Take in the requests that have come, and what else was seen to come.
    fn poll(&mut self, client: &Client, services: &mut Services) {
        while let Polled::Request(request, respond) = self.engine.poll() {
            if self.mux.is_full() {
                // What was reset before this request came has made room for it.
                self.apply_seen(client, services);
            }
            self.mux.begin(request, respond, client, services);
        }
        self.apply_seen(client, services);
    }

    fn apply_seen(&mut self, client: &Client, services: &mut Services) {
        if self.seen.is_empty() {
            return;
        }
        let seen = std::mem::take(&mut self.seen);
        for id in seen.malformed {
            let reason = "pseudo-field in the trailers";
            self.mux.reset(id, Reason::PROTOCOL_ERROR, reason, services);
        }
        for id in seen.resets {
            let reason = services.shutdown.reason_of_gone();
            if self.mux.cancel(id, reason, services)
                && let Err(flood) = self.guard.note_early_reset()
            {
                return self.give_up(flood, client, services);
            }
        }
    }

    // A turn.

    /// Move everything that can move, and write what comes of it.
    fn turn(&mut self, link: &mut Link<'_>, services: &mut Services) -> Action {
        let (mut written, mut is_first) = (0, true);
        loop {
            if self.is_to_part(services) && self.engine.drain() {
                self.goodbye = Goodbye::Said;
            }
            let has_moved = self.mux.pump(services);
            let room = OUTBOX_BYTES.saturating_sub(link.write.unsent_bytes());
            self.engine
                .set_room(usize::try_from(room).unwrap_or(usize::MAX));
            self.poll(link.client, services);
            self.mux.take_bodies(link.client, services);
            self.mux.submit(link.usage, link.client, services);
            let has_acted = self.mux.take_acted();
            let step = self.write(link, services);
            written += step;
            if let Some(action) = self.flush(link, services) {
                return action;
            }
            // What has just come may have opened a window.
            let may_move = has_moved || step > 0 || std::mem::take(&mut is_first);
            if !has_acted && !self.engine.is_full() && !(may_move && self.mux.is_sending()) {
                return self.settle(link, services);
            }
            if written >= SHARE_BYTES || services.writes.is_exhausted() {
                return Action::Resume;
            }
        }
    }

    /// The connection is to take no more requests.
    fn is_to_part(&self, services: &Services) -> bool {
        self.goodbye == Goodbye::Unsaid
            && (services.shutdown.is_draining() || self.mux.requests() >= REQUESTS_MAX)
    }

    /// Write what the engine has encoded. Returns how much that was.
    fn write(&mut self, link: &mut Link<'_>, services: &mut Services) -> usize {
        let mut output = self.engine.take_output();
        let len = output.len();
        if len > 0 {
            if let Err(flood) = self.guard.inspect_output(&output)
                && self.goodbye != Goodbye::Over
            {
                self.give_up(flood, link.client, services);
            }
            services.writes.spend(len as u64);
            link.write.send(&mut output, link.transport);
            self.engine.reuse_output(output);
        }
        len
    }

    /// Returns what becomes of the connection when not everything was written.
    fn flush(&mut self, link: &mut Link<'_>, services: &mut Services) -> Option<Action> {
        let (writes, drops) = (&mut services.writes, &mut services.drops);
        let (action, has_moved) = match link.write.flush(link.transport, writes, drops) {
            Ok(Progress::Done) => return None,
            Ok(Progress::BudgetExhausted) => return Some(Action::Resume),
            Ok(Progress::Blocked { has_moved }) => (Action::Wait, has_moved),
            Ok(Progress::ShareUsed) => (Action::Resume, true),
            Err(_) => return Some(Action::Close),
        };
        link.lifecycle.await_client(has_moved, &mut services.clock);
        Some(action)
    }

    /// Everything is written: what the connection waits for now.
    fn settle(&mut self, link: &mut Link<'_>, services: &mut Services) -> Action {
        if !link.write.is_empty() {
            return Action::Wait;
        }
        if self.engine.is_over() {
            return self.begin_close(link, services);
        }
        let (lifecycle, clock) = (&mut *link.lifecycle, &mut services.clock);
        if !self.mux.is_idle() {
            lifecycle.dispatched();
            if self.goodbye == Goodbye::LastWait {
                self.goodbye = Goodbye::Said;
            }
            return Action::Wait;
        }
        match (self.goodbye, lifecycle.state()) {
            (Goodbye::Said, _) => {
                lifecycle.await_last_request(clock);
                self.goodbye = Goodbye::LastWait;
                Action::Wait
            }
            (Goodbye::LastWait | Goodbye::Over, _) => Action::Wait,
            _ if self.guard.is_mid_frame() => {
                lifecycle.await_head(clock);
                Action::Wait
            }
            (
                Goodbye::Unsaid,
                State::AwaitingFirstByte { .. }
                | State::AwaitingRequest { .. }
                | State::KeepAlive { .. },
            ) => Action::Idle,
            (Goodbye::Unsaid, _) => {
                lifecycle.keep_alive(clock);
                lifecycle.await_request(clock);
                Action::Idle
            }
        }
    }

    // Out.

    /// The application has replied. Returns a job whose client was answered before.
    pub(super) fn on_reply(
        &mut self,
        reply: Reply,
        client: &Client,
        services: &mut Services,
    ) -> (Action, Option<Reply>) {
        let mux = &mut self.mux;
        let late = match reply {
            Reply::Whole(job) => mux.respond(job, client, services).map(Reply::Whole),
            Reply::End(job) => mux.end_response(job, services).map(Reply::End),
            Reply::Abort(job) => mux.abort(job, client, services).map(Reply::Abort),
            Reply::Head(conn, streamed) => {
                mux.begin_response(conn.stream, *streamed, services);
                None
            }
            Reply::Data(conn, piece) => {
                mux.respond_piece(conn.stream, piece, services);
                None
            }
            Reply::Hints(conn, hints) => {
                mux.hint(conn.stream, &hints);
                None
            }
            Reply::WantsBody(conn) => {
                mux.resume_body(conn.stream);
                None
            }
            Reply::Overdue(_) | Reply::Hijacked(_) => {
                debug_assert!(false, "not a reply to the connection: {reply:?}");
                None
            }
        };
        (self.schedule(), late)
    }

    /// The loop has answered a request itself.
    pub(super) fn on_own_answer(
        &mut self,
        job: Box<Job>,
        client: &Client,
        services: &mut Services,
    ) -> Action {
        let late = self.mux.respond(job, client, services);
        debug_assert!(late.is_none(), "no thread had it");
        self.schedule()
    }

    /// What is replied in one iteration leaves in one write.
    fn schedule(&mut self) -> Action {
        match std::mem::replace(&mut self.is_scheduled, true) {
            true => Action::Wait,
            false => Action::Resume,
        }
    }

    /// The application has had a request for too long. Returns what the client has seen.
    pub(super) fn time_out(&mut self, id: ConnId, services: &mut Services) -> (TimedOut, Action) {
        let seen = self.mux.time_out(id.stream, services);
        (seen, self.schedule())
    }

    // Deadlines and the end.

    /// Whether the deadline of a stream is over.
    pub(super) fn has_expired(&mut self, id: ConnId, services: &mut Services) -> bool {
        self.mux.has_expired(id.stream, &mut services.clock)
    }

    /// The deadline of a stream, or of the connection, is over.
    pub(super) fn on_deadline(
        &mut self,
        id: ConnId,
        link: &mut Link<'_>,
        services: &mut Services,
    ) -> Action {
        if id.stream != 0 {
            self.mux.on_deadline(id.stream, link.client, services);
            return self.turn(link, services);
        }
        match link.lifecycle.state() {
            State::Sending => {
                log::debug!("Closing a connection whose client reads nothing (send_timeout).");
                Action::Close
            }
            State::LingeringClose => Action::Close,
            State::Dispatched | State::ReceivingBody { .. } | State::Handshaking { .. } => {
                Action::Wait
            }
            State::AwaitingFirstByte { .. }
            | State::AwaitingRequest { .. }
            | State::KeepAlive { .. }
            | State::ReceivingHead => {
                self.end(Reason::NO_ERROR, services);
                self.turn(link, services)
            }
        }
    }

    /// The worker stops.
    pub(super) fn begin_drain(&mut self, link: &mut Link<'_>, services: &mut Services) -> Action {
        match link.lifecycle.is_lingering_close() {
            true => Action::Wait,
            false => self.turn(link, services),
        }
    }

    /// Close for another connection, unless the next request is there already.
    pub(super) fn close_if_idle(&mut self, link: &mut Link<'_>, services: &mut Services) -> Action {
        link.read.on_edge(InputEvent::Readable);
        let action = self.read(link, services);
        if action != Action::Idle || !self.is_idle() {
            return action;
        }
        self.end(Reason::NO_ERROR, services);
        // What does not go out at once is not waited for.
        let _ = self.turn(link, services);
        Action::Close
    }

    /// Say goodbye for good.
    fn end(&mut self, reason: Reason, services: &mut Services) {
        self.goodbye = Goodbye::Over;
        self.engine.go_away(reason);
        self.mux.close(services);
    }

    /// The last GOAWAY is written. The client may still be sending: a reset could destroy what it has not read yet.
    fn begin_close(&mut self, link: &mut Link<'_>, services: &mut Services) -> Action {
        if link.lifecycle.is_lingering_close() {
            return Action::Wait;
        }
        self.mux.close(services);
        link.read.give_up();
        if !link.read.may_have_unread() || link.transport.shutdown_write().is_err() {
            return Action::Close;
        }
        link.lifecycle.begin_lingering_close(&mut services.clock);
        Action::Resume
    }

    /// The connection is gone.
    pub(super) fn close(&mut self, services: &mut Services) {
        self.mux.close(services);
    }

    /// Memory of the body budget that requests hold here.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.mux.held_bytes()
    }
}

/// Read and forget, until the client closes its side too.
fn discard_input(buffer: &mut [u8], link: &mut Link<'_>) -> Action {
    for _ in 0..LINGERING_CLOSE_READS {
        match link.read.read(buffer, link.transport) {
            Ok(Input::Bytes(_)) => {}
            Ok(Input::Blocked) => return Action::Wait,
            Ok(Input::End) | Err(_) => return Action::Close,
        }
    }
    Action::Resume
}

/// How many jobs of one connection the pool may have at a time.
pub(super) fn jobs_max(threads: usize) -> usize {
    threads.max(JOBS_MIN)
}
