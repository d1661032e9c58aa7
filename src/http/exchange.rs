//! One connection's exchanges, one after another: the state machine between bytes and messages.
//!
//! Sans-I/O. The event loop feeds it what was received and writes out what it encodes; it never blocks, reads no
//! clock and keeps no bytes. Only this file assigns a connection's state. Invariants: one request is in flight at
//! a time, so nothing is read between its end and the end of its response; after a refusal or in `Closing`
//! nothing received is looked at; a response that could not be delimited closes.

use super::chunked::Piece;
use super::decode::BodyDecoder;
use super::encode::{
    BodyEncoder, BodySize, HeadPlan, Look, write_continue, write_error_page, write_head,
    write_interim,
};
use super::error::{ParseError, Status};
use super::framing::{BodyLength, Framing};
use super::head::{HeadScan, RequestHead, Version, parse_head};
use super::limits::Limits;
use super::response::ResponseHead;
use super::step::{Received, Step, need_data, step};

mod queries;

/// The state of a connection, as HTTP sees it.
#[derive(Debug)]
pub struct Exchange {
    state: State,
    /// Of the request being received or answered.
    length: BodyLength,
    version: Version,
    is_head_request: bool,
    /// After this response the connection takes another request. Decided by the request first, then by the response.
    keep_alive: bool,
    /// The peer waits for `100 Continue`.
    waits_for_continue: bool,
    /// The peer would like to speak another protocol after this request.
    asks_for_upgrade: bool,
    /// The one empty line that may stand before a request was seen (RFC 9112 section 2.2).
    blank_skipped: bool,
    /// The answer will say `Connection: close`, whatever the peer wishes.
    draining: bool,
    /// The end of the connection is the end of the response's body.
    ends_with_connection: bool,
    /// The response was begun and given up.
    broken_off: bool,
    /// The body that arrives while its request is already with the pool.
    arriving: Option<Box<BodyDecoder>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Between requests: not one byte of the next has arrived. May be closed silently.
    Idle,
    /// Part of a head has arrived.
    Head(HeadScan),
    /// Head accepted, body arriving.
    Body(BodyDecoder),
    /// The request is whole and with the pool. Reading is paused.
    Dispatched,
    /// Head of the response is out, body follows.
    Responding(BodyEncoder),
    /// The request was refused; the page that says so has not been written.
    Refused,
    /// Flush what is queued, then close. No more input matters.
    Closing,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    KeepAlive,
    Close,
    /// Fewer bytes than the declared Content-Length; the connection closes so that the peer can tell.
    Short {
        missing: u64,
    },
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            state: State::Idle,
            length: BodyLength::Empty,
            version: Version::HTTP_11,
            is_head_request: false,
            keep_alive: true,
            waits_for_continue: false,
            asks_for_upgrade: false,
            blank_skipped: false,
            draining: false,
            ends_with_connection: false,
            broken_off: false,
            arriving: None,
        }
    }
}

impl Exchange {
    /// Feeds bytes received and not yet consumed. On a head, fills `head`; on a refused one, fills in what a log
    /// line can show of it.
    pub fn receive(
        &mut self,
        inbound: &[u8],
        limits: &Limits,
        head: &mut RequestHead,
    ) -> Result<Step, ParseError> {
        self.check_invariants();
        let step = match self.state {
            State::Idle => self.receive_head(inbound, HeadScan::default(), limits, head),
            State::Head(scan) => self.receive_head(inbound, scan, limits, head),
            State::Body(decoder) => self.receive_body(inbound, decoder, limits),
            State::Dispatched | State::Responding(_) => Ok(need_data(0)),
            State::Refused | State::Closing => Ok(need_data(inbound.len())),
        };
        if step.is_err() {
            self.state = State::Refused;
            self.keep_alive = false;
        }
        self.check_invariants();
        step
    }

    /// After a head: whether the request has no body and so is whole. It is then as after [`Received::End`].
    pub fn ends_at_head(&mut self) -> bool {
        let is_whole = self.length == BodyLength::Empty && matches!(self.state, State::Body(_));
        if is_whole {
            self.state = State::Dispatched;
        }
        self.check_invariants();
        is_whole
    }

