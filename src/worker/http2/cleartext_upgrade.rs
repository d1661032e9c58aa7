//! `Upgrade: h2c`: a request of HTTP/1.1 that becomes the first stream of HTTP/2 (RFC 7540 section 3.2; RFC 9113 has given it up,
//! and gunicorn has it).
//!
//! Pure. The h2 crate has no such beginning: it gets the request as the frames of a client that has known. Of what it answers,
//! one acknowledgement is for settings that the client has not sent as a frame, and is left out.
//!
//! The body came before there was a window, and takes nothing from the client's. The crate takes it from the connection's, so it
//! has that much more there, which is not announced: both agree on what is left.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;

use super::engine::{Engine, Polled, WINDOW_BYTES_BEFORE_SETTINGS};
use super::frame_length::{write_data_frames, write_header_frames};
use crate::http::{FrameHead, RequestHead, Version, write_header_field};
use crate::pool::{Job, RequestBody};

/// What the connection began with: the preface, or a request of HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    Preface,
    /// The crate has yet to acknowledge what it takes for the client's settings.
    Unacknowledged,
    Acknowledged,
}

impl Beginning {
    /// The connection began with a request of HTTP/1.1.
    pub(super) fn upgrade(&mut self) {
        *self = Self::Unacknowledged;
    }

    /// Leave out of what the crate sends what the client would not understand.
    pub(super) fn filter_output(&mut self, output: &mut Vec<u8>) {
        if *self == Self::Unacknowledged && drop_acknowledgement(output) {
            *self = Self::Acknowledged;
        }
    }
}

/// What answers the request, before the first frame.
pub(in crate::worker) const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";

/// The body of a request that becomes a stream: what the crate takes before its own settings are acknowledged, a byte less than
/// gunicorn. A longer one is answered over HTTP/1.1.
const BODY_BYTES_MAX: u32 = WINDOW_BYTES_BEFORE_SETTINGS;

/// A request that becomes stream 1.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) struct FirstStream {
    /// SETTINGS, HEADERS and DATA that say the same.
    pub(super) frames: Vec<u8>,
    /// Of DATA, what flow control counts.
    pub(super) body_bytes: u32,
}

/// Fields that are about the connection, not about the request; what `Expect` waits for has come.
const LEFT_OUT: [&[u8]; 8] = [
    b"connection",
    b"upgrade",
    b"http2-settings",
    b"keep-alive",
    b"proxy-connection",
    b"transfer-encoding",
    b"te",
    b"expect",
];

/// A request whose body, if it has one, is read. `None`: it does not ask for HTTP/2 as it should, and is answered over HTTP/1.1.
/// `window` bounds the body, as it does that of any stream.
pub(in crate::worker) fn first_stream(job: &Job, window: u32) -> Option<FirstStream> {
    let body = match &job.body {
        RequestBody::Empty => &[],
        RequestBody::Memory(body) => &body[..],
        RequestBody::File { .. } | RequestBody::Streaming(_) => return None,
    };
    let body_bytes = u32::try_from(body.len()).ok()?;
    if body_bytes > BODY_BYTES_MAX.min(window) {
        return None;
    }
    let frames = frames(&job.head, body)?;
    Some(FirstStream { frames, body_bytes })
}

fn frames(head: &RequestHead, body: &[u8]) -> Option<Vec<u8>> {
    let is_plain = matches!(head.target(), [b'/', ..]) && head.version() == Version::HTTP_11;
    if !is_plain || only(head, b"upgrade")? != b"h2c" {
        return None;
    }
    let settings = only(head, b"http2-settings")?.trim_ascii_end();
    let settings = BASE64_URL.decode(settings).ok()?;
    if !are_allowed(&settings) || !names_hop_by_hop(head) {
        return None;
    }
    let mut block = Vec::with_capacity(head.bytes().len());
    for (name, value) in [
        (&b":method"[..], head.method()),
        (b":scheme", b"http"),
        (b":path", head.target()),
    ] {
        write_header_field(name, value, &mut block);
    }
    for (name, value) in head.fields() {
        let name = name.to_ascii_lowercase();
        if !LEFT_OUT.contains(&&name[..]) {
            write_header_field(&name, value, &mut block);
        }
    }
    let length = u8::try_from(settings.len()).ok()?;
    let mut frames = vec![0, 0, length, SETTINGS, 0, 0, 0, 0, 0];
    frames.extend_from_slice(&settings);
    let mut push = |bytes: &[u8]| frames.extend_from_slice(bytes);
    write_header_frames(1, body.is_empty(), &block, &mut push);
    write_data_frames(1, body, &mut push);
    Some(frames)
}

