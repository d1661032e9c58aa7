//! What is passed on, what ends the connection, and that it does not depend on how the bytes are cut.

use super::*;
use crate::http::frame;
use crate::worker::http2::frame_length::{FLAG_PADDED, FLAG_PRIORITY};

struct Inspected {
    inspection: Inspection,
    now: Instant,
    seen: Seen,
    passed: Vec<u8>,
}

fn inspection() -> Inspection {
    Inspection::new(&config::Config::default().http2, Instant::now())
}

impl Inspected {
    fn new() -> Self {
        let mut inspected = Self {
            inspection: inspection(),
            now: Instant::now(),
            seen: Seen::default(),
            passed: Vec::new(),
        };
        assert_eq!(inspected.send(&frame(4, 0, 0, &[])), Ok(()));
        inspected.passed.clear();
        inspected
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let passed = &mut self.passed;
        let pass = |bytes: &[u8]| passed.extend_from_slice(bytes);
        self.inspection
            .inspect(bytes, self.now, &mut self.seen, pass)
    }

    /// How many of our own frames pass.
    fn count_sent(&mut self, frame: &[u8], most: usize) -> usize {
        let Self {
            inspection, seen, ..
        } = self;
        let passes = |_: &usize| {
            let mut sent = frame.to_vec();
            inspection.inspect_output(&mut sent, seen).is_ok()
        };
        (0..most).take_while(passes).count()
    }

    /// How many frames pass.
    fn count(&mut self, frame: &[u8], most: usize) -> usize {
        (0..most).take_while(|_| self.send(frame).is_ok()).count()
    }
}

#[test]
fn the_first_frame_is_settings() {
    for first in [frame(6, 0, 0, &[0; 8]), frame(4, 1, 0, &[])] {
        let mut seen = Seen::default();
        let verdict = inspection().inspect(&first, Instant::now(), &mut seen, |_| ());
        assert_eq!(verdict, Err(Violation::NoSettings));
    }
}

#[test]
fn control_frames_are_counted_for_ten_seconds() {
    let mut inspected = Inspected::new();
    let ping = frame(6, 0, 0, &[0; 8]);
    assert_eq!(inspected.count(&ping, 5000), 999);
    let mut inspected = Inspected::new();
    assert_eq!(inspected.count(&ping, 900), 900);
    inspected.now += std::time::Duration::from_secs(20);
    assert_eq!(inspected.count(&ping, 900), 900);
    let pong = frame(6, 1, 0, &[0; 8]);
    assert_eq!(inspected.count(&pong, 5000), 5000, "answers are asked for");
}

#[test]
fn empty_data_is_counted_in_a_row() {
    let mut inspected = Inspected::new();
    let (empty, full) = (frame(0, 0, 1, &[]), frame(0, 0, 1, b"x"));
    for _ in 0..5 {
        assert_eq!(inspected.count(&empty, 100), 100);
        assert_eq!(inspected.send(&full), Ok(()));
    }
    assert_eq!(inspected.count(&empty, 200), 100);
}

#[test]
fn a_header_block_has_so_many_frames() {
    let mut inspected = Inspected::new();
    assert_eq!(inspected.send(&frame(1, 0, 1, &[0x82])), Ok(()));
    assert!(inspected.inspection.is_mid_frame());
    assert_eq!(inspected.count(&frame(9, 0, 1, &[]), 50), 8);
    let mut inspected = Inspected::new();
    assert_eq!(inspected.send(&frame(1, 0, 1, &[0x82])), Ok(()));
    assert_eq!(inspected.send(&frame(9, 4, 1, &[0x86])), Ok(()));
    assert!(!inspected.inspection.is_mid_frame());
}

#[test]
fn priority_frames_are_measured_by_what_they_serve() {
    let mut inspected = Inspected::new();
    let many = frame(2, 0, 1, &[0; 5]).repeat(100_000);
    assert_eq!(inspected.count(&many, 100), 5);
    let mut inspected = Inspected::new();
    assert_eq!(inspected.send(&frame(1, 4, 1, &[0x83])), Ok(()));
    assert_eq!(inspected.count(&frame(0, 0, 1, &[1; 16_384]), 64), 64);
    assert!(inspected.count(&many, 100) > 5);
}

#[test]
fn resets_are_seen_and_counted_in_both_directions() {
    let mut inspected = Inspected::new();
    assert_eq!(inspected.send(&frame(3, 0, 7, &[0, 0, 0, 8])), Ok(()));
    assert_eq!(inspected.seen.resets, [7]);
    let early = (0..500).take_while(|_| inspected.inspection.note_early_reset().is_ok());
    assert_eq!(early.count(), 200);
    let forced = frame(3, 0, 7, &[0, 0, 0, 1]);
    assert_eq!(inspected.count_sent(&forced, 500), 200);
    let seen = &inspected.seen.own_resets;
    assert_eq!(
        (seen.len(), seen[0]),
        (201, (7, h2::Reason::PROTOCOL_ERROR))
    );
    let mut inspected = Inspected::new();
    let cancelled = frame(3, 0, 7, &[0, 0, 0, 8]);
    assert_eq!(inspected.count_sent(&cancelled, 500), 500);
    assert!(inspected.seen.own_resets.is_empty());
}

