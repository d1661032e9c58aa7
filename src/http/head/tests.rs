//! Heads whole and in pieces, the limits, and what httparse tolerates but we refuse.
#![allow(clippy::unwrap_used)]

use super::super::framing::BodyLength;
use super::super::limits::Rules;
use super::*;

fn parse(bytes: &[u8], limits: &Limits) -> Result<Option<(usize, RequestHead)>, ParseError> {
    let mut head = RequestHead::default();
    let whole = parse_head(bytes, &mut HeadScan::default(), limits, &mut head)?;
    Ok(whole.map(|(length, _)| (length, head)))
}

/// One byte more at each call, as from the slowest of peers.
fn parse_slowly(bytes: &[u8], limits: &Limits) -> Result<Option<(usize, RequestHead)>, ParseError> {
    let mut head = RequestHead::default();
    let mut scan = HeadScan::default();
    for end in 1..=bytes.len() {
        if let Some((length, _)) = parse_head(&bytes[..end], &mut scan, limits, &mut head)? {
            return Ok(Some((length, head)));
        }
    }
    Ok(None)
}

fn refused(bytes: &[u8], limits: &Limits) -> ParseError {
    let slowly = parse_slowly(bytes, limits);
    let at_once = parse(bytes, limits);
    let text = String::from_utf8_lossy(bytes).into_owned();
    match (at_once, slowly) {
        (Err(at_once), Err(slowly)) => {
            assert_eq!(
                at_once.status(),
                slowly.status(),
                "{text:?}: {at_once} | {slowly}"
            );
            at_once
        }
        (at_once, slowly) => panic!("not refused: {text:?}: {at_once:?} | {slowly:?}"),
    }
}

fn accepted(bytes: &[u8], limits: &Limits) -> RequestHead {
    let (length, head) = parse(bytes, limits).unwrap().unwrap();
    let (slow_length, slow_head) = parse_slowly(bytes, limits).unwrap().unwrap();
    assert_eq!(length, slow_length);
    assert_eq!(format!("{head:?}"), format!("{slow_head:?}"));
    head
}

#[test]
fn a_head_is_taken_apart() {
    let bytes = b"GET /a%20b?c=d HTTP/1.1\r\nHost: h\r\nX-Empty:\r\nX-Pad: \t v \t\r\n\r\nrest";
    let head = accepted(bytes, &Limits::default());
    assert_eq!(head.method(), b"GET");
    assert_eq!(head.target(), b"/a%20b?c=d");
    assert_eq!(head.path(), b"/a%20b");
    assert_eq!(head.query(), b"c=d");
    assert_eq!(head.version(), Version::HTTP_11);
    assert_eq!(head.request_line(), b"GET /a%20b?c=d HTTP/1.1");
    assert_eq!(head.field(b"x-pad"), Some(&b"v"[..]));
    assert_eq!(head.field(b"x-empty"), Some(&b""[..]));
    assert_eq!(head.field(b"x-none"), None);
    let fields: Vec<_> = head.fields().collect();
    assert_eq!(
        fields,
        [
            (&b"Host"[..], &b"h"[..]),
            (b"X-Empty", b""),
            (b"X-Pad", b"v")
        ]
    );
    let (length, _) = parse(bytes, &Limits::default()).unwrap().unwrap();
    assert_eq!(length, bytes.len() - 4);
}

#[test]
fn a_head_is_reused_without_allocation() {
    let mut head = RequestHead::default();
    let limits = Limits::default();
    let first = b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n";
    parse_head(first, &mut HeadScan::default(), &limits, &mut head)
        .unwrap()
        .unwrap();
    let before = (
        head.bytes.capacity(),
        head.fields.capacity(),
        head.bytes.as_ptr(),
    );
    head.clear();
    assert_eq!(
        (head.method(), head.request_line(), head.fields().count()),
        (&b""[..], &b""[..], 0)
    );
    parse_head(first, &mut HeadScan::default(), &limits, &mut head)
        .unwrap()
        .unwrap();
    assert_eq!(
        before,
        (
            head.bytes.capacity(),
            head.fields.capacity(),
            head.bytes.as_ptr()
        )
    );
}

#[test]
fn pieces_are_not_searched_twice() {
    let mut scan = HeadScan::default();
    let mut head = RequestHead::default();
    let bytes = b"GET / HTTP/1.1\r\nHost: h\r\n";
    assert_eq!(
        parse_head(bytes, &mut scan, &Limits::default(), &mut head).unwrap(),
        None
    );
    assert_eq!(
        (scan.scanned as usize, scan.line_start as usize, scan.lines),
        (bytes.len(), bytes.len(), 2)
    );
}

