//! From replies to frames: responses begin, are sent round robin and end.

use crate::worker::deferred_drop::DeferredDrops;
use crate::worker::loop_clock::Clock;
use std::sync::Arc;
use std::time::Instant;

use super::super::messages::{BodyRoom, interim, message, page_message, send_whole, trailers};
use super::super::response_stream::{Begun, ResponseStream, Sending};
use super::phase::Phase;
use super::{Mux, Returned};
use crate::http::{ResponseHead, Status, error_page};
use crate::pool::{Job, Piece, StreamedResponse, Window};
use crate::worker::describe::{RequestLine, log_overlong_body};
use crate::worker::http1::{Answered, Client, Receiving, Refusal};
use crate::worker::requests::{Requests, recycle};
use crate::worker::write_side::discard;

/// The engine is given this many frames before it is asked to encode them: what one system call writes, and what is still in
/// the cache when it is encrypted.
const PUMP_FRAMES_MAX: usize = 4;

impl Mux {
    /// The whole response has come. Returns the job when its client was answered before.
    pub(in super::super) fn respond(
        &mut self,
        job: Box<Job>,
        client: &Client,
        requests: &mut Requests,
    ) -> Option<Box<Job>> {
        let mut job = match self.take_back(job, requests) {
            Returned::Awaited(job) => job,
            Returned::Late(job) => return Some(job),
            Returned::Gone => return None,
        };
        let id = job.conn.stream;
        let body = std::mem::take(&mut job.response_body);
        let head = std::mem::take(&mut job.response);
        let begun = self.begin_body(id, &head, Some(body.len()), None, &mut requests.clock);
        job.response = head;
        if begun != Begun::Yes {
            job.response_body = body;
            match begun {
                Begun::Gone => self.forget(id, job, requests),
                _ => self.fail(id, job, client, requests),
            }
            return None;
        }
        let mut body = body;
        if let Some(response) = self.responding(id) {
            if !body.bytes.is_empty() {
                let bytes = Piece::Bytes(std::mem::take(&mut body.bytes));
                response.push(bytes, &mut requests.drops);
            }
            for piece in body.pieces.drain(..) {
                response.push(piece, &mut requests.drops);
            }
        }
        // What the body's memory is counted by goes with the job.
        job.response_body = body;
        self.end(id, job, requests);
        None
    }

    /// The head of a streamed response has come.
    pub(in super::super) fn begin_response(
        &mut self,
        id: u32,
        streamed: StreamedResponse,
        clock: &mut Clock,
    ) {
        let StreamedResponse { response, window } = streamed;
        let is_awaited = matches!(
            self.streams.get(&id).map(|stream| &stream.phase),
            Some(Phase::Running { .. })
        );
        if !is_awaited
            || self.begin_body(id, &response, None, Some(window.clone()), clock) != Begun::Yes
        {
            // The thread finds out, and its job comes back.
            window.close();
        } else if let Some(begun) = self.responding(id) {
            begun.keep_head(response);
        }
    }

    /// Send the head.
    fn begin_body(
        &mut self,
        id: u32,
        head: &ResponseHead,
        total: Option<u64>,
        window: Option<Arc<Window>>,
        clock: &mut Clock,
    ) -> Begun {
        if self.sending.is_empty() {
            self.moved = clock.now();
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Begun::Gone;
        };
        let (room, added_length) = BodyRoom::choose(stream.is_head, head, total);
        let defaults = clock.response_defaults();
        let Some(message) = message(head, added_length, &defaults) else {
            return Begun::NoSuchStatus;
        };
        let Phase::Running {
            respond, upload, ..
        } = &mut stream.phase
        else {
            return Begun::Gone;
        };
        if let Some(upload) = upload.take() {
            upload.drop_rest();
        }
        stream.timer.clear();
        let trailers = stream.trailers.take().filter(|_| room != BodyRoom::None);
        let has_no_body = room == BodyRoom::None || room == BodyRoom::Left(0);
        let is_closed = has_no_body && trailers.is_none();
        let Ok(out) = respond.send_response(message, is_closed) else {
            return Begun::Gone;
        };
        let mut response = ResponseStream::new(out, head.status_code(), room, window, is_closed);
        response.set_trailers(trailers);
        stream.phase.respond(response);
        Begun::Yes
    }

