//! The frames that the h2 crate sends, looked at: what they say to the client about its errors, and how much they are worth.

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
}

impl SentFrames {
    pub(super) fn inspect(
        &mut self,
        bytes: &[u8],
        guard: &mut FloodGuard,
        streams: &mut StreamInputs,
        seen: &mut Seen,
    ) {
        let Self { scan, reset_code } = self;
        scan.feed(bytes, |event, _| match event {
            FrameEvent::Payload(head, part) if head.kind == FrameKind::RstStream => {
                reset_code.extend_from_slice(part);
            }
            FrameEvent::Payload(head, part) => guard.on_payload(head.kind, part.len()),
            FrameEvent::End(head) if head.kind == FrameKind::RstStream => {
                streams.on_own_reset(head.stream);
                if let [0, 0, 0, code] = reset_code[..] {
                    let code = u32::from(code).into();
                    if guard.on_own_reset(code) {
                        seen.own_resets.push((head.stream, code));
                    }
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
            }
            _ => {}
        });
    }
}
