//! What a client sends, looked at before the h2 crate gets it, and what the crate sends. Frames of the wrong size, on streams
//! that are closed, or too many of them end the connection here, with the code that RFC 9113 names.
//!
//! Pure: bytes go in, bytes are passed on. A header block is passed on when it is whole, every other frame as it arrives.
//!
//! `flood_guard.rs` counts, `stream_inputs.rs` knows which streams are open, `frame_length.rs` has the lengths.

use std::ops::Range;
use std::time::Instant;

use super::flood_guard::FloodGuard;
use super::frame_length::{has_right_length, header_block};
use super::stream_inputs::{FrameUse, StreamInputs};
use super::violation::Violation;
use crate::config;
use crate::http::{FrameEvent, FrameHead, FrameKind, FrameScan, has_pseudo_field};

/// A header block may have as many bytes more than its limit: it is refused on its stream, when it is whole.
const BLOCK_BYTES_BEYOND: usize = 256 * 1024;
/// Without a limit.
const BLOCK_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What passed besides.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Streams that the client has reset.
    pub(super) resets: Vec<u32>,
    /// Streams with pseudo-fields in their trailers (RFC 9113 section 8.1).
    pub(super) malformed: Vec<u32>,
}

impl Seen {
    pub(super) fn is_empty(&self) -> bool {
        self.resets.is_empty() && self.malformed.is_empty()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inspection {
    input: FrameScan,
    output: FrameScan,
    opening: Opening,
    guard: FloodGuard,
    streams: StreamInputs,
    frame_bytes_max: u32,
    block_bytes_max: usize,
    /// Bytes that are not passed on yet: a header block from its first frame on, or the beginning of a frame's head.
    held: Vec<u8>,
    block: Block,
    /// Of the RST_STREAM frame that is passing out.
    reset_code: Vec<u8>,
    /// The setting that is passing in, and how much of it has passed.
    setting: u64,
    setting_bytes: u32,
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
}

impl Inspection {
    pub(super) fn new(settings: &config::Http2, now: Instant) -> Self {
        let list_bytes_max = settings.http2_max_header_list_size;
        Self {
            input: FrameScan::default(),
            output: FrameScan::default(),
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
            reset_code: Vec::new(),
            setting: 0,
            setting_bytes: 0,
        }
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
        let end = self.block.begin.unwrap_or(all.len() - part_of_head);
        arrived.pass_to(end);
        self.block.move_by(end);
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
                    FrameKind::Settings => self.on_settings(part),
                    _ => Ok(()),
                }
            }
            FrameEvent::End(head) => {
                if self.block.begin.is_some() {
                    self.on_block_frame(head, at, arrived.all, seen);
                }
                Ok(())
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
            }
            FrameKind::Data if self.streams.on_data(head.stream, is_end) == FrameUse::Closed => {
                return Err(Violation::StreamClosed);
            }
            FrameKind::RstStream => {
                self.streams.on_reset(head.stream);
                seen.resets.push(head.stream);
            }
            _ => {}
        }
        Ok(())
    }

    /// The h2 crate answers a window that is too large with a code for other errors.
    fn on_settings(&mut self, part: &[u8]) -> Result<(), Violation> {
        for byte in part {
            self.setting = (self.setting << 8 | u64::from(*byte)) & 0xffff_ffff_ffff;
            self.setting_bytes = (self.setting_bytes + 1) % SETTING_BYTES;
            let is_window = self.setting >> 32 == INITIAL_WINDOW_SIZE;
            if self.setting_bytes == 0 && is_window && self.setting & 0x8000_0000 != 0 {
                return Err(Violation::WindowSize);
            }
        }
        Ok(())
    }

    /// A frame of a header block is whole.
    fn on_block_frame(&mut self, head: FrameHead, end: usize, all: &[u8], seen: &mut Seen) {
        let payload = end - head.length as usize..end;
        let part = header_block(head, &all[payload.clone()]);
        let part = part.start + payload.start..part.end + payload.start;
        self.block.parts.push(part);
        if !head.has(FrameHead::FLAG_END_HEADERS) {
            return;
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
        if self.block.is_trailers && has_pseudo_field(block) {
            seen.malformed.push(self.block.stream);
        }
        self.block.begin = None;
        self.block.parts.clear();
    }

    /// A request was cancelled before its answer began.
    ///
    /// # Errors
    /// It was one of too many.
    pub(super) fn note_early_reset(&mut self) -> Result<(), Violation> {
        self.guard.on_early_reset()
    }

    /// Look at what is written.
    ///
    /// # Errors
    /// The client has made us reset too many streams.
    pub(super) fn inspect_output(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let Self {
            output,
            reset_code,
            guard,
            streams,
            ..
        } = self;
        output.feed(bytes, |event, _| match event {
            FrameEvent::Payload(head, part) if head.kind == FrameKind::RstStream => {
                reset_code.extend_from_slice(part);
            }
            FrameEvent::Payload(head, part) => guard.on_payload(head.kind, part.len()),
            FrameEvent::End(head) if head.kind == FrameKind::RstStream => {
                streams.on_own_reset(head.stream);
                if let [0, 0, 0, code] = reset_code[..] {
                    guard.on_own_reset(code);
                }
                reset_code.clear();
            }
            _ => {}
        });
        guard.check_own_resets()
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

/// An identifier of two octets, a value of four (RFC 9113 section 6.5.1).
const SETTING_BYTES: u32 = 6;
const INITIAL_WINDOW_SIZE: u64 = 4;

#[cfg(test)]
mod tests;
