//! What a client may do to a connection before it counts as an attack: the frames that the h2 crate lets pass in any number.
//!
//! Pure: frames and the time go in, a verdict comes out. The numbers are for work that is caused, not for what ordinary
//! clients do often: a browser cancels dozens of requests at a time, and a large download is acknowledged with thousands of
//! WINDOW_UPDATE frames.

use std::time::{Duration, Instant};

use h2::Reason;

use super::violation::{Violation, is_clients_fault};
use crate::http::{FrameHead, FrameKind};

/// How long frames are counted together.
const PERIOD: Duration = Duration::from_secs(10);
/// PING, SETTINGS and frames of unknown types in that time, as in gunicorn.
const CONTROL_FRAMES_MAX: u32 = 1000;
/// Requests that are cancelled before their answer has begun, in that time, as in gunicorn.
const EARLY_RESETS_MAX: u32 = 200;
/// Streams that we have to reset for an error of the client's, in that time.
const FORCED_RESETS_MAX: u32 = 200;
/// DATA frames without a byte, one after another.
const EMPTY_DATA_MAX: u32 = 100;
/// CONTINUATION frames of one header block, if its limit does not need more.
const CONTINUATIONS_MIN: u32 = 8;
/// Bytes of frames that say nothing, beside an eighth of what is useful: nginx's rule and number.
const OVERHEAD_BYTES: u64 = 1024 * 1024;
const OVERHEAD_SHARE: u64 = 8;
/// The smallest frame that a client must be ready to receive, and what most send.
const FRAME_BYTES: u32 = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct FloodGuard {
    period: Period,
    empty_data: u32,
    continuations: u32,
    continuations_max: u32,
    /// Bytes of all frames received, and of those that carry messages in either direction.
    all_bytes: u64,
    useful_bytes: u64,
}

/// Counts of the last ten seconds.
#[derive(Debug)]
struct Period {
    began: Instant,
    control: u32,
    early_resets: u32,
    forced_resets: u32,
}

impl Period {
    fn new(began: Instant) -> Self {
        Self {
            began,
            control: 0,
            early_resets: 0,
            forced_resets: 0,
        }
    }
}

impl FloodGuard {
    /// `list_bytes_max` is the largest header list, 0 if there is no limit.
    pub(super) fn new(list_bytes_max: u32, now: Instant) -> Self {
        Self {
            period: Period::new(now),
            empty_data: 0,
            continuations: 0,
            continuations_max: match list_bytes_max {
                0 => 1024,
                bytes => (bytes / FRAME_BYTES + 1).max(CONTINUATIONS_MIN),
            },
            all_bytes: 0,
            useful_bytes: 0,
        }
    }

    /// Bytes have arrived.
    pub(super) fn on_bytes(&mut self, bytes: usize, now: Instant) {
        if now.saturating_duration_since(self.period.began) > PERIOD {
            self.period = Period::new(now);
        }
        self.all_bytes += bytes as u64;
    }

    /// All frames in them were looked at.
    ///
    /// # Errors
    /// Too many of them serve nothing.
    pub(super) fn check_use(&self) -> Result<(), Violation> {
        let is_flood = self.all_bytes / OVERHEAD_SHARE > self.useful_bytes + OVERHEAD_BYTES;
        flood_if(is_flood, Violation::Overhead)
    }

    /// A part of a frame's payload has passed, in either direction.
    pub(super) fn on_payload(&mut self, kind: FrameKind, bytes: usize) {
        if matches!(
            kind,
            FrameKind::Data | FrameKind::Headers | FrameKind::Continuation
        ) {
            self.useful_bytes += bytes as u64;
        }
    }

    /// A frame begins.
    ///
    /// # Errors
    /// It is one of too many.
    pub(super) fn on_frame(&mut self, head: FrameHead) -> Result<(), Violation> {
        if head.kind != FrameKind::Data || head.length > 0 || head.has(FrameHead::FLAG_END_STREAM) {
            self.empty_data = 0;
        }
        match head.kind {
            FrameKind::Data if head.length == 0 && !head.has(FrameHead::FLAG_END_STREAM) => {
                self.empty_data += 1;
                flood_if(self.empty_data > EMPTY_DATA_MAX, Violation::EmptyData)
            }
            FrameKind::Ping | FrameKind::Settings | FrameKind::Unknown
                if !head.has(FrameHead::FLAG_ACK) =>
            {
                self.period.control += 1;
                flood_if(self.period.control > CONTROL_FRAMES_MAX, Violation::Control)
            }
            FrameKind::Headers => {
                self.continuations = 0;
                Ok(())
            }
            FrameKind::Continuation => {
                self.continuations += 1;
                let is_flood = self.continuations > self.continuations_max;
                flood_if(is_flood, Violation::Continuations)
            }
            _ => Ok(()),
        }
    }

    /// A request was cancelled before its answer began.
    ///
    /// # Errors
    /// It was one of too many.
    pub(super) fn on_early_reset(&mut self) -> Result<(), Violation> {
        self.period.early_resets += 1;
        flood_if(
            self.period.early_resets > EARLY_RESETS_MAX,
            Violation::EarlyResets,
        )
    }

    /// We reset a stream. Returns whether it is for an error of the client's, or because it has too many.
    pub(super) fn on_own_reset(&mut self, code: Reason) -> bool {
        let is_fault = is_clients_fault(code);
        if is_fault {
            self.period.forced_resets += 1;
        }
        is_fault || code == Reason::REFUSED_STREAM
    }

    /// # Errors
    /// The client has made us reset too many streams.
    pub(super) fn check_own_resets(&self) -> Result<(), Violation> {
        flood_if(
            self.period.forced_resets > FORCED_RESETS_MAX,
            Violation::ForcedResets,
        )
    }
}

fn flood_if(is_flood: bool, violation: Violation) -> Result<(), Violation> {
    match is_flood {
        true => Err(violation),
        false => Ok(()),
    }
}