#[test]
fn the_engines_own_answers_are_not_taken_for_the_applications() {
    let mut inspected = Inspected::new();
    for stream in [1, 3, 5] {
        assert_eq!(inspected.send(&frame(1, 5, stream, &[0x82])), Ok(()));
    }
    assert!(inspected.seen.heads.take(3), "a request has come of it");
    for stream in [1, 3] {
        inspected.count_sent(&frame(1, 5, stream, &[]), 1);
    }
    assert_eq!(inspected.seen.crate_answers, [1]);
    assert!(inspected.seen.heads.take(5) && inspected.seen.heads.is_empty());
}

#[test]
fn pseudo_fields_in_trailers_are_found() {
    let mut inspected = Inspected::new();
    let weighted = FLAG_PRIORITY | FLAG_PADDED;
    for (stream, flags, payload) in [
        (1, 0, &[0x84][..]),
        (3, FLAG_PADDED, &[2, 0x84, 0, 0]),
        (5, weighted, &[1, 0, 0, 0, 0, 9, 0x84, 0]),
    ] {
        let head = frame(1, 4, stream, &[0x82, 0x86, 0x84]);
        assert_eq!(inspected.send(&head), Ok(()));
        assert_eq!(inspected.seen.faults.len(), stream as usize / 2);
        let trailers = frame(1, 5 | flags, stream, payload);
        assert_eq!(inspected.send(&trailers), Ok(()));
        assert_eq!(
            inspected.seen.faults.last(),
            Some(&(stream, StreamFault::Malformed))
        );
    }
    assert_eq!(inspected.send(&frame(1, 4, 7, &[0x82])), Ok(()));
    let padded = frame(1, 5 | FLAG_PADDED, 7, &[9]);
    assert_eq!(inspected.send(&padded), Err(Violation::Padding));
    assert_eq!(inspected.seen.faults.len(), 3);
}

#[test]
fn everything_is_passed_on_in_order_and_header_blocks_whole_however_it_is_cut() {
    let good = [
        frame(1, 1, 1, &[0x82]),
        frame(9, 0, 1, &[0x86]),
        frame(9, 4, 1, &[0x84]),
        frame(6, 0, 0, &[7; 8]),
        frame(1, 4, 3, &[0x83, 0x86, 0x84]),
        frame(0, 0, 3, &[1; 300]),
        frame(8, 0, 0, &[0, 0, 1, 0]),
        frame(1, 5, 3, &[0x90]),
    ]
    .concat();
    let rest = &good[30..];
    for step in 1..30 {
        let mut inspected = Inspected::new();
        for piece in good.chunks(step) {
            assert_eq!(inspected.send(piece), Ok(()));
        }
        let joined = [&frame(1, 5, 1, &[0x82, 0x86, 0x84]), rest].concat();
        assert_eq!(inspected.passed, joined, "in steps of {step}");
        assert!(inspected.inspection.held.is_empty());
    }
}

#[test]
fn a_header_block_is_held_until_it_is_whole_and_nothing_else_is() {
    let mut inspected = Inspected::new();
    let data = frame(0, 0, 1, &[1; 100]);
    assert_eq!(inspected.send(&frame(1, 4, 1, &[0x83])), Ok(()));
    let before = inspected.passed.len();
    assert_eq!(inspected.send(&data[..60]), Ok(()));
    assert_eq!(inspected.passed.len(), before + 60);
    assert_eq!(inspected.send(&data[60..]), Ok(()));
    let before = inspected.passed.len();
    assert_eq!(inspected.send(&frame(1, 0, 3, &[0x82])), Ok(()));
    assert_eq!(inspected.passed.len(), before);
    assert!(inspected.inspection.is_mid_frame());
}

#[test]
fn frames_on_streams_that_are_closed_end_the_connection() {
    for late in [frame(0, 1, 1, b"x"), frame(1, 5, 1, &[0x82])] {
        let mut inspected = Inspected::new();
        let whole = frame(1, 5, 1, &[0x82]);
        let bytes = [&whole[..], &late].concat();
        assert_eq!(inspected.send(&bytes), Err(Violation::StreamClosed));
        assert_eq!(inspected.passed, whole, "what came before is passed on");
    }
}

