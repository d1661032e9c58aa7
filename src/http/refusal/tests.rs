//! The words of refusals: gunicorn's, where it has them.
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn faults_are_named() {
    let limits = Limits::new(60, 3, 40, 0);
    let rest = "GET / HTTP/1.1\r\n";
    for (bytes, message) in [
        ("GET /\r\n".to_owned(), "Invalid HTTP request line: 'GET /'"),
        (
            "GET / x HTTP/1.1\r\n".to_owned(),
            "Invalid HTTP Version: 'x HTTP/1.1'",
        ),
        (
            "get / HTTP/1.1\r\n".to_owned(),
            "Invalid HTTP method: 'get'",
        ),
        ("GO / HTTP/1.1\r\n".to_owned(), "Invalid HTTP method: 'GO'"),
        (
            "GET / HTTP/1.1\n".to_owned(),
            "Invalid HTTP request line: 'bare LF as line terminator'",
        ),
        (
            format!("GET /{} HTTP/1.1\r\n", "x".repeat(60)),
            "Request Line is too large (74 > 60)",
        ),
        (
            format!("{rest}A: b\n"),
            "Invalid HTTP Header: 'bare LF as line terminator'",
        ),
        (
            format!("{rest}Ho st: b\r\n"),
            "Invalid HTTP header name: 'Ho st'",
        ),
        (format!("{rest}: b\r\n"), "Invalid HTTP header name: ''"),
        (
            format!("{rest}nonsense\r\n"),
            "Invalid HTTP Header: 'nonsense'",
        ),
        (
            format!("{rest}Name: a\0b\r\n"),
            "Invalid HTTP Header: 'NAME'",
        ),
        (
            format!("{rest}Name: a\r\n b\r\n"),
            "Obsolete line folding is unacceptable: 'NAME'",
        ),
        (
            format!("{rest}A: {}\r\n", "x".repeat(40)),
            "limit request headers fields size",
        ),
        (
            format!("{rest}A:\r\nA:\r\nA:\r\nA:\r\n"),
            "limit request headers fields",
        ),
    ] {
        let error = find(bytes.as_bytes(), &limits).map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some(message), "{bytes:?}");
    }
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    for bytes in [
        "",
        "G",
        "GET",
        "GET /a",
        "GET /a HT",
        "GET /a HTTP/1.2\r\n",
        "GET /a HTTP/1.2\r\nA",
        "GET /a HTTP/1.2\r\nA: b",
        "GET / HTTP/1.2\r\nA: b\r\n\r\n\0body",
    ] {
        assert_eq!(
            find(bytes.as_bytes(), &Limits::default()),
            None,
            "{bytes:?}"
        );
    }
}

#[test]
fn mending_joins_folds_and_closes_gaps() {
    let mended = mend(b"GET / HTTP/1.1\r\nA\t : b: c \r\n\t d \r\nE:\r\n f\r\n\r\n");
    assert_eq!(mended, b"GET / HTTP/1.1\r\nA: b: c d\r\nE: f\r\n\r\n");
}
