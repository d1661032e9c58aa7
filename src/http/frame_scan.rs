//! The heads of HTTP/2 frames (RFC 9113 section 4.1) in bytes that arrive in any pieces.
//!
//! Pure: it tells which frames pass and what is in them, and decides nothing. What it says does not depend on how the bytes
//! are cut.

/// The types of RFC 9113 section 6; any other is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    Push,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Unknown,
}

/// The nine octets before each frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    pub kind: FrameKind,
    pub flags: u8,
    pub stream: u32,
    /// Of the payload.
    pub length: u32,
}

/// What passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameEvent<'a> {
    Head(FrameHead),
    /// A part of the payload of this frame.
    Payload(FrameHead, &'a [u8]),
    /// The frame is whole.
    End(FrameHead),
}

/// See the module.
#[derive(Debug, Default)]
pub struct FrameScan {
    state: State,
}

#[derive(Debug)]
enum State {
    Head { bytes: [u8; HEAD_BYTES], got: usize },
    Payload { head: FrameHead, left: u32 },
}

impl Default for State {
    fn default() -> Self {
        Self::Head {
            bytes: [0; HEAD_BYTES],
            got: 0,
        }
    }
}

const HEAD_BYTES: usize = FrameHead::BYTES;

impl FrameHead {
    pub const BYTES: usize = 9;
    /// `END_STREAM`, and `ACK` of SETTINGS and PING.
    pub const FLAG_END_STREAM: u8 = 1;
    pub const FLAG_ACK: u8 = 1;
    pub const FLAG_END_HEADERS: u8 = 4;

    fn parse(bytes: &[u8; HEAD_BYTES]) -> Self {
        Self {
            kind: FrameKind::of(bytes[3]),
            flags: bytes[4],
            // The first bit is reserved, and ignored.
            stream: u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]),
            length: u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]),
        }
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl FrameKind {
    fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::RstStream,
            4 => Self::Settings,
            5 => Self::Push,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }
}

impl FrameScan {
    /// Looks at the bytes that have arrived. Each event comes with the number of those that it ends behind.
    pub fn feed<'a>(&mut self, arrived: &'a [u8], mut on_event: impl FnMut(FrameEvent<'a>, usize)) {
        let mut bytes = arrived;
        while !bytes.is_empty() {
            match &mut self.state {
                State::Head { bytes: head, got } => {
                    let step = bytes.len().min(HEAD_BYTES - *got);
                    head[*got..*got + step].copy_from_slice(&bytes[..step]);
                    *got += step;
                    bytes = &bytes[step..];
                    if *got == HEAD_BYTES {
                        let head = FrameHead::parse(head);
                        let at = arrived.len() - bytes.len();
                        on_event(FrameEvent::Head(head), at);
                        self.begin_payload(head, at, &mut on_event);
                    }
                }
                State::Payload { head, left } => {
                    let head = *head;
                    let step = bytes.len().min(*left as usize);
                    let at = arrived.len() - bytes.len() + step;
                    on_event(FrameEvent::Payload(head, &bytes[..step]), at);
                    bytes = &bytes[step..];
                    let left = *left - step as u32;
                    if left == 0 {
                        on_event(FrameEvent::End(head), at);
                        self.state = State::default();
                    } else {
                        self.state = State::Payload { head, left };
                    }
                }
            }
        }
    }

    fn begin_payload<'a>(
        &mut self,
        head: FrameHead,
        at: usize,
        on_event: &mut impl FnMut(FrameEvent<'a>, usize),
    ) {
        self.state = match head.length {
            0 => {
                on_event(FrameEvent::End(head), at);
                State::default()
            }
            left => State::Payload { head, left },
        };
    }

    /// How many bytes of a frame's head have arrived that is not whole.
    pub fn head_bytes(&self) -> usize {
        match self.state {
            State::Head { got, .. } => got,
            State::Payload { .. } => 0,
        }
    }

    /// Whether the last frame is whole.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Head { got: 0, .. })
    }
}

/// A frame as it is on the wire, for tests.
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "tests' frames are short")]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    type Whole = (FrameHead, Vec<u8>);

    /// Heads, each whole frame with its payload, and whether the last is whole.
    fn seen(bytes: &[u8], step: usize) -> (Vec<FrameHead>, Vec<Whole>, bool) {
        let (mut scan, mut heads, mut whole) = (FrameScan::default(), Vec::new(), Vec::new());
        let mut payload = Vec::new();
        for piece in bytes.chunks(step) {
            scan.feed(piece, |event, _| match event {
                FrameEvent::Head(head) => heads.push(head),
                FrameEvent::Payload(_, part) => payload.extend_from_slice(part),
                FrameEvent::End(head) => whole.push((head, std::mem::take(&mut payload))),
            });
        }
        (heads, whole, scan.is_between_frames())
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let bytes = [
            frame(4, 0, 0, &[]),
            frame(1, 5, 1, b"block"),
            frame(0, 1, 0x8000_0003, &[7; 300]),
            frame(99, 0, 0, b"x"),
        ]
        .concat();
        let whole = seen(&bytes, bytes.len());
        for step in 1..12 {
            assert_eq!(seen(&bytes, step), whole);
        }
        let (heads, frames, is_between) = whole;
        assert_eq!((heads.len(), frames.len(), is_between), (4, 4, true));
        assert_eq!(heads[1].kind, FrameKind::Headers);
        assert!(heads[1].has(FrameHead::FLAG_END_STREAM | FrameHead::FLAG_END_HEADERS));
        assert_eq!((heads[2].stream, heads[2].length), (3, 300));
        assert_eq!(
            (frames[1].1.as_slice(), heads[3].kind),
            (&b"block"[..], FrameKind::Unknown)
        );
    }

    #[test]
    fn a_cut_frame_is_not_whole() {
        let bytes = frame(6, 0, 0, &[0; 8]);
        for end in 1..bytes.len() {
            let (heads, frames, is_between) = seen(&bytes[..end], 3);
            assert_eq!(
                (heads.len(), frames.len(), is_between),
                (usize::from(end >= 9), 0, false)
            );
        }
    }
}
