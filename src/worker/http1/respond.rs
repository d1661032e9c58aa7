//! Replies to bytes, and what becomes of a request in the end.

use std::io;

use crate::http::{BodySize, Finish, ResponseHead, Status};
use crate::pool::{ConnId, Job, Piece, ResponseBody, StreamedResponse};

use super::request_state::{Answered, Client, Receiving, Refusal, Request, TimedOut};
use super::{Http1, Wanted};
use crate::worker::deferred_drop::DeferredDrops;
use crate::worker::describe::{RequestLine, log_overlong_body};
use crate::worker::loop_clock::Clock;
use crate::worker::requests::{Requests, recycle};
use crate::worker::write_side::{WriteSide, discard};

/// A whole body up to this many bytes is copied behind its head, so that one plain write sends both.
const ONE_WRITE_BYTES: usize = 16 * 1024;

/// Bytes of a response's body: framed, and cut because its head has no room for them (a HEAD cuts nothing).
#[derive(Clone, Copy, Debug, Default)]
struct BodyCount {
    sent: u64,
    cut: u64,
}

impl Http1 {
    /// The application may take the socket of the request that is under way, or may not.
    pub(in crate::worker) fn set_hijackable(&mut self, is_hijackable: bool) {
        if let Request::Running(running) = &mut self.request {
            running.is_hijackable = is_hijackable;
        }
    }

    /// Whether the application may be about to take the socket: nothing may be written to it.
    pub(in crate::worker) fn is_hijackable(&self) -> bool {
        matches!(&self.request, Request::Running(running) if running.is_hijackable)
    }

    /// Whether the request is whole and with the pool, and nothing was answered.
    pub(in crate::worker) fn is_dispatched(&self) -> bool {
        self.exchange.is_dispatched()
    }

    /// The client was answered without the application: its reply is late.
    pub(in crate::worker) fn is_timed_out(&self) -> bool {
        matches!(self.request, Request::TimedOut)
    }

    /// The whole response has come. Returns whether the rest of a streaming body is given up for it.
    pub(in crate::worker) fn respond(
        &mut self,
        mut job: Box<Job>,
        write: &mut WriteSide,
        requests: &mut Requests,
        encoded: &mut Vec<u8>,
    ) -> bool {
        let gives_up_body = self.drop_body();
        let body = std::mem::take(&mut job.response_body);
        let total = body.len();
        let defaults = requests.clock.response_defaults();
        let out = encoded;
        let may_have_body = !self.exchange.is_head_request();
        let whole = self
            .exchange
            .respond_whole(&job.response, total, &defaults, out);
        job.response_body = encode_whole_body(body, whole.taken, write, out, &mut requests.drops);
        let count = BodyCount {
            sent: whole.taken,
            cut: u64::from(may_have_body) * (total - whole.taken),
        };
        self.finish(job, count, whole.finish);
        gives_up_body
    }

    /// The response is over, or the connection is: the rest of a streaming body is not wanted. Returns whether there is
    /// one.
    pub(in crate::worker) fn drop_body(&mut self) -> bool {
        let Request::Running(running) = &mut self.request else {
            return false;
        };
        let Some(body) = running.body.take() else {
            return false;
        };
        body.fail(
            io::ErrorKind::ConnectionReset,
            "the client has disconnected or was answered",
        );
        true
    }

    /// Encode an interim response. Nothing comes of it when the response has begun.
    pub(in crate::worker) fn hint(&self, hints: &ResponseHead, encoded: &mut Vec<u8>) {
        self.exchange.hint(hints, encoded);
    }

    /// The head of a streamed response has come.
    pub(in crate::worker) fn begin_response(
        &mut self,
        streamed: StreamedResponse,
        write: &mut WriteSide,
        clock: &mut Clock,
        encoded: &mut Vec<u8>,
    ) {
        let StreamedResponse { response, window } = streamed;
        let defaults = clock.response_defaults();
        self.exchange
            .respond(&response, BodySize::Unknown, &defaults, encoded);
        write.open_window(window);
        write.queue_bytes(encoded);
        if let Request::Running(running) = &mut self.request {
            running.response = Some(response);
        }
    }

