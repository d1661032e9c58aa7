//! HTTP/2 on one connection: bytes of the transport become requests on streams, replies become frames.
//!
//! It has the words of HTTP/1's connection. Each step ends in [`Http2::advance`]: the engine is polled, bodies are taken
//! in, waiting requests are submitted, responses send what they may, and what came of it is written. The connection waits
//! for its streams, and each stream that waits for its client has a deadline of its own.
//!
//! `engine.rs` drives the protocol, `incoming.rs` is what arrives, `inspection.rs` looks at it, `mux.rs` holds the streams, `response_stream.rs`
//! one response on its way, and `goodbye.rs` is the connection's end.

use super::write_side::WriteBudget;
use crate::pool::{ConnId, Job, Reply};

use super::connection_lifecycle::{Action, Pace};
use super::events::SocketEvent;
use super::http1::{Client, TimedOut};
use super::link::{Link, discard_input, flush};
use super::preamble::PREFACE;
use super::read_side::{Input, SHARE_BYTES};
use super::requests::Requests;
use super::shared_io::SharedIo;

use self::cleartext_upgrade::Beginning;
use self::engine::Engine;
use self::goodbye_stage::Goodbye;
use self::inspection::Inspection;
use self::mux::Mux;
use self::seen::Seen;

mod cleartext_upgrade;
mod engine;
mod flood_guard;
mod frame_length;
mod given_heads;
mod goodbye;
mod goodbye_stage;
mod incoming;
mod inspection;
mod messages;
mod mux;
mod response_chunk;
mod response_stream;
mod seen;
mod sent_frames;
mod settings_check;
mod stream_inputs;
mod violation;

pub(super) use self::cleartext_upgrade::{FirstStream, SWITCHING, first_stream};
pub(super) use self::mux::jobs_max;

/// With more bytes than this waiting to be written nothing is read either, so that answers to what the client sends are
/// bounded.
const UNSENT_BYTES_MAX: u64 = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Http2 {
    engine: Engine,
    inspection: Inspection,
    mux: Mux,
    goodbye: Goodbye,
    /// What came and was not yet acted upon.
    seen: Seen,
    /// Bytes of the preface that are still to come.
    preface_left: usize,
    beginning: Beginning,
    /// It is among those that the loop resumes in this iteration.
    is_scheduled: bool,
}

impl Http2 {
    /// `bytes_before`: see [`Engine::new`].
    pub(super) fn new(client: &Client, bytes_before: u32, requests: &Requests) -> Self {
        let settings = requests.policy.http2();
        let threads = requests.dispatch.pool().thread_count();
        Self {
            engine: Engine::new(settings, !requests.policy.buffers_requests(), bytes_before),
            inspection: Inspection::new(settings, requests.clock.now()),
            mux: Mux::new(
                client.conn(),
                settings.http2_max_concurrent_streams,
                jobs_max(threads),
                requests.clock.now(),
            ),
            goodbye: Goodbye::default(),
            seen: Seen::default(),
            preface_left: PREFACE.len(),
            beginning: Beginning::Preface,
            is_scheduled: false,
        }
    }

    /// Between requests.
    pub(super) fn is_idle(&self) -> bool {
        self.mux.is_idle() && !self.engine.has_streams() && !self.inspection.is_mid_frame()
    }

    /// The poll set has news of the socket.
    pub(super) fn on_event(
        &mut self,
        event: SocketEvent,
        link: &mut Link,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        if event.is_writable && !link.write.is_empty() {
            let action = self.advance(link, requests, &mut io.writes);
            if !link.read.is_ready() || !matches!(action, Action::Wait | Action::Idle) {
                return action;
            }
        } else if event.is_writable
            && link.transport.has_unsent()
            && link.transport.send_unsent().is_err()
        {
            return Action::Close;
        }
        self.read(link, requests, io)
    }

    /// Continue where the share of the last iteration ended, or with what was replied.
    pub(super) fn resume(
        &mut self,
        link: &mut Link,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        self.is_scheduled = false;
        if link.read.is_ready() && self.wants_input(link) {
            return self.read(link, requests, io);
        }
        self.advance(link, requests, &mut io.writes)
    }

    /// What was read before the connection was known to speak HTTP/2.
    pub(super) fn begin(
        &mut self,
        bytes: &[u8],
        link: &mut Link,
        requests: &mut Requests,
        writes: &mut WriteBudget,
    ) -> Action {
        self.receive(bytes, &link.client, requests);
        self.advance(link, requests, writes)
    }

    // In.

    fn wants_input(&self, link: &Link) -> bool {
        link.lifecycle.is_lingering_close()
            || !self.engine.is_over() && link.write.unsent_bytes() < UNSENT_BYTES_MAX
    }

    pub(super) fn read(
        &mut self,
        link: &mut Link,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        if link.lifecycle.is_lingering_close() {
            return discard_input(link, io);
        }
        let mut input = std::mem::take(&mut io.input);
        let action = self.read_into(&mut input, link, requests, io);
        io.input = input;
        action
    }

