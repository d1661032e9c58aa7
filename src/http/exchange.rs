//! One connection's exchanges, one after another: the state machine between bytes and messages.
//!
//! Sans-I/O. The event loop feeds it what was received and writes out what it encodes; it never blocks, reads no
//! clock and keeps no bytes. Only this file assigns a connection's state. Invariants: one request is in flight at
//! a time, so nothing is read between its end and the end of its response; after a refusal or in `Closing`
//! nothing received is looked at; a response that could not be delimited closes.

use self::current_request::{Next, Request};
use self::syntax::Syntax;
use super::decode::IncomingBody;
use super::encode::{
    BodyEncoder, BodySize, HeadPlan, ResponseDefaults, write_continue, write_error_page,
    write_head, write_interim,
};
use super::error::{ParseError, Status};
use super::framing::BodyLength;
use super::head::{HeadScan, RequestHead};
use super::limits::Limits;
use super::response::ResponseHead;
use super::step::{Finish, Received, Step, WholeResponse, need_data};
use super::version::Version;

mod current_request;
mod queries;
mod syntax;

/// The state of a connection, as HTTP sees it.
#[derive(Debug, Default)]
pub struct Exchange {
    state: State,
    syntax: Syntax,
    /// Every answer says `Connection: close`, whatever the peer asks for. This outlives the exchange.
    closes_after_this: bool,
}

#[derive(Debug, Default)]
enum State {
    /// Between requests: not one byte of the next has arrived. May be closed silently.
    #[default]
    Idle,
    /// A CR has arrived: half of the one empty line that may stand before a request (RFC 9112 section 2.2).
    HalfBlank,
    /// That line was skipped, and not one byte of the request has arrived.
    AfterBlank,
    /// Part of a head has arrived.
    Head(HeadScan),
    /// Head accepted, body on its way.
    Body(Request, IncomingBody),
    /// The request is with the pool. Reading is paused, unless it was dispatched at its head: then the body is streamed.
    Dispatched(Request, Option<Box<IncomingBody>>),
    /// Head of the response is out, body follows. A streamed body of the request may still arrive.
    Responding(Request, BodyEncoder, Option<Box<IncomingBody>>),
    /// The request was refused, if there was one; the page that says so has not been written.
    Refused(Option<Request>),
    /// Flush what is queued, then close. No more input matters.
    Closing(LastBody),
}

/// How the last response's body ends on a connection that closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastBody {
    /// By its own framing, or there was none.
    Framed,
    /// With the connection, and it is whole.
    ClosesWhole,
    /// With the connection, and it was given up.
    ClosesCut,
}

impl Exchange {
    /// Feeds bytes received and not yet consumed. On a head, fills `head`; on a refused one, fills in what a log
    /// line can show of it.
    pub fn receive(
        &mut self,
        input: &[u8],
        limits: &Limits,
        head: &mut RequestHead,
    ) -> Result<Step, ParseError> {
        self.check_invariants();
        let step = match &mut self.state {
            State::Idle | State::HalfBlank => self.receive_first(input, limits, head),
            State::AfterBlank => self.receive_head(input, HeadScan::default(), limits, head),
            State::Head(scan) => {
                let scan = *scan;
                self.receive_head(input, scan, limits, head)
            }
            State::Body(request, body) => {
                let request = *request;
                body.receive(input, limits).inspect(|step| {
                    if step.received == Received::End {
                        self.state = State::Dispatched(request, None);
                    }
                })
            }
            State::Dispatched(..) | State::Responding(..) => Ok(need_data(0)),
            State::Refused(_) | State::Closing(_) => Ok(need_data(input.len())),
        };
        if step.is_err() {
            self.state = State::Refused(self.request().copied());
        }
        self.check_invariants();
        step
    }

    /// `len` bytes of a body whose length was declared ([`Exchange::counted_body_left`]) were taken from the peer without
    /// passing through [`Exchange::receive`], which still tells the end of the body.
    pub fn take_counted(&mut self, len: u64) {
        if let State::Body(_, body) = &mut self.state {
            body.take_counted(len);
        }
        self.check_invariants();
    }

    pub fn send_continue(&mut self, out: &mut Vec<u8>) {
        if self
            .incoming_body_mut()
            .is_some_and(IncomingBody::take_expectation)
        {
            write_continue(out);
        }
    }