    /// A piece of a streamed body has come. Returns whether it was queued.
    pub(in crate::worker) fn respond_piece(
        &mut self,
        piece: Piece,
        write: &mut WriteSide,
        encoded: &mut Vec<u8>,
        drops: &mut DeferredDrops,
    ) -> bool {
        let Request::Running(running) = &mut self.request else {
            discard(piece, drops);
            return false;
        };
        if !self.exchange.is_responding() {
            // The connection is on its way to its end; the thread learns it from the window.
            discard(piece, drops);
            return false;
        }
        let len = usize::try_from(piece.len()).unwrap_or(usize::MAX);
        let taken = self.exchange.data(len, encoded);
        running.sent_bytes += taken as u64;
        running.cut_bytes += (len - taken) as u64;
        write.queue_bytes(encoded);
        let credit = piece.window_bytes();
        write.queue_piece(piece, taken as u64, credit, drops);
        self.exchange.data_end(encoded);
        write.queue_bytes(encoded);
        true
    }

    /// A streamed response is over.
    pub(in crate::worker) fn end_response(&mut self, mut job: Box<Job>, encoded: &mut Vec<u8>) {
        let running = self.request.end_running();
        let mut count = BodyCount {
            sent: running.sent_bytes,
            cut: running.cut_bytes,
        };
        job.response = running.response.unwrap_or_default();
        if self.exchange.is_responding() {
            if self.exchange.is_head_request() {
                count.cut = 0;
            }
            let finish = self.exchange.finish(encoded);
            self.finish(job, count, finish);
        } else {
            self.answered(job, count, "client gone");
        }
    }

    /// The application failed: 500 if nothing was sent, else break off so that the client can tell. Returns whether a
    /// page was sent.
    pub(in crate::worker) fn abort(
        &mut self,
        mut job: Box<Job>,
        client: &Client,
        requests: &mut Requests,
        encoded: &mut Vec<u8>,
    ) -> bool {
        requests.accounting.slot().add_errors(1);
        let running = self.request.end_running();
        if self.exchange.is_dispatched() {
            let (status, reason) = match running.body_fault {
                Some(fault) => (fault, "request body incomplete"),
                None => (Status::INTERNAL_SERVER_ERROR, "application failed"),
            };
            self.refuse(
                Refusal::new(status, "", reason),
                Some(job),
                client,
                requests,
                encoded,
            );
            return true;
        }
        log::error!(
            "Response to {} was aborted after {} bytes of its body; closing the connection.",
            RequestLine(&job),
            running.sent_bytes
        );
        self.exchange.abort();
        job.response = running.response.unwrap_or_default();
        let count = BodyCount {
            sent: running.sent_bytes,
            cut: 0,
        };
        self.answered(job, count, "application failed");
        false
    }

    /// Answer with an error page, after which the connection closes.
    pub(in crate::worker) fn refuse(
        &mut self,
        refusal: Refusal,
        job: Option<Box<Job>>,
        client: &Client,
        requests: &mut Requests,
        encoded: &mut Vec<u8>,
    ) {
        let received = match self.request.end() {
            Request::Receiving(receiving) => Some(receiving.give_up(&mut requests.bodies)),
            _ => None,
        };
        let job = job.or(received).unwrap_or_else(|| {
            Receiving::begin(client, &mut requests.dispatch, &requests.clock).job
        });
        let Refusal {
            status,
            message,
            reason,
        } = refusal;
        if status.code != Status::INTERNAL_SERVER_ERROR.code {
            requests.accounting.slot().add_refused(1);
        }
        let defaults = requests.clock.response_defaults();
        self.exchange.refuse(status, &message, &defaults, encoded);
        self.request.answer(Answered {
            job,
            status: status.code,
            sent_bytes: 0,
            reason,
        });
    }

    /// The client left before its request was whole. Nothing is answered, but the request is logged.
    pub(in crate::worker) fn abandon(&mut self, reason: &'static str, requests: &mut Requests) {
        if let Request::Receiving(receiving) = self.request.end() {
            receiving.abandon(reason, requests);
        }
    }

    /// The application has had the request for too long: the client gets 504, or its response is broken off.
    pub(in crate::worker) fn time_out(
        &mut self,
        clock: &mut Clock,
        encoded: &mut Vec<u8>,
    ) -> TimedOut {
        let Some(running) = self.request.time_out() else {
            // It was answered just now.
            return TimedOut {
                status: Status::GATEWAY_TIMEOUT.code,
                body_bytes: 0,
            };
        };
        let mut status = Status::GATEWAY_TIMEOUT.code;
        if running.is_hijackable {
            // Nothing may be written: the application may be about to take the socket.
        } else if self.exchange.is_dispatched() {
            let defaults = clock.response_defaults();
            self.exchange.refuse(
                Status::GATEWAY_TIMEOUT,
                "The request took too long",
                &defaults,
                encoded,
            );
        } else {
            self.exchange.abort();
            status = running
                .response
                .as_ref()
                .map_or(status, ResponseHead::status_code);
        }
        TimedOut {
            status,
            body_bytes: running.sent_bytes,
        }
    }

