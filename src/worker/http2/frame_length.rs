//! What the length of a frame may be (RFC 9113 section 6), and where in it a header block is.

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

/// Where the header block is in the payload of a HEADERS or CONTINUATION frame. Too much padding leaves nothing, which is the
/// crate's to refuse.
pub(super) fn header_block(head: FrameHead, payload: &[u8]) -> Range<usize> {
    if head.kind != FrameKind::Headers {
        return 0..payload.len();
    }
    let is_padded = head.has(FLAG_PADDED);
    let begin = usize::from(is_padded) + priority_bytes(head) as usize;
    let padding = match payload.first() {
        Some(padding) if is_padded => usize::from(*padding),
        _ => 0,
    };
    let begin = begin.min(payload.len());
    begin..payload.len().saturating_sub(padding).max(begin)
}
