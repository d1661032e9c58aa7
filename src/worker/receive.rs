//! A connection's way in: bytes become a request, a whole request becomes a job.
//!
//! Reads until the socket would block, a request is whole, or the turn's share is used up. What the exchange refuses
//! is answered and the connection closes; what the client does not finish never reaches the application.

use std::io::{self, Read};

use crate::http::{BodyLength, ParseError, Received, Status};
use crate::pool::Job;

use super::connection::{Connection, Fate, PeerText, Waiting};
use super::core::Core;

/// One connection reads at most this in one turn of the loop, so that none starves the others.
const TURN_BYTES: usize = 512 * 1024;
/// A head, and what comes with it, is read in steps of this.
const FIRST_BYTES: usize = 16 * 1024;

impl Connection {
    /// The socket has something to read, or the client has closed its side (`read_closed`).
    pub(super) fn on_readable(&mut self, read_closed: bool, core: &mut Core) -> Fate {
        self.readable = true;
        self.read_closed |= read_closed;
        self.read(core)
    }

    /// Whether the connection wants bytes now. While a request is with the pool or a response is under way it does
    /// not, and the kernel's buffer holds the client back.
    pub(super) fn wants_input(&self) -> bool {
        self.outbox.is_empty()
            && (self.exchange.is_idle()
                || self.exchange.is_reading_head()
                || self.exchange.is_reading_body())
            || self.wants_arriving()
    }

    /// Read until the socket would block, a request is whole, or the turn's share is used up.
    pub(super) fn read(&mut self, core: &mut Core) -> Fate {
        if self.waiting == Waiting::Linger {
            return self.discard_input(core);
        }
        let mut scratch = std::mem::take(&mut core.scratch);
        let fate = self.read_into(&mut scratch, core);
        core.scratch = scratch;
        fate
    }