    /// Why the answer that is on its way will not arrive as it should.
    pub(in crate::worker) fn note_reason(&mut self, why: &'static str) {
        match &mut self.request {
            Request::Running(running) => running.broken_for = why,
            Request::Answered(answered) => answered.reason = why.into(),
            Request::None | Request::Receiving(_) | Request::TimedOut => {}
        }
    }

    /// The file was truncated while it was being sent.
    pub(in crate::worker) fn cut_short_file(&mut self) {
        self.is_cut = true;
        if let Request::Answered(answered) = &self.request {
            log::error!(
                "The file sent to {} was truncated while it was being sent; resetting the connection.",
                RequestLine(&answered.job)
            );
        }
    }

    /// Everything is written: a request that was answered is over. Returns whether there was one.
    pub(in crate::worker) fn on_written(&mut self, requests: &mut Requests) -> bool {
        if !matches!(self.request, Request::Answered(_)) {
            return false;
        }
        if let Request::Answered(answered) = self.request.end() {
            answered.log(requests);
        }
        true
    }

    /// The connection must not close in good order now: the client would take a part of the response for all of it.
    pub(in crate::worker) fn would_look_whole(&self, all_written: bool) -> bool {
        self.is_cut || self.exchange.would_look_whole(all_written)
    }

    /// The connection is gone, with `unsent_bytes` that were encoded and not written.
    pub(in crate::worker) fn close(
        mut self,
        id: ConnId,
        unsent_bytes: u64,
        requests: &mut Requests,
    ) {
        let has_begun = matches!(self.wanted(), Wanted::Head | Wanted::Body);
        match self.request.end() {
            Request::Receiving(receiving) if !has_begun => {
                let job = receiving.give_up(&mut requests.bodies);
                recycle(job, requests);
            }
            Request::Receiving(receiving) => {
                let reason = requests.shutdown.reason_of_gone();
                receiving.abandon(reason, requests);
            }
            Request::Answered(mut answered) => {
                answered.sent_bytes = answered.sent_bytes.saturating_sub(unsent_bytes);
                if unsent_bytes > 0 && answered.reason.is_empty() {
                    answered.reason = requests.shutdown.reason_of_gone().into();
                }
                answered.log(requests);
            }
            Request::Running(running) => running.break_off(id, unsent_bytes, requests),
            Request::None | Request::TimedOut => {}
        }
    }

    /// The response is encoded, and ended so.
    fn finish(&mut self, job: Box<Job>, count: BodyCount, finish: Finish) {
        if count.cut > 0 {
            log_overlong_body(&job, job.response.status_code(), count.cut);
        }
        let mut reason = job.refusal;
        if let Finish::Short { missing } = finish {
            reason = "response too short";
            self.is_cut = job.is_file;
            log::error!(
                "Response to {} is {missing} bytes shorter than its Content-Length; closing the connection.",
                RequestLine(&job)
            );
        }
        self.answered(job, count, reason);
    }

    fn answered(&mut self, job: Box<Job>, count: BodyCount, reason: &'static str) {
        self.request.answer(Answered {
            status: job.response.status_code(),
            job,
            sent_bytes: count.sent,
            reason: reason.into(),
        });
    }
}

/// Encode or queue the first `taken` bytes of the body behind the encoded head. Returns the body's buffers, emptied.
fn encode_whole_body(
    mut body: ResponseBody,
    taken: u64,
    write: &mut WriteSide,
    encoded: &mut Vec<u8>,
    drops: &mut DeferredDrops,
) -> ResponseBody {
    let taken_bytes =
        usize::try_from(taken).map_or(body.bytes.len(), |taken| taken.min(body.bytes.len()));
    if body.pieces.is_empty() && taken_bytes <= ONE_WRITE_BYTES {
        encoded.extend_from_slice(&body.bytes[..taken_bytes]);
        return body;
    }
    write.queue_bytes(encoded);
    let bytes = Piece::Bytes(std::mem::take(&mut body.bytes));
    let mut left = taken;
    for piece in std::iter::once(bytes).chain(body.pieces.drain(..)) {
        let step = left.min(piece.len());
        left -= step;
        write.queue_piece(piece, step, 0, drops);
    }
    body
}