    /// `len` bytes of a body whose length was declared ([`Exchange::counted_body_left`]) were taken from the peer without
    /// passing through [`Exchange::receive`], which still tells the end of the body.
    pub fn take_counted(&mut self, len: u64) {
        self.check_invariants();
        if let State::Body(BodyDecoder::Length { remaining }) = &mut self.state {
            debug_assert!(len <= *remaining, "more than the body has");
            *remaining = remaining.saturating_sub(len);
            self.waits_for_continue &= len == 0;
        }
        self.check_invariants();
    }

    pub fn send_continue(&mut self, out: &mut Vec<u8>) {
        if self.wants_continue() {
            write_continue(out);
        }
        self.waits_for_continue = false;
    }

    /// The request goes to the pool although its body is still to come: [`Exchange::receive_arriving`] takes that.
    pub fn dispatch_at_head(&mut self) {
        if let State::Body(decoder) = self.state {
            self.arriving = Some(Box::new(decoder));
            self.state = State::Dispatched;
        }
        self.check_invariants();
    }

    /// Feeds bytes of the body of a request that was dispatched at its head. After `End` or an error there is no more.
    pub fn receive_arriving(
        &mut self,
        inbound: &[u8],
        limits: &Limits,
    ) -> Result<Step, ParseError> {
        let Some(decoder) = &mut self.arriving else {
            return Ok(need_data(0));
        };
        let (consumed, piece) = decoder
            .decode(inbound, limits)
            .inspect_err(|_| self.keep_alive = false)?;
        self.waits_for_continue &= consumed == 0;
        if piece == Piece::End {
            self.waits_for_continue = false;
            self.arriving = None;
        }
        Ok(step(consumed, piece))
    }

    /// The rest of the body will not be received: the connection can take no other request.
    pub fn give_up_body(&mut self) {
        self.arriving = None;
        self.waits_for_continue = false;
        self.keep_alive = false;
    }

    /// Drain: the answer to the current or next request will say `Connection: close`.
    pub fn close_after_this(&mut self) {
        self.draining = true;
    }

    /// Encodes the head of the response. Legal once the head of the request is whole and no response has begun;
    /// while its body is still arriving, the connection will close.
    pub fn respond(
        &mut self,
        head: &ResponseHead,
        size: BodySize,
        look: &Look<'_>,
        out: &mut Vec<u8>,
    ) {
        self.check_invariants();
        let may_respond = matches!(
            self.state,
            State::Head(_) | State::Body(_) | State::Dispatched
        );
        debug_assert!(
            may_respond,
            "a response to nothing, or a second one: {:?}",
            self.state
        );
        debug_assert!(head.is_set(), "a response needs a status");
        if !may_respond {
            self.state = State::Closing;
            return;
        }
        let code = head.status_code();
        let is_interim = (100..200).contains(&code);
        let (encoder, added_length) =
            BodyEncoder::choose(self.version, self.is_head_request, head, size);
        // After 101 the bytes are another protocol's, and after any other 1xx the peer still waits for an answer.
        self.keep_alive &= self.is_dispatched()
            && self.arriving.is_none()
            && !self.draining
            && !head.closes()
            && !is_interim
            && encoder != BodyEncoder::CloseDelimited;
        let plan = HeadPlan {
            is_http_10: self.version < Version::HTTP_11,
            connection: match (head.upgrades(), self.keep_alive) {
                (true, true) => b"upgrade",
                (true, false) if code == 101 => b"upgrade",
                (true, false) => b"upgrade, close",
                (false, true) => b"keep-alive",
                (false, false) => b"close",
            },
            is_chunked: matches!(encoder, BodyEncoder::Chunked { .. }),
            content_length: added_length,
            // RFC 9110 section 8.6: never in 1xx and 204.
            drops_content_length: is_interim || code == 204,
        };
        write_head(head, &plan, look, out);
        self.waits_for_continue = false;
        self.ends_with_connection = encoder == BodyEncoder::CloseDelimited;
        self.state = State::Responding(encoder);
        self.check_invariants();
    }

    /// Encodes an interim response (RFC 9110 section 15.2). Nothing comes of it when the response has begun, or for
    /// a peer of HTTP/1.0, which knows none.
    pub fn hint(&self, head: &ResponseHead, out: &mut Vec<u8>) {
        if self.is_dispatched() && self.version >= Version::HTTP_11 {
            write_interim(head, out);
        }
    }

