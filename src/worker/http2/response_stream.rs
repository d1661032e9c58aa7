//! The body of one response on its way out: pieces become DATA frames, as far as the windows of stream and connection go.
//!
//! Nothing is handed to the crate that it could not send, so what is stalled is stalled here, where it has a deadline.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_message::header::HeaderMap;

use super::engine::STREAM_BYTES_MAX;
use super::messages::BodyRoom;
use super::response_chunk::Chunk;
use crate::http::{FrameHead, ResponseHead};
use crate::pool::{ConnId, Job, Piece, Window};
use crate::worker::broken_off::BrokenOff;
use crate::worker::deferred_drop::DeferredDrops;
use crate::worker::http1::Answered;
use crate::worker::loop_clock::{Clock, Timeout, Timer};
use crate::worker::requests::Requests;
use crate::worker::write_side::discard;

/// One stream sends at most this many bytes before another does: a frame, which fills a record of TLS with its head.
const FRAME_BYTES: usize = 16 * 1024 - FrameHead::BYTES;

/// Whether more of the body is to come.
#[derive(Debug)]
enum End {
    Open,
    /// The job is back.
    Ended {
        job: Box<Job>,
        reason: Cow<'static, str>,
    },
    /// The job is back, and the body will never be whole: the client is to see that, behind what was sent.
    Broken {
        job: Box<Job>,
        reason: Cow<'static, str>,
        /// What was sent before is with the engine.
        is_flushed: bool,
    },
}

/// Whether a response has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    Yes,
    /// HTTP/2 has no final response of this status.
    NoSuchStatus,
    /// The client has reset the stream.
    Gone,
}

/// What came of an attempt to send a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// Something was sent, and more may follow.
    Moved,
    /// The next move is the client's.
    Stalled,
    /// The next move is the application's.
    Empty,
    /// What was sent is to be encoded before the next frame.
    Flush,
    /// Everything is sent.
    Done,
    /// It was broken off: the client sees a reset.
    Cut,
    /// The stream is gone.
    Gone,
}

/// Whether bytes wait for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The client has taken all that there was. The time until there is more is the application's.
    No,
    /// It has taken nothing since the last attempt.
    Stalled,
    /// It has taken something since, and not all.
    Trickling,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ResponseStream {
    out: SendStream<Bytes>,
    status: u16,
    /// Of a streamed one, until its job is back.
    head: Option<ResponseHead>,
    room: BodyRoom,
    queue: VecDeque<Chunk>,
    queued_bytes: u64,
    window: Option<Arc<Window>>,
    /// There is more of it in the window's spool.
    has_spool: bool,
    end: End,
    trailers: Option<Box<HeaderMap>>,
    sent_bytes: u64,
    cut_bytes: u64,
    waiting: Waiting,
    /// It has no body, and its head has said so.
    is_closed: bool,
    /// It is among those that are sent round robin.
    is_listed: bool,
}

impl ResponseStream {
    pub(super) fn new(
        out: SendStream<Bytes>,
        status: u16,
        room: BodyRoom,
        window: Option<Arc<Window>>,
        is_closed: bool,
    ) -> Self {
        Self {
            out,
            status,
            head: None,
            room,
            queue: VecDeque::new(),
            queued_bytes: 0,
            window,
            has_spool: false,
            end: End::Open,
            trailers: None,
            sent_bytes: 0,
            cut_bytes: 0,
            waiting: Waiting::No,
            is_closed,
            is_listed: false,
        }
    }

    /// It is streamed: the log shows this head.
    pub(super) fn keep_head(&mut self, head: ResponseHead) {
        self.head = Some(head);
    }

    /// What follows the body. It comes too late for a response without one.
    pub(super) fn set_trailers(&mut self, trailers: Option<Box<HeaderMap>>) {
        if !self.is_closed {
            self.trailers = trailers;
        }
    }

    /// It has something to send. Returns whether that is news.
    pub(super) fn enlist(&mut self) -> bool {
        !std::mem::replace(&mut self.is_listed, true)
    }

