//! Attack shapes from the history of HTTP servers and proxies. Each must be refused, and what was to be smuggled
//! must never be read as a request.
#![allow(clippy::unwrap_used)]

use ferricorn::http::Limits;

use crate::transcript::{End, play};

/// Behind each attack: the request that the attacker wants someone else's server to see.
const SMUGGLED: &str = "GET /admin HTTP/1.1\r\nHost: h\r\n\r\n";

/// Whole and byte by byte: refused with `code` before anything was dispatched.
fn refuse(attack: &str, code: u16) {
    let bytes = format!("{attack}{SMUGGLED}").into_bytes();
    let every: Vec<usize> = (1..=bytes.len()).collect();
    for ends in [&[bytes.len()][..], &every] {
        let transcript = play(&bytes, ends, &Limits::default());
        assert!(
            transcript.requests.is_empty(),
            "{attack:?} reached the application"
        );
        match transcript.end {
            End::Refused {
                code: found,
                message,
            } => assert_eq!(found, code, "{attack:?}: {message}"),
            end => panic!("{attack:?} was not refused but {end:?}"),
        }
    }
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{body}")
}

#[test]
fn cl_te_front_end_counts_back_end_decodes() {
    refuse(
        &post(
            "Content-Length: 6\r\nTransfer-Encoding: chunked",
            "0\r\n\r\nG",
        ),
        400,
    );
}

#[test]
fn te_cl_front_end_decodes_back_end_counts() {
    refuse(
        &post(
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
            "8\r\nSMUGGLED\r\n0\r\n\r\n",
        ),
        400,
    );
}

