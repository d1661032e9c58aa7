//! What a client sends, looked at before the h2 crate gets it, and what the crate sends. Frames of the wrong size, on streams
//! that are closed, or too many of them end the connection here, with the code that RFC 9113 names.
//!
//! Pure: bytes go in, bytes are passed on. A header block is passed on when it is whole, every other frame as it arrives.
//!
//! `sent_frames.rs` looks at what is sent, `flood_guard.rs` counts, `stream_inputs.rs` knows which streams are open, `frame_length.rs` has the lengths.

use std::ops::Range;
use std::time::Instant;

use super::flood_guard::FloodGuard;
use super::frame_length::{
    FLAG_PRIORITY, PRIORITY_FRAME_BYTES, has_right_length, header_block, write_header_frames,
};
use super::seen::{Seen, depends_on_itself, note_path, note_priority};
use super::sent_frames::SentFrames;
use super::settings_check::SettingsCheck;
use super::stream_inputs::{FrameUse, StreamInputs};
use super::violation::{StreamFault, Violation};
use crate::config;
use crate::http::{BrokenBlock, FrameEvent, FrameHead, FrameKind, FrameScan, HeaderTable};

/// A header block may have as many bytes more than its limit: it is refused on its stream, when it is whole.
const BLOCK_BYTES_BEYOND: usize = 256 * 1024;
/// At the end of a head, what makes it one that the crate resets itself, before it takes a place among the streams: a pseudo-field
/// behind another field, neither of which enters its table.
const MALFORMED: &[u8] = &[0x90, 0x82];
/// Without a limit.
const BLOCK_BYTES_MAX: usize = 16 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Inspection {
    input: FrameScan,
    output: SentFrames,
    opening: Opening,
    guard: FloodGuard,
    streams: StreamInputs,
    frame_bytes_max: u32,
    block_bytes_max: usize,
    /// Bytes that are not passed on yet: a header block from its first frame on, or the beginning of a frame's head.
    held: Vec<u8>,
    block: Block,
    table: HeaderTable,
    /// Where a frame begins that is passed on when it is whole, if it is right. It is no part of a header block.
    frame_begin: Option<usize>,
    window_update: u32,
    settings: SettingsCheck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    AwaitingSettings,
    Over,
}

/// The header block that is being received. Positions count from the first byte that is held.
#[derive(Debug, Default)]
struct Block {
    /// Where its first frame begins. `None`: no block is being received.
    begin: Option<usize>,
    stream: u32,
    is_trailers: bool,
    /// It ends its stream.
    is_end: bool,
    is_self_dependent: bool,
    /// Where the parts of the block are.
    parts: Vec<Range<usize>>,
}

/// The bytes of one call, with those held before them, and how many of them are passed on.
struct Arrived<'a, P> {
    all: &'a [u8],
    passed: usize,
    pass: P,
}

impl<P: FnMut(&[u8])> Arrived<'_, P> {
    fn pass_to(&mut self, end: usize) {
        if self.passed < end {
            (self.pass)(&self.all[self.passed..end]);
            self.passed = end;
        }
    }

    /// Leave these bytes out.
    fn leave_out(&mut self, range: Range<usize>) {
        self.pass_to(range.start);
        self.passed = range.end;
    }
}

impl Inspection {
    pub(super) fn new(settings: &config::Http2, now: Instant) -> Self {
        let list_bytes_max = settings.http2_max_header_list_size;
        Self {
            input: FrameScan::default(),
            output: SentFrames::default(),
            opening: Opening::AwaitingSettings,
            guard: FloodGuard::new(list_bytes_max, now),
            streams: StreamInputs::new(settings.http2_max_concurrent_streams),
            frame_bytes_max: settings.http2_max_frame_size,
            block_bytes_max: match list_bytes_max {
                0 => BLOCK_BYTES_MAX,
                bytes => BLOCK_BYTES_BEYOND + bytes as usize,
            },
            held: Vec::new(),
            block: Block::default(),
            table: HeaderTable::default(),
            frame_begin: None,
            window_update: 0,
            settings: SettingsCheck::default(),
        }
    }

    /// The client's own frames follow.
    pub(super) fn begin_again(&mut self) {
        self.opening = Opening::AwaitingSettings;
    }

    /// Whether a header block or a frame has begun and is not whole.
    pub(super) fn is_mid_frame(&self) -> bool {
        self.block.begin.is_some() || !self.input.is_between_frames()
    }

    /// Whether the client has yet to end this request.
    pub(super) fn is_unfinished(&self, stream: u32) -> bool {
        self.streams.is_unfinished(stream)
    }

