//! What an application may say in a response's head.
#![allow(clippy::unwrap_used)]

use super::*;

fn push(name: &str, value: &str) -> Result<ResponseHead, ResponseError> {
    let mut head = ResponseHead::default();
    head.push(name.as_bytes(), value.as_bytes()).map(|()| head)
}

#[test]
fn statuses() {
    let mut head = ResponseHead::default();
    assert!(!head.is_set());
    for (status, code) in [
        ("200 OK", 200),
        ("204", 204),
        ("599 ", 599),
        ("418 I'm a \u{e9}\t", 418),
    ] {
        head.set_status(status.as_bytes()).unwrap();
        assert_eq!(
            (head.status(), head.status_code(), head.is_set()),
            (status.as_bytes(), code, true)
        );
    }
    for status in [
        "",
        "20",
        "2000",
        "200OK",
        "abc",
        "099 x",
        "200 a\r\nb",
        "200 a\nb",
        "200 \0",
        " 200 OK",
        "+20 x",
    ] {
        assert!(head.set_status(status.as_bytes()).is_err(), "{status:?}");
    }
    head.clear();
    assert!(!head.is_set());
}

#[test]
fn fields_are_kept_in_order_and_trimmed() {
    let mut head = ResponseHead::default();
    head.push(b"A", b" \tb: c ").unwrap();
    head.push(b"Set-Cookie", b"x").unwrap();
    head.push(b"set-cookie", b"").unwrap();
    assert_eq!(
        head.field_bytes(),
        b"A: b: c\r\nSet-Cookie: x\r\nset-cookie: \r\n"
    );
    let fields: Vec<_> = head.fields().collect();
    assert_eq!(
        fields,
        [
            (&b"A"[..], &b"b: c"[..]),
            (b"Set-Cookie", b"x"),
            (b"set-cookie", b"")
        ]
    );
    assert_eq!(head.field(b"set-cookie"), Some(&b"x"[..]));
    head.push(b"Date", b"now").unwrap();
    head.push(b"SERVER", b"mine").unwrap();
    assert!(head.has_date() && head.has_server());
}

#[test]
fn responses_cannot_be_split() {
    for name in ["", "A B", "A:", "A\r\nB", "\u{e9}"] {
        assert!(
            matches!(push(name, "x"), Err(ResponseError::FieldName(_))),
            "{name:?}"
        );
    }
    for value in ["a\r\nb", "a\nb", "a\rb", "a\0b", "\x7f", "\r\n"] {
        let error = push("X-Name", value).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Invalid response header from the application: 'X-Name'",
            "{value:?}"
        );
    }
}

#[test]
fn the_connection_is_not_the_applications() {
    for name in [
        "Transfer-Encoding",
        "TE",
        "Trailers",
        "Keep-Alive",
        "Proxy-Authenticate",
        "proxy-authorization",
    ] {
        let error = push(name, "x").unwrap_err();
        assert_eq!(error, ResponseError::HopByHop(format!("'{name}'")));
    }
    assert!(push("Connection", "X-Name").is_err());
    for (value, closes, upgrades) in [
        ("close", true, false),
        ("Keep-Alive", false, false),
        ("Upgrade", false, true),
        ("upgrade, close", true, true),
    ] {
        let head = push("Connection", value).unwrap();
        assert_eq!(
            (head.closes(), head.upgrades(), head.fields().count()),
            (closes, upgrades, 0)
        );
    }
    assert_eq!(push("Upgrade", "WebSocket").unwrap().fields().count(), 1);
    assert_eq!(push("Upgrade", "h2c").unwrap().fields().count(), 0);
    assert_eq!(push("Trailer", "X").unwrap().fields().count(), 1);
}

#[test]
fn content_length_is_one_number() {
    let mut head = push("Content-Length", " 012 ").unwrap();
    assert_eq!(head.content_length(), Some(12));
    head.push(b"content-length", b"12").unwrap();
    assert_eq!(head.fields().count(), 1);
    assert!(head.push(b"Content-Length", b"13").is_err());
    for value in [
        "",
        "-1",
        "+1",
        "1 1",
        "1,1",
        "x",
        "1e3",
        "9999999999999999999",
    ] {
        assert!(push("Content-Length", value).is_err(), "{value:?}");
    }
    head.clear();
    assert_eq!(head.content_length(), None);
}

#[test]
fn a_head_has_at_most_a_mebibyte() {
    let mut head = ResponseHead::default();
    head.set_status(b"200 OK").unwrap();
    let line = "X-Large: \r\n".len() + "200 OK".len();
    let longest = vec![b'x'; 1024 * 1024 - line];
    head.push(b"X-Large", &longest).unwrap();
    let longer = head.push(b"A", b"");
    assert!(matches!(longer, Err(ResponseError::TooLong(1_048_581))));
    let status = [b"200 ", &[b'x'; 1024 * 1024][..]].concat();
    let longer = head.set_status(&status);
    assert!(matches!(longer, Err(ResponseError::TooLong(1_048_580))));
}