    /// It is left out until it is enlisted again.
    pub(super) fn delist(&mut self) {
        self.is_listed = false;
    }

    /// A piece of the body has come.
    pub(super) fn push(&mut self, piece: Piece, drops: &mut DeferredDrops) {
        let len = piece.len();
        let admitted = self.room.admit(len);
        self.cut_bytes += len - admitted;
        if admitted == 0 {
            self.give_back(piece.window_bytes());
            return discard(piece, drops);
        }
        self.queued_bytes += admitted;
        self.queue.push_back(Chunk::new(piece, admitted));
    }

    /// There is something in its window's spool.
    pub(super) fn note_spool(&mut self) {
        self.has_spool = true;
    }

    /// Everything before is sent: push what comes next from the spool.
    fn take_spooled(&mut self, drops: &mut DeferredDrops) {
        let taken = self
            .window
            .as_ref()
            .and_then(|window| window.take_spooled());
        self.has_spool = matches!(taken, Some((_, true)));
        if let Some((part, _)) = taken {
            self.push(part.into(), drops);
        }
    }

    /// The body is whole, or will never be.
    pub(super) fn end(&mut self, mut job: Box<Job>, is_whole: bool, reason: &'static str) {
        if let Some(head) = self.head.take() {
            job.response = head;
        }
        let reason = reason.into();
        self.end = match is_whole {
            true => End::Ended { job, reason },
            false => End::Broken {
                job,
                reason,
                is_flushed: false,
            },
        };
    }

