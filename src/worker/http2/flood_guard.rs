//! What a client may do to a connection before it counts as an attack: the frames that the h2 crate lets pass in any number.
//!
//! Pure: bytes and the time go in, a verdict comes out. The numbers are for work that is caused, not for what ordinary
//! clients do often: a browser cancels dozens of requests at a time, and a large download is acknowledged with thousands of
//! WINDOW_UPDATE frames.

use std::time::{Duration, Instant};

use h2::Reason;

use crate::http::{FrameEvent, FrameHead, FrameKind, FrameScan, has_pseudo_field};

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
/// Of a trailer section, what is looked through.
const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// Why the connection is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flood {
    /// The first frame was not SETTINGS.
    NoSettings,
    Control,
    EarlyResets,
    ForcedResets,
    EmptyData,
    Continuations,
    Overhead,
    /// A frame of a length that its type cannot have (RFC 9113 section 4.2).
    FrameSize,
    /// An initial window that is larger than windows can be (RFC 9113 section 6.5.2).
    WindowSize,
}

impl Flood {
    /// In words, for the log.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::NoSettings => "the first frame is not SETTINGS",
            Self::Control => "more than 1000 PING, SETTINGS or unknown frames in 10 s",
            Self::EarlyResets => "more than 200 requests cancelled before their answer in 10 s",
            Self::ForcedResets => "more than 200 streams with errors in 10 s",
            Self::EmptyData => "more than 100 empty DATA frames in a row",
            Self::Continuations => "too many CONTINUATION frames",
            Self::Overhead => "more frames without use than requests could need",
            Self::FrameSize => "a frame has a length that its type cannot have",
            Self::WindowSize => "SETTINGS_INITIAL_WINDOW_SIZE is past its maximum",
        }
    }

    /// The code that the client gets.
    pub(super) fn code(self) -> Reason {
        match self {
            Self::NoSettings => Reason::PROTOCOL_ERROR,
            Self::FrameSize => Reason::FRAME_SIZE_ERROR,
            Self::WindowSize => Reason::FLOW_CONTROL_ERROR,
            _ => Reason::ENHANCE_YOUR_CALM,
        }
    }
}