    fn read_into(
        &mut self,
        buffer: &mut [u8],
        link: &mut Link,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        let (mut share, mut last) = (SHARE_BYTES, None);
        while link.read.is_ready() && self.wants_input(link) {
            if share == 0 {
                return Action::Resume;
            }
            match link.read.read(buffer, &mut link.transport) {
                Ok(Input::Bytes(len)) => {
                    share = share.saturating_sub(len);
                    self.receive(&buffer[..len], &link.client, requests);
                    let action = self.advance(link, requests, &mut io.writes);
                    if !matches!(action, Action::Wait | Action::Idle) {
                        return action;
                    }
                    last = Some(action);
                }
                Ok(Input::Blocked) => break,
                Ok(Input::End) => return self.on_end_of_input(link, requests, &mut io.writes),
                Err(_) => return Action::Close,
            }
        }
        // Without bytes it may still be about a reply.
        last.unwrap_or_else(|| self.advance(link, requests, &mut io.writes))
    }

    // Forward.

    /// Move everything that can move, and write what comes of it.
    fn advance(
        &mut self,
        link: &mut Link,
        requests: &mut Requests,
        writes: &mut WriteBudget,
    ) -> Action {
        let (mut written, mut is_first) = (0, true);
        loop {
            self.part_if_due(requests);
            let has_moved = self.mux.pump(requests);
            let room = UNSENT_BYTES_MAX.saturating_sub(link.write.unsent_bytes());
            self.engine
                .set_room(usize::try_from(room).unwrap_or(usize::MAX));
            self.poll(&link.client, requests);
            self.mux.take_bodies(&link.client, requests);
            self.mux.submit(&mut link.usage, &link.client, requests);
            let has_acted = self.mux.take_acted();
            let was_over = self.goodbye.is_over();
            let step = self.write(link, requests, writes);
            written += step;
            match flush(link, Pace::Ordinary, requests, writes) {
                Ok(None) => {}
                Ok(Some(action)) => return action,
                Err(_) => return Action::Close,
            }
            // What has just come may have opened a window.
            let may_move = has_moved || step > 0 || std::mem::take(&mut is_first);
            // What was written may have been one reset too many: its GOAWAY is to follow.
            let has_ended = self.goodbye.is_over() && !was_over;
            let goes_on = has_acted
                || has_ended
                || self.engine.is_full()
                || may_move && self.mux.is_sending();
            if !goes_on {
                return self.await_next(link, requests);
            }
            if written >= SHARE_BYTES || writes.is_exhausted() {
                return Action::Resume;
            }
        }
    }

    /// Write what the engine has encoded. Returns how much that was.
    fn write(
        &mut self,
        link: &mut Link,
        requests: &mut Requests,
        writes: &mut WriteBudget,
    ) -> usize {
        let mut output = self.engine.take_output();
        self.beginning.filter_output(&mut output);
        let len = output.len();
        if len > 0 {
            let verdict = self.inspection.inspect_output(&mut output, &mut self.seen);
            self.apply_answers(&link.client, requests);
            if let Err(violation) = verdict
                && !self.goodbye.is_over()
            {
                self.give_up(violation, &link.client, requests);
            }
            writes.spend(len as u64);
            link.write.send(&mut output, &mut link.transport);
            self.engine.reuse_output(output, self.mux.is_sending());
        }
        len
    }

    // Out.

    /// The application has replied. Returns a job whose client was answered before.
    pub(super) fn on_reply(
        &mut self,
        reply: Reply,
        client: &Client,
        requests: &mut Requests,
    ) -> (Action, Option<Reply>) {
        let mux = &mut self.mux;
        let late = match reply {
            Reply::Whole(job) => mux.respond(job, client, requests).map(Reply::Whole),
            Reply::End(job) => mux.end_response(job, requests).map(Reply::End),
            Reply::Abort(job) => mux.abort(job, client, requests).map(Reply::Abort),
            Reply::Head(conn, streamed) => {
                mux.begin_response(conn.stream, *streamed, &mut requests.clock);
                None
            }
            Reply::Data(conn, piece) => {
                mux.respond_piece(conn.stream, piece, &mut requests.drops);
                None
            }
            Reply::Spooled(conn) => {
                mux.note_spool(conn.stream);
                None
            }
            Reply::Hints(conn, hints) => {
                mux.hint(conn.stream, &hints);
                None
            }
            Reply::Trailers(conn, trailers) => {
                mux.set_trailers(conn.stream, &trailers);
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
        requests: &mut Requests,
    ) -> Action {
        let late = self.mux.respond(job, client, requests);
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
    pub(super) fn time_out(&mut self, id: ConnId, requests: &mut Requests) -> (TimedOut, Action) {
        let seen = self.mux.time_out(id.stream, requests);
        (seen, self.schedule())
    }

    /// The connection is gone.
    pub(super) fn close(&mut self, requests: &mut Requests) {
        self.mux.close(requests.shutdown.reason_of_gone(), requests);
    }

    /// Memory of the body budget that requests hold here.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.mux.held_bytes()
    }
}
