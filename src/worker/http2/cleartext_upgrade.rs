//! `Upgrade: h2c`: a request of HTTP/1.1 that becomes the first stream of HTTP/2 (RFC 7540 section 3.2; RFC 9113 has given it up,
//! and gunicorn has it).
//!
//! Pure. The h2 crate has no such beginning: it gets the request as the frames of a client that has known. Of what it answers,
//! one acknowledgement is for settings that the client has not sent as a frame, and is left out.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;

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

/// The body of a request that becomes a stream: as much as gunicorn takes. A longer one is answered over HTTP/1.1.
const BODY_BYTES_MAX: usize = 65_536;

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

/// SETTINGS, HEADERS and DATA that say the same as a request whose body, if it has one, is read. `None`: it does not ask for
/// HTTP/2 as it should, and is answered over HTTP/1.1. The frames are sent as a client would, so `window` bounds the body.
pub(in crate::worker) fn frames_of(job: &Job, window: u32) -> Option<Vec<u8>> {
    let body = match &job.body {
        RequestBody::Empty => &[],
        RequestBody::Memory(body) => &body[..],
        RequestBody::File { .. } | RequestBody::Streaming(_) => return None,
    };
    let fits = body.len() <= BODY_BYTES_MAX.min(window as usize);
    fits.then(|| frames(&job.head, body)).flatten()
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

/// Leave the first acknowledgement of settings out. Returns whether there was one. `output` begins with a frame.
fn drop_acknowledgement(output: &mut Vec<u8>) -> bool {
    let mut at = 0;
    while let Some(head) = output.get(at..at + FrameHead::BYTES) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if head[3] == SETTINGS && head[4] & FrameHead::FLAG_ACK != 0 {
            output.drain(at..at + FrameHead::BYTES + length);
            return true;
        }
        at += FrameHead::BYTES + length;
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::{HeadScan, HeaderTable, Limits, frame, parse_head};

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
        assert!(found.has_pseudo && !found.is_malformed);
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
