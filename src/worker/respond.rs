//! A connection's way out: replies become bytes, bytes are written, and then it is decided what comes next.

use std::io::{self, Write};

use crate::http::{BodySize, Finish, ResponseHead};
use crate::pool::{Job, Piece, ResponseBody, StreamedResponse};

use super::connection::{Answered, Connection, Fate, Waiting};
use super::core::Core;
use super::request_line::{RequestLine, log_excess};

/// A whole body up to this length is copied behind its head, so that one plain write sends both.
const ONE_WRITE_BYTES: usize = 16 * 1024;

impl Connection {
    /// The whole response has come.
    pub(super) fn on_whole(&mut self, mut job: Box<Job>, core: &mut Core) -> Fate {
        let body = std::mem::take(&mut job.response_body);
        let total = body.len();
        core.out.clear();
        let (look, out) = core.look_and_out();
        self.exchange
            .respond(&job.response, BodySize::Exact(total), &look, out);
        let take = if total > 0 {
            self.exchange
                .data(usize::try_from(total).unwrap_or(usize::MAX), out)
        } else {
            0
        };
        self.body_sent = take as u64;
        self.cut_bytes = total.saturating_sub(take as u64);
        job.response_body = self.send_whole_body(body, take, core);
        if total > 0 {
            self.exchange.data_end(&mut core.out);
        }
        self.finish(job, core)
    }

    /// Send or queue the encoded head and the first `take` bytes of the body. Returns the body's buffers, emptied.
    fn send_whole_body(
        &mut self,
        mut body: ResponseBody,
        take: usize,
        core: &mut Core,
    ) -> ResponseBody {
        let take_bytes = take.min(body.bytes.len());
        if body.pieces.is_empty() && take_bytes <= ONE_WRITE_BYTES {
            core.out.extend_from_slice(&body.bytes[..take_bytes]);
            return body;
        }
        self.outbox.push_bytes(&core.out, 0);
        core.out.clear();
        let bytes = Piece::Bytes(std::mem::take(&mut body.bytes));
        let mut left = take as u64;
        for piece in std::iter::once(bytes).chain(body.pieces.drain(..)) {
            let step = left.min(piece.len());
            left -= step;
            self.outbox.push_piece(piece, step, 0, &mut core.finished);
        }
        body
    }

    /// An interim response has come. It is only a hint: one that would have to wait is not worth sending.
    pub(super) fn on_hints(&mut self, hints: &ResponseHead, core: &mut Core) -> Fate {
        core.out.clear();
        if self.offered {
            // The socket may yet be taken, so nothing may be written to it.
            return Fate::Keep;
        }
        self.exchange.hint(hints, &mut core.out);
        if self.outbox.is_empty() {
            self.write_out(0, core);
        }
        core.out.clear();
        self.settle(core)
    }

    /// The head of a streamed response has come.
    pub(super) fn on_head_reply(&mut self, streaming: StreamedResponse, core: &mut Core) -> Fate {
        core.out.clear();
        let (look, out) = core.look_and_out();
        self.exchange
            .respond(&streaming.response, BodySize::Unknown, &look, out);
        self.status = streaming.response.status_code();
        self.streamed = Some(streaming.response);
        self.window = Some(streaming.window);
        self.body_sent = 0;
        self.outbox.push_bytes(&core.out, 0);
        self.write_at_end_of_turn(core)
    }

    /// A piece of a streamed body has come.
    pub(super) fn on_data(&mut self, piece: Piece, core: &mut Core) -> Fate {
        if !self.exchange.is_responding() {
            // The connection is on its way to its end; the thread learns it from the window.
            return self.give_up_piece(piece, core);
        }
        let len = usize::try_from(piece.len()).unwrap_or(usize::MAX);
        core.out.clear();
        let take = self.exchange.data(len, &mut core.out);
        self.body_sent += take as u64;
        self.cut_bytes += (len - take) as u64;
        self.outbox.push_bytes(&core.out, 0);
        self.outbox
            .push_piece(piece, take as u64, len, &mut core.finished);
        core.out.clear();
        self.exchange.data_end(&mut core.out);
        self.outbox.push_bytes(&core.out, 0);
        self.write_at_end_of_turn(core)
    }