    /// A piece of a streamed body has come.
    pub(in super::super) fn respond_piece(
        &mut self,
        id: u32,
        piece: Piece,
        drops: &mut DeferredDrops,
    ) {
        let Some(response) = self.responding(id) else {
            return discard(piece, drops);
        };
        response.push(piece, drops);
        if response.enlist() {
            self.sending.push_back(id);
        }
    }

    /// There is something in the spool of a streamed response.
    pub(in super::super) fn note_spool(&mut self, id: u32) {
        if let Some(response) = self.responding(id) {
            response.note_spool();
            if response.enlist() {
                self.sending.push_back(id);
            }
        }
    }

    /// A streamed response is over. Returns the job when its client was answered before.
    pub(in super::super) fn end_response(
        &mut self,
        job: Box<Job>,
        requests: &mut Requests,
    ) -> Option<Box<Job>> {
        match self.take_back(job, requests) {
            Returned::Awaited(job) => {
                self.end(job.conn.stream, job, requests);
                None
            }
            Returned::Late(job) => Some(job),
            Returned::Gone => None,
        }
    }

    fn end(&mut self, id: u32, job: Box<Job>, requests: &mut Requests) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return recycle(job, requests);
        };
        let is_head = stream.is_head;
        let Phase::Responding(response) = &mut stream.phase else {
            // Its head could not be sent.
            return self.forget(id, job, requests);
        };
        let mut reason = job.refusal;
        let missing = response.missing();
        if missing > 0 {
            reason = "response too short";
            log::error!(
                "Response to {} is {missing} bytes shorter than its Content-Length; resetting the stream.",
                RequestLine(&job)
            );
        }
        let cut = response.cut_bytes();
        if cut > 0 && !is_head {
            let (status, _) = response.sent_so_far();
            log_overlong_body(&job, status, cut);
        }
        // RFC 9113 section 8.1.1: an answer that ends before its Content-Length is malformed, and some clients would not see it.
        response.end(job, missing == 0, reason);
        if response.enlist() {
            self.sending.push_back(id);
        }
    }

    /// Early hints. Nothing comes of them when the response has begun.
    pub(in super::super) fn hint(&mut self, id: u32, head: &ResponseHead) {
        if let Some(Phase::Running { respond, .. }) =
            self.streams.get_mut(&id).map(|stream| &mut stream.phase)
            && let Some(message) = interim(head)
            && let Err(error) = respond.send_informational(message)
        {
            log::debug!("Early hints cannot be sent: {error}");
        }
    }

    /// What is to follow the body; the last that the application gives.
    pub(in super::super) fn set_trailers(&mut self, id: u32, head: &ResponseHead) {
        let fields = Some(Box::new(trailers(head)));
        if let Some(response) = self.responding(id) {
            response.set_trailers(fields);
        } else if let Some(stream) = self.streams.get_mut(&id) {
            stream.trailers = fields;
        }
    }

    /// The application failed. Returns the job when its client was answered before.
    pub(in super::super) fn abort(
        &mut self,
        job: Box<Job>,
        client: &Client,
        requests: &mut Requests,
    ) -> Option<Box<Job>> {
        match self.take_back(job, requests) {
            Returned::Awaited(job) => {
                self.fail(job.conn.stream, job, client, requests);
                None
            }
            Returned::Late(job) => Some(job),
            Returned::Gone => None,
        }
    }

    /// 500 if nothing was sent, else a reset, so that the client can tell.
    fn fail(&mut self, id: u32, job: Box<Job>, client: &Client, requests: &mut Requests) {
        requests.accounting.slot().add_errors(1);
        let fault = match self.streams.get(&id).map(|stream| &stream.phase) {
            Some(Phase::Running { fault, .. }) => *fault,
            _ => return self.break_off(id, job, requests),
        };
        let (status, reason) = match fault {
            Some(fault) => (fault, "request body incomplete"),
            None => (Status::INTERNAL_SERVER_ERROR, "application failed"),
        };
        let refusal = Refusal::new(status, "", reason);
        self.refuse(id, refusal, Some(job), client, requests);
    }

    fn break_off(&mut self, id: u32, job: Box<Job>, requests: &mut Requests) {
        let Some(response) = self.responding(id) else {
            return recycle(job, requests);
        };
        let (_, sent) = response.sent_so_far();
        log::error!(
            "Response to {} was aborted after {sent} bytes of its body; resetting the stream.",
            RequestLine(&job)
        );
        response.end(job, false, "application failed");
        if response.enlist() {
            self.sending.push_back(id);
        }
    }

    /// Answer with an error page. The stream is over.
    pub(in super::super) fn refuse(
        &mut self,
        id: u32,
        refusal: Refusal,
        job: Option<Box<Job>>,
        client: &Client,
        requests: &mut Requests,
    ) {
        if refusal.status().code != Status::INTERNAL_SERVER_ERROR.code {
            requests.accounting.slot().add_refused(1);
        }
        let status = refusal.status();
        let (message, reason) = refusal.into_texts();
        let received = self.send_page(id, status, &message, requests);
        self.streams.remove(&id);
        let job = job.or(received).unwrap_or_else(|| {
            Receiving::begin(client, &mut requests.dispatch, &requests.clock).job
        });
        let answered = Answered {
            job,
            status: status.code,
            sent_bytes: 0,
            reason,
        };
        answered.log(requests);
    }

    /// Send an error page. Returns the job, if it is here; the phase of the stream is then spent.
    pub(super) fn send_page(
        &mut self,
        id: u32,
        status: Status,
        text: &str,
        requests: &mut Requests,
    ) -> Option<Box<Job>> {
        let stream = self.streams.get_mut(&id)?;
        self.has_acted = true;
        stream.timer.clear();
        let is_head = stream.is_head;
        let (job, mut respond, upload) = stream.phase.answer(&mut requests.bodies)?;
        if let Some(upload) = upload {
            upload.drop_rest();
        }
        let page = error_page(status, text);
        let defaults = requests.clock.response_defaults();
        let message = page_message(status.code, page.len(), &defaults);
        send_whole(&mut respond, message, is_head, page);
        job
    }

    /// Send of the responses that have something to send, round robin, as far as one write should go. Returns whether something was
    /// sent.
    pub(in super::super) fn pump(&mut self, requests: &mut Requests) -> bool {
        let mut has_moved = false;
        let mut frames = 0;
        while frames < PUMP_FRAMES_MAX && self.pump_once(&mut frames, requests) {
            has_moved = true;
            self.moved = requests.clock.now();
        }
        has_moved
    }

    /// A frame of each; those that are stalled are asked again when the connection has moved.
    fn pump_once(&mut self, frames: &mut usize, requests: &mut Requests) -> bool {
        let mut has_moved = false;
        for _ in 0..self.sending.len() {
            *frames += 1;
            let Some(id) = self.sending.pop_front() else {
                break;
            };
            let sent = self.send_frame(id, requests);
            match sent {
                Sending::Flush => (*frames, has_moved) = (PUMP_FRAMES_MAX, true),
                Sending::Moved | Sending::Done | Sending::Cut => has_moved = true,
                Sending::Stalled | Sending::Empty | Sending::Gone => {}
            }
            match sent {
                Sending::Moved | Sending::Stalled | Sending::Flush => self.sending.push_back(id),
                Sending::Empty => self.delist(id),
                Sending::Done => self.finish(id, requests),
                Sending::Cut => {
                    self.cancel(id, "", requests);
                }
                Sending::Gone => {
                    self.cancel(id, "client gone", requests);
                }
            }
        }
        has_moved
    }

    /// Since when the client takes nothing of its responses.
    pub(in super::super) fn stalled_since(&self) -> Option<Instant> {
        self.is_sending().then_some(self.moved)
    }

    fn responding(&mut self, id: u32) -> Option<&mut ResponseStream> {
        match &mut self.streams.get_mut(&id)?.phase {
            Phase::Responding(response) => Some(response),
            _ => None,
        }
    }

    fn delist(&mut self, id: u32) {
        if let Some(response) = self.responding(id) {
            response.delist();
        }
    }

    fn send_frame(&mut self, id: u32, requests: &mut Requests) -> Sending {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Sending::Empty;
        };
        let Phase::Responding(response) = &mut stream.phase else {
            return Sending::Empty;
        };
        let before = (response.waiting(), response.sent_so_far().1);
        let sent = response.send_frame(&mut requests.drops);
        response.keep_time(before, &mut stream.timer, &mut requests.clock);
        sent
    }

    /// A response is over.
    fn finish(&mut self, id: u32, requests: &mut Requests) {
        if let Some(stream) = self.streams.remove(&id)
            && let Phase::Responding(response) = stream.phase
        {
            response.abandon(self.name(id), "", requests);
        }
    }
}