#[test]
fn lengths_that_no_frame_of_the_type_has_end_the_connection() {
    for bad in [
        frame(0, FLAG_PADDED, 1, &[]),
        frame(1, 4 | FLAG_PRIORITY, 1, &[0; 4]),
        frame(1, 4 | FLAG_PRIORITY | FLAG_PADDED, 1, &[0; 5]),
        frame(3, 0, 1, &[0; 3]),
        frame(4, 0, 0, &[0; 5]),
        frame(4, 1, 0, &[0; 6]),
        frame(6, 0, 0, &[0; 7]),
        frame(7, 0, 0, &[0; 7]),
        frame(8, 0, 1, &[0; 5]),
        frame(0, 0, 1, &[0; 16_385]),
        frame(99, 0, 1, &[0; 16_385]),
    ] {
        let mut inspected = Inspected::new();
        assert_eq!(inspected.send(&frame(1, 4, 1, &[0x83])), Ok(()));
        assert_eq!(inspected.send(&bad), Err(Violation::FrameSize));
    }
}

#[test]
fn nothing_stands_within_a_header_block() {
    for other in [
        frame(0, 0, 1, b"x"),
        frame(1, 4, 3, &[0x82]),
        frame(9, 4, 3, &[]),
        frame(99, 0, 1, &[]),
    ] {
        let mut inspected = Inspected::new();
        assert_eq!(inspected.send(&frame(1, 0, 1, &[0x82])), Ok(()));
        assert_eq!(inspected.send(&other), Err(Violation::WithinBlock));
    }
}

#[test]
fn a_block_with_forbidden_bytes_is_passed_on_without_them_and_malformed_all_the_same() {
    // GET, http, /, and a name in upper case that enters the table.
    let block = [0x82, 0x86, 0x84, 0x40, 1, b'X', 1, b'v'];
    let (first, second) = block.split_at(5);
    let cut = [frame(1, 1, 1, first), frame(9, 4, 1, second)].concat();
    for bytes in [frame(1, 5, 1, &block), cut] {
        for step in 1..bytes.len() {
            let mut inspected = Inspected::new();
            for piece in bytes.chunks(step) {
                assert_eq!(inspected.send(piece), Ok(()));
            }
            let fixed = [&[0x82, 0x86, 0x84, 0x40, 1, b'x', 1, b'x'], MALFORMED].concat();
            assert_eq!(inspected.passed, frame(1, 5, 1, &fixed));
            // Who refers to it later is malformed too.
            let again = [0x82, 0x86, 0x84, 0xbe];
            assert_eq!(inspected.send(&frame(1, 5, 3, &again)), Ok(()));
            let again = frame(1, 5, 3, &[&again, MALFORMED].concat());
            assert!(inspected.passed.ends_with(&again));
            assert!(inspected.seen.faults.is_empty());
        }
    }
}

#[test]
fn a_block_that_cannot_be_decoded_ends_the_connection() {
    let mut inspected = Inspected::new();
    let good = frame(1, 5, 1, &[0x82]);
    let bytes = [&good[..], &frame(1, 5, 3, &[0xbe])].concat();
    assert_eq!(inspected.send(&bytes), Err(Violation::Compression));
    assert_eq!(inspected.passed, good);
}

#[test]
fn a_head_that_depends_on_itself_is_malformed() {
    let own = [&[0, 0, 0, 3, 16][..], &[0x82, 0x86, 0x84]].concat();
    let padded = [&[1][..], &own, &[0]].concat();
    let cut = [frame(1, 1 | FLAG_PRIORITY, 3, &own), frame(9, 4, 3, &[])].concat();
    for bytes in [
        frame(1, 5 | FLAG_PRIORITY, 3, &own),
        frame(1, 5 | FLAG_PRIORITY | FLAG_PADDED, 3, &padded),
        cut,
    ] {
        let mut inspected = Inspected::new();
        assert_eq!(inspected.send(&bytes), Ok(()));
        let expected = [&[0x82, 0x86, 0x84], MALFORMED].concat();
        assert_eq!(inspected.passed, frame(1, 5, 3, &expected));
        let next = frame(1, 5, 5, &[0x82, 0x86, 0x84]);
        assert_eq!(inspected.send(&next), Ok(()));
        assert!(inspected.passed.ends_with(&next));
        assert!(inspected.seen.faults.is_empty());
    }
}

#[test]
fn the_reset_behind_the_engines_own_answer_is_no_error() {
    let mut inspected = Inspected::new();
    assert_eq!(inspected.send(&frame(1, 4, 1, &[0x83])), Ok(()));
    let mut sent = [frame(1, 5, 1, &[]), frame(3, 0, 1, &[0, 0, 0, 1])].concat();
    let verdict = inspected
        .inspection
        .inspect_output(&mut sent, &mut inspected.seen);
    assert_eq!(verdict, Ok(()));
    let softened = [frame(1, 5, 1, &[]), frame(3, 0, 1, &[0; 4])].concat();
    assert_eq!(sent, softened);
    assert_eq!(inspected.seen.crate_answers, [1]);
    assert!(inspected.seen.own_resets.is_empty());
}

