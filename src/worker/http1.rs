//! HTTP/1 on one connection: bytes of the transport become whole requests, replies become bytes.
//!
//! One request is under way at a time ([`Request`]); a reply is addressed to its connection. `http2.rs` is the protocol with
//! several.
//!
//! `request_state.rs` is that request, `respond.rs` the way from replies to bytes, this file the way from bytes to requests. The
//! framing is [`Exchange`]'s. Encoded bytes are left in `SharedIo::encoded`; large bodies go to the write queue directly.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::http::{BodyLength, Exchange, Received, Status, Upgrade};
use crate::pool::{Job, Pool, RequestBody};

use super::accounting::Accounting;
use super::body_stream::StreamingRequestBody;
use super::describe::PeerText;
use super::read_side::{Input, ReadSide};
use super::request_policy::RequestPolicy;
use super::requests::Requests;
use super::spool::BodyBudget;
use super::transport::Transport;

mod request_state;
mod respond;

pub(super) use request_state::{Answered, Client, Receiving, Refusal, TimedOut, finish_body};
use request_state::{Request, Running};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Http1 {
    exchange: Exchange,
    request: Request,
    /// A file was shorter than its response says: the connection is reset, so that the client cannot take what has
    /// come for the file.
    is_cut: bool,
}

/// What came of bytes.
#[derive(Debug)]
pub(super) enum Arrived {
    /// All that can be made of them now was made.
    Nothing,
    /// A request, whole or with a streaming body.
    Request(Box<Job>),
    /// The end of a streaming body, or bytes that break it.
    BodyOver { is_whole: bool },
}

/// What is awaited from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A request is with the application, or no other will be taken.
    Nothing,
    /// The first byte of a request.
    Request,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
    /// More of the body of a request that is with the application, once that has room for it.
    StreamedBody { has_room: bool },
}

impl Http1 {
    /// Of a connection that carries one packet of the uwsgi protocol instead of HTTP/1.
    pub(super) fn uwsgi() -> Self {
        Self {
            exchange: Exchange::uwsgi(),
            ..Self::default()
        }
    }

    /// Whether the answer that is on its way keeps the last free thread.
    pub(super) fn is_hurried(&self) -> bool {
        matches!(&self.request, Request::Answered(answered) if answered.job.response_body.is_hurried())
    }

    /// Between requests: nothing of the next one has arrived.
    pub(super) fn is_idle(&self) -> bool {
        self.exchange.is_idle()
    }

    /// No other request will be taken.
    pub(super) fn is_closing(&self) -> bool {
        self.exchange.is_closing()
    }

    /// No more requests after the one that is under way, or the next.
    pub(super) fn close_after_this(&mut self) {
        self.exchange.close_after_this();
    }

    /// What is awaited from the client.
    pub(super) fn wanted(&self) -> Wanted {
        if let Request::Running(running) = &self.request
            && let Some(body) = &running.body
        {
            let has_room = body.is_wanted();
            return Wanted::StreamedBody { has_room };
        }
        if self.exchange.is_reading_head() {
            Wanted::Head
        } else if self.exchange.is_reading_body() {
            Wanted::Body
        } else if self.exchange.is_idle() {
            Wanted::Request
        } else {
            Wanted::Nothing
        }
    }

    fn streaming_body(&mut self) -> Option<&mut StreamingRequestBody> {
        match &mut self.request {
            Request::Running(running) => running.body.as_mut(),
            _ => None,
        }
    }

    /// Whether a request is with the application whose body is still arriving.
    pub(super) fn has_streaming_body(&self) -> bool {
        matches!(
            &self.request,
            Request::Running(Running { body: Some(_), .. })
        )
    }

    /// Whether the client waits for `100 Continue`.
    pub(super) fn wants_continue(&self) -> bool {
        self.exchange.wants_continue()
    }

    /// Which protocol the request asks for on this connection.
    pub(super) fn upgrade(&self) -> Upgrade {
        self.exchange.upgrade()
    }