    /// What the pool has sent in one turn leaves in one write.
    fn write_at_end_of_turn(&mut self, core: &mut Core) -> Fate {
        core.out.clear();
        if !self.is_streaming {
            self.is_streaming = true;
            core.streaming.push(self.id());
        }
        Fate::Keep
    }

    /// The turn's replies are all in.
    pub(super) fn write_streamed(&mut self, core: &mut Core) -> Fate {
        self.is_streaming = false;
        if self.outbox.is_empty() {
            // Its end came in the same turn and took everything along.
            return Fate::Keep;
        }
        self.settle(core)
    }

    fn give_up_piece(&self, piece: Piece, core: &mut Core) -> Fate {
        if let Piece::Borrowed(shared) = piece {
            core.finished.push(shared);
        }
        Fate::Keep
    }

    /// A streamed response is over.
    pub(super) fn on_end(&mut self, job: Box<Job>, core: &mut Core) -> Fate {
        core.out.clear();
        if self.exchange.is_responding() {
            return self.finish(job, core);
        }
        self.answer_streamed(job, "client gone");
        self.settle(core)
    }

    /// Close the response's framing, write what is encoded, and see what comes next.
    fn finish(&mut self, mut job: Box<Job>, core: &mut Core) -> Fate {
        if let Some(head) = self.streamed.take() {
            job.response = head;
        }
        let status = job.response.status_code();
        let status = if status == 0 { self.status } else { status };
        if self.cut_bytes > 0 && !self.exchange.is_head_request() {
            log_excess(&job, status, self.cut_bytes);
        }
        let mut reason = job.refusal;
        if let Finish::Short { missing } = self.exchange.finish(&mut core.out) {
            reason = "response too short";
            log::error!(
                "Response to {} is {missing} bytes shorter than its Content-Length; closing the connection.",
                RequestLine(&job)
            );
        }
        self.answered = Some(Answered {
            job,
            status,
            reason: reason.into(),
        });
        self.write_out(0, core);
        self.settle(core)
    }

    /// Write what is encoded in `core.out`; what the socket does not take is queued. `credit` is the window that
    /// these bytes give back.
    pub(super) fn write_out(&mut self, credit: usize, core: &mut Core) {
        let mut written = 0;
        if self.outbox.is_empty() && !core.out.is_empty() {
            written = loop {
                match self.stream.write(&core.out) {
                    Ok(written) => break written,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // A broken socket is found again, and closed, by the flush that `settle` does.
                    Err(_) => break 0,
                }
            };
        }
        if written == core.out.len() && self.outbox.is_empty() {
            if credit > 0
                && let Some(window) = &self.window
            {
                window.credit(credit);
            }
        } else {
            self.outbox.push_bytes(&core.out[written..], credit);
        }
        core.out.clear();
    }

    /// The socket takes bytes again.
    pub(super) fn on_writable(&mut self, core: &mut Core) -> Fate {
        if self.outbox.is_empty() {
            Fate::Keep
        } else {
            self.settle(core)
        }
    }

    /// Write what is queued, and when all is written decide what comes next.
    pub(super) fn settle(&mut self, core: &mut Core) -> Fate {
        if !self.outbox.is_empty() {
            match self.flush(core) {
                Ok(None) => {}
                Ok(Some(fate)) => return fate,
                Err(_) => return Fate::Close,
            }
        }
        if let Some(answered) = self.answered.take() {
            if !answered.job.unlogged {
                self.log_answered(&answered, core);
            }
            core.recycle(answered.job);
            self.window = None;
        }
        if self.exchange.is_closing() {
            return self.close_or_linger(core);
        }
        if self.exchange.is_idle() {
            return self.next_request(core);
        }
        if self.waiting == Waiting::Send {
            // A streamed response has caught up; the next move is the application's.
            self.waiting = Waiting::Pool;
            self.timer.clear();
        }
        // An interim answer (100) was held up by the socket: the body it asked for may have come meanwhile.
        self.await_input(core);
        if self.wants_input() && self.is_readable() {
            return Fate::Again;
        }
        Fate::Keep
    }