    /// How many bytes were cut because the head has no room for them.
    pub(super) fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }

    /// How many bytes its Content-Length has more than the body, once that is whole.
    pub(super) fn missing(&self) -> u64 {
        self.room.missing()
    }

    pub(super) fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// Give a client for which bytes wait its deadline, after an attempt to send; `before` it were this state and sent bytes.
    pub(super) fn keep_time(&self, before: (Waiting, u64), timer: &mut Timer, clock: &mut Clock) {
        // The last free thread waits for its client.
        let is_hurried =
            matches!(&self.end, End::Ended { job, .. } if job.response_body.is_hurried());
        let taken = u32::try_from(self.sent_bytes - before.1).unwrap_or(u32::MAX);
        match (before.0, self.waiting, is_hurried) {
            (Waiting::No, Waiting::No, _) => {}
            (Waiting::No, _, true) => clock.arm(timer, Timeout::HurriedSend),
            (Waiting::No, _, false) => clock.arm(timer, Timeout::Send),
            (_, Waiting::No, _) => timer.clear(),
            (_, Waiting::Stalled, _) => {}
            (_, Waiting::Trickling, true) => clock.extend_hurried_send(timer, taken),
            (_, Waiting::Trickling, false) => clock.extend_send(timer, taken),
        }
    }

    /// Its status and how many bytes of the body were sent.
    pub(super) fn sent_so_far(&self) -> (u16, u64) {
        (self.status, self.sent_bytes)
    }

    pub(super) fn reset(&mut self, code: Reason) {
        self.out.send_reset(code);
    }

    fn give_back(&self, credit: usize) {
        if let Some(window) = &self.window
            && credit > 0
        {
            window.credit(credit);
        }
    }

    /// Send a frame, if there is something and the windows allow it.
    pub(super) fn send_frame(&mut self, drops: &mut DeferredDrops) -> Sending {
        let is_ended = matches!(self.end, End::Ended { .. });
        while self.queue.is_empty() && self.has_spool {
            self.take_spooled(drops);
        }
        if self.queue.is_empty() {
            self.waiting = Waiting::No;
            return self.send_end();
        }
        let wanted = usize::try_from(self.queued_bytes).unwrap_or(usize::MAX);
        self.out.reserve_capacity(wanted.min(STREAM_BYTES_MAX));
        let room = self.out.capacity().min(FRAME_BYTES);
        if room == 0 {
            self.waiting = Waiting::Stalled;
            return Sending::Stalled;
        }
        if self.waiting == Waiting::Stalled {
            self.waiting = Waiting::Trickling;
        }
        let Some(bytes) = self.take(room, drops) else {
            log::error!("The file was truncated while it was being sent; resetting the stream.");
            if let End::Ended { reason, .. } = &mut self.end {
                *reason = "response too short".into();
            }
            self.out.send_reset(Reason::INTERNAL_ERROR);
            return Sending::Cut;
        };
        self.queued_bytes -= bytes.len() as u64;
        self.sent_bytes += bytes.len() as u64;
        let is_last = is_ended && self.queue.is_empty() && self.trailers.is_none();
        match self.out.send_data(bytes, is_last) {
            Ok(()) if is_last => Sending::Done,
            Ok(()) => Sending::Moved,
            Err(_) => Sending::Gone,
        }
    }

    /// Nothing is left to send but the end, if that is known.
    fn send_end(&mut self) -> Sending {
        match &mut self.end {
            End::Open => Sending::Empty,
            End::Ended { .. } if self.is_closed => Sending::Done,
            End::Ended { .. } => {
                let sent = match self.trailers.take() {
                    Some(trailers) => self.out.send_trailers(*trailers),
                    None => self.out.send_data(Bytes::new(), true),
                };
                match sent {
                    Ok(()) => Sending::Done,
                    Err(_) => Sending::Gone,
                }
            }
            End::Broken {
                is_flushed: true, ..
            } => {
                self.out.send_reset(Reason::INTERNAL_ERROR);
                Sending::Cut
            }
            // A reset takes back what the engine has not encoded.
            End::Broken { is_flushed, .. } => {
                *is_flushed = true;
                Sending::Flush
            }
        }
    }

    /// The next bytes of the body, at most `max`; of small pieces several at once. `None`: a file has become shorter.
    fn take(&mut self, max: usize, drops: &mut DeferredDrops) -> Option<Bytes> {
        let is_alone = self.queue.len() == 1;
        let front = self.queue.front_mut()?;
        let left = front.left();
        if (left == max as u64 || is_alone && left < max as u64)
            && let Some(bytes) = front.take_owned()
        {
            let credit = self.queue.pop_front().map_or(0, |chunk| chunk.credit());
            self.give_back(credit);
            return Some(bytes.into());
        }
        let mut taken = Vec::with_capacity(self.queued_bytes.min(max as u64) as usize);
        while let Some(front) = self.queue.front_mut()
            && taken.len() < max
        {
            front.read(max - taken.len(), &mut taken)?;
            if front.left() == 0
                && let Some(chunk) = self.queue.pop_front()
            {
                self.give_back(chunk.credit());
                drops.push(chunk.into_piece().into_borrowed());
            }
        }
        Some(taken.into())
    }

    /// Everything was sent, or the rest is not wanted, for this reason. Returns whether the pool still has the job; if not,
    /// the request is over.
    pub(super) fn abandon(
        mut self,
        id: ConnId,
        reason: &'static str,
        requests: &mut Requests,
    ) -> bool {
        if let Some(window) = self.window.take() {
            window.close();
        }
        for chunk in self.queue.drain(..) {
            discard(chunk.into_piece(), &mut requests.drops);
        }
        let (job, known) = match self.end {
            End::Open => {
                let seen = BrokenOff {
                    status: self.status,
                    sent_bytes: self.sent_bytes,
                    reason,
                    response: self.head,
                };
                requests.accounting.break_off(id, seen);
                return true;
            }
            End::Ended { job, reason } | End::Broken { job, reason, .. } => (job, reason),
        };
        let answered = Answered {
            job,
            status: self.status,
            sent_bytes: self.sent_bytes,
            reason: if reason.is_empty() {
                known
            } else {
                reason.into()
            },
        };
        answered.log(requests);
        false
    }

    /// Memory of the body budget that its request holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        match &self.end {
            End::Ended { job, .. } | End::Broken { job, .. } => job.body_held_bytes,
            End::Open => 0,
        }
    }
}