#[test]
fn te_te_one_of_two_obfuscated() {
    refuse(
        &post(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            "0\r\n\r\n",
        ),
        400,
    );
    refuse(
        &post(
            "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
        ),
        501,
    );
    refuse(
        &post(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "0\r\n\r\n",
        ),
        400,
    );
    refuse(
        &post("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
        400,
    );
}

#[test]
fn transfer_encoding_in_disguise() {
    for (field, code) in [
        ("Transfer-Encoding : chunked", 400),
        ("Transfer-Encoding\t: chunked", 400),
        (" Transfer-Encoding: chunked", 400),
        ("X: y\r\n Transfer-Encoding: chunked", 400),
        ("X: y\rTransfer-Encoding: chunked", 400),
        ("X: y\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding:\r\n chunked", 400),
        ("Transfer-Encoding: \x0bchunked", 400),
        ("Transfer-Encoding: chunked\x0c", 400),
        ("Transfer-Encoding: \0chunked", 400),
        ("Transfer-Encoding: xchunked", 400),
        ("Transfer-Encoding: chunked;q=0", 400),
        ("Transfer-Encoding: \"chunked\"", 400),
        ("Transfer-Encoding: 'chunked'", 400),
        ("Transfer-Encoding: cow, chunked", 501),
        ("Transfer-Encoding: chunked, cow", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: ,chunked", 400),
        ("Transfer-Encoding:", 400),
        ("Transfer\0Encoding: chunked", 400),
        ("Transfer Encoding: chunked", 400),
        ("\u{212a}Transfer-Encoding: chunked", 400),
    ] {
        refuse(&post(field, "0\r\n\r\n"), code);
    }
}

#[test]
fn transfer_encoding_from_an_old_peer() {
    refuse(
        "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    );
    refuse(
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    );
}

#[test]
fn content_length_in_two_minds() {
    for fields in [
        "Content-Length: 0\r\nContent-Length: 33",
        "Content-Length: 5\r\ncontent-length: 5",
        "Content-Length: 0, 33",
        "Content-Length: 5,5",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 05",
        "Content-Length: 5;",
        "Content-Length: 5.0",
        "Content-Length: 1e1",
        "Content-Length: 1_0",
        "Content-Length:",
        "Content-Length: \u{b2}",
        "Content-Length: 18446744073709551616",
        "Content-Length: 99999999999999999999999999",
        "Content-Length : 5",
        "Content-Length\0: 5",
        "Content-Length: 5\0",
        "Content-Length: 5\r\n 5",
    ] {
        refuse(&post(fields, ""), 400);
    }
}

#[test]
fn chunk_sizes_that_readers_disagree_on() {
    for body in [
        "0x0\r\n\r\n",
        "+0\r\n\r\n",
        "-0\r\n\r\n",
        "0_0\r\n\r\n",
        " 0\r\n\r\n",
        "0 \r\n\r\n",
        "\t0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "0\n\r\n",
        "0\r\r\n\r\n",
        "0\0\r\n\r\n",
        "10000000000000000\r\n\r\n",
        "ffffffffffffffff1\r\n",
        "0,0\r\n\r\n",
        "0\u{b2}\r\n",
        "",
    ] {
        let body = if body.is_empty() { "GET" } else { body };
        refuse(&post("Transfer-Encoding: chunked", body), 400);
    }
}

#[test]
fn chunk_ends_that_readers_disagree_on() {
    for body in [
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello\n\r0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
    ] {
        refuse(&post("Transfer-Encoding: chunked", body), 400);
    }
}

#[test]
fn line_ends_hidden_in_chunk_extensions() {
    for body in [
        "0;\n\r\n",
        "0;a\nb\r\n\r\n",
        "0;a\rb\r\n\r\n",
        "0;a=\"\n\"\r\n\r\n",
        "0;a=\"\r\n\r\n",
        "0;\r\n\r\n",
        "2;\n00\r\n0\r\n\r\n",
    ] {
        refuse(&post("Transfer-Encoding: chunked", body), 400);
    }
}

#[test]
fn fields_hidden_in_trailers() {
    for trailer in [
        "Content-Length: 33",
        "Transfer-Encoding: chunked",
        "Host: other",
        "Authorization: x",
        "A: b\nHost: x",
        " A: b",
        "A : b",
        "GET /admin HTTP/1.1",
    ] {
        refuse(
            &post(
                "Transfer-Encoding: chunked",
                &format!("0\r\n{trailer}\r\n\r\n"),
            ),
            400,
        );
    }
}

#[test]
fn bare_line_feeds_and_returns_as_line_ends() {
    for attack in [
        "GET / HTTP/1.1\nHost: h\n\n",
        "GET / HTTP/1.1\r\nHost: h\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\n",
        "GET / HTTP/1.1\r\nHost: h\n\nGET /x HTTP/1.1\r\n",
        "GET / HTTP/1.1\rHost: h\r\r\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\rA: b\r\n\r\n",
        "GET /\rx HTTP/1.1\r\nHost: h\r\n\r\n",
        "\n\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        refuse(attack, 400);
    }
}

#[test]
fn request_lines_that_readers_split_differently() {
    for (attack, code) in [
        ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
        (" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET / HTTP/1.1 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /\r\nHost: h\r\n\r\n", 400),
        ("GET /\r\n", 400),
        ("GET / HTTP/1.1\0\r\nHost: h\r\n\r\n", 400),
        ("GET / HTTP/01.1\r\nHost: h\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ] {
        refuse(attack, code);
    }
}

#[test]
fn hosts_that_readers_disagree_on() {
    for fields in [
        "Host: a\r\nHost: b",
        "Host: a\r\nhost: a",
        "Host: a, b",
        "Host: a b",
        "Host: a@b",
        "Host: a/b",
        "Host: a:b",
        "Host: a\r\n b",
        "Host : a",
        "X: y",
        "Host: [::1",
        "Host: a\\b",
        "Host: a#b",
    ] {
        refuse(&format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"), 400);
    }
}

#[test]
fn nothing_is_read_behind_a_close() {
    for attack in [
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nConnection: x, close\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        let bytes = format!("{attack}{SMUGGLED}").into_bytes();
        let transcript = play(&bytes, &[bytes.len()], &Limits::default());
        assert_eq!(transcript.requests.len(), 1, "{attack:?}");
        assert_eq!(transcript.end, End::Closed, "{attack:?}");
    }
}