#[test]
fn limits_hold_at_their_edge() {
    let limits = Limits::new(20, 2, 12, 0);
    let head =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.0\r\n{fields}\r\n").into_bytes();
    accepted(
        &head("/234567", "A: 345678\r\nB: 345678\r\n"),
        &Limits::new(20, 2, 11, 0),
    );
    assert_eq!(refused(&head("/2345678", ""), &limits).status().code, 414);
    accepted(&head("/", "A: 3456789\r\n"), &limits);
    assert_eq!(
        refused(&head("/", "A: 34567890\r\n"), &limits),
        ParseError::FieldTooLarge
    );
    accepted(&head("/", "A:\r\nB:\r\n"), &limits);
    assert_eq!(
        refused(&head("/", "A:\r\nB:\r\nC:\r\n"), &limits),
        ParseError::TooManyFields
    );
}

#[test]
fn limits_hold_before_the_end_arrives() {
    let limits = Limits::new(20, 2, 12, 0);
    assert_eq!(
        refused(b"GET /3456789012345678901234", &limits)
            .status()
            .code,
        414
    );
    assert_eq!(
        refused(b"GET / HTTP/1.0\r\nA: 34567890123", &limits),
        ParseError::FieldTooLarge
    );
    assert_eq!(
        refused(b"GET / HTTP/1.0\r\nA:\r\nB:\r\nC:\r\n", &limits),
        ParseError::TooManyFields
    );
    let narrow = Limits {
        head_bytes_max: 29,
        ..Limits::default()
    };
    assert_eq!(
        refused(b"GET / HTTP/1.0\r\nA: b\r\nC: d\r\n\r\n", &narrow),
        ParseError::HeadTooLarge
    );
}

