//! Framing decisions on fields given one by one.
#![allow(clippy::unwrap_used)]

use super::*;

fn decide(version: Version, fields: &[(&str, &str)]) -> Result<Framing, u16> {
    let mut framing = FramingFields::default();
    let verdict = fields
        .iter()
        .try_for_each(|(name, value)| framing.note(name.as_bytes(), value.as_bytes()))
        .and_then(|()| framing.decide(b"POST", version, &Limits::new(0, 0, 0, 1000)));
    verdict.map_err(|error| error.status().code)
}

fn length_of(fields: &[(&str, &str)]) -> Result<BodyLength, u16> {
    let mut with_host = vec![("Host", "h")];
    with_host.extend_from_slice(fields);
    decide(Version::HTTP_11, &with_host).map(|framing| framing.length)
}

#[test]
fn content_length_is_digits_once() {
    assert_eq!(length_of(&[]), Ok(BodyLength::Empty));
    assert_eq!(
        length_of(&[("content-LENGTH", "0")]),
        Ok(BodyLength::Known(0))
    );
    assert_eq!(
        length_of(&[("Content-Length", "1000")]),
        Ok(BodyLength::Known(1000))
    );
    assert_eq!(length_of(&[("Content-Length", "1001")]), Err(413));
    for value in [
        "",
        "+1",
        "-1",
        "01",
        "00",
        "1,1",
        "1 1",
        "0x1",
        "1a",
        "1.0",
        "1_0",
        "1;",
        "9999999999999999999",
        "18446744073709551617",
    ] {
        assert_eq!(
            length_of(&[("Content-Length", value)]),
            Err(400),
            "{value:?}"
        );
    }
    assert_eq!(
        length_of(&[("Content-Length", "5"), ("Content-Length", "5")]),
        Err(400)
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn transfer_encoding_is_chunked_once_and_alone() {
    assert_eq!(
        length_of(&[("Transfer-Encoding", "chunked")]),
        Ok(BodyLength::Chunked)
    );
    assert_eq!(
        length_of(&[("Transfer-Encoding", "CHUNKED")]),
        Ok(BodyLength::Chunked)
    );
    for value in [
        "",
        "identity",
        "identity, chunked",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "chunked, identity",
        "chunked, gzip",
        // RFC 9112 section 6.3 item 4: chunked is not the last, so the body has no end.
        "gzip",
        "gzip, cow",
        "gzip, identity",
        "gzip, chunked, chunked",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunked chunked",
        "chunked\x0b",
    ] {
        assert_eq!(
            length_of(&[("Transfer-Encoding", value)]),
            Err(400),
            "{value:?}"
        );
    }
    for value in [
        "gzip, chunked",
        "cow, gzip, chunked",
        "xchunked, chunked",
        "chunked;q=1, chunked",
        "\"chunked\", chunked",
    ] {
        assert_eq!(
            length_of(&[("Transfer-Encoding", value)]),
            Err(501),
            "{value:?}"
        );
    }
    assert_eq!(
        length_of(&[
            ("Transfer-Encoding", "gzip"),
            ("Transfer-Encoding", "chunked")
        ]),
        Err(501)
    );
    assert_eq!(
        length_of(&[
            ("Transfer-Encoding", "chunked"),
            ("Transfer-Encoding", "chunked")
        ]),
        Err(400)
    );
    assert_eq!(
        length_of(&[("Transfer-Encoding", "chunked"), ("Content-Length", "5")]),
        Err(400)
    );
    assert_eq!(
        length_of(&[("Content-Length", "5"), ("Transfer-Encoding", "chunked")]),
        Err(400)
    );
    assert_eq!(
        decide(Version::HTTP_10, &[("Transfer-Encoding", "chunked")]),
        Err(400)
    );
    assert_eq!(
        decide(Version::HTTP_10, &[("Transfer-Encoding", "gzip")]),
        Err(400)
    );
}

#[test]
fn host_is_needed_once_and_well_formed() {
    assert_eq!(decide(Version::HTTP_11, &[]), Err(400));
    assert_eq!(
        decide(Version::HTTP_11, &[("Host", "a"), ("host", "a")]),
        Err(400)
    );
    assert_eq!(decide(Version::HTTP_11, &[("Host", "a b")]), Err(400));
    assert!(decide(Version::HTTP_11, &[("Host", "")]).is_ok());
    assert!(decide(Version::HTTP_10, &[]).is_ok());
    assert_eq!(
        decide(Version::HTTP_10, &[("Host", "a"), ("Host", "b")]),
        Err(400)
    );
}

#[test]
fn content_type_comes_once() {
    assert_eq!(
        length_of(&[("Content-Type", "a/b"), ("Content-Type", "a/b")]),
        Err(400)
    );
}

#[test]
fn keep_alive_follows_version_and_options() {
    let keep_alive = |version, value| {
        decide(version, &[("Host", "h"), ("Connection", value)])
            .unwrap()
            .keep_alive
    };
    assert!(
        decide(Version::HTTP_11, &[("Host", "h")])
            .unwrap()
            .keep_alive
    );
    assert!(!decide(Version::HTTP_10, &[]).unwrap().keep_alive);
    assert!(!keep_alive(Version::HTTP_11, "close"));
    assert!(!keep_alive(Version::HTTP_11, "Upgrade, CLOSE"));
    assert!(keep_alive(Version::HTTP_11, "keep-alive, Upgrade"));
    assert!(keep_alive(Version::HTTP_11, "closed"));
    assert!(keep_alive(Version::HTTP_10, "Keep-Alive"));
    assert!(!keep_alive(Version::HTTP_10, "keep-alive, close"));
    let mut fields = FramingFields::default();
    fields.note(b"Host", b"h:1").unwrap();
    let framing = fields
        .decide(b"CONNECT", Version::HTTP_11, &Limits::default())
        .unwrap();
    assert!(!framing.keep_alive);
}

#[test]
fn expectations() {
    let expects = |version, fields: &[(&str, &str)]| {
        decide(version, fields).map(|framing| framing.expects_continue)
    };
    let expect = ("Expect", "100-Continue");
    assert_eq!(
        expects(
            Version::HTTP_11,
            &[("Host", "h"), expect, ("Content-Length", "5")]
        ),
        Ok(true)
    );
    assert_eq!(
        expects(
            Version::HTTP_11,
            &[("Host", "h"), expect, ("Transfer-Encoding", "chunked")]
        ),
        Ok(true)
    );
    assert_eq!(
        expects(
            Version::HTTP_11,
            &[("Host", "h"), expect, ("Content-Length", "0")]
        ),
        Ok(false)
    );
    assert_eq!(
        expects(Version::HTTP_11, &[("Host", "h"), expect]),
        Ok(false)
    );
    assert_eq!(
        expects(Version::HTTP_10, &[expect, ("Content-Length", "5")]),
        Ok(false)
    );
    assert_eq!(
        expects(Version::HTTP_11, &[("Host", "h"), ("Expect", "foo")]),
        Err(417)
    );
    assert_eq!(
        expects(
            Version::HTTP_11,
            &[("Host", "h"), expect, ("Expect", "100-continue, foo")]
        ),
        Err(417)
    );
}