#[test]
fn wrong_frames_of_one_stream_are_left_out() {
    for (wrong, fault) in [
        (frame(8, 0, 1, &[0; 4]), StreamFault::EmptyWindowUpdate),
        (frame(2, 0, 1, &[0; 4]), StreamFault::PrioritySize),
    ] {
        for step in 1..20 {
            let mut inspected = Inspected::new();
            let (head, ping) = (frame(1, 4, 1, &[0x83]), frame(6, 0, 0, &[0; 8]));
            for piece in [&head[..], &wrong, &ping].concat().chunks(step) {
                assert_eq!(inspected.send(piece), Ok(()));
            }
            assert_eq!(inspected.passed, [head, ping].concat());
            assert_eq!(inspected.seen.faults, [(1, fault)]);
        }
    }
    let mut inspected = Inspected::new();
    let idle = frame(2, 0, 1, &[0; 4]);
    assert_eq!(inspected.send(&idle), Err(Violation::FrameSize));
}

#[test]
fn what_is_forbidden_is_what_the_crate_chokes_on() {
    use http_message::{HeaderName, HeaderValue, Method};
    let is_malformed = |name: &[u8], value: &[u8]| {
        let mut block = vec![0, u8::try_from(name.len()).unwrap_or(0)];
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).unwrap_or(0));
        block.extend_from_slice(value);
        HeaderTable::default()
            .read(&block)
            .is_ok_and(|found| found.is_malformed)
    };
    for byte in 0..=u8::MAX {
        let text = [b'a', byte, b'b'];
        let name = HeaderName::from_lowercase(&text);
        // Of what is no token (RFC 9110 section 5.6.2) the crate takes this one.
        let is_quote = byte == b'"';
        let is_bad = name.is_err() || is_quote;
        assert_eq!(is_bad, is_malformed(&text, b""), "name {byte}");
        let value = HeaderValue::from_bytes(&text);
        assert_eq!(value.is_err(), is_malformed(b"a", &text), "value {byte}");
        let method = Method::from_bytes(&text);
        assert_eq!(
            method.is_err(),
            is_malformed(b":method", &text),
            "method {byte}"
        );
    }
}

/// A block of fields that are right, wrong, or no fields at all.
fn some_block(random: &mut u64) -> Vec<u8> {
    let mut next = |most: u64| {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random % most
    };
    let names: [&[u8]; 10] = [
        b"x-a", b"X", b"", b":path", b":method", b":status", b":x", b"cookie", b"te", b"upgrade",
    ];
    let values: [&[u8]; 6] = [b"", b"v", b"a\0", b"\xff\xfe", b" x", b"\x7f"];
    let mut block = vec![0x82, 0x86, 0x84];
    for _ in 0..next(6) {
        let (name, value) = (names[next(10) as usize], values[next(6) as usize]);
        match next(5) {
            0 => block.push(0x80 | next(80) as u8),
            1 => block.push(next(256) as u8),
            kind => {
                let is_indexed = kind == 2;
                let index = if next(2) == 0 { 0 } else { next(64) as u8 };
                block.push(match is_indexed {
                    true => 0x40 | index.min(62),
                    false => index.min(14),
                });
                if block
                    .last()
                    .is_some_and(|first| first & 0xf == 0 && first & 0x30 == 0)
                {
                    block.push(name.len() as u8);
                    block.extend_from_slice(name);
                }
                block.push(value.len() as u8);
                block.extend_from_slice(value);
            }
        }
    }
    block
}

#[test]
fn no_block_that_passes_ends_the_connection() {
    use crate::worker::http2::engine::{Engine, Polled};
    let settings = config::Config::default().http2;
    let (mut random, mut passed, mut broken) = (0x2545_f491_4f6c_dd1d, 0, 0);
    for _ in 0..300 {
        let (mut inspected, mut engine) = (Inspected::new(), Engine::new(&settings, false, 0));
        engine.set_room(usize::MAX);
        engine.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        engine.feed(&frame(4, 0, 0, &[]));
        for at in 0..50 {
            let block = some_block(&mut random);
            inspected.passed.clear();
            let (first, second) = block.split_at(random as usize % (block.len() + 1));
            let stream = 2 * at + 1;
            let frames = match at % 2 {
                0 => frame(1, 5, stream, &block),
                _ => [frame(1, 1, stream, first), frame(9, 4, stream, second)].concat(),
            };
            if inspected.send(&frames).is_err() {
                broken += 1;
                break;
            }
            engine.feed(&inspected.passed);
            while let Polled::Request(..) = engine.poll() {}
            assert!(!engine.is_over(), "{block:x?}");
            passed += 1;
        }
    }
    assert!(passed > 500 && broken > 100, "{passed} {broken}");
}