#[test]
fn more_fields_than_the_usual_table_holds() {
    let mut bytes = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
    for number in 0..300 {
        bytes.extend_from_slice(format!("X-{number}: {number}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    let head = accepted(&bytes, &Limits::new(0, 0, 0, 0));
    assert_eq!(head.fields().count(), 301);
    assert_eq!(head.field(b"x-299"), Some(&b"299"[..]));
    assert_eq!(
        refused(&bytes, &Limits::default()),
        ParseError::TooManyFields
    );
}

#[test]
fn every_line_ends_in_crlf() {
    for bytes in [
        &b"GET / HTTP/1.1\nHost: h\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: h\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\n",
        b"GET / HTTP/1.1\r\nHost: h\n\n",
        b"GET / HTTP/1.0\r\n\n",
        b"GET / HTTP/1.0\n\r\n",
        b"\nGET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n",
        b"GET / HTTP/1.1\rHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\rX\r\n\r\n",
    ] {
        assert_eq!(refused(bytes, &Limits::default()).status().code, 400);
    }
}

/// httparse's tables, byte by byte, at every kind of place.
#[test]
fn only_the_right_bytes_stand_in_names_and_values() {
    for byte in 0..=255_u8 {
        let at =
            |before: &str, after: &str| [before.as_bytes(), &[byte], after.as_bytes()].concat();
        let fits = |bytes: &[u8]| parse(bytes, &Limits::default()).is_ok_and(|head| head.is_some());
        let in_value = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
        for filler in ["", "0123456789abcdef0123456789abcdef"] {
            let value = at(
                &format!("GET / HTTP/1.0\r\nA: x{filler}"),
                &format!("{filler}y\r\n\r\n"),
            );
            assert_eq!(fits(&value), in_value, "value {byte:#x}");
            let name = at(
                &format!("GET / HTTP/1.0\r\nA{filler}"),
                &format!("{filler}B: x\r\n\r\n"),
            );
            assert_eq!(
                fits(&name),
                super::super::fields::is_token_byte(byte) || byte == b':',
                "name {byte:#x}"
            );
            let target = at(
                &format!("GET /{filler}"),
                &format!("{filler}b HTTP/1.0\r\n\r\n"),
            );
            assert_eq!(fits(&target), byte.is_ascii_graphic(), "target {byte:#x}");
        }
        let method = at("A", "B / HTTP/1.0\r\n\r\n");
        assert_eq!(
            fits(&method),
            super::super::fields::is_token_byte(byte) && !byte.is_ascii_lowercase() && byte != b'#',
            "method {byte:#x}"
        );
    }
}

#[test]
fn what_no_further_byte_can_mend_is_refused_at_once() {
    for bytes in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"GET \x01",
        b"GET / SPDY/3",
        b"GET / HTTP/1.1\r\n A",
        b"GET / HTTP/1.1\r\nA b",
        b"GET / HTTP/1.1\r\nA: \0",
        b"GET  /",
    ] {
        assert!(parse(bytes, &Limits::default()).is_err(), "{bytes:?}");
    }
}

#[test]
fn versions() {
    let version = |text: &str| format!("GET / {text}\r\nHost: h\r\n\r\n").into_bytes();
    let limits = Limits::default();
    assert_eq!(
        accepted(&version("HTTP/1.2"), &limits).version().as_str(),
        "HTTP/1.2"
    );
    assert_eq!(refused(&version("HTTP/2.0"), &limits).status().code, 505);
    assert_eq!(
        refused(&version("HTTP/2.0"), &limits).to_string(),
        "Invalid HTTP Version: (2, 0)"
    );
    assert_eq!(
        refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &limits)
            .status()
            .code,
        505
    );
    assert_eq!(
        refused(&version("HTTP/0.9"), &limits).to_string(),
        "Invalid HTTP Version: (0, 9)"
    );
    for text in [
        "HTTP/11",
        "http/1.1",
        "HTTP/1.10",
        "HTTP/1.",
        "HTTP/1,1",
        "HTTP/1.1 ",
        " HTTP/1.1",
        "HTTP/+1.1",
        "HTTPS/1.1",
        "HTTP/1.x",
    ] {
        assert_eq!(
            refused(&version(text), &limits).status().code,
            400,
            "{text}"
        );
    }
    let lenient = Limits {
        rules: Rules {
            permit_unconventional_version: true,
            ..Rules::default()
        },
        ..Limits::default()
    };
    assert_eq!(
        accepted(&version("HTTP/3.1"), &lenient).version().as_str(),
        "HTTP/3.1"
    );
    assert_eq!(
        accepted(&version("HTTP/0.9"), &lenient).version().as_str(),
        "HTTP/0.9"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn leniencies_admit_what_they_name_and_no_more() {
    let with = |rules: Rules| Limits {
        rules,
        ..Limits::default()
    };
    let folding = with(Rules {
        permit_obsolete_folding: true,
        ..Rules::default()
    });
    let folded = b"GET / HTTP/1.1\r\nHost: h\r\nA: b \r\n \tc\r\n  d\r\nE: f\r\n\r\n";
    assert_eq!(accepted(folded, &folding).field(b"a"), Some(&b"b c d"[..]));
    assert_eq!(refused(folded, &Limits::default()).status().code, 400);
    assert_eq!(
        refused(b"GET / HTTP/1.1\r\n A: b\r\nHost: h\r\n\r\n", &folding)
            .status()
            .code,
        400
    );
    assert_eq!(
        refused(b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", &folding)
            .status()
            .code,
        400
    );
    assert_eq!(
        refused(
            b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\0\r\n\r\n",
            &folding
        )
        .status()
        .code,
        400
    );

    let stripping = with(Rules {
        strip_header_spaces: true,
        ..Rules::default()
    });
    let spaced = b"GET / HTTP/1.1\r\nHost \t: h:1\r\nA: b : c\r\n\r\n";
    assert_eq!(
        accepted(spaced, &stripping).field(b"host"),
        Some(&b"h:1"[..])
    );
    assert_eq!(
        accepted(spaced, &stripping).field(b"a"),
        Some(&b"b : c"[..])
    );
    assert_eq!(
        refused(spaced, &Limits::default()).to_string(),
        "Invalid HTTP header name: 'Host \\t'"
    );
    assert_eq!(
        refused(b"GET / HTTP/1.1\r\nHost: h\r\nA B: c\r\n\r\n", &stripping)
            .status()
            .code,
        400
    );

    let methods = with(Rules {
        permit_unconventional_method: true,
        ..Rules::default()
    });
    assert_eq!(
        accepted(b"go#x / HTTP/1.0\r\n\r\n", &methods).method(),
        b"go#x"
    );
    assert_eq!(
        refused(b"go@x / HTTP/1.0\r\n\r\n", &methods).status().code,
        400
    );
    let casefold = with(Rules {
        permit_unconventional_method: true,
        casefold_method: true,
        ..Rules::default()
    });
    let head = accepted(b"options * HTTP/1.0\r\n\r\n", &casefold);
    assert_eq!((head.method(), head.path()), (&b"OPTIONS"[..], &b"*"[..]));
}

#[test]
fn a_refused_head_still_shows_its_request_line() {
    let mut head = RequestHead::default();
    head.keep_refused(b"GET /a?b HTTP/1.1\r\nHost : h\r\n\r\n", &Limits::default());
    assert_eq!(head.request_line(), b"GET /a?b HTTP/1.1");
    assert_eq!((head.method(), head.path()), (&b"GET"[..], &b"/a"[..]));
    head.keep_refused(b"\x16\x03\x01", &Limits::default());
    assert_eq!(
        (head.request_line(), head.method()),
        (&b"\x16\x03\x01"[..], &b""[..])
    );
    head.keep_refused(&[b'x'; 9000], &Limits::default());
    assert_eq!(head.request_line().len(), 4094);
}

#[test]
fn framing_is_read_with_the_head() {
    let mut head = RequestHead::default();
    let bytes = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    let (_, framing) = parse_head(
        bytes,
        &mut HeadScan::default(),
        &Limits::default(),
        &mut head,
    )
    .unwrap()
    .unwrap();
    assert_eq!(
        framing,
        Framing {
            length: BodyLength::Known(5),
            keep_alive: false,
            expects_continue: true,
            upgrade: crate::http::Upgrade::None,
        }
    );
}