    fn read_into(&mut self, scratch: &mut [u8], core: &mut Core) -> Fate {
        let mut budget_bytes = TURN_BYTES;
        while self.readable && self.wants_input() {
            if let Some((left, room)) = self.large_body_left(budget_bytes, core) {
                match self.read_body(left, room, core) {
                    Ok(0) => return self.on_end_of_input(core),
                    Ok(len) => budget_bytes = budget_bytes.saturating_sub(len),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.readable = false;
                        break;
                    }
                    Err(_) => return Fate::Close,
                }
                if budget_bytes == 0 && self.readable && self.wants_input() {
                    return Fate::Again;
                }
                continue;
            }
            // What follows a head is better read to where it stays.
            let ahead = match self.exchange.is_reading_body() || self.arriving.is_some() {
                true => scratch.len(),
                false => FIRST_BYTES,
            };
            let len = match self.stream.read(&mut scratch[..ahead]) {
                Ok(0) => return self.on_end_of_input(core),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    break;
                }
                Err(_) => return Fate::Close,
            };
            // A read that does not fill the buffer has emptied the socket; the next byte is a new edge. Only the
            // end of input gives no further edge, so it must be read for when it was announced.
            self.readable = len == ahead || self.read_closed;
            let fate = self.on_input(&scratch[..len], core);
            if fate != Fate::Keep {
                return fate;
            }
            budget_bytes = budget_bytes.saturating_sub(len);
            if budget_bytes == 0 && self.readable && self.wants_input() {
                return Fate::Again;
            }
        }
        let continue_is_stuck = self.exchange.is_reading_body() && !self.outbox.is_empty();
        if self.exchange.is_closing() || continue_is_stuck {
            // Refused on the way in, or asked to go on: the client has to take that first.
            return self.settle(core);
        }
        self.await_input(core);
        Fate::Keep
    }

    /// The client has closed its side and everything before that is consumed.
    fn on_end_of_input(&mut self, core: &mut Core) -> Fate {
        self.readable = false;
        self.read_closed = true;
        if self.arriving.is_some() {
            // It may still read the answer of an application that finds the body incomplete.
            self.break_body(
                Status::BAD_REQUEST,
                io::ErrorKind::UnexpectedEof,
                "the client closed the connection before the end of the request body",
            );
            return Fate::Keep;
        }
        if self.exchange.is_reading_body() || self.exchange.is_reading_head() {
            // A truncated request is never shown to the application; nobody waits for an answer.
            self.log_refused(
                Status {
                    code: 400,
                    reason: "Bad Request",
                },
                "client gone before the end of the request",
                core,
            );
        }
        Fate::Close
    }

    /// Bytes have arrived.
    fn on_input(&mut self, bytes: &[u8], core: &mut Core) -> Fate {
        if self.inbound.is_empty() {
            // The usual case: a whole request in one read is parsed where it lies.
            match self.receive(bytes, core) {
                Ok(consumed) => {
                    self.inbound.extend_from_slice(&bytes[consumed..]);
                    Fate::Keep
                }
                Err(error) => self.on_parse_error(&error, core),
            }
        } else {
            self.inbound.extend_from_slice(bytes);
            self.receive_inbound(core)
        }
    }

    /// Go on with what was read before: the rest of a request, or the next of a pipeline.
    pub(super) fn receive_inbound(&mut self, core: &mut Core) -> Fate {
        let inbound = std::mem::take(&mut self.inbound);
        match self.receive(&inbound, core) {
            Ok(consumed) if consumed == inbound.len() => Fate::Keep,
            Ok(consumed) => {
                self.inbound = inbound;
                self.inbound.drain(..consumed);
                Fate::Keep
            }
            Err(error) => self.on_parse_error(&error, core),
        }
    }

    /// Feed the exchange. Returns how many bytes were consumed; the rest is offered again with what follows.
    fn receive(&mut self, bytes: &[u8], core: &mut Core) -> Result<usize, ParseError> {
        let mut consumed = 0;
        if bytes.is_empty() || !self.wants_input() {
            return Ok(0);
        }
        if self.arriving.is_some() {
            return Ok(self.receive_arriving(bytes, core));
        }
        if self.awaits_proxy_header {
            match self.receive_proxy_header(bytes, core)? {
                Some(length) => consumed = length,
                None => return Ok(0),
            }
            if consumed == bytes.len() {
                return Ok(consumed);
            }
        }
        if self.exchange.is_idle() {
            self.began = core.now;
        }
        let job = self.job.take();
        let mut job = job.unwrap_or_else(|| self.fresh_job(core));
        loop {
            let rest = &bytes[consumed..];
            let step = match self.exchange.receive(rest, &core.limits, &mut job.head) {
                Ok(step) => step,
                Err(error) => {
                    self.job = Some(job);
                    return Err(error);
                }
            };
            consumed += step.consumed;
            match step.received {
                Received::NeedData => {
                    self.job = Some(job);
                    return Ok(consumed);
                }
                Received::Head => {
                    if let Err(error) = self.on_head(&mut job, core) {
                        self.job = Some(job);
                        return Err(error);
                    }
                    if !core.buffers_requests {
                        self.dispatch_at_head(job, core);
                        return Ok(consumed + self.receive_arriving(&bytes[consumed..], core));
                    }
                }
                Received::Whole => {
                    if let Err(error) = self.judge_head(&mut job, core) {
                        self.job = Some(job);
                        return Err(error);
                    }
                    if self.exchange.asks_for_upgrade() && consumed == bytes.len() {
                        job.socket = self.offer_socket();
                    }
                    self.dispatch(job, core);
                    return Ok(consumed);
                }
                Received::Data(range) => {
                    if let Err(error) = self.spool.write(&rest[range], &mut core.spool) {
                        self.job = Some(job);
                        self.on_spool_error(&error, core);
                        return Ok(bytes.len());
                    }
                }
                Received::End => {
                    self.dispatch(job, core);
                    return Ok(consumed);
                }
            }
        }
    }

    /// The head is in. If the request may come from where it comes from, its body is wanted: at once, unless the
    /// application reads it as it arrives.
    fn on_head(&mut self, job: &mut Job, core: &mut Core) -> Result<(), ParseError> {
        self.judge_head(job, core)?;
        if !core.buffers_requests {
            return Ok(());
        }
        if let BodyLength::Known(declared) = self.exchange.body_length()
            && declared <= core.spool.body_bytes_max as u64
        {
            self.spool.reserve(declared, &core.spool);
        }
        if self.exchange.wants_continue() {
            core.out.clear();
            self.exchange.send_continue(&mut core.out);
            self.write_out(0, core);
        }
        Ok(())
    }

    /// The request is whole: hand it to the pool.
    pub(super) fn dispatch(&mut self, mut job: Box<Job>, core: &mut Core) {
        job.body_held_bytes = self.spool.held_bytes();
        match self.spool.take() {
            Ok(body) => job.body = body,
            Err(error) => {
                self.job = Some(job);
                return self.on_spool_error(&error, core);
            }
        }
        self.push_job(job, core);
    }

    /// Hand the job to the pool.
    pub(super) fn push_job(&mut self, mut job: Box<Job>, core: &mut Core) {
        job.arrived = core.now;
        job.body_bytes = job.body.len();
        let health = core.health_asked(&job.head);
        if health.is_none() {
            core.count_request();
        }
        if core.draining || core.timeouts.keep_alive.is_none() {
            self.exchange.close_after_this();
        }
        self.note_asked(core);
        self.timer.clear();
        self.waiting = Waiting::Pool;
        self.body_sent = 0;
        self.cut_bytes = 0;
        self.body_fault = None;
        self.offered = job.socket.is_some();
        if let Some(question) = health {
            return core.tell_health(job, question);
        }
        if let Err(job) = core.push(job) {
            self.drop_arriving();
            self.job = Some(job);
            self.refuse(
                Status {
                    code: 503,
                    reason: "Service Unavailable",
                },
                "The worker is stopping",
                core,
            );
        }
    }

    /// The connection is new no more.
    pub(super) fn note_asked(&mut self, core: &mut Core) {
        if !std::mem::replace(&mut self.has_asked, true) {
            core.newcomers = core.newcomers.saturating_sub(1);
        }
    }

    /// Set the deadline for what the connection waits for now.
    pub(super) fn await_input(&mut self, core: &mut Core) {
        if self.arriving.is_some() {
            return self.await_arriving(core);
        }
        if !self.wants_input() {
            return;
        }
        let (waiting, timeout) = if self.exchange.is_reading_head() {
            (Waiting::Head, core.timeouts.header)
        } else if self.exchange.is_reading_body() {
            (Waiting::Body, core.timeouts.body)
        } else if self.waiting == Waiting::FirstByte {
            return;
        } else {
            (Waiting::KeepAlive, core.timeouts.keep_alive)
        };
        // A head has one deadline from its first byte on: a byte now and then must not extend it.
        if waiting == Waiting::Head && self.waiting == Waiting::Head {
            return;
        }
        self.waiting = waiting;
        core.set_deadline(self.id(), &mut self.timer, timeout);
    }

    fn on_parse_error(&mut self, error: &ParseError, core: &mut Core) -> Fate {
        let status = error.status();
        log::warn!("Invalid request from ip={}: {error}", PeerText(self.peer));
        self.refuse(status, &error.page_message(), core);
        self.note_parse_error(error);
        self.settle(core)
    }

    fn on_spool_error(&mut self, error: &io::Error, core: &mut Core) {
        log::error!("A request body could not be spooled (worker_tmp_dir): {error}");
        self.refuse(
            Status {
                code: 507,
                reason: "Insufficient Storage",
            },
            "The request body could not be stored",
            core,
        );
        self.note_reason("no room for the request body");
    }

    /// Read and forget, until the client closes its side too: closing a socket with unread input would reset it, and
    /// the reset can destroy the response before the client has read it (RFC 9112 section 9.6).
    fn discard_input(&mut self, core: &mut Core) -> Fate {
        for _ in 0..8 {
            match self.stream.read(&mut core.scratch) {
                Ok(0) => return Fate::Close,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Fate::Keep,
                Err(_) => return Fate::Close,
            }
        }
        Fate::Again
    }
}
