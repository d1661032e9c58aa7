//! What the length of a frame may be (RFC 9113 section 6), where in it a header block is, and frames of such lengths.

use std::ops::Range;

use crate::http::{FrameHead, FrameKind};

pub(super) const FLAG_PADDED: u8 = 0x8;
pub(super) const FLAG_PRIORITY: u8 = 0x20;
/// What a HEADERS frame with that flag says of its priority.
const PRIORITY_BYTES: u32 = 5;
/// An identifier and a value (RFC 9113 section 6.5.1).
const SETTING_BYTES: u32 = 6;

/// Whether it is no error of the connection (FRAME_SIZE_ERROR). Frames of a stream that belong to the connection, or the
/// other way round, are another error, which is the crate's to find.
pub(super) fn has_right_length(head: FrameHead) -> bool {
    let padding = u32::from(head.has(FLAG_PADDED));
    match head.kind {
        FrameKind::Settings if head.stream != 0 => true,
        FrameKind::Settings if head.has(FrameHead::FLAG_ACK) => head.length == 0,
        FrameKind::Settings => head.length % SETTING_BYTES == 0,
        FrameKind::Ping => head.stream != 0 || head.length == 8,
        FrameKind::GoAway => head.stream != 0 || head.length >= 8,
        FrameKind::RstStream => head.stream == 0 || head.length == 4,
        FrameKind::WindowUpdate => head.length == 4,
        FrameKind::Data => head.stream == 0 || head.length >= padding,
        FrameKind::Headers => head.stream == 0 || head.length >= padding + priority_bytes(head),
        _ => true,
    }
}

fn priority_bytes(head: FrameHead) -> u32 {
    match head.has(FLAG_PRIORITY) {
        true => PRIORITY_BYTES,
        false => 0,
    }
}

/// Where the header block is in the payload of a HEADERS or CONTINUATION frame. `None`: there is more padding than payload.
pub(super) fn header_block(head: FrameHead, payload: &[u8]) -> Option<Range<usize>> {
    if head.kind != FrameKind::Headers {
        return Some(0..payload.len());
    }
    let is_padded = head.has(FLAG_PADDED);
    let begin = usize::from(is_padded) + priority_bytes(head) as usize;
    let padding = match payload.first() {
        Some(padding) if is_padded => usize::from(*padding),
        _ => 0,
    };
    let end = payload.len().checked_sub(padding)?;
    (begin <= end).then_some(begin..end)
}

/// What a PRIORITY frame's length must be.
pub(super) const PRIORITY_FRAME_BYTES: u32 = PRIORITY_BYTES;

/// Of a header block that is sent on otherwise than it came: HEADERS, and CONTINUATION for what does not fit.
pub(super) fn write_header_frames(
    stream: u32,
    is_end: bool,
    block: &[u8],
    mut out: impl FnMut(&[u8]),
) {
    let parts = block.len().div_ceil(FRAME_BYTES).max(1);
    for at in 0..parts {
        let part = &block[at * FRAME_BYTES..block.len().min((at + 1) * FRAME_BYTES)];
        let (kind, mut flags) = match at {
            0 if is_end => (HEADERS, FrameHead::FLAG_END_STREAM),
            0 => (HEADERS, 0),
            _ => (CONTINUATION, 0),
        };
        if at + 1 == parts {
            flags |= FrameHead::FLAG_END_HEADERS;
        }
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes();
        let stream = stream.to_be_bytes();
        out(&[&length[1..], &[kind, flags], &stream[..]].concat());
        out(part);
    }
}

/// DATA of a whole body; nothing of an empty one.
pub(super) fn write_data_frames(stream: u32, body: &[u8], mut out: impl FnMut(&[u8])) {
    let parts = body.len().div_ceil(FRAME_BYTES);
    for (at, part) in body.chunks(FRAME_BYTES).enumerate() {
        let flags = match at + 1 == parts {
            true => FrameHead::FLAG_END_STREAM,
            false => 0,
        };
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes();
        let stream = stream.to_be_bytes();
        out(&[&length[1..], &[DATA, flags], &stream[..]].concat());
        out(part);
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// Every receiver takes frames of this length.
const FRAME_BYTES: usize = 16 * 1024;
