//! A connection's way in: bytes of the transport to the protocol, a request to the pool.
//!
//! Reads until the socket would block, a request is whole, or the connection's share of the iteration is used up. What the
//! protocol refuses is answered and the connection closes; what the client does not finish never reaches the application.

use std::io;

use crate::http::{Status, Upgrade};
use crate::pool::Job;

use super::{Action, Connection};
use crate::worker::http1::{Arrived, Http1, Refusal, Wanted};
use crate::worker::http2::{FirstStream, Http2, SWITCHING, first_stream};
use crate::worker::loop_clock::Clock;
use crate::worker::preamble::{Found, Preamble};
use crate::worker::read_side::{Input, SHARE_BYTES};
use crate::worker::requests::{Requests, recycle};
use crate::worker::shared_io::SharedIo;
use crate::worker::spool::BodyBudget;
use crate::worker::transport::Transport;

/// A head, and what comes with it, is read in steps of this many bytes.
const FIRST_BYTES: usize = 16 * 1024;

/// What came of one read.
enum ReadStep {
    /// What it has brought is consumed or kept: reading may go on.
    Read(Input),
    /// It does not go on.
    Stop(Action),
}

impl Connection {
    /// Whether bytes are wanted now. While a request is with the pool or a response is under way they are not.
    pub(super) fn wants_input(&self) -> bool {
        match self.protocol.wanted() {
            Wanted::Nothing => false,
            Wanted::Request | Wanted::Head | Wanted::Body => self.write.is_empty(),
            Wanted::StreamedBody { has_room } => has_room,
        }
    }

    /// Set the deadline for the input that the connection waits for now.
    pub(super) fn await_input(&mut self, clock: &mut Clock) {
        match self.protocol.wanted() {
            Wanted::StreamedBody { .. } if self.lifecycle.is_sending() => {}
            // While the window has room the next move is the client's.
            Wanted::StreamedBody { has_room: true } if !self.protocol.wants_continue() => {
                self.lifecycle.await_body(clock);
            }
            Wanted::StreamedBody { .. } => self.lifecycle.end_body(),
            Wanted::Nothing => {}
            _ if !self.write.is_empty() => {}
            Wanted::Request => self.lifecycle.await_request(clock),
            Wanted::Head => self.lifecycle.await_head(clock),
            Wanted::Body => self.lifecycle.await_body(clock),
        }
    }

    /// Read until the socket would block, a request is whole, or the share of this iteration is used up.
    pub(super) fn read(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        if self.lifecycle.is_handshaking()
            && let Some(action) = self.handshake(requests, io)
        {
            return action;
        }
        let mut input = std::mem::take(&mut io.input);
        let action = if self.lifecycle.is_lingering_close() {
            // Read and forget, until the client closes its side too.
            Action::after_discarding(self.read.discard(&mut input, &mut self.transport))
        } else {
            self.read_into(&mut input, requests, io)
        };
        io.input = input;
        action
    }

    fn read_into(
        &mut self,
        buffer: &mut [u8],
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        let mut share = SHARE_BYTES;
        while self.read.is_ready() && self.wants_input() {
            let is_body = self.protocol.wanted() == Wanted::Body;
            let direct = is_body
                .then(|| self.direct_read(share, &requests.bodies))
                .flatten();
            let step = match direct {
                Some(parts) => self.read_direct(parts, requests, io),
                None => self.read_once(buffer, requests, io),
            };
            match step {
                ReadStep::Read(Input::Bytes(len)) => {
                    share = share.saturating_sub(len);
                    self.lifecycle.received(len);
                }
                ReadStep::Read(Input::Blocked) => break,
                ReadStep::Read(Input::End) => return self.on_end_of_input(requests),
                ReadStep::Stop(action) => return action,
            }
            if share == 0 && self.read.is_ready() && self.wants_input() {
                return Action::Resume;
            }
        }
        if self.protocol.is_closing() || self.is_continue_stuck() {
            // Refused on the way in, or asked to continue: the client has to take that first.
            return self.advance(requests, io);
        }
        self.await_input(&mut requests.clock);
        Action::Wait
    }

    /// A `100 Continue` waits for the socket.
    fn is_continue_stuck(&self) -> bool {
        !self.write.is_empty() && self.protocol.wanted() == Wanted::Body
    }