    /// The request goes to the pool although its body is still to come: [`Exchange::receive_streamed_body`] takes that.
    pub fn dispatch_at_head(&mut self) {
        if let State::Body(request, body) = self.state {
            self.state = State::Dispatched(request, Some(Box::new(body)));
        }
        self.check_invariants();
    }

    /// Feeds bytes of the body of a request that was dispatched at its head. After `End` or an error there is no more.
    pub fn receive_streamed_body(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Step, ParseError> {
        let (State::Dispatched(request, streamed) | State::Responding(request, _, streamed)) =
            &mut self.state
        else {
            return Ok(need_data(0));
        };
        let Some(body) = streamed else {
            return Ok(need_data(0));
        };
        let step = body
            .receive(input, limits)
            .inspect_err(|_| request.next = Next::Close)?;
        if step.received == Received::End {
            *streamed = None;
        }
        Ok(step)
    }

    /// The rest of the body will not be received: the connection can take no other request.
    pub fn give_up_body(&mut self) {
        if let State::Dispatched(request, streamed) | State::Responding(request, _, streamed) =
            &mut self.state
        {
            *streamed = None;
            request.next = Next::Close;
        }
    }

    /// Drain: the answer to the current or next request will say `Connection: close`.
    pub fn close_after_this(&mut self) {
        self.closes_after_this = true;
    }

    /// Encodes the head of the response. Legal once the head of the request is whole and no response has begun;
    /// while its body is still arriving, the connection will close.
    pub fn respond(
        &mut self,
        head: &ResponseHead,
        size: BodySize,
        defaults: &ResponseDefaults<'_>,
        out: &mut Vec<u8>,
    ) {
        if let Some((request, encoder, streamed)) = self.encode_head(head, size, defaults, out) {
            self.state = State::Responding(request, encoder, streamed);
        }
        self.check_invariants();
    }

    /// Encodes the head of a response whose body of `len` bytes is at hand, and ends the response: nothing is framed
    /// around such a body. Legal when [`Exchange::respond`] is.
    pub fn respond_whole(
        &mut self,
        head: &ResponseHead,
        len: u64,
        defaults: &ResponseDefaults<'_>,
        out: &mut Vec<u8>,
    ) -> WholeResponse {
        let size = BodySize::Exact(len);
        let Some((request, encoder, _)) = self.encode_head(head, size, defaults, out) else {
            return WholeResponse {
                taken: 0,
                finish: Finish::Close,
            };
        };
        let (taken, missing) = match encoder {
            BodyEncoder::NoBody => (0, 0),
            BodyEncoder::Length { remaining } => {
                (len.min(remaining), remaining.saturating_sub(len))
            }
            BodyEncoder::Chunked { .. } | BodyEncoder::CloseDelimited => {
                debug_assert!(false, "the length is known");
                (0, 0)
            }
        };
        let finish = self.end(request.next, missing, LastBody::Framed);
        WholeResponse { taken, finish }
    }

    /// Returns what the response's state is made of.
    fn encode_head(
        &mut self,
        head: &ResponseHead,
        size: BodySize,
        defaults: &ResponseDefaults<'_>,
        out: &mut Vec<u8>,
    ) -> Option<(Request, BodyEncoder, Option<Box<IncomingBody>>)> {
        self.check_invariants();
        debug_assert!(head.is_set(), "a response needs a status");
        let is_dispatched = self.is_dispatched();
        let (mut request, streamed) = match &mut self.state {
            State::Head(_) => (Request::unknown(), None),
            State::Body(request, _) => (*request, None),
            State::Dispatched(request, streamed) => (*request, streamed.take()),
            _ => {
                debug_assert!(
                    false,
                    "a response to nothing, or a second one: {:?}",
                    self.state
                );
                self.abort();
                return None;
            }
        };
        // After 101 the bytes are another protocol's, and after any other 1xx the peer still waits for an answer.
        let is_interim = (100..200).contains(&head.status_code());
        let closes = !is_dispatched
            || streamed.is_some()
            || self.closes_after_this
            || head.closes()
            || is_interim
            || request.next == Next::Close;
        let plan = HeadPlan {
            version: request.version,
            is_head_request: request.is_head,
            size,
            closes,
        };
        let encoder = write_head(head, plan, defaults, out);
        if closes || encoder == BodyEncoder::CloseDelimited {
            request.next = Next::Close;
        }
        Some((request, encoder, streamed))
    }

    /// Encodes an interim response (RFC 9110 section 15.2). Nothing comes of it when the response has begun, or for
    /// a peer of HTTP/1.0, which knows none.
    pub fn hint(&self, head: &ResponseHead, out: &mut Vec<u8>) {
        if let State::Dispatched(request, _) = &self.state
            && request.version >= Version::HTTP_11
        {
            write_interim(head, out);
        }
    }

    /// Frames `len` bytes of body: writes what stands before them and returns how many of them to send. Fewer when
    /// they exceed the Content-Length or the response has no body.
    pub fn data(&mut self, len: usize, out: &mut Vec<u8>) -> usize {
        match &mut self.state {
            State::Responding(_, encoder, _) => encoder.data(len, out),
            _ => 0,
        }
    }

    /// After the bytes of a `data` call: writes what stands behind them.
    pub fn data_end(&mut self, out: &mut Vec<u8>) {
        if let State::Responding(_, encoder, _) = &mut self.state {
            encoder.data_end(out);
        }
    }

    /// The response is over.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Finish {
        self.check_invariants();
        let State::Responding(request, encoder, _) = &mut self.state else {
            self.abort();
            return Finish::Close;
        };
        let missing = encoder.finish(out);
        let last = match encoder {
            BodyEncoder::CloseDelimited => LastBody::ClosesWhole,
            _ => LastBody::Framed,
        };
        let next = request.next;
        self.end(next, missing, last)
    }