    /// Returns what becomes of the connection when not everything was written.
    fn flush(&mut self, core: &mut Core) -> io::Result<Option<Fate>> {
        if core.turn_bytes_left == 0 {
            return Ok(Some(Fate::Again));
        }
        let flushed = self.outbox.flush(&mut self.stream, &mut core.finished)?;
        core.turn_bytes_left = core.turn_bytes_left.saturating_sub(flushed.written);
        if flushed.credit > 0
            && let Some(window) = &self.window
        {
            window.credit(flushed.credit);
        }
        if flushed.file_short {
            if let Some(answered) = &self.answered {
                log::error!(
                    "The file sent to {} became shorter meanwhile; closing the connection.",
                    RequestLine(&answered.job)
                );
            }
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !flushed.empty && (flushed.written > 0 || self.waiting != Waiting::Send) {
            self.waiting = Waiting::Send;
            core.set_deadline(self.id(), &mut self.timer, core.timeouts.send);
        }
        Ok(match (flushed.empty, flushed.has_more_room) {
            (true, _) => None,
            (false, true) => Some(Fate::Again),
            (false, false) => Some(Fate::Keep),
        })
    }

    /// The response is written and the connection stays: go on with what was pipelined, or wait.
    fn next_request(&mut self, core: &mut Core) -> Fate {
        self.waiting = Waiting::KeepAlive;
        self.was_kept = true;
        self.idle_since = core.now;
        if !self.inbound.is_empty() {
            let fate = self.receive_inbound(core);
            if fate != Fate::Keep {
                return fate;
            }
            // Refused, or asked to go on by a `100 Continue` that the socket does not take.
            if self.exchange.is_closing() || !self.outbox.is_empty() {
                return self.settle(core);
            }
        }
        if self.is_readable() && self.wants_input() {
            // Read in a later step of this turn: a client that pipelines must not starve the others.
            return Fate::Again;
        }
        if self.exchange.is_idle() && core.draining {
            // The response began before the stop and could not say close.
            self.await_last_request(core);
        } else if self.exchange.is_idle() {
            core.room_made = true;
            core.set_deadline(self.id(), &mut self.timer, core.timeouts.keep_alive);
        } else {
            self.await_input(core);
        }
        Fate::Keep
    }

    fn close_or_linger(&mut self, core: &mut Core) -> Fate {
        if self.waiting == Waiting::Linger {
            return Fate::Keep;
        }
        self.drop_arriving();
        if self.exchange.would_look_whole(true) {
            return Fate::Close;
        }
        // A client that has closed its side may have sent more before that than was read.
        let input_is_over = self.read_closed && !self.is_readable();
        if input_is_over || !self.may_have_unread_input() && !self.refused {
            return Fate::Close;
        }
        if self.stream.shutdown_write().is_err() {
            return Fate::Close;
        }
        self.inbound = Vec::new();
        self.waiting = Waiting::Linger;
        core.set_deadline(self.id(), &mut self.timer, Some(core.timeouts.linger));
        // Not here: this may be called while the buffer that is read into is in use.
        Fate::Again
    }

    /// The connection is removed: wake whom it holds, give back what it holds.
    pub(super) fn on_close(&mut self, core: &mut Core) {
        if self.has_asked {
            core.note_kept(self.was_kept);
        }
        self.note_asked(core);
        if let Some(window) = self.window.take() {
            window.close();
        }
        self.drop_arriving();
        if self.exchange.would_look_whole(self.outbox.is_empty()) {
            self.stream.reset_on_close();
        }
        let unsent_bytes = self.outbox.unsent_bytes();
        self.body_sent = self.body_sent.saturating_sub(unsent_bytes);
        if unsent_bytes > 0
            && self
                .answered
                .as_ref()
                .is_some_and(|answered| answered.reason.is_empty())
        {
            self.note_reason(if core.cut {
                "cut by the stop"
            } else {
                "client gone"
            });
        }
        self.outbox.abandon(&mut core.finished);
        self.drop_spool(core);
        if let Some(answered) = self.answered.take() {
            if !answered.job.unlogged {
                self.log_answered(&answered, core);
            }
            core.recycle(answered.job);
        }
        if let Some(job) = self.job.take() {
            core.recycle(job);
        }
    }
}
