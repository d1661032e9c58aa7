//! Responses: their heads, how their bodies are delimited, and what closes the connection behind them.

use super::*;

#[test]
fn heads_are_in_gunicorns_order() {
    let (out, finish) = serve(GET, "200 OK", &[("A", "b")], BodySize::Exact(2), &["hi"]);
    assert_eq!(
        out,
        "HTTP/1.1 200 OK\r\nServer: s\r\nDate: d\r\nConnection: keep-alive\r\nA: b\r\nContent-Length: 2\r\n\r\nhi"
    );
    assert_eq!(finish, Finish::KeepAlive);
    let (out, _) = serve(
        GET,
        "200",
        &[("Content-Length", "2")],
        BodySize::Unknown,
        &["h", "i"],
    );
    assert_eq!(
        out,
        "HTTP/1.1 200 \r\nServer: s\r\nDate: d\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi"
    );
    let (out, _) = serve(
        GET,
        "200 OK",
        &[("Server", "mine"), ("Date", "now")],
        BodySize::Exact(0),
        &[],
    );
    assert_eq!(
        out,
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nServer: mine\r\nDate: now\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn unknown_sizes_are_chunked_or_end_with_the_connection() {
    let (out, finish) = serve(GET, "200 OK", &[], BodySize::Unknown, &["abc", "", "de"]);
    assert!(out.contains("Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), "{out}");
    assert_eq!(finish, Finish::KeepAlive);
    let (out, finish) = serve(
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "200 OK",
        &[],
        BodySize::Unknown,
        &["abc"],
    );
    assert_eq!(
        out,
        "HTTP/1.0 200 OK\r\nServer: s\r\nDate: d\r\nConnection: close\r\n\r\nabc"
    );
    assert_eq!(finish, Finish::Close);
}

#[test]
fn old_peers_must_ask_for_keep_alive() {
    let (out, finish) = serve(
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "200 OK",
        &[],
        BodySize::Exact(1),
        &["x"],
    );
    assert!(
        out.starts_with("HTTP/1.0 200 OK\r\n") && out.contains("Connection: keep-alive\r\n"),
        "{out}"
    );
    assert_eq!(finish, Finish::KeepAlive);
    assert_eq!(
        serve(GET_10, "200 OK", &[], BodySize::Exact(1), &["x"]).1,
        Finish::Close
    );
}

#[test]
fn lengths_are_kept() {
    let (out, finish) = serve(
        GET,
        "200 OK",
        &[("Content-Length", "2")],
        BodySize::Exact(4),
        &["abcd"],
    );
    assert!(out.ends_with("\r\n\r\nab"), "{out}");
    assert_eq!(finish, Finish::KeepAlive);
    let (_, finish) = serve(
        GET,
        "200 OK",
        &[("Content-Length", "9")],
        BodySize::Unknown,
        &["abcd"],
    );
    assert_eq!(finish, Finish::Short { missing: 5 });
}

#[test]
fn bodies_that_must_not_be_are_not() {
    let head_of = |out: &str| out.ends_with("\r\n\r\n") && !out.contains("Transfer-Encoding");
    let (out, finish) = serve(
        HEAD,
        "200 OK",
        &[("Content-Length", "4")],
        BodySize::Exact(4),
        &["abcd"],
    );
    assert!(head_of(&out) && out.contains("Content-Length: 4"), "{out}");
    assert_eq!(finish, Finish::KeepAlive);
    let (out, _) = serve(HEAD, "200 OK", &[], BodySize::Exact(4), &["abcd"]);
    assert!(head_of(&out) && out.contains("Content-Length: 4"), "{out}");
    for size in [BodySize::Exact(0), BodySize::Unknown] {
        let (out, _) = serve(HEAD, "200 OK", &[], size, &["abcd"]);
        assert!(head_of(&out) && !out.contains("Content-Length"), "{out}");
    }
    let (out, finish) = serve(
        GET,
        "204 No Content",
        &[("A", "b"), ("Content-Length", "4"), ("C", "d")],
        BodySize::Exact(4),
        &["abcd"],
    );
    assert!(
        head_of(&out) && out.contains("A: b\r\nC: d\r\n\r\n"),
        "{out}"
    );
    assert_eq!(finish, Finish::KeepAlive);
    let (out, finish) = serve(
        GET,
        "304 Not Modified",
        &[("Content-Length", "4")],
        BodySize::Exact(0),
        &[],
    );
    assert!(head_of(&out) && out.contains("Content-Length: 4"), "{out}");
    assert_eq!(finish, Finish::KeepAlive);
    let (out, finish) = serve(GET, "304 Not Modified", &[], BodySize::Exact(0), &[]);
    assert!(head_of(&out) && !out.contains("Content-Length"), "{out}");
    assert_eq!(finish, Finish::KeepAlive);
    let websocket = [("Upgrade", "websocket"), ("Connection", "Upgrade")];
    let (out, finish) = serve(
        GET,
        "101 Switching Protocols",
        &websocket,
        BodySize::Exact(0),
        &[],
    );
    assert!(
        head_of(&out) && out.contains("Connection: upgrade\r\nUpgrade: websocket\r\n"),
        "{out}"
    );
    assert_eq!(finish, Finish::Close);
}

#[test]
fn who_may_close() {
    let close = "Connection: close\r\n";
    let (out, finish) = serve(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "200 OK",
        &[],
        BodySize::Exact(0),
        &[],
    );
    assert!(out.contains(close) && finish == Finish::Close);
    let (out, finish) = serve(
        GET,
        "200 OK",
        &[("Connection", "close")],
        BodySize::Exact(0),
        &[],
    );
    assert!(out.contains(close) && finish == Finish::Close);
    assert_eq!(out.matches("Connection").count(), 1);
    let mut exchange = Exchange::default();
    exchange.close_after_this();
    take(&mut exchange, GET.as_bytes());
    let (out, finish) = answer(&mut exchange, "200 OK", &[], BodySize::Exact(0), &[]);
    assert!(out.contains(close) && finish == Finish::Close);
}

#[test]
fn hints_go_out_before_the_response_and_to_http_1_1_only() {
    let mut hints = ResponseHead::default();
    hints.set_status(b"103 Early Hints").unwrap();
    hints.push(b"Link", b"</x>").unwrap();
    hints.push(b"Content-Length", b"7").unwrap();
    hints.push(b"X", b"y").unwrap();
    let hinted = |request: &str| {
        let (mut exchange, mut out) = (Exchange::default(), Vec::new());
        take(&mut exchange, request.as_bytes());
        exchange.hint(&hints, &mut out);
        let hint = String::from_utf8(std::mem::take(&mut out)).unwrap();
        answer(&mut exchange, "200 OK", &[], BodySize::Exact(0), &[]);
        exchange.hint(&hints, &mut out);
        assert!(out.is_empty(), "the response is over");
        hint
    };
    assert_eq!(
        hinted(GET),
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nX: y\r\n\r\n"
    );
    assert_eq!(hinted(GET_10), "");
}