    /// Look at what has arrived behind the preface, and `pass` on what is in order.
    ///
    /// # Errors
    /// It is an attack, or no HTTP/2. What stands before it was passed on.
    pub(super) fn inspect(
        &mut self,
        bytes: &[u8],
        now: Instant,
        seen: &mut Seen,
        pass: impl FnMut(&[u8]),
    ) -> Result<(), Violation> {
        self.guard.on_bytes(bytes.len(), now);
        let mut held = std::mem::take(&mut self.held);
        let base = held.len();
        let all = match base {
            0 => bytes,
            _ => {
                held.extend_from_slice(bytes);
                &held
            }
        };
        let mut arrived = Arrived {
            all,
            passed: 0,
            pass,
        };
        let mut input = std::mem::take(&mut self.input);
        let mut verdict = Ok(());
        input.feed(bytes, |event, at| {
            if verdict.is_ok() {
                verdict = self.on_event(event, base + at, &mut arrived, seen);
            }
        });
        let part_of_head = input.head_bytes();
        self.input = input;
        verdict?;
        let whole = all.len() - part_of_head;
        let end = self.block.begin.or(self.frame_begin).unwrap_or(whole);
        arrived.pass_to(end);
        self.block.move_by(end);
        self.frame_begin = self.frame_begin.map(|begin| begin - end);
        if end < all.len() {
            self.held = all[end..].to_vec();
        }
        self.guard.check_use()
    }

