//! The way in of a connection of HTTP/1: bytes of the transport to the protocol, a request to the pool.
//!
//! Reads until the socket would block, a request is whole, or the connection's share of the iteration is used up. What the
//! protocol refuses is answered and the connection closes; what the client does not finish never reaches the application.

use std::io;

use crate::http::{Status, Upgrade};
use crate::pool::Job;

use super::handshaking::{self, Handshaken};
use super::{Action, Http1Connection};
use crate::worker::events::{InputEvent, SocketEvent};
use crate::worker::http1::{Arrived, Refusal, Wanted};
use crate::worker::link::{close_announced, discard_input};
use crate::worker::loop_clock::Clock;
use crate::worker::preamble::{Found, Preamble};
use crate::worker::read_side::{Input, SHARE_BYTES};
use crate::worker::requests::Requests;
use crate::worker::shared_io::SharedIo;
use crate::worker::spool::BodyBudget;

/// A head, and what comes with it, is read in steps of this many bytes.
const FIRST_BYTES: usize = 16 * 1024;

/// What came of one read.
enum ReadStep {
    /// What it has brought is consumed or kept: reading may go on.
    Read(Input),
    /// It does not go on.
    Stop(Action),
}

impl Http1Connection<'_> {
    /// The poll set has news of the socket.
    pub(super) fn on_event(
        &mut self,
        event: SocketEvent,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        let mut action = Action::Wait;
        if event.is_writable {
            if !self.link.write.is_empty() {
                action = self.advance(requests, io);
            } else if self.link.lifecycle.may_have_unsent() {
                action = self.send_unsent(requests, io);
            }
        }
        if action == Action::Wait && event.input != InputEvent::Nothing {
            action = self.read(requests, io);
        }
        action
    }

    /// Whether bytes are wanted now. While a request is with the pool or a response is under way they are not.
    pub(super) fn wants_input(&self) -> bool {
        match self.http1.wanted() {
            Wanted::Nothing => false,
            Wanted::Request | Wanted::Head | Wanted::Body => self.link.write.is_empty(),
            Wanted::StreamedBody { has_room } => has_room,
        }
    }

    /// Set the deadline for the input that the connection waits for now.
    pub(super) fn await_input(&mut self, clock: &mut Clock) {
        match self.http1.wanted() {
            Wanted::StreamedBody { .. } if self.link.lifecycle.is_sending() => {}
            // While the window has room the next move is the client's.
            Wanted::StreamedBody { has_room: true } if !self.http1.wants_continue() => {
                self.link.lifecycle.await_body(clock);
            }
            Wanted::StreamedBody { .. } => self.link.lifecycle.end_body(),
            Wanted::Nothing => {}
            _ if !self.link.write.is_empty() => {}
            Wanted::Request => self.link.lifecycle.await_request(clock),
            Wanted::Head => self.link.lifecycle.await_head(clock),
            Wanted::Body => self.link.lifecycle.await_body(clock),
        }
    }

    /// Read until the socket would block, a request is whole, or the share of this iteration is used up.
    pub(super) fn read(&mut self, requests: &mut Requests, io: &mut SharedIo) -> Action {
        if self.link.lifecycle.is_handshaking() {
            match handshaking::step(self.link, &mut io.handshakes, &mut requests.clock) {
                Handshaken::Http1 => {}
                Handshaken::Http2 => return self.begin_http2(&[], requests, io),
                Handshaken::Pending(action) => return action,
            }
        }
        if self.link.lifecycle.is_lingering_close() {
            return discard_input(self.link, io);
        }
        let mut input = std::mem::take(&mut io.input);
        let action = self.read_into(&mut input, requests, io);
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
        while self.link.read.is_ready() && self.wants_input() {
            if share == 0 {
                // What has come until now counts: the socket may never be seen empty.
                self.await_input(&mut requests.clock);
                return Action::Resume;
            }
            let is_body = self.http1.wanted() == Wanted::Body;
            let direct = is_body
                .then(|| self.direct_read(&requests.bodies))
                .flatten();
            let step = match direct {
                Some(parts) => self.read_direct(parts, requests, io),
                None => self.read_once(buffer, requests, io),
            };
            match step {
                ReadStep::Read(Input::Bytes(len)) => {
                    share = share.saturating_sub(len);
                    self.link.lifecycle.received(len);
                }
                ReadStep::Read(Input::Blocked) => break,
                ReadStep::Read(Input::End) => return self.on_end_of_input(requests),
                ReadStep::Stop(action) => return action,
            }
        }
        if self.http1.is_closing() || self.is_continue_stuck() {
            // Refused on the way in, or asked to continue: the client has to take that first.
            return self.advance(requests, io);
        }
        self.await_input(&mut requests.clock);
        Action::Wait
    }

    /// A `100 Continue` waits for the socket.
    fn is_continue_stuck(&self) -> bool {
        !self.link.write.is_empty() && self.http1.wanted() == Wanted::Body
    }

    fn read_once(
        &mut self,
        buffer: &mut [u8],
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> ReadStep {
        // What follows a head is better read to where it stays.
        let buffer = match self.http1.wanted() {
            Wanted::Body | Wanted::StreamedBody { .. } => buffer,
            _ => &mut buffer[..FIRST_BYTES],
        };
        let Ok(input) = self.link.read.read(buffer, &mut self.link.transport) else {
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

    fn direct_read(&self, bodies: &BodyBudget) -> Option<(usize, usize)> {
        let direct = || self.http1.direct_read(bodies);
        self.link.read.is_empty().then(direct).flatten()
    }

    /// Read a large body to where it stays.
    fn read_direct(
        &mut self,
        parts: (usize, usize),
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> ReadStep {
        let (read, transport) = (&mut self.link.read, &mut self.link.transport);
        let input = (self.http1).read_direct(parts, read, transport, &mut requests.bodies);
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
            if self.successor.is_some() {
                return ReadStep::Stop(self.after_receiving());
            }
        }
        ReadStep::Read(input)
    }

    /// The client has closed its side and everything before that is consumed.
    fn on_end_of_input(&mut self, requests: &mut Requests) -> Action {
        if self.http1.has_streaming_body() {
            // It may still read the answer of an application that finds the body incomplete.
            self.fail_request_body(
                Status::BAD_REQUEST,
                io::ErrorKind::UnexpectedEof,
                "the client closed the connection before the end of the request body",
            );
            return Action::Wait;
        }
        if matches!(self.http1.wanted(), Wanted::Head | Wanted::Body) {
            // A truncated request is never shown to the application, and no answer is awaited.
            self.http1
                .abandon("client gone before the end of the request", requests);
        }
        close_announced(self.link, &mut requests.clock)
    }

    /// Bytes have arrived.
    fn on_input(&mut self, bytes: &[u8], requests: &mut Requests, io: &mut SharedIo) -> Action {
        if *self.preamble != Preamble::Over {
            return self.on_preamble(bytes, requests, io);
        }
        if !self.link.read.is_empty() {
            self.link.read.keep(bytes);
            return self.receive_buffered(requests, io);
        }
        // The usual case: a whole request in one read is parsed where it lies.
        match self.receive(bytes, requests, io) {
            Ok(consumed) if consumed == bytes.len() => self.after_receiving(),
            Ok(consumed) => {
                self.link.read.keep(&bytes[consumed..]);
                Action::Wait
            }
            Err(refusal) => self.refuse_and_advance(refusal, requests, io),
        }
    }

    /// The connection's first bytes have arrived.
    fn on_preamble(&mut self, bytes: &[u8], requests: &mut Requests, io: &mut SharedIo) -> Action {
        self.link.read.keep(bytes);
        let buffer = self.link.read.take();
        let policy = &requests.policy;
        match self.preamble.find(&buffer, &mut self.link.client, policy) {
            Ok(Found::NeedData(begin)) => {
                self.link.read.give_back(buffer, begin);
                Action::Wait
            }
            Ok(Found::Http2(begin)) => self.begin_http2(&buffer[begin..], requests, io),
            Ok(Found::Rest(begin)) => {
                self.link.read.give_back(buffer, begin);
                self.receive_buffered(requests, io)
            }
            Ok(Found::Handshake(begin)) => {
                let (hello, clock) = (&buffer[begin..], &requests.clock);
                handshaking::begin(hello, self.link, &io.handshakes, clock);
                // The others go first.
                Action::Resume
            }
            Err(refusal) => self.refuse_and_advance(refusal, requests, io),
        }
    }

    /// Continue with what another worker has read.
    pub(super) fn resume_transferred(
        &mut self,
        bytes: &[u8],
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        self.preamble.pass();
        self.link.read.keep(bytes);
        let action = self.receive_buffered(requests, io);
        if action == Action::Wait {
            self.await_input(&mut requests.clock);
        }
        action
    }

    /// Continue with what was read before: the rest of a request, or the next of a pipeline.
    pub(super) fn receive_buffered(
        &mut self,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) -> Action {
        let buffer = self.link.read.take();
        match self.receive(&buffer, requests, io) {
            Ok(consumed) => {
                self.link.read.give_back(buffer, consumed);
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
                self.http1
                    .receive(rest, &self.link.client, requests, &mut io.encoded)?;
            consumed += step;
            if !io.encoded.is_empty() {
                self.send_encoded(&mut io.encoded);
            }
            match arrived {
                Arrived::Nothing => return Ok(consumed),
                Arrived::Request(mut job) => {
                    match self.http1.upgrade() {
                        Upgrade::None => {}
                        Upgrade::Other if consumed == bytes.len() => {
                            job.socket = self.link.transport.hijack();
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
                        self.link.read.give_up();
                    }
                    self.link.lifecycle.end_body();
                }
            }
            if consumed == bytes.len() || !self.wants_input() {
                return Ok(consumed);
            }
        }
    }

    /// What comes of bytes that were taken.
    fn after_receiving(&self) -> Action {
        match self.successor {
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
            self.http1.close_after_this();
        }
        if self.link.usage.note_request() {
            requests.dispatch.newcomer_asked();
        }
        self.link.lifecycle.dispatched();
        if job.socket.is_some() {
            self.http1.set_hijackable(true);
        }
        if let Err(job) = requests.dispatch.submit(job, &mut requests.arbiter) {
            self.drop_request_body();
            let message = "The worker is stopping";
            let refusal = Refusal::new(Status::SERVICE_UNAVAILABLE, message, message);
            self.refuse(refusal, Some(job), requests, encoded);
        }
    }
}