/// What passed besides floods.
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
pub(super) struct FloodGuard {
    input: FrameScan,
    output: FrameScan,
    opening: Opening,
    period: Period,
    empty_data: u32,
    continuations: u32,
    continuations_max: u32,
    last_stream: u32,
    /// The stream whose trailers are being received, and what has come of them.
    trailers: Option<(u32, Vec<u8>)>,
    /// Bytes of all frames received, and of those that carry messages in either direction.
    all_bytes: u64,
    useful_bytes: u64,
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
            input: FrameScan::default(),
            output: FrameScan::default(),
            opening: Opening::AwaitingSettings,
            period: Period::new(now),
            empty_data: 0,
            continuations: 0,
            continuations_max: match list_bytes_max {
                0 => 1024,
                bytes => (bytes / FRAME_BYTES + 1).max(CONTINUATIONS_MIN),
            },
            last_stream: 0,
            trailers: None,
            all_bytes: 0,
            useful_bytes: 0,
            reset_code: Vec::new(),
            setting: 0,
            setting_bytes: 0,
        }
    }

    /// Whether a header block or a frame has begun and is not whole.
    pub(super) fn is_mid_frame(&self) -> bool {
        self.continuations > 0 || !self.input.is_between_frames()
    }

    /// Look at what has arrived behind the preface.
    ///
    /// # Errors
    /// It is an attack, or no HTTP/2.
    pub(super) fn inspect(
        &mut self,
        bytes: &[u8],
        now: Instant,
        seen: &mut Seen,
    ) -> Result<(), Flood> {
        if now.saturating_duration_since(self.period.began) > PERIOD {
            self.period = Period::new(now);
        }
        self.all_bytes += bytes.len() as u64;
        let mut input = std::mem::take(&mut self.input);
        let mut verdict = Ok(());
        input.feed(bytes, |event| {
            if verdict.is_ok() {
                verdict = self.on_event(event, seen);
            }
        });
        self.input = input;
        verdict?;
        if self.all_bytes / OVERHEAD_SHARE > self.useful_bytes + OVERHEAD_BYTES {
            return Err(Flood::Overhead);
        }
        Ok(())
    }

    fn on_event(&mut self, event: FrameEvent<'_>, seen: &mut Seen) -> Result<(), Flood> {
        match event {
            FrameEvent::Head(head) => self.on_head(head, seen),
            FrameEvent::Payload(head, part) => {
                if matches!(
                    head.kind,
                    FrameKind::Data | FrameKind::Headers | FrameKind::Continuation
                ) {
                    self.useful_bytes += part.len() as u64;
                }
                if head.kind == FrameKind::Settings {
                    return self.on_settings(part);
                }
                if let Some((stream, block)) = &mut self.trailers
                    && *stream == head.stream
                    && block.len() + part.len() <= TRAILER_BYTES_MAX
                {
                    block.extend_from_slice(part);
                }
                Ok(())
            }
            FrameEvent::End(head) => {
                self.on_end(head, seen);
                Ok(())
            }
        }
    }

    fn on_head(&mut self, head: FrameHead, seen: &mut Seen) -> Result<(), Flood> {
        let is_ack = head.has(FrameHead::FLAG_ACK);
        if self.opening == Opening::AwaitingSettings {
            if head.kind != FrameKind::Settings || is_ack {
                return Err(Flood::NoSettings);
            }
            self.opening = Opening::Over;
        }
        if !has_right_length(head) {
            return Err(Flood::FrameSize);
        }
        if head.kind != FrameKind::Data {
            self.empty_data = 0;
        }
        match head.kind {
            FrameKind::Data if head.length > 0 || head.has(FrameHead::FLAG_END_STREAM) => {
                self.empty_data = 0;
            }
            FrameKind::Data => {
                self.empty_data += 1;
                return flood_if(self.empty_data > EMPTY_DATA_MAX, Flood::EmptyData);
            }
            FrameKind::Ping | FrameKind::Settings | FrameKind::Unknown if !is_ack => {
                self.period.control += 1;
                return flood_if(self.period.control > CONTROL_FRAMES_MAX, Flood::Control);
            }
            FrameKind::Headers => {
                self.continuations = 0;
                self.trailers = None;
                if head.stream > self.last_stream {
                    self.last_stream = head.stream;
                } else {
                    self.trailers = Some((head.stream, Vec::new()));
                }
                self.continuations = u32::from(!head.has(FrameHead::FLAG_END_HEADERS));
            }
            FrameKind::Continuation => {
                self.continuations += 1;
                let is_flood = self.continuations > self.continuations_max + 1;
                return flood_if(is_flood, Flood::Continuations);
            }
            FrameKind::RstStream => seen.resets.push(head.stream),
            _ => {}
        }
        Ok(())
    }

    /// The h2 crate answers a window that is too large with a code for other errors.
    fn on_settings(&mut self, part: &[u8]) -> Result<(), Flood> {
        for byte in part {
            self.setting = (self.setting << 8 | u64::from(*byte)) & 0xffff_ffff_ffff;
            self.setting_bytes = (self.setting_bytes + 1) % SETTING_BYTES;
            let is_window = self.setting >> 32 == INITIAL_WINDOW_SIZE;
            if self.setting_bytes == 0 && is_window && self.setting & 0x8000_0000 != 0 {
                return Err(Flood::WindowSize);
            }
        }
        Ok(())
    }

    fn on_end(&mut self, head: FrameHead, seen: &mut Seen) {
        if head.kind == FrameKind::Headers
            && let Some((_, payload)) = &mut self.trailers
        {
            strip(head, payload);
        }
        let is_block = matches!(head.kind, FrameKind::Headers | FrameKind::Continuation);
        if !is_block || !head.has(FrameHead::FLAG_END_HEADERS) {
            return;
        }
        self.continuations = 0;
        if let Some((stream, block)) = self.trailers.take()
            && has_pseudo_field(&block)
        {
            seen.malformed.push(stream);
        }
    }

    /// A request was cancelled before its answer began.
    ///
    /// # Errors
    /// It was one of too many.
    pub(super) fn note_early_reset(&mut self) -> Result<(), Flood> {
        self.period.early_resets += 1;
        flood_if(
            self.period.early_resets > EARLY_RESETS_MAX,
            Flood::EarlyResets,
        )
    }

    /// Look at what is written.
    ///
    /// # Errors
    /// The client has made us reset too many streams.
    pub(super) fn inspect_output(&mut self, bytes: &[u8]) -> Result<(), Flood> {
        let Self {
            output,
            reset_code,
            period,
            useful_bytes,
            ..
        } = self;
        output.feed(bytes, |event| match event {
            FrameEvent::Payload(head, part) if head.kind == FrameKind::RstStream => {
                reset_code.extend_from_slice(part);
            }
            FrameEvent::Payload(head, part)
                if matches!(head.kind, FrameKind::Data | FrameKind::Headers) =>
            {
                *useful_bytes += part.len() as u64;
            }
            FrameEvent::End(head) if head.kind == FrameKind::RstStream => {
                if matches!(reset_code[..], [0, 0, 0, code] if is_clients_fault(code)) {
                    period.forced_resets += 1;
                }
                reset_code.clear();
            }
            _ => {}
        });
        flood_if(
            self.period.forced_resets > FORCED_RESETS_MAX,
            Flood::ForcedResets,
        )
    }
}