    /// `at` is where the event ends.
    fn on_event<P: FnMut(&[u8])>(
        &mut self,
        event: FrameEvent<'_>,
        at: usize,
        arrived: &mut Arrived<'_, P>,
        seen: &mut Seen,
    ) -> Result<(), Violation> {
        match event {
            FrameEvent::Head(head) => {
                let begin = at - FrameHead::BYTES;
                let verdict = self.on_head(head, begin, seen);
                if verdict.is_err() {
                    arrived.pass_to(self.block.begin.unwrap_or(begin));
                }
                verdict
            }
            FrameEvent::Payload(head, part) => {
                self.guard.on_payload(head.kind, part.len());
                match head.kind {
                    FrameKind::Settings => self.settings.check(part),
                    FrameKind::WindowUpdate => {
                        for byte in part {
                            self.window_update = self.window_update << 8 | u32::from(*byte);
                        }
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
            FrameEvent::End(head) => {
                if let Some(begin) = self.frame_begin.take() {
                    self.on_single_frame(head, begin..at, arrived, seen);
                }
                let Some(begin) = self.block.begin else {
                    return Ok(());
                };
                let verdict = self.on_block_frame(head, at, arrived, seen);
                if verdict.is_err() {
                    arrived.pass_to(begin);
                }
                verdict
            }
        }
    }

    fn on_head(&mut self, head: FrameHead, begin: usize, seen: &mut Seen) -> Result<(), Violation> {
        if self.opening == Opening::AwaitingSettings {
            if head.kind != FrameKind::Settings || head.has(FrameHead::FLAG_ACK) {
                return Err(Violation::NoSettings);
            }
            self.opening = Opening::Over;
        }
        if let Some(start) = self.block.begin {
            if head.kind != FrameKind::Continuation || head.stream != self.block.stream {
                return Err(Violation::WithinBlock);
            }
            if begin - start + head.length as usize > self.block_bytes_max {
                return Err(Violation::Block);
            }
        }
        if head.length > self.frame_bytes_max || !has_right_length(head) {
            return Err(Violation::FrameSize);
        }
        self.guard.on_frame(head)?;
        let is_end = head.has(FrameHead::FLAG_END_STREAM);
        match head.kind {
            FrameKind::Headers => {
                let frame_use = self.streams.on_headers(head.stream, is_end);
                if frame_use == FrameUse::Closed {
                    return Err(Violation::StreamClosed);
                }
                self.block.begin = Some(begin);
                self.block.stream = head.stream;
                self.block.is_trailers = frame_use != FrameUse::Request;
                self.block.is_end = is_end;
            }
            FrameKind::Data if self.streams.on_data(head.stream, is_end) == FrameUse::Closed => {
                return Err(Violation::StreamClosed);
            }
            FrameKind::Priority if head.stream == 0 => {}
            FrameKind::Priority
                if head.length != PRIORITY_FRAME_BYTES && self.streams.is_idle(head.stream) =>
            {
                return Err(Violation::FrameSize);
            }
            FrameKind::Priority => self.frame_begin = Some(begin),
            FrameKind::WindowUpdate if !self.streams.is_idle(head.stream) => {
                self.frame_begin = Some(begin);
            }
            FrameKind::RstStream => {
                self.streams.on_reset(head.stream);
                seen.resets.push(head.stream);
            }
            _ => {}
        }
        Ok(())
    }

    /// A frame of a stream is whole that is left out if it is wrong: the crate would end the connection.
    fn on_single_frame<P: FnMut(&[u8])>(
        &self,
        head: FrameHead,
        frame: Range<usize>,
        arrived: &mut Arrived<'_, P>,
        seen: &mut Seen,
    ) {
        let fault = match head.kind {
            FrameKind::Priority if head.length == PRIORITY_FRAME_BYTES => {
                let said = &arrived.all[frame.start + FrameHead::BYTES..frame.end];
                match self.streams.is_idle(head.stream) && depends_on_itself(head.stream, said) {
                    true => arrived.leave_out(frame),
                    false => note_priority(head.stream, said, seen),
                }
                return;
            }
            FrameKind::Priority => StreamFault::PrioritySize,
            _ if self.window_update & 0x7fff_ffff == 0 => StreamFault::EmptyWindowUpdate,
            _ => return,
        };
        arrived.leave_out(frame);
        seen.faults.push((head.stream, fault));
    }

    /// A frame of a header block is whole.
    fn on_block_frame<P: FnMut(&[u8])>(
        &mut self,
        head: FrameHead,
        end: usize,
        arrived: &mut Arrived<'_, P>,
        seen: &mut Seen,
    ) -> Result<(), Violation> {
        let all = arrived.all;
        let stream = head.stream;
        let payload = end - head.length as usize..end;
        let part = header_block(head, &all[payload.clone()]).ok_or(Violation::Padding)?;
        if head.kind == FrameKind::Headers && head.has(FLAG_PRIORITY) {
            let said = &all[payload.start..payload.start + part.start];
            self.block.is_self_dependent = depends_on_itself(stream, said);
            note_priority(stream, said, seen);
        }
        let part = part.start + payload.start..part.end + payload.start;
        self.block.parts.push(part);
        if !head.has(FrameHead::FLAG_END_HEADERS) {
            return Ok(());
        }
        let joined;
        let block = match &self.block.parts[..] {
            [part] => &all[part.clone()],
            parts => {
                let part = |part: &Range<usize>| &all[part.clone()];
                joined = parts.iter().map(part).collect::<Vec<_>>().concat();
                &joined[..]
            }
        };
        let found = self.table.read(block);
        let found = found.map_err(|BrokenBlock| Violation::Compression)?;
        // The crate would not decode one that depends on itself, and its table would not be the client's any more.
        let is_self_dependent = std::mem::take(&mut self.block.is_self_dependent);
        let is_malformed = found.is_malformed || is_self_dependent;
        if self.block.is_trailers && (is_malformed || found.is_bad_in_trailers) {
            seen.faults.push((stream, StreamFault::Malformed));
        }
        if !self.block.is_trailers {
            seen.heads.give(stream);
        }
        note_path(stream, self.table.take_path(), seen);
        let begin = self.block.begin.take();
        // The crate takes five CONTINUATION frames where the block would fit into one.
        let is_to_join = self.block.parts.len() > 1;
        let is_to_change = found.is_to_replace || is_malformed || is_to_join;
        if let Some(begin) = begin.filter(|_| is_to_change) {
            let mut block = self.table.replaced(block).ok_or(Violation::EmptyField)?;
            if is_malformed && !self.block.is_trailers {
                block.extend_from_slice(MALFORMED);
            }
            arrived.leave_out(begin..end);
            write_header_frames(stream, self.block.is_end, &block, &mut arrived.pass);
        }
        self.block.parts.clear();
        Ok(())
    }

    /// A request was cancelled before its answer began.
    ///
    /// # Errors
    /// It was one of too many.
    pub(super) fn note_early_reset(&mut self) -> Result<(), Violation> {
        self.guard.on_early_reset()
    }

    /// Look at what is written, and soften what the crate is too hard in.
    ///
    /// # Errors
    /// The client has made us reset too many streams.
    pub(super) fn inspect_output(
        &mut self,
        bytes: &mut [u8],
        seen: &mut Seen,
    ) -> Result<(), Violation> {
        let (guard, streams) = (&mut self.guard, &mut self.streams);
        self.output.inspect(bytes, guard, streams, seen);
        self.guard.check_own_resets()
    }
}

impl Block {
    /// The bytes before it, that number, are passed on.
    fn move_by(&mut self, passed: usize) {
        if passed == 0 {
            return;
        }
        if let Some(begin) = &mut self.begin {
            *begin -= passed;
            for part in &mut self.parts {
                *part = part.start - passed..part.end - passed;
            }
        }
    }
}

#[cfg(test)]
mod tests;