    /// The request as the client has sent it, for another worker: that of `job`, which no thread has begun, or without one
    /// what was consumed of the one that is being received. `None`: this worker keeps it.
    pub(super) fn received(&self, job: Option<&Job>) -> Option<Vec<u8>> {
        let exchange = &self.exchange;
        match (&self.request, job) {
            // The head of such a packet is not what was received.
            _ if exchange.is_uwsgi() => None,
            (Request::Running(Running { body: None, .. }), Some(job))
                if exchange.is_dispatched() =>
            {
                let mut bytes = job.head.bytes().to_vec();
                append_body(&job.body, exchange.body_length(), &mut bytes)?;
                Some(bytes)
            }
            (_, None) if exchange.is_idle() || exchange.is_reading_head() => Some(Vec::new()),
            (Request::Receiving(Receiving { job, body, .. }), None)
                if exchange.is_reading_body() =>
            {
                let is_counted = matches!(exchange.body_length(), BodyLength::Known(_));
                let begun = body.in_memory().filter(|_| is_counted)?;
                Some([job.head.bytes(), begun].concat())
            }
            _ => None,
        }
    }

    /// When the first byte of the request that is being received arrived.
    pub(super) fn began(&self) -> Option<Instant> {
        match &self.request {
            Request::Receiving(receiving) => Some(receiving.began),
            _ => None,
        }
    }