    /// The response is over but for `missing` bytes of its body.
    fn end(&mut self, next: Next, missing: u64, last: LastBody) -> Finish {
        if missing == 0 && next == Next::Request {
            // A drain that began after the head was encoded applies to the next request.
            self.state = State::Idle;
            return Finish::KeepAlive;
        }
        self.state = State::Closing(last);
        self.check_invariants();
        match missing {
            0 => Finish::Close,
            missing => Finish::Short { missing },
        }
    }

    /// Refuses with an error page; the connection closes. Silent once a response has begun: it cannot be taken back.
    pub fn refuse(
        &mut self,
        status: Status,
        message: &str,
        defaults: &ResponseDefaults<'_>,
        out: &mut Vec<u8>,
    ) {
        if !matches!(self.state, State::Responding(..) | State::Closing(_)) {
            write_error_page(status, message, self.is_head_request(), defaults, out);
        }
        self.abort();
    }

    /// Breaks off: nothing more is encoded, the connection closes, and a response that is under way is given up.
    pub fn abort(&mut self) {
        self.state = State::Closing(match self.state {
            State::Closing(last) => last,
            State::Responding(_, BodyEncoder::CloseDelimited, _) => LastBody::ClosesCut,
            _ => LastBody::Framed,
        });
        self.check_invariants();
    }

    /// The start of a request, before which one empty line may stand.
    fn receive_first(
        &mut self,
        input: &[u8],
        limits: &Limits,
        head: &mut RequestHead,
    ) -> Result<Step, ParseError> {
        match input {
            _ if self.is_uwsgi() => self.receive_head(input, HeadScan::default(), limits, head),
            // May become the empty line; a byte has arrived, so the peer is no longer idle.
            [b'\r'] => {
                self.state = State::HalfBlank;
                Ok(need_data(0))
            }
            [b'\r', b'\n', rest @ ..] => {
                self.state = State::AfterBlank;
                let mut step = self.receive_head(rest, HeadScan::default(), limits, head)?;
                step.consumed += 2;
                Ok(step)
            }
            _ => self.receive_head(input, HeadScan::default(), limits, head),
        }
    }

    fn receive_head(
        &mut self,
        input: &[u8],
        mut scan: HeadScan,
        limits: &Limits,
        head: &mut RequestHead,
    ) -> Result<Step, ParseError> {
        if input.is_empty() {
            return Ok(need_data(0));
        }
        let Some((consumed, framing)) = self.syntax.parse(input, &mut scan, limits, head)? else {
            self.state = State::Head(scan);
            return Ok(need_data(0));
        };
        let request = self.syntax.request(&framing, head);
        let received = match framing.length {
            BodyLength::Empty | BodyLength::Known(0) => {
                self.state = State::Dispatched(request, None);
                Received::Whole
            }
            BodyLength::Known(_) | BodyLength::Chunked => {
                let more_has_arrived = input.len() > consumed;
                self.state = State::Body(request, IncomingBody::new(&framing, more_has_arrived));
                Received::Head
            }
        };
        Ok(Step { consumed, received })
    }
}

/// Ten thousand idle connections are to cost little.
const _: () = assert!(size_of::<Exchange>() <= 72);

#[cfg(test)]
mod tests;