    /// Frames `len` bytes of body: writes what stands before them and returns how many of them to send. Fewer when
    /// they exceed the Content-Length or the response has no body.
    pub fn data(&mut self, len: usize, out: &mut Vec<u8>) -> usize {
        match &mut self.state {
            State::Responding(encoder) => encoder.data(len, out),
            _ => 0,
        }
    }

    /// After the bytes of a `data` call: writes what stands behind them.
    pub fn data_end(&mut self, out: &mut Vec<u8>) {
        if let State::Responding(encoder) = &mut self.state {
            encoder.data_end(out);
        }
    }

    /// The response is over.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Finish {
        self.check_invariants();
        let State::Responding(encoder) = &mut self.state else {
            self.state = State::Closing;
            return Finish::Close;
        };
        let missing = encoder.finish(out);
        if missing > 0 {
            self.close();
            return Finish::Short { missing };
        }
        if !self.keep_alive {
            self.close();
            return Finish::Close;
        }
        let draining = self.draining;
        *self = Self::default();
        // A drain that began after the head was encoded applies to the next request.
        self.draining = draining;
        Finish::KeepAlive
    }

    /// Refuses with an error page; the connection closes. Silent once a response has begun: it cannot be taken back.
    pub fn refuse(&mut self, status: Status, message: &str, look: &Look<'_>, out: &mut Vec<u8>) {
        if !matches!(self.state, State::Responding(_) | State::Closing) {
            write_error_page(status, message, self.is_head_request, look, out);
        }
        self.abort();
    }

    /// Breaks off: nothing more is encoded, and the connection closes.
    pub fn abort(&mut self) {
        self.broken_off |= self.is_responding();
        self.close();
    }

    fn close(&mut self) {
        self.state = State::Closing;
        self.keep_alive = false;
        self.waits_for_continue = false;
        self.arriving = None;
        self.check_invariants();
    }

    fn receive_head(
        &mut self,
        inbound: &[u8],
        mut scan: HeadScan,
        limits: &Limits,
        head: &mut RequestHead,
    ) -> Result<Step, ParseError> {
        let mut skipped = 0;
        if !self.blank_skipped && scan == HeadScan::default() {
            match inbound {
                // May become the empty line; a byte has arrived, so the peer is no longer idle.
                [b'\r'] => {
                    self.state = State::Head(scan);
                    return Ok(need_data(0));
                }
                [b'\r', b'\n', ..] => {
                    skipped = 2;
                    self.blank_skipped = true;
                    self.state = State::Idle;
                }
                _ => {}
            }
        }
        let rest = &inbound[skipped..];
        if rest.is_empty() {
            return Ok(need_data(skipped));
        }
        let parsed = parse_head(rest, &mut scan, limits, head)
            .inspect_err(|_| head.keep_refused(rest, limits))?;
        let Some((length, framing)) = parsed else {
            self.state = State::Head(scan);
            return Ok(need_data(skipped));
        };
        self.begin_body(framing, head, rest.len() > length);
        Ok(Step {
            consumed: skipped + length,
            received: Received::Head,
        })
    }

    fn begin_body(&mut self, framing: Framing, head: &RequestHead, more_has_arrived: bool) {
        self.length = framing.length;
        self.version = head.version();
        self.is_head_request = head.method() == b"HEAD";
        self.keep_alive = framing.keep_alive;
        self.waits_for_continue = framing.expects_continue && !more_has_arrived;
        self.asks_for_upgrade = framing.asks_for_upgrade;
        self.blank_skipped = false;
        self.state = State::Body(BodyDecoder::new(framing.length));
    }

    fn receive_body(
        &mut self,
        inbound: &[u8],
        mut decoder: BodyDecoder,
        limits: &Limits,
    ) -> Result<Step, ParseError> {
        let (consumed, piece) = decoder.decode(inbound, limits)?;
        if consumed > 0 || piece == Piece::End {
            self.waits_for_continue = false;
        }
        self.state = match piece {
            Piece::End => State::Dispatched,
            _ => State::Body(decoder),
        };
        Ok(step(consumed, piece))
    }
}

/// Ten thousand idle connections are to cost little.
const _: () = assert!(size_of::<Exchange>() <= 72);

#[cfg(test)]
mod tests;