    /// Take what has arrived. Returns how many bytes were consumed; the rest is to be given again with what follows.
    ///
    /// # Errors
    /// The request is to be refused ([`Http1::refuse`]); nothing more is read.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        client: &Client,
        requests: &mut Requests,
        encoded: &mut Vec<u8>,
    ) -> Result<(usize, Arrived), Refusal> {
        if self.has_streaming_body() {
            let (policy, accounting) = (&requests.policy, &requests.accounting);
            return Ok(self.receive_streaming(bytes, client, policy, accounting));
        }
        let receiving = self
            .request
            .receive(client, &mut requests.dispatch, &requests.clock);
        let mut consumed = 0;
        loop {
            let rest = &bytes[consumed..];
            let limits = requests.policy.limits();
            let step = self
                .exchange
                .receive(rest, limits, &mut receiving.job.head)
                .map_err(|error| Refusal::invalid(&error, client))?;
            consumed += step.consumed;
            match step.received {
                Received::NeedData => return Ok((consumed, Arrived::Nothing)),
                Received::Whole => {
                    requests
                        .policy
                        .apply(&mut receiving.job)
                        .map_err(|error| Refusal::invalid(&error, client))?;
                    break;
                }
                Received::Head => {
                    requests
                        .policy
                        .apply(&mut receiving.job)
                        .map_err(|error| Refusal::invalid(&error, client))?;
                    if !requests.policy.buffers_requests() {
                        let job = self.run_at_head(client, requests.dispatch.pool());
                        return Ok((consumed, Arrived::Request(job)));
                    }
                    if let BodyLength::Known(declared) = self.exchange.body_length() {
                        receiving.body.reserve(declared, &requests.bodies);
                    }
                    self.exchange.send_continue(encoded);
                }
                Received::Data(range) => receiving
                    .body
                    .write(&rest[range], &mut requests.bodies)
                    .map_err(|error| Refusal::no_storage(&error, requests))?,
                Received::End => break,
            }
        }
        Ok((consumed, Arrived::Request(self.request.run_whole())))
    }

    /// The head is in: the request leaves for the application, and its body after it.
    fn run_at_head(&mut self, client: &Client, pool: &Arc<Pool>) -> Box<Job> {
        let (body, theirs) = StreamingRequestBody::new(pool, client.conn());
        let mut job = self.request.run(Some(body));
        job.body = theirs;
        self.exchange.dispatch_at_head();
        job
    }

    fn receive_streaming(
        &mut self,
        bytes: &[u8],
        client: &Client,
        policy: &RequestPolicy,
        accounting: &Accounting,
    ) -> (usize, Arrived) {
        let Request::Running(Running { body, .. }) = &mut self.request else {
            return (0, Arrived::Nothing);
        };
        let mut consumed = 0;
        while let Some(streaming) = body {
            let rest = &bytes[consumed..];
            let limits = policy.limits();
            let step = match self.exchange.receive_streamed_body(rest, limits) {
                Ok(step) => step,
                Err(error) => {
                    log::warn!(
                        "Invalid request from ip={}: {error}",
                        PeerText(client.peer())
                    );
                    accounting.slot().add_errors(1);
                    self.fail_body(
                        error.status(),
                        io::ErrorKind::InvalidData,
                        "the request body is malformed or too large",
                    );
                    return (bytes.len(), Arrived::BodyOver { is_whole: false });
                }
            };
            consumed += step.consumed;
            match step.received {
                Received::Data(range) => streaming.push(&rest[range]),
                Received::NeedData | Received::Head | Received::Whole => break,
                Received::End => {
                    if let Some(body) = body.take() {
                        body.end();
                    }
                    return (consumed, Arrived::BodyOver { is_whole: true });
                }
            }
        }
        (consumed, Arrived::Nothing)
    }

    /// The rest of a streaming body will not come. When the application leaves it at that, `status` is the answer.
    pub(super) fn fail_body(&mut self, status: Status, kind: io::ErrorKind, why: &'static str) {
        if let Request::Running(running) = &mut self.request
            && let Some(body) = running.body.take()
        {
            body.fail(kind, why);
            running.body_fault = Some(status);
            self.exchange.give_up_body();
        }
    }

    /// The application waits for a streaming body, or has room for more of it. Encodes `100 Continue` if the client
    /// waits for that. Returns whether there is such a body.
    pub(super) fn resume_body(&mut self, encoded: &mut Vec<u8>) -> bool {
        let Some(body) = self.streaming_body() else {
            return false;
        };
        body.resume();
        self.exchange.send_continue(encoded);
        true
    }

    /// How many bytes of a counted body are to come, and how many of them may be read to where they stay.
    pub(super) fn direct_read(&self, bodies: &BodyBudget) -> Option<(usize, usize)> {
        let left = self.exchange.counted_body_left()?;
        let Request::Receiving(receiving) = &self.request else {
            return None;
        };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let room = receiving.body.room_for(left, bodies)?;
        Some((left, room))
    }

    /// Read `room` of the `left` bytes of a body to where they stay: through the shared buffer they would be copied.
    ///
    /// # Errors
    /// The socket is broken, or the system has no memory for so much.
    pub(super) fn read_direct(
        &mut self,
        (left, room): (usize, usize),
        read: &mut ReadSide,
        transport: &mut Transport,
        bodies: &mut BodyBudget,
    ) -> io::Result<Input> {
        let Request::Receiving(receiving) = &mut self.request else {
            return Ok(Input::Blocked);
        };
        let body = &mut receiving.body;
        let input = read.read_body(room, left, body, transport, bodies)?;
        if let Input::Bytes(len) = input {
            self.exchange.take_counted(len as u64);
        }
        Ok(input)
    }
}

/// Append a whole body in the framing that its head has announced. `None`: it is in a file, or is not whole.
fn append_body(body: &RequestBody, length: BodyLength, to: &mut Vec<u8>) -> Option<()> {
    let body = match body {
        RequestBody::Empty => &[],
        RequestBody::Memory(bytes) => &bytes[..],
        RequestBody::File { .. } | RequestBody::Streaming(_) => return None,
    };
    if length == BodyLength::Chunked {
        if !body.is_empty() {
            to.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
            to.extend_from_slice(body);
            to.extend_from_slice(b"\r\n");
        }
        to.extend_from_slice(b"0\r\n\r\n");
    } else {
        to.extend_from_slice(body);
    }
    Some(())
}

#[cfg(test)]
mod tests;
