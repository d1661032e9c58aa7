//! The frames that the h2 crate sends, looked at: what they say to the client about its errors, and how much they are worth.

use h2::Reason;

use super::flood_guard::FloodGuard;
use super::seen::Seen;
use super::stream_inputs::StreamInputs;
use crate::http::{FrameEvent, FrameKind, FrameScan};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SentFrames {
    scan: FrameScan,
    /// Of the RST_STREAM frame that is passing.
    reset_code: Vec<u8>,
    /// Streams whose heads the crate has answered before their ends came, and will reset.
    answered: Vec<u32>,
}

impl SentFrames {
    pub(super) fn inspect(
        &mut self,
        bytes: &mut [u8],
        guard: &mut FloodGuard,
        streams: &mut StreamInputs,
        seen: &mut Seen,
    ) {
        let Self {
            scan,
            reset_code,
            answered,
        } = self;
        let mut softened = Vec::new();
        scan.feed(bytes, |event, at| match event {
            FrameEvent::Payload(head, part) if head.kind == FrameKind::RstStream => {
                reset_code.extend_from_slice(part);
            }
            FrameEvent::Payload(head, part) => guard.on_payload(head.kind, part.len()),
            FrameEvent::End(head) if head.kind == FrameKind::RstStream => {
                streams.on_own_reset(head.stream);
                match answered.iter().position(|stream| *stream == head.stream) {
                    Some(place) => {
                        answered.swap_remove(place);
                        softened.push(at);
                    }
                    None => note_reset(head.stream, reset_code, guard, seen),
                }
                reset_code.clear();
            }
            // The response to a request that has come out of the crate is the application's.
            FrameEvent::Head(head)
                if head.kind == FrameKind::Headers
                    && !seen.heads.is_empty()
                    && seen.heads.take(head.stream) =>
            {
                seen.crate_answers.push(head.stream);
                answered.retain(|stream| streams.is_unfinished(*stream));
                if streams.is_unfinished(head.stream) {
                    answered.push(head.stream);
                }
            }
            _ => {}
        });
        for end in softened {
            soften(&mut bytes[..end]);
        }
    }
}

/// One that the client is to be blamed for is counted and logged.
fn note_reset(stream: u32, code: &[u8], guard: &mut FloodGuard, seen: &mut Seen) {
    if let [0, 0, 0, code] = code {
        let code = u32::from(*code).into();
        if guard.on_own_reset(code) {
            seen.own_resets.push((stream, code));
        }
    }
}

/// The request was answered, so the reset behind the answer is no error (RFC 9113 section 8.1); with a code of one, clients give
/// the answer up.
fn soften(sent: &mut [u8]) {
    let code = sent.last_chunk_mut::<4>();
    debug_assert!(code.is_some(), "the crate writes whole frames");
    if let Some(code) = code {
        *code = u32::from(Reason::NO_ERROR).to_be_bytes();
    }
}