/// An identifier of two octets, a value of four (RFC 9113 section 6.5.1).
const SETTING_BYTES: u32 = 6;
const INITIAL_WINDOW_SIZE: u64 = 4;

/// RFC 9113 section 6: the lengths that make a frame, when wrong, an error of the connection.
fn has_right_length(head: FrameHead) -> bool {
    match head.kind {
        FrameKind::Settings if head.has(FrameHead::FLAG_ACK) => head.length == 0,
        FrameKind::Settings => head.length % SETTING_BYTES == 0,
        FrameKind::Ping => head.length == 8,
        FrameKind::RstStream | FrameKind::WindowUpdate => head.length == 4,
        _ => true,
    }
}

const FLAG_PADDED: u8 = 0x8;
const FLAG_PRIORITY: u8 = 0x20;
/// What a HEADERS frame with that flag says of its priority.
const PRIORITY_BYTES: usize = 5;

/// Leaves the header block of a HEADERS frame's payload (RFC 9113 section 6.2).
fn strip(head: FrameHead, payload: &mut Vec<u8>) {
    let padding = match head.has(FLAG_PADDED) && !payload.is_empty() {
        true => usize::from(payload.remove(0)),
        false => 0,
    };
    if head.has(FLAG_PRIORITY) {
        payload.drain(..payload.len().min(PRIORITY_BYTES));
    }
    payload.truncate(payload.len().saturating_sub(padding));
}

/// PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED and FRAME_SIZE_ERROR.
fn is_clients_fault(code: u8) -> bool {
    matches!(code, 1 | 3 | 5 | 6)
}

