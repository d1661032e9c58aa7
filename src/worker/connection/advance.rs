//! What comes next on a connection of HTTP/1: replies are encoded, what is queued is written; then it closes, takes the next
//! request, or waits. Or HTTP/2 goes on with it.

use crate::pool::{Job, Reply};

use super::{Action, Http1Connection};
use crate::worker::connection_lifecycle::Pace;
use crate::worker::http1::{Refusal, Wanted};
use crate::worker::http2::{FirstStream, Http2, SWITCHING, first_stream};
use crate::worker::link::{begin_close, flush};
use crate::worker::loop_clock::Clock;
use crate::worker::requests::{Requests, recycle};
use crate::worker::shared_io::SharedIo;
use crate::worker::transport::Transport;
use crate::worker::write_side::WriteError;

impl Http1Connection<'_> {
    /// The application has replied. Returns the reply too when its client was answered before (`request_timeout`).
    pub(super) fn on_reply(
        &mut self,
        reply: Reply,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> (Action, Option<Reply>) {
        if self.http1.is_timed_out() {
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
        let (http1, write) = (&mut *self.http1, &mut self.link.write);
        match reply {
            Reply::Whole(job) => return self.answer(job, requests, io),
            Reply::Head(_, streamed) => {
                let (clock, encoded) = (&mut requests.clock, &mut io.encoded);
                http1.begin_response(*streamed, write, clock, encoded);
            }
            Reply::Data(_, piece) => {
                let (encoded, drops) = (&mut io.encoded, &mut requests.drops);
                if !http1.respond_piece(piece, write, encoded, drops) {
                    return Action::Wait;
                }
            }
            Reply::Spooled(_) => {
                write.note_spool();
                if !self.take_spooled(requests, io) {
                    return Action::Wait;
                }
            }
            Reply::Hints(_, hints) => {
                // An interim response is a hint: one that would have to wait is not worth sending.
                if http1.is_hijackable() || !write.is_empty() {
                    return Action::Wait;
                }
                http1.hint(&hints, &mut io.encoded);
                return self.advance(requests, io);
            }
            Reply::End(job) => {
                self.drop_request_body();
                self.http1.end_response(job, &mut io.encoded);
                return self.advance(requests, io);
            }
            Reply::Abort(job) => {
                self.drop_request_body();
                if self
                    .http1
                    .abort(job, &self.link.client, requests, &mut io.encoded)
                {
                    self.link.read.give_up();
                }
                return self.advance(requests, io);
            }
            Reply::WantsBody(_) => {
                if !http1.resume_body(&mut io.encoded) {
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
        if self.link.write.schedule_flush() {
            Action::FlushLater
        } else {
            Action::Wait
        }
    }

    /// Queue what comes next from the spool of a streamed response, if everything before is written. Returns whether there
    /// was something.
    fn take_spooled(&mut self, requests: &mut Requests, io: &mut SharedIo) -> bool {
        let (http1, write) = (&mut *self.http1, &mut self.link.write);
        while let Some(piece) = write.take_spooled() {
            http1.respond_piece(piece, write, &mut io.encoded, &mut requests.drops);
            // What is beyond the response's length leaves nothing to write.
            if !write.is_empty() {
                return true;
            }
        }
        false
    }

    /// The whole response has come.
    fn answer(&mut self, job: Box<Job>, requests: &mut Requests, io: &mut SharedIo) -> Action {
        if self
            .http1
            .respond(job, &mut self.link.write, requests, &mut io.encoded)
        {
            self.link.read.give_up();
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
        if !self.http1.is_dispatched() {
            recycle(job, requests);
            return Action::Wait;
        }
        self.http1.set_hijackable(false);
        self.answer(job, requests, io)
    }

    /// Continue where the share of the last iteration ended.
    pub(super) fn resume(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        if !self.link.write.is_empty() {
            let action = self.advance(requests, io);
            let goes_on = self.http1.wanted() == Wanted::StreamedBody { has_room: true };
            if action != Action::Wait || !goes_on {
                return action;
            }
        }
        self.read(requests, io)
    }

    /// Answer with an error page.
    pub(super) fn refuse(
        &mut self,
        refusal: Refusal,
        job: Option<Box<Job>>,
        requests: &mut Requests,
        encoded: &mut Vec<u8>,
    ) {
        self.link.read.give_up();
        self.http1
            .refuse(refusal, job, &self.link.client, requests, encoded);
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
        if encoded.is_empty() {
            return;
        }
        let transport = &mut self.link.transport;
        if self.http1.is_closing() && !self.http1.would_look_whole(true) {
            // The end of the response, after which the end of the stream is sent.
            self.link.write.send_last(encoded, transport);
        } else {
            self.link.write.send(encoded, transport);
        }
    }

    /// Write what is encoded or queued, and when all is written decide what comes next.
    pub(super) fn advance(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        self.send_encoded(&mut io.encoded);
        if !self.link.write.is_empty()
            && let Some(action) = self.flush(requests, io)
        {
            return action;
        }
        if self.http1.on_written(requests) && self.link.write.has_window() {
            self.link.write.forget_window();
        }
        if self.http1.is_closing() {
            return self.begin_close(&mut requests.clock);
        }
        if self.http1.is_idle() {
            return self.next_request(requests, io);
        }
        if self.take_spooled(requests, io) {
            // Written in the next iteration, after others.
            return Action::Resume;
        }
        // A streamed response has caught up; the next move is the application's.
        self.link.lifecycle.caught_up();
        // An interim answer (100) was held up by the socket: the body it asked for may have come meanwhile.
        self.await_input(&mut requests.clock);
        if self.wants_input() && self.link.read.is_ready() {
            return Action::Resume;
        }
        Action::Wait
    }

    /// Returns what becomes of the connection when not everything was written.
    fn flush(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Option<Action> {
        let pace = match self.http1.is_hurried() {
            true => Pace::Hurried,
            false => Pace::Ordinary,
        };
        flush(self.link, pace, requests, &mut io.writes).unwrap_or_else(|error| {
            if matches!(error, WriteError::FileShort) {
                self.http1.cut_short_file();
            }
            Some(Action::Close)
        })
    }

    /// The transport has something of its own to send: a part of a handshake, an alert.
    pub(super) fn send_unsent(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        if !self.link.transport.has_unsent() {
            return Action::Wait;
        }
        if self.link.lifecycle.is_handshaking() {
            return self.read(requests, io);
        }
        match self.link.transport.send_unsent() {
            // The client may have closed its side before ours was closed.
            Ok(()) if self.link.lifecycle.is_lingering_close() => Action::Resume,
            Ok(()) => Action::Wait,
            Err(_) => Action::Close,
        }
    }

    /// The response is written and the connection stays: continue with what was pipelined, or wait.
    fn next_request(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        self.link.lifecycle.keep_alive(&requests.clock);
        self.link.usage.note_kept();
        if !self.link.read.is_empty() {
            let action = self.receive_buffered(requests, io);
            if action != Action::Wait {
                return action;
            }
            // Refused, or asked to continue by a `100 Continue` that the socket does not take.
            if self.http1.is_closing() || !self.link.write.is_empty() {
                return self.advance(requests, io);
            }
        }
        if self.link.read.is_ready() && self.wants_input() {
            // Read in a later step of this iteration: a client that pipelines must not starve the others.
            return Action::Resume;
        }
        if !self.http1.is_idle() {
            self.await_input(&mut requests.clock);
            return Action::Wait;
        }
        if requests.shutdown.is_draining() {
            // The response began before the stop and could not say close.
            self.link.lifecycle.await_last_request(&mut requests.clock);
            return Action::Wait;
        }
        self.link.lifecycle.await_request(&mut requests.clock);
        Action::Idle
    }

    fn begin_close(&mut self, clock: &mut Clock) -> Action {
        self.drop_request_body();
        match self.http1.would_look_whole(true) {
            true => Action::Close,
            false => begin_close(self.link, clock),
        }
    }

    /// HTTP/2 takes over, with what was read.
    pub(super) fn begin_http2(
        &mut self,
        bytes: &[u8],
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        let mut http2 = Box::new(Http2::new(&self.link.client, 0, requests));
        let action = http2.begin(bytes, self.link, requests, &mut io.writes);
        self.successor = Some(http2);
        match action {
            // The socket may have more.
            Action::Wait | Action::Idle => Action::Resume,
            action => action,
        }
    }

    /// A request that asks for HTTP/2, as its first stream, if it may.
    pub(super) fn http2_upgrade(&self, job: &Job, requests: &Requests) -> Option<FirstStream> {
        let cleartext = requests
            .policy
            .http2_cleartext(self.link.client.is_trusted());
        let is_allowed = cleartext.allows_upgrade()
            && matches!(self.link.transport, Transport::Plain(_))
            && !requests.shutdown.is_draining();
        let window = requests.policy.http2().http2_initial_window_size;
        is_allowed.then(|| first_stream(job, window)).flatten()
    }

    /// HTTP/2 takes over. The request comes again, as a stream.
    pub(super) fn upgrade_to_http2(
        &mut self,
        first: &FirstStream,
        rest: &[u8],
        job: Box<Job>,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        recycle(job, requests);
        io.encoded.extend_from_slice(SWITCHING);
        self.send_encoded(&mut io.encoded);
        let http2 = Http2::upgraded(first, rest, &self.link.client, requests);
        self.successor = Some(Box::new(http2));
    }
}
