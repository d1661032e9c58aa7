//! One response on its way out: its head as a message of the h2 crate, its body as pieces that become DATA frames as far as
//! the windows of stream and connection go.
//!
//! Nothing is handed to the crate that it could not send, so what is stalled is stalled here, where it has a deadline.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_message::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_message::{Response as Message, StatusCode};

use super::engine::STREAM_BYTES_MAX;
use crate::http::{ResponseDefaults, ResponseHead};
use crate::pool::{Job, Piece, Window};
use crate::worker::deferred_drop::DeferredDrops;
use crate::worker::http1::Answered;
use crate::worker::services::Services;
use crate::worker::write_side::discard;

/// One stream sends at most this many bytes before it is another's turn: a frame.
const TURN_BYTES: usize = 16 * 1024;

/// How much of a body may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyRoom {
    /// HEAD, 204, 304: whatever the application sends stays here.
    None,
    /// Of its Content-Length.
    Left(u64),
    Any,
}

impl BodyRoom {
    /// The room for the body, and the Content-Length to add.
    pub(super) fn choose(
        is_head: bool,
        head: &ResponseHead,
        total: Option<u64>,
    ) -> (Self, Option<u64>) {
        let has_none = matches!(head.status_code(), 204 | 304);
        match (head.content_length(), total) {
            _ if has_none => (Self::None, None),
            // An empty body of a HEAD does not tell the length of what GET would send.
            (None, Some(length)) if is_head && length > 0 => (Self::None, Some(length)),
            _ if is_head => (Self::None, None),
            (Some(length), _) => (Self::Left(length), None),
            (None, Some(length)) => (Self::Left(length), Some(length)),
            (None, None) => (Self::Any, None),
        }
    }

    fn admit(&mut self, len: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Left(left) => {
                let admitted = len.min(*left);
                *left -= admitted;
                admitted
            }
            Self::Any => len,
        }
    }

    fn missing(self) -> u64 {
        match self {
            Self::Left(left) => left,
            Self::None | Self::Any => 0,
        }
    }
}

/// The head of a response. `None` if HTTP/2 has no such status.
pub(super) fn message(
    head: &ResponseHead,
    added_length: Option<u64>,
    defaults: &ResponseDefaults<'_>,
) -> Option<Message<()>> {
    let code = head.status_code();
    let mut message = Message::new(());
    *message.status_mut() = StatusCode::from_u16(code).ok().filter(|_| code >= 200)?;
    let fields = message.headers_mut();
    copy_fields(head, code == 204, fields);
    if let Some(length) = added_length {
        fields.insert(header::CONTENT_LENGTH, length.into());
    }
    add_defaults(defaults, fields);
    Some(message)
}

/// An interim response. `None` if there is no such status.
pub(super) fn interim(head: &ResponseHead) -> Option<Message<()>> {
    let mut message = Message::new(());
    *message.status_mut() = StatusCode::from_u16(head.status_code()).ok()?;
    copy_fields(head, true, message.headers_mut());
    Some(message)
}

/// The head of an error page of so many bytes.
pub(super) fn page_message(
    status: u16,
    length: usize,
    defaults: &ResponseDefaults<'_>,
) -> Message<()> {
    let mut message = Message::new(());
    *message.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = message.headers_mut();
    let html = HeaderValue::from_static("text/html");
    fields.insert(header::CONTENT_TYPE, html);
    fields.insert(header::CONTENT_LENGTH, length.into());
    add_defaults(defaults, fields);
    message
}

/// Names become lower case. `Upgrade` is for HTTP/1 (RFC 9113 section 8.2.2), and some responses have no Content-Length.
fn copy_fields(head: &ResponseHead, drops_length: bool, into: &mut HeaderMap) {
    for (name, value) in head.fields() {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        else {
            debug_assert!(false, "the response's head was checked");
            continue;
        };
        if name == header::UPGRADE || drops_length && name == header::CONTENT_LENGTH {
            continue;
        }
        into.append(name, value);
    }
}

fn add_defaults(defaults: &ResponseDefaults<'_>, into: &mut HeaderMap) {
    for (name, value) in [
        (header::SERVER, defaults.server),
        (header::DATE, defaults.date),
    ] {
        if !value.is_empty()
            && !into.contains_key(&name)
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            into.insert(name, value);
        }
    }
}