fn flood_if(is_flood: bool, flood: Flood) -> Result<(), Flood> {
    match is_flood {
        true => Err(flood),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::frame;

    struct Guarded {
        guard: FloodGuard,
        now: Instant,
        seen: Seen,
    }

    impl Guarded {
        fn new() -> Self {
            let now = Instant::now();
            let mut guarded = Self {
                guard: FloodGuard::new(65_536, now),
                now,
                seen: Seen::default(),
            };
            assert_eq!(guarded.send(&frame(4, 0, 0, &[])), Ok(()));
            guarded
        }

        fn send(&mut self, bytes: &[u8]) -> Result<(), Flood> {
            self.guard.inspect(bytes, self.now, &mut self.seen)
        }

        /// How many frames pass.
        fn count(&mut self, frame: &[u8], most: usize) -> usize {
            (0..most).take_while(|_| self.send(frame).is_ok()).count()
        }
    }

    #[test]
    fn the_first_frame_is_settings() {
        for first in [frame(6, 0, 0, &[0; 8]), frame(4, 1, 0, &[])] {
            let mut guard = FloodGuard::new(0, Instant::now());
            let verdict = guard.inspect(&first, Instant::now(), &mut Seen::default());
            assert_eq!(verdict, Err(Flood::NoSettings));
        }
    }

    #[test]
    fn control_frames_are_counted_for_ten_seconds() {
        let mut guarded = Guarded::new();
        let ping = frame(6, 0, 0, &[0; 8]);
        assert_eq!(guarded.count(&ping, 5000), 999);
        let mut guarded = Guarded::new();
        assert_eq!(guarded.count(&ping, 900), 900);
        guarded.now += PERIOD * 2;
        assert_eq!(guarded.count(&ping, 900), 900);
        let pong = frame(6, 1, 0, &[0; 8]);
        assert_eq!(guarded.count(&pong, 5000), 5000, "answers are asked for");
    }

    #[test]
    fn empty_data_is_counted_in_a_row() {
        let mut guarded = Guarded::new();
        let (empty, full) = (frame(0, 0, 1, &[]), frame(0, 0, 1, b"x"));
        for _ in 0..5 {
            assert_eq!(guarded.count(&empty, 100), 100);
            assert_eq!(guarded.send(&full), Ok(()));
        }
        assert_eq!(guarded.count(&empty, 200), 100);
    }

    #[test]
    fn a_header_block_has_so_many_frames() {
        let mut guarded = Guarded::new();
        assert_eq!(guarded.send(&frame(1, 0, 1, &[0x82])), Ok(()));
        assert!(guarded.guard.is_mid_frame());
        assert_eq!(guarded.count(&frame(9, 0, 1, &[]), 50), 8);
        let mut guarded = Guarded::new();
        assert_eq!(guarded.send(&frame(1, 0, 1, &[0x82])), Ok(()));
        assert_eq!(guarded.send(&frame(9, 4, 1, &[0x86])), Ok(()));
        assert!(!guarded.guard.is_mid_frame());
    }

    #[test]
    fn priority_frames_are_measured_by_what_they_serve() {
        let mut guarded = Guarded::new();
        let many = frame(2, 0, 1, &[0; 5]).repeat(100_000);
        assert_eq!(guarded.count(&many, 100), 5);
        let mut guarded = Guarded::new();
        assert_eq!(guarded.send(&frame(0, 0, 1, &vec![1; 1 << 20])), Ok(()));
        assert!(guarded.count(&many, 100) > 5);
    }

    #[test]
    fn resets_are_seen_and_counted_in_both_directions() {
        let mut guarded = Guarded::new();
        assert_eq!(guarded.send(&frame(3, 0, 7, &[0, 0, 0, 8])), Ok(()));
        assert_eq!(guarded.seen.resets, [7]);
        let early = (0..500).take_while(|_| guarded.guard.note_early_reset().is_ok());
        assert_eq!(early.count(), 200);
        let forced = frame(3, 0, 7, &[0, 0, 0, 1]);
        let forced = (0..500).take_while(|_| guarded.guard.inspect_output(&forced).is_ok());
        assert_eq!(forced.count(), 200);
        let mut guarded = Guarded::new();
        let cancelled = frame(3, 0, 7, &[0, 0, 0, 8]);
        let cancelled = (0..500).take_while(|_| guarded.guard.inspect_output(&cancelled).is_ok());
        assert_eq!(cancelled.count(), 500);
    }

    #[test]
    fn pseudo_fields_in_trailers_are_found() {
        let mut guarded = Guarded::new();
        assert_eq!(guarded.send(&frame(1, 4, 1, &[0x82, 0x86, 0x84])), Ok(()));
        assert!(guarded.seen.malformed.is_empty());
        assert_eq!(guarded.send(&frame(1, 5, 1, &[0x84])), Ok(()));
        assert_eq!(guarded.seen.malformed, [1]);
        let padded = frame(1, 5 | FLAG_PADDED, 1, &[2, 0x84, 0, 0]);
        assert_eq!(guarded.send(&padded), Ok(()));
        let weighted = frame(
            1,
            5 | FLAG_PRIORITY | FLAG_PADDED,
            1,
            &[1, 0, 0, 0, 0, 9, 0x84, 0],
        );
        assert_eq!(guarded.send(&weighted), Ok(()));
        assert_eq!(guarded.seen.malformed, [1, 1, 1]);
        assert_eq!(guarded.send(&frame(1, 5 | FLAG_PADDED, 1, &[9])), Ok(()));
        assert_eq!(guarded.seen.malformed, [1, 1, 1]);
    }
}
