//! What arrives on a connection of HTTP/2: bytes are looked at and fed to the engine, requests come out, and what was seen of them is
//! acted upon.

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http_message::Request;

use super::Http2;
use super::cleartext_upgrade::{Beginning, FirstStream, open_window};
use super::engine::Polled;
use super::seen::take_path;
use super::violation::{Violation, why_reset};
use crate::http::{ParseError, Status};
use crate::worker::describe::PeerText;
use crate::worker::http1::{Answered, Client, Receiving, Refusal};
use crate::worker::preamble::PREFACE;
use crate::worker::requests::Requests;

impl Http2 {
    /// Of a client that has asked for HTTP/2 in a request of HTTP/1.1, which is stream 1. Behind it `rest` was read.
    pub(in crate::worker) fn upgraded(
        first: &FirstStream,
        rest: &[u8],
        client: &Client,
        requests: &mut Requests,
    ) -> Self {
        let mut http2 = Self::new(client, first.body_bytes, requests);
        http2.receive(PREFACE, client, requests);
        open_window(&mut http2.engine, first.body_bytes);
        http2.receive(&first.frames, client, requests);
        http2.inspection.begin_again();
        http2.preface_left = PREFACE.len();
        http2.beginning.upgrade();
        http2.receive(rest, client, requests);
        http2
    }

    /// Bytes have arrived: they are looked at first.
    pub(super) fn receive(&mut self, bytes: &[u8], client: &Client, requests: &mut Requests) {
        let (preface, bytes) = bytes.split_at(bytes.len().min(self.preface_left));
        self.preface_left -= preface.len();
        let (now, engine) = (requests.clock.now(), &self.engine);
        if self.beginning == Beginning::Preface {
            engine.feed(preface);
        } else if !PREFACE[..PREFACE.len() - self.preface_left].ends_with(preface) {
            return self.give_up(Violation::NoPreface, client, requests);
        }
        let pass = |bytes: &[u8]| engine.feed(bytes);
        if let Err(violation) = self.inspection.inspect(bytes, now, &mut self.seen, pass) {
            self.give_up(violation, client, requests);
        }
    }

    /// The client breaks the protocol, or its peace.
    pub(super) fn give_up(
        &mut self,
        violation: Violation,
        client: &Client,
        requests: &mut Requests,
    ) {
        log_end(violation, client, requests);
        // The preface may just have come: without it there is no GOAWAY. Requests that came before are logged.
        while let Polled::Request(request, respond) = self.engine.poll() {
            self.begin_request(request, respond, client, requests);
        }
        self.end(violation.code(), violation.what(), requests);
    }

    /// Take in the requests that have come, and what else was seen to come.
    pub(super) fn poll(&mut self, client: &Client, requests: &mut Requests) {
        loop {
            match self.engine.poll() {
                Polled::Request(request, respond) => {
                    if self.mux.is_full() {
                        // What was reset before this request came has made room for it.
                        self.apply_seen(respond.stream_id().as_u32(), client, requests);
                    }
                    self.begin_request(request, respond, client, requests);
                }
                Polled::Broken(code) => {
                    let violation = Violation::Found(code);
                    log_end(violation, client, requests);
                    self.mux.close(violation.what(), requests);
                    break;
                }
                Polled::Nothing | Polled::Over => break,
            }
        }
        if !self.engine.is_full() {
            // The crate has read all that came: the requests of these it has refused.
            self.seen.paths.clear();
        }
        self.apply_seen(u32::MAX, client, requests);
    }

    fn begin_request(
        &mut self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        client: &Client,
        requests: &mut Requests,
    ) {
        let id = respond.stream_id().as_u32();
        self.seen.heads.take(id);
        let path = take_path(id, &mut self.seen);
        self.mux.begin(request, path, respond, client, requests);
    }

    /// Log what the crate has answered itself, and take streams that it has reset out.
    pub(super) fn apply_answers(&mut self, client: &Client, requests: &mut Requests) {
        for id in self.seen.crate_answers.drain(..) {
            // The only page that it sends.
            let refusal = Refusal::invalid(&ParseError::HeadTooLarge, client);
            log_refused(id, refusal, client, requests);
        }
        for (id, code) in self.seen.own_resets.drain(..) {
            let (why, now) = (why_reset(code), requests.clock.now());
            requests.stream_errors.note(client.peer(), why, now);
            let is_head = self.seen.heads.take(id);
            if code == Reason::REFUSED_STREAM {
                continue;
            }
            match is_head {
                true => {
                    let refusal = Refusal::new(Status::BAD_REQUEST, why, why);
                    log_refused(id, refusal, client, requests);
                }
                false => self.mux.cancel_faulty(id, why, requests),
            }
        }
    }

    /// Act upon what was seen to come for streams before `end`. The others have not begun.
    fn apply_seen(&mut self, end: u32, client: &Client, requests: &mut Requests) {
        if self.seen.is_empty() {
            return;
        }
        let (faults, later): (Vec<_>, _) = self.seen.faults.iter().partition(|(id, _)| *id < end);
        let (resets, later_resets): (Vec<u32>, _) =
            self.seen.resets.iter().partition(|id| **id < end);
        for (id, priority) in self.seen.priorities.drain(..) {
            self.mux.set_priority(id, priority);
        }
        self.seen.resets = later_resets;
        self.seen.faults = later;
        for (id, fault) in faults {
            self.mux.reset(id, fault.code(), fault.what(), requests);
        }
        for id in resets {
            let reason = requests.shutdown.reason_of_gone();
            if self.mux.cancel(id, reason, requests)
                && let Err(violation) = self.inspection.note_early_reset()
            {
                return self.give_up(violation, client, requests);
            }
        }
    }
}

/// The client has ended its connection with this.
fn log_end(violation: Violation, client: &Client, requests: &Requests) {
    log::info!(
        "HTTP/2 connection from ip={} is closed: {}.",
        PeerText(client.peer()),
        violation.what()
    );
    let slot = requests.accounting.slot();
    slot.add_refused(1);
    slot.add_http2_ended(violation.guard());
}

/// The crate has refused a request: of its head nothing is known here.
fn log_refused(id: u32, refusal: Refusal, client: &Client, requests: &mut Requests) {
    requests.accounting.slot().add_refused(1);
    let mut job = Receiving::begin(client, &mut requests.dispatch, &requests.clock).job;
    job.conn = client.conn().with_stream(id);
    let answered = Answered {
        job,
        status: refusal.status().code,
        sent_bytes: 0,
        reason: refusal.into_texts().1,
    };
    answered.log(requests);
}