/// A piece of the body, and what it gives back of the thread's window when it has left.
#[derive(Debug)]
struct Chunk {
    piece: Piece,
    at: u64,
    end: u64,
    credit: usize,
}

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

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Something was sent, and more may follow.
    Moved,
    /// The next move is the client's.
    Stalled,
    /// The next move is the application's.
    Empty,
    /// What was sent is to be encoded before the next turn.
    Flush,
    /// Everything is sent.
    Done,
    /// It was broken off: the client sees a reset.
    Cut,
    /// The stream is gone.
    Gone,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Response {
    out: SendStream<Bytes>,
    status: u16,
    room: BodyRoom,
    queue: VecDeque<Chunk>,
    queued_bytes: u64,
    window: Option<Arc<Window>>,
    end: End,
    sent_bytes: u64,
    cut_bytes: u64,
    is_stalled: bool,
    /// It has no body, and its head has said so.
    is_closed: bool,
    /// It is among those that take turns.
    is_listed: bool,
}

impl Response {
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
            room,
            queue: VecDeque::new(),
            queued_bytes: 0,
            window,
            end: End::Open,
            sent_bytes: 0,
            cut_bytes: 0,
            is_stalled: false,
            is_closed,
            is_listed: false,
        }
    }

    /// It has something to send. Returns whether that is news.
    pub(super) fn enlist(&mut self) -> bool {
        !std::mem::replace(&mut self.is_listed, true)
    }

    /// It takes no turns until it is enlisted again.
    pub(super) fn delist(&mut self) {
        self.is_listed = false;
    }

    /// A piece of the body has come.
    pub(super) fn push(&mut self, piece: Piece, drops: &mut DeferredDrops) {
        let len = piece.len();
        let admitted = self.room.admit(len);
        self.cut_bytes += len - admitted;
        let credit = usize::try_from(len).unwrap_or(usize::MAX);
        if admitted == 0 {
            self.give_back(credit);
            return discard(piece, drops);
        }
        self.queued_bytes += admitted;
        self.queue.push_back(Chunk {
            piece,
            at: 0,
            end: admitted,
            credit,
        });
    }

    /// The body is whole, or will never be.
    pub(super) fn end(&mut self, job: Box<Job>, is_whole: bool, reason: &'static str) {
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

    /// The client has taken nothing since the last turn.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled
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
    pub(super) fn turn(&mut self, drops: &mut DeferredDrops) -> Turn {
        self.is_stalled = false;
        let is_ended = matches!(self.end, End::Ended { .. });
        if self.queue.is_empty() {
            return self.end_turn();
        }
        let wanted = usize::try_from(self.queued_bytes).unwrap_or(usize::MAX);
        self.out.reserve_capacity(wanted.min(STREAM_BYTES_MAX));
        let room = self.out.capacity().min(TURN_BYTES);
        if room == 0 {
            self.is_stalled = true;
            return Turn::Stalled;
        }
        let Some(bytes) = self.take(room, drops) else {
            log::error!("The file that is sent became shorter meanwhile; resetting the stream.");
            if let End::Ended { reason, .. } = &mut self.end {
                *reason = "response too short".into();
            }
            self.out.send_reset(Reason::INTERNAL_ERROR);
            return Turn::Cut;
        };
        self.queued_bytes -= bytes.len() as u64;
        self.sent_bytes += bytes.len() as u64;
        let is_last = is_ended && self.queue.is_empty();
        match self.out.send_data(bytes, is_last) {
            Ok(()) if is_last => Turn::Done,
            Ok(()) => Turn::Moved,
            Err(_) => Turn::Gone,
        }
    }

    /// Nothing is left to send but the end, if that is known.
    fn end_turn(&mut self) -> Turn {
        match &mut self.end {
            End::Open => Turn::Empty,
            End::Ended { .. } if self.is_closed => Turn::Done,
            End::Ended { .. } => match self.out.send_data(Bytes::new(), true) {
                Ok(()) => Turn::Done,
                Err(_) => Turn::Gone,
            },
            End::Broken {
                is_flushed: true, ..
            } => {
                self.out.send_reset(Reason::INTERNAL_ERROR);
                Turn::Cut
            }
            // A reset takes back what the engine has not encoded.
            End::Broken { is_flushed, .. } => {
                *is_flushed = true;
                Turn::Flush
            }
        }
    }

    /// The next bytes of the body, at most `max`; of small pieces several at once. `None`: a file has become shorter.
    fn take(&mut self, max: usize, drops: &mut DeferredDrops) -> Option<Bytes> {
        let is_alone = self.queue.len() == 1;
        let front = self.queue.front_mut()?;
        let step = usize::try_from(front.end - front.at).map_or(max, |left| left.min(max));
        if front.at == 0 && step as u64 == front.end && front.end == front.piece.len() {
            // A whole piece that the server owns needs no copy.
            if let Piece::Bytes(bytes) = &mut front.piece
                && (is_alone || step == max)
            {
                let bytes = std::mem::take(bytes);
                let credit = self.queue.pop_front().map_or(0, |chunk| chunk.credit);
                self.give_back(credit);
                return Some(bytes.into());
            }
        }
        let mut taken = Vec::with_capacity(self.queued_bytes.min(max as u64) as usize);
        while let Some(front) = self.queue.front_mut()
            && taken.len() < max
        {
            front.read(max - taken.len(), &mut taken)?;
            if front.at == front.end
                && let Some(chunk) = self.queue.pop_front()
            {
                self.give_back(chunk.credit);
                drops.push(chunk.piece.into_borrowed());
            }
        }
        Some(taken.into())
    }

    /// Everything was sent, or the rest is not wanted, for this reason. Returns whether the pool still has the job; if not,
    /// the request is over.
    pub(super) fn abandon(mut self, reason: &'static str, services: &mut Services) -> bool {
        if let Some(window) = self.window.take() {
            window.close();
        }
        for chunk in self.queue.drain(..) {
            discard(chunk.piece, &mut services.drops);
        }
        let (job, known) = match self.end {
            End::Open => return true,
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
        answered.log(services);
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

impl Chunk {
    /// Copy at most `max` bytes of what is left. `None`: the file has become shorter.
    fn read(&mut self, max: usize, into: &mut Vec<u8>) -> Option<()> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let mut step = left.min(max);
        let at = usize::try_from(self.at).ok()?;
        match &self.piece {
            Piece::Bytes(bytes) => into.extend_from_slice(&bytes[at..at + step]),
            Piece::Borrowed(buffer) => into.extend_from_slice(&buffer.bytes()[at..at + step]),
            Piece::File { file, offset, .. } => {
                let start = into.len();
                into.resize(start + step, 0);
                let read = file.read_at(&mut into[start..], offset + self.at);
                step = read.ok().filter(|read| *read > 0)?;
                into.truncate(start + step);
            }
        }
        self.at += step as u64;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn head(status: &str, fields: &[(&str, &str)]) -> ResponseHead {
        let mut head = ResponseHead::default();
        head.set_status(status.as_bytes()).unwrap();
        for (name, value) in fields {
            head.push(name.as_bytes(), value.as_bytes()).unwrap();
        }
        head
    }

    const DEFAULTS: ResponseDefaults<'static> = ResponseDefaults {
        server: b"s",
        date: b"d",
    };

    #[test]
    fn a_head_has_lower_case_names_and_what_every_response_has() {
        let head = head("200 OK", &[("X-A", "1"), ("x-a", "2"), ("Date", "own")]);
        let message = message(&head, Some(5), &DEFAULTS).unwrap();
        let fields = message.headers();
        let all: Vec<_> = fields.get_all("x-a").iter().collect();
        assert_eq!(all, ["1", "2"]);
        assert_eq!(
            (&fields["date"], &fields["server"]),
            (&"own".parse().unwrap(), &"s".parse().unwrap())
        );
        assert_eq!(fields["content-length"], "5");
    }

    #[test]
    fn latin_1_goes_out_as_it_came() {
        let mut head = head("200 OK", &[]);
        head.push(b"x-name", b"caf\xe9").unwrap();
        let message = message(&head, None, &DEFAULTS).unwrap();
        assert_eq!(message.headers()["x-name"].as_bytes(), b"caf\xe9");
    }

    #[test]
    fn an_interim_status_is_no_response_and_upgrade_is_for_http_1() {
        let switching = head("101 Switching Protocols", &[("Upgrade", "websocket")]);
        assert!(message(&switching, None, &DEFAULTS).is_none());
        let upgrade = head("200 OK", &[("Upgrade", "websocket")]);
        let message = message(&upgrade, None, &DEFAULTS).unwrap();
        assert!(!message.headers().contains_key("upgrade"));
        let hints = interim(&head("103 Early Hints", &[("Link", "a")])).unwrap();
        assert_eq!((hints.status().as_u16(), hints.headers().len()), (103, 1));
    }

    #[test]
    fn the_room_for_a_body_is_that_of_its_head() {
        let plain = head("200 OK", &[]);
        let declared = head("200 OK", &[("Content-Length", "3")]);
        let choose = BodyRoom::choose;
        assert_eq!(choose(false, &plain, Some(5)), (BodyRoom::Left(5), Some(5)));
        assert_eq!(choose(false, &plain, None), (BodyRoom::Any, None));
        assert_eq!(choose(false, &declared, None), (BodyRoom::Left(3), None));
        assert_eq!(choose(true, &plain, Some(5)), (BodyRoom::None, Some(5)));
        assert_eq!(choose(true, &plain, Some(0)), (BodyRoom::None, None));
        let none = head("204 No Content", &[]);
        assert_eq!(choose(false, &none, Some(5)), (BodyRoom::None, None));
        let mut room = BodyRoom::Left(3);
        assert_eq!((room.admit(2), room.admit(2), room.missing()), (2, 1, 0));
    }
}