    fn read_once(
        &mut self,
        buffer: &mut [u8],
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> ReadStep {
        // What follows a head is better read to where it stays.
        let buffer = match self.protocol.wanted() {
            Wanted::Body | Wanted::StreamedBody { .. } => buffer,
            _ => &mut buffer[..FIRST_BYTES],
        };
        let Ok(input) = self.read.read(buffer, &mut self.transport) else {
            return ReadStep::Stop(Action::Close);
        };
        if let Input::Bytes(len) = input {
            let action = self.on_input(&buffer[..len], requests, io);
            if action != Action::Wait {
                return ReadStep::Stop(action);
            }
        }
        ReadStep::Read(input)
    }

    fn direct_read(&self, share: usize, bodies: &BodyBudget) -> Option<(usize, usize)> {
        let direct = || self.protocol.direct_read(share, bodies);
        self.read.is_empty().then(direct).flatten()
    }

    /// Read a large body to where it stays.
    fn read_direct(
        &mut self,
        parts: (usize, usize),
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> ReadStep {
        let (read, transport) = (&mut self.read, &mut self.transport);
        let input = (self.protocol).read_direct(parts, read, transport, &mut requests.bodies);
        let Ok(input) = input else {
            return ReadStep::Stop(Action::Close);
        };
        if let Input::Bytes(len) = input
            && len == parts.0
        {
            // The last bytes of the body are in.
            if let Err(refusal) = self.feed(&[], requests, io) {
                self.refuse(refusal, None, requests, &mut io.encoded);
            }
            if self.http2.is_some() {
                return ReadStep::Stop(self.after_receiving());
            }
        }
        ReadStep::Read(input)
    }

    /// The client has closed its side and everything before that is consumed.
    fn on_end_of_input(&mut self, requests: &mut Requests) -> Action {
        if self.protocol.has_streaming_body() {
            // It may still read the answer of an application that finds the body incomplete.
            self.fail_request_body(
                Status::BAD_REQUEST,
                io::ErrorKind::UnexpectedEof,
                "the client closed the connection before the end of the request body",
            );
            return Action::Wait;
        }
        if matches!(self.protocol.wanted(), Wanted::Head | Wanted::Body) {
            // A truncated request is never shown to the application, and no answer is awaited.
            self.protocol
                .abandon("client gone before the end of the request", requests);
        }
        self.close_announced(&mut requests.clock)
    }

    /// Bytes have arrived.
    fn on_input(&mut self, bytes: &[u8], requests: &mut Requests, io: &mut SharedIo) -> Action {
        if self.preamble != Preamble::Over {
            return self.on_preamble(bytes, requests, io);
        }
        if !self.read.is_empty() {
            self.read.keep(bytes);
            return self.receive_buffered(requests, io);
        }
        // The usual case: a whole request in one read is parsed where it lies.
        match self.receive(bytes, requests, io) {
            Ok(consumed) if consumed == bytes.len() => self.after_receiving(),
            Ok(consumed) => {
                self.read.keep(&bytes[consumed..]);
                Action::Wait
            }
            Err(refusal) => self.refuse_and_advance(refusal, requests, io),
        }
    }

    /// The connection's first bytes have arrived.
    fn on_preamble(&mut self, bytes: &[u8], requests: &mut Requests, io: &mut SharedIo) -> Action {
        self.read.keep(bytes);
        let buffer = self.read.take();
        let policy = &requests.policy;
        match self.preamble.find(&buffer, &mut self.client, policy) {
            Ok(Found::NeedData(begin)) => {
                self.read.give_back(buffer, begin);
                Action::Wait
            }
            Ok(Found::Http2(begin)) => self.begin_http2(&buffer[begin..], requests, io),
            Ok(Found::Rest(begin)) => {
                self.read.give_back(buffer, begin);
                self.receive_buffered(requests, io)
            }
            Ok(Found::Handshake(begin)) => {
                if let Some((tls, server)) = self.transport.tls().zip(io.handshakes.server()) {
                    tls.begin(server, &buffer[begin..]);
                    self.lifecycle.begin_handshake(&requests.clock);
                }
                // The others go first.
                Action::Resume
            }
            Err(refusal) => self.refuse_and_advance(refusal, requests, io),
        }
    }

    /// Continue with what was read before: the rest of a request, or the next of a pipeline.
    pub(super) fn receive_buffered(
        &mut self,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        let buffer = self.read.take();
        match self.receive(&buffer, requests, io) {
            Ok(consumed) => {
                self.read.give_back(buffer, consumed);
                self.after_receiving()
            }
            Err(refusal) => self.refuse_and_advance(refusal, requests, io),
        }
    }

    /// Consume bytes as far as they are wanted. Returns how many; the rest is to be given again with what follows.
    fn receive(
        &mut self,
        bytes: &[u8],
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Result<usize, Refusal> {
        if bytes.is_empty() || !self.wants_input() {
            return Ok(0);
        }
        self.feed(bytes, requests, io)
    }

    /// Feed the protocol, and dispatch the request that comes of it.
    fn feed(
        &mut self,
        bytes: &[u8],
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Result<usize, Refusal> {
        let mut consumed = 0;
        loop {
            let rest = &bytes[consumed..];
            let (step, arrived) =
                self.protocol
                    .receive(rest, &self.client, requests, &mut io.encoded)?;
            consumed += step;
            if !io.encoded.is_empty() {
                self.send_encoded(&mut io.encoded);
            }
            match arrived {
                Arrived::Nothing => return Ok(consumed),
                Arrived::Request(mut job) => {
                    match self.protocol.upgrade() {
                        Upgrade::None => {}
                        Upgrade::Other if consumed == bytes.len() => {
                            job.socket = self.transport.hijack();
                        }
                        Upgrade::Other => {}
                        Upgrade::Http2 => {
                            if let Some(first) = self.http2_upgrade(&job, requests) {
                                self.upgrade_to_http2(
                                    &first,
                                    &bytes[consumed..],
                                    job,
                                    requests,
                                    io,
                                );
                                return Ok(bytes.len());
                            }
                        }
                    }
                    self.dispatch(job, requests, &mut io.encoded);
                }
                Arrived::BodyOver { is_whole } => {
                    if !is_whole {
                        self.read.give_up();
                    }
                    self.lifecycle.end_body();
                }
            }
            if consumed == bytes.len() || !self.wants_input() {
                return Ok(consumed);
            }
        }
    }

    /// A request that asks for HTTP/2, as its first stream, if it may.
    fn http2_upgrade(&self, job: &Job, requests: &Requests) -> Option<FirstStream> {
        let cleartext = requests.policy.http2_cleartext(self.client.is_trusted());
        let is_allowed = cleartext.allows_upgrade()
            && matches!(self.transport, Transport::Plain(_))
            && !requests.shutdown.is_draining();
        let window = requests.policy.http2().http2_initial_window_size;
        is_allowed.then(|| first_stream(job, window)).flatten()
    }

    /// HTTP/2 takes over. The request comes again, as a stream.
    fn upgrade_to_http2(
        &mut self,
        first: &FirstStream,
        rest: &[u8],
        job: Box<Job>,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        recycle(job, requests);
        self.protocol = Http1::default();
        io.encoded.extend_from_slice(SWITCHING);
        self.send_encoded(&mut io.encoded);
        let http2 = Http2::upgraded(first, rest, &self.client, requests);
        self.http2 = Some(Box::new(http2));
    }

    /// What comes of bytes that were taken.
    fn after_receiving(&self) -> Action {
        match self.http2 {
            // It has taken over, and has a request already.
            Some(_) => Action::Resume,
            None => Action::Wait,
        }
    }

    /// Hand a request to the pool.
    fn dispatch(&mut self, mut job: Box<Job>, requests: &mut Requests, encoded: &mut Vec<u8>) {
        job.arrived = requests.clock.now();
        job.body_bytes = job.body.len();
        if requests.shutdown.is_draining() || !requests.clock.has_keep_alive() {
            self.protocol.close_after_this();
        }
        if self.usage.note_request() {
            requests.dispatch.newcomer_asked();
        }
        self.lifecycle.dispatched();
        if job.socket.is_some() {
            self.protocol.set_hijackable(true);
        }
        if let Err(job) = requests.dispatch.submit(job, &mut requests.arbiter) {
            self.drop_request_body();
            let message = "The worker is stopping";
            let refusal = Refusal::new(Status::SERVICE_UNAVAILABLE, message, message);
            self.refuse(refusal, Some(job), requests, encoded);
        }
    }

    /// The rest of a streaming body will not come.
    pub(super) fn fail_request_body(
        &mut self,
        status: Status,
        kind: io::ErrorKind,
        why: &'static str,
    ) {
        self.protocol.fail_body(status, kind, why);
        self.read.give_up();
        self.lifecycle.end_body();
    }

    /// The rest of a streaming body is not wanted. The client may still be sending it.
    pub(super) fn drop_request_body(&mut self) {
        if self.protocol.drop_body() {
            self.read.give_up();
        }
    }
}