/// The field of this name, if it is the only one.
fn only<'a>(head: &'a RequestHead, lowercase_name: &[u8]) -> Option<&'a [u8]> {
    let is_named = |(name, _): &(&[u8], &[u8])| name.eq_ignore_ascii_case(lowercase_name);
    let mut named = head.fields().filter(is_named);
    match (named.next(), named.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

/// `Connection` names both fields, so that no proxy has passed them on unseen.
fn names_hop_by_hop(head: &RequestHead) -> bool {
    let is_connection = |(name, _): &(&[u8], &[u8])| name.eq_ignore_ascii_case(b"connection");
    let names = |wanted: &[u8]| {
        let mut values = head.fields().filter(is_connection);
        values.any(|(_, value)| {
            let mut words = value.split(|byte| *byte == b',');
            words.any(|word| word.trim_ascii().eq_ignore_ascii_case(wanted))
        })
    };
    names(b"upgrade") && names(b"http2-settings")
}

/// As many as a frame of this beginning takes, and none that ends a connection (RFC 9113 section 6.5.2).
fn are_allowed(settings: &[u8]) -> bool {
    settings.len() % 6 == 0
        && settings.len() <= 255
        && settings.chunks_exact(6).all(|setting| {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match setting[1] {
                _ if setting[0] != 0 => true,
                2 => value <= 1,
                4 => value <= 0x7fff_ffff,
                5 => (16_384..=16_777_215).contains(&value),
                _ => true,
            }
        })
}

const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

/// Leave the first acknowledgement of settings out. Returns whether there was one. `output` begins with a frame.
fn drop_acknowledgement(output: &mut Vec<u8>) -> bool {
    let is_acknowledgement =
        |head: &[u8]| head[3] == SETTINGS && head[4] & FrameHead::FLAG_ACK != 0;
    let found = find_frame(output, is_acknowledgement);
    if let Some(frame) = &found {
        output.drain(frame.clone());
    }
    found.is_some()
}

/// The crate, which has the preface, opens the connection's window before anything takes from it. The client reads of as much as it
/// may send beside the body.
pub(super) fn open_window(engine: &mut Engine, body_bytes: u32) {
    let polled = engine.poll();
    debug_assert!(matches!(polled, Polled::Nothing), "no frame is in");
    engine.edit_output(|output| withhold_window(output, body_bytes));
}

/// Tell the client of so many bytes less in the connection's window. `output` begins with a frame.
fn withhold_window(output: &mut [u8], bytes: u32) {
    let is_of_connection =
        |head: &[u8]| head[3] == WINDOW_UPDATE && head[5..FrameHead::BYTES] == [0; 4];
    let found = find_frame(output, is_of_connection);
    debug_assert!(found.is_some(), "the crate's target is above the default");
    if let Some(payload) = found.and_then(|frame| output.get_mut(frame)?.last_chunk_mut::<4>()) {
        let increment = u32::from_be_bytes(*payload).saturating_sub(bytes);
        debug_assert!(increment > 0, "an increment of nothing is an error");
        *payload = increment.to_be_bytes();
    }
}

fn find_frame(output: &[u8], is_wanted: impl Fn(&[u8]) -> bool) -> Option<Range<usize>> {
    let mut at = 0;
    while let Some(head) = output.get(at..at + FrameHead::BYTES) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let end = at + FrameHead::BYTES + length;
        if is_wanted(head) {
            return Some(at..end);
        }
        at = end;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::{HeadScan, HeaderTable, Limits, frame, parse_head};
    use crate::worker::preamble::PREFACE;

    fn frames(text: &str) -> Option<Vec<u8>> {
        with_body(text, b"")
    }

    fn with_body(text: &str, body: &[u8]) -> Option<Vec<u8>> {
        let (mut scan, mut head) = (HeadScan::default(), RequestHead::default());
        parse_head(text.as_bytes(), &mut scan, &Limits::default(), &mut head).unwrap();
        super::frames(&head, body)
    }

    const GOOD: &str = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
        HTTP2-Settings: AAMAAABkAAQAAP__\r\nAccept: */*\r\nTE: trailers\r\n\r\n";

    #[test]
    fn a_request_is_settings_and_headers_of_stream_1() {
        let frames = frames(GOOD).unwrap();
        let settings = frame(4, 0, 0, &[0, 3, 0, 0, 0, 100, 0, 4, 0, 0, 0xff, 0xff]);
        let rest = frames.strip_prefix(&settings[..]).unwrap();
        assert_eq!(rest[3..9], [1, 5, 0, 0, 0, 1]);
        let block = &rest[9..];
        let found = HeaderTable::default().read(block).unwrap();
        assert!(found.is_bad_in_trailers && !found.is_malformed);
        let has = |text: &[u8]| block.windows(text.len()).any(|part| part == text);
        assert!(has(b"\x05:path\x02/x") && has(b"\x04host\x01a") && has(b"\x06accept\x03*/*"));
        for name in [&b"upgrade"[..], b"http2-settings", b"connection", b"te\x08"] {
            assert!(!has(name));
        }
    }

    #[test]
    fn a_body_is_data_behind_them() {
        let text = GOOD.replacen("TE: ", "Expect: 100-continue\r\nTE: ", 1);
        let (empty, frames) = (frames(&text), with_body(&text, &[b'x'; 16_385]));
        let mut expected = empty.unwrap();
        // Not the end of the stream any more: the flags of HEADERS, behind SETTINGS with two settings.
        expected[9 + 12 + 4] = 4;
        expected.extend(frame(0, 0, 1, &[b'x'; 16_384]));
        expected.extend(frame(0, 1, 1, b"x"));
        assert_eq!(frames.unwrap(), expected);
        let expect = b"expect";
        assert!(!expected.windows(expect.len()).any(|part| part == expect));
    }

    #[test]
    fn what_is_not_exactly_that_is_a_request_of_http_1() {
        assert!(frames(&GOOD.replace("AAMAAABkAAQAAP__", "")).is_some());
        for (from, to) in [
            ("HTTP/1.1", "HTTP/1.0"),
            ("GET /x", "GET http://a/x"),
            ("h2c", "h2"),
            ("h2c", "h2c, websocket"),
            ("h2c\r\n", "h2c\r\nUpgrade: h2c\r\n"),
            ("Upgrade, HTTP2-Settings", "Upgrade"),
            ("Upgrade, HTTP2-Settings", "HTTP2-Settings"),
            ("AAMAAABkAAQAAP__", "AAMAAABk*AQAAP__"),
            ("AAMAAABkAAQAAP__", "AAMAAABkAAQAAP_"),
            ("AAMAAABkAAQAAP__", "AAMAAABkA"),
            ("AAMAAABkAAQAAP__", "AAT_____"),
            ("AAMAAABkAAQAAP__", "AAIAAAAC"),
            ("AAMAAABkAAQAAP__", "AAUAAAAB"),
            ("HTTP2-Settings: AA", "X: AA"),
            ("TE: trailers", "HTTP2-Settings: "),
        ] {
            assert_eq!(frames(&GOOD.replacen(from, to, 1)), None, "{from} {to}");
        }
    }

    /// The bytes of WINDOW_UPDATE frames, and the codes of GOAWAY frames.
    fn windows_and_ends(mut output: &[u8]) -> (Vec<u32>, Vec<u32>) {
        let (mut windows, mut ends) = (Vec::new(), Vec::new());
        while let Some(frame) = find_frame(output, |_| true) {
            let number = |from: usize| {
                u32::from_be_bytes(
                    output[frame.end - from..frame.end - from + 4]
                        .try_into()
                        .unwrap(),
                )
            };
            match output[3] {
                WINDOW_UPDATE => windows.push(number(4)),
                7 => ends.push(number(4)),
                _ => {}
            }
            output = &output[frame.end..];
        }
        (windows, ends)
    }

    #[test]
    fn a_body_that_came_before_takes_nothing_from_the_clients_window() {
        let settings = crate::config::Config::default().http2;
        for body_bytes in [0, 2, BODY_BYTES_MAX] {
            let mut engine = Engine::new(&settings, false, body_bytes);
            engine.feed(PREFACE);
            open_window(&mut engine, body_bytes);
            let (windows, _) = windows_and_ends(&engine.take_output());
            let text = GOOD.replacen("GET", "POST", 1);
            engine.feed(&with_body(&text, &vec![b'x'; body_bytes as usize]).unwrap());
            engine.feed(&frame(SETTINGS, 0, 0, &[]));
            // All that the client may send, before the crate is polled. Nothing of it is taken in.
            let mut left = 65_535 + windows.iter().sum::<u32>();
            assert!(left > 10 * 65_535);
            for stream in (3..).step_by(2) {
                let part = left.min(65_535);
                left -= part;
                let mut feed = |bytes: &[u8]| engine.feed(bytes);
                write_header_frames(stream, false, b"\x83\x86\x84", &mut feed);
                write_data_frames(stream, &vec![b'y'; part as usize], &mut feed);
                if left == 0 {
                    break;
                }
            }
            let mut held = Vec::new();
            while let Polled::Request(request, respond) = engine.poll() {
                held.push((request, respond));
            }
            assert_eq!(windows_and_ends(&engine.take_output()), (vec![], vec![]));
            assert!(held.len() > 10);
            // A byte more is too much.
            let mut feed = |bytes: &[u8]| engine.feed(bytes);
            write_header_frames(99, false, b"\x83\x86\x84", &mut feed);
            write_data_frames(99, b"y", &mut feed);
            while let Polled::Request(request, respond) = engine.poll() {
                held.push((request, respond));
            }
            let flow_control_error = 3;
            assert_eq!(
                windows_and_ends(&engine.take_output()).1,
                [flow_control_error]
            );
        }
    }

    #[test]
    fn one_acknowledgement_is_left_out() {
        let (settings, window) = (frame(4, 0, 0, &[0; 6]), frame(8, 0, 0, &[0, 0, 1, 0]));
        let ack = frame(4, 1, 0, &[]);
        let mut output = [&settings[..], &window, &ack, &ack, &window].concat();
        assert!(drop_acknowledgement(&mut output));
        assert_eq!(output, [&settings[..], &window, &ack, &window].concat());
        let mut without = settings;
        assert!(!drop_acknowledgement(&mut without));
    }
}
