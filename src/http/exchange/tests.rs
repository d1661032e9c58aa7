//! The state machine: requests in, responses out, and every way a connection ends.
#![allow(clippy::unwrap_used)]

use super::super::error::Status;
use super::*;

const DEFAULTS: ResponseDefaults<'static> = ResponseDefaults {
    server: b"s",
    date: b"d",
};

/// Feeds `bytes` until the request is whole; returns its body and what is left over.
fn take<'a>(exchange: &mut Exchange, bytes: &'a [u8]) -> (RequestHead, Vec<u8>, &'a [u8]) {
    let (mut head, mut body, mut rest) = (RequestHead::default(), Vec::new(), bytes);
    loop {
        let step = exchange
            .receive(rest, &Limits::default(), &mut head)
            .unwrap();
        match step.received {
            Received::Data(ref range) => body.extend_from_slice(&rest[range.clone()]),
            Received::NeedData => panic!("{:?} is not whole", String::from_utf8_lossy(bytes)),
            Received::Head | Received::Whole | Received::End => {}
        }
        rest = &rest[step.consumed..];
        if matches!(step.received, Received::Whole | Received::End) {
            return (head, body, rest);
        }
    }
}

/// Answers with `pieces`; returns what went out and how it ended.
fn answer(
    exchange: &mut Exchange,
    status: &str,
    fields: &[(&str, &str)],
    size: BodySize,
    pieces: &[&str],
) -> (String, Finish) {
    let mut head = ResponseHead::default();
    head.set_status(status.as_bytes()).unwrap();
    for (name, value) in fields {
        head.push(name.as_bytes(), value.as_bytes()).unwrap();
    }
    let mut out = Vec::new();
    let finish = match size {
        BodySize::Exact(len) => {
            let whole = exchange.respond_whole(&head, len, &DEFAULTS, &mut out);
            let body = pieces.concat();
            out.extend_from_slice(&body.as_bytes()[..usize::try_from(whole.taken).unwrap()]);
            whole.finish
        }
        BodySize::Unknown => {
            exchange.respond(&head, size, &DEFAULTS, &mut out);
            assert!(exchange.is_responding());
            for piece in pieces {
                let admitted = exchange.data(piece.len(), &mut out);
                out.extend_from_slice(&piece.as_bytes()[..admitted]);
                exchange.data_end(&mut out);
            }
            exchange.finish(&mut out)
        }
    };
    assert_eq!(exchange.is_idle(), finish == Finish::KeepAlive);
    assert_eq!(exchange.is_closing(), finish != Finish::KeepAlive);
    (String::from_utf8(out).unwrap(), finish)
}

/// One request, one answer.
fn serve(
    request: &str,
    status: &str,
    fields: &[(&str, &str)],
    size: BodySize,
    pieces: &[&str],
) -> (String, Finish) {
    let mut exchange = Exchange::default();
    take(&mut exchange, request.as_bytes());
    answer(&mut exchange, status, fields, size, pieces)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n";
const GET_10: &str = "GET / HTTP/1.0\r\n\r\n";

#[test]
fn a_get_is_whole_with_its_head() {
    let mut exchange = Exchange::default();
    let mut head = RequestHead::default();
    assert!(exchange.is_idle());
    let limits = Limits::default();
    let step = exchange
        .receive(GET.as_bytes(), &limits, &mut head)
        .unwrap();
    assert_eq!(
        step,
        Step {
            consumed: GET.len(),
            received: Received::Whole
        }
    );
    assert!(exchange.is_dispatched());
    // Reading is paused: what follows stays where it is.
    let step = exchange
        .receive(GET.as_bytes(), &limits, &mut head)
        .unwrap();
    assert_eq!(
        step,
        Step {
            consumed: 0,
            received: Received::NeedData
        }
    );
}

#[test]
fn a_body_of_no_bytes_is_whole_with_its_head() {
    for (length, received) in [("0", Received::Whole), ("1", Received::Head)] {
        let request = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        let (limits, mut head) = (Limits::default(), RequestHead::default());
        let mut exchange = Exchange::default();
        let step = exchange.receive(request.as_bytes(), &limits, &mut head);
        assert_eq!(step.unwrap().received, received);
        assert_eq!(exchange.is_dispatched(), received == Received::Whole);
    }
}

#[test]
fn bodies_and_pipelining_in_order() {
    let text = "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloPOST /2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut exchange = Exchange::default();
    let mut rest = text.as_bytes();
    for (target, body, length) in [
        ("/1", "hello", BodyLength::Known(5)),
        ("/2", "abc", BodyLength::Chunked),
        ("/3", "", BodyLength::Empty),
    ] {
        let taken = take(&mut exchange, rest);
        assert_eq!(
            (taken.0.target(), &taken.1[..]),
            (target.as_bytes(), body.as_bytes())
        );
        assert_eq!(exchange.body_length(), length);
        rest = taken.2;
        assert_eq!(
            answer(&mut exchange, "200 OK", &[], BodySize::Exact(0), &[]).1,
            Finish::KeepAlive
        );
    }
    assert!(rest.is_empty());
}

#[test]
fn one_empty_line_is_skipped_and_a_second_refused() {
    let (limits, mut head) = (Limits::default(), RequestHead::default());
    let mut exchange = Exchange::default();
    assert_eq!(
        exchange
            .receive(b"\r", &limits, &mut head)
            .unwrap()
            .consumed,
        0
    );
    assert!(exchange.is_reading_head());
    assert_eq!(
        exchange
            .receive(b"\r\n", &limits, &mut head)
            .unwrap()
            .consumed,
        2
    );
    assert!(
        exchange.is_idle(),
        "an empty line alone is not the start of a request"
    );
    assert!(exchange.receive(b"\r\n", &limits, &mut head).is_err());
    assert!(exchange.is_closing());
    let mut exchange = Exchange::default();
    let request = format!("\r\n{GET}");
    assert_eq!(
        exchange
            .receive(request.as_bytes(), &limits, &mut head)
            .unwrap()
            .consumed,
        request.len()
    );
}

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
fn a_drain_after_the_head_meets_the_next_request() {
    let mut exchange = Exchange::default();
    take(&mut exchange, GET.as_bytes());
    let mut head = ResponseHead::default();
    head.set_status(b"200 OK").unwrap();
    let mut out = Vec::new();
    exchange.respond(&head, BodySize::Exact(0), &DEFAULTS, &mut out);
    exchange.close_after_this();
    assert_eq!(exchange.finish(&mut out), Finish::KeepAlive);
    take(&mut exchange, GET.as_bytes());
    assert_eq!(
        answer(&mut exchange, "200 OK", &[], BodySize::Exact(0), &[]).1,
        Finish::Close
    );
}

#[test]
fn continue_is_wanted_until_the_body_moves() {
    let (limits, mut head) = (Limits::default(), RequestHead::default());
    let request =
        b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi";
    let head_length = request.len() - 2;
    let mut exchange = Exchange::default();
    exchange
        .receive(&request[..head_length], &limits, &mut head)
        .unwrap();
    assert!(exchange.wants_continue());
    exchange.receive(b"", &limits, &mut head).unwrap();
    assert!(exchange.wants_continue());
    let mut out = Vec::new();
    exchange.send_continue(&mut out);
    exchange.send_continue(&mut out);
    assert_eq!(out, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(!exchange.wants_continue());
    let mut exchange = Exchange::default();
    exchange.receive(request, &limits, &mut head).unwrap();
    assert!(!exchange.wants_continue(), "the body is there already");
    let mut exchange = Exchange::default();
    exchange
        .receive(&request[..head_length], &limits, &mut head)
        .unwrap();
    exchange.receive(b"h", &limits, &mut head).unwrap();
    assert!(!exchange.wants_continue(), "the peer did not wait");
}

#[test]
fn a_refusal_ends_everything() {
    let mut exchange = Exchange::default();
    let mut head = RequestHead::default();
    let bytes = b"GET / HTTP/1.1\r\nHost : h\r\n\r\nGET /secret HTTP/1.1\r\nHost: h\r\n\r\n";
    let error = exchange
        .receive(bytes, &Limits::default(), &mut head)
        .unwrap_err();
    assert_eq!(head.request_line(), b"GET / HTTP/1.1");
    assert!(exchange.is_closing() && !exchange.is_reading_head());
    let step = exchange
        .receive(bytes, &Limits::default(), &mut head)
        .unwrap();
    assert_eq!(
        step,
        Step {
            consumed: bytes.len(),
            received: Received::NeedData
        }
    );
    let mut out = Vec::new();
    exchange.refuse(error.status(), &error.page_message(), &DEFAULTS, &mut out);
    let page = out.clone();
    assert!(page.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    exchange.refuse(error.status(), &error.page_message(), &DEFAULTS, &mut out);
    assert_eq!(page, out, "a page is written once");
}

#[test]
fn refusals_at_other_times() {
    let mut out = Vec::new();
    let mut exchange = Exchange::default();
    exchange
        .receive(b"GET", &Limits::default(), &mut RequestHead::default())
        .unwrap();
    assert!(exchange.is_reading_head());
    exchange.refuse(Status::REQUEST_TIMEOUT, "", &DEFAULTS, &mut out);
    assert!(out.starts_with(b"HTTP/1.1 408 Request Timeout\r\n") && exchange.is_closing());

    out.clear();
    let mut exchange = Exchange::default();
    take(&mut exchange, HEAD.as_bytes());
    assert!(exchange.is_head_request());
    exchange.refuse(Status::INTERNAL_SERVER_ERROR, "", &DEFAULTS, &mut out);
    assert!(
        out.starts_with(b"HTTP/1.1 500 Internal Server Error\r\n") && out.ends_with(b"\r\n\r\n")
    );

    let mut exchange = Exchange::default();
    take(&mut exchange, GET.as_bytes());
    let mut head = ResponseHead::default();
    head.set_status(b"200 OK").unwrap();
    exchange.respond(&head, BodySize::Unknown, &DEFAULTS, &mut out);
    out.clear();
    exchange.refuse(Status::INTERNAL_SERVER_ERROR, "", &DEFAULTS, &mut out);
    assert!(
        out.is_empty() && exchange.is_closing(),
        "a response that has begun cannot be taken back"
    );
    assert_eq!(exchange.data(5, &mut out), 0);
    assert_eq!(exchange.finish(&mut out), Finish::Close);
    assert!(out.is_empty(), "an aborted chunked body has no last chunk");
}

#[test]
fn an_answer_before_the_body_is_read_closes() {
    let mut exchange = Exchange::default();
    let request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n";
    exchange
        .receive(request, &Limits::default(), &mut RequestHead::default())
        .unwrap();
    let (out, finish) = answer(&mut exchange, "403 Forbidden", &[], BodySize::Exact(0), &[]);
    assert!(out.contains("Connection: close\r\n") && finish == Finish::Close);
}

/// Whatever the event loop does, in whatever order it may, the invariants hold (they are checked in every call) and
/// no request is read behind a close.
#[test]
#[expect(clippy::too_many_lines, reason = "one walk, step by step")]
fn random_walks_keep_the_invariants() {
    const ARRIVALS: [&str; 12] = [
        GET,
        HEAD,
        GET_10,
        "\r\n",
        "GET / HT",
        "TP/1.1\r\nHost: h\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        "hello",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ];
    const STATUSES: [&str; 5] = [
        "200 OK",
        "204 No Content",
        "304 Not Modified",
        "101 Switching Protocols",
        "500",
    ];
    for seed in 1..2000_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % bound
        };
        let (mut exchange, mut head, mut input, mut out) = (
            Exchange::default(),
            RequestHead::default(),
            Vec::new(),
            Vec::new(),
        );
        for _ in 0..60 {
            let was_closing = exchange.is_closing();
            match below(14) {
                0..=3 => input.extend_from_slice(ARRIVALS[below(ARRIVALS.len())].as_bytes()),
                4..=8 => {
                    if let Ok(step) = exchange.receive(&input, &Limits::default(), &mut head) {
                        assert!(
                            !was_closing || step.received == Received::NeedData,
                            "seed {seed}"
                        );
                        input.drain(..step.consumed);
                    }
                }
                9 => exchange.send_continue(&mut out),
                10 if exchange.is_dispatched() || exchange.is_reading_body() => {
                    let mut response = ResponseHead::default();
                    response
                        .set_status(STATUSES[below(STATUSES.len())].as_bytes())
                        .unwrap();
                    let len = below(9) as u64;
                    match below(3) {
                        0 => exchange.respond(&response, BodySize::Unknown, &DEFAULTS, &mut out),
                        1 => exchange.respond(&response, BodySize::Exact(len), &DEFAULTS, &mut out),
                        _ => {
                            let whole = exchange.respond_whole(&response, len, &DEFAULTS, &mut out);
                            assert!(whole.taken <= len);
                        }
                    }
                }
                11 => {
                    let len = below(6);
                    assert!(exchange.data(len, &mut out) <= len);
                    exchange.data_end(&mut out);
                }
                12 if exchange.is_responding() => {
                    exchange.finish(&mut out);
                }
                13 if below(8) == 0 => match below(3) {
                    0 => exchange.refuse(Status::REQUEST_TIMEOUT, "", &DEFAULTS, &mut out),
                    1 => exchange.abort(),
                    _ => exchange.close_after_this(),
                },
                _ => {}
            }
            exchange.check_invariants();
            assert!(
                !was_closing || exchange.is_closing(),
                "seed {seed}: a closing connection stays so"
            );
        }
    }
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

#[test]
fn an_upgrade_is_asked_for_by_both_fields_of_a_1_1_request_without_a_body() {
    let asks = |rest: &str| {
        let mut exchange = Exchange::default();
        take(&mut exchange, rest.as_bytes());
        exchange.asks_for_upgrade()
    };
    let get = |fields: &str| asks(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
    assert!(get(
        "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    ));
    assert!(get(
        "UPGRADE: x\r\nCONNECTION: upgrade\r\nContent-Length: 0\r\n"
    ));
    assert!(!get("Connection: keep-alive\r\nUpgrade: websocket\r\n"));
    assert!(!get("Connection: Upgrade\r\n"));
    assert!(!get("Connection: Upgrade\r\nUpgrade:\r\n"));
    assert!(!get(
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    ));
    assert!(!asks(
        "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    ));
    assert!(!asks(
        "POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\nx"
    ));
}

/// A request with these fields, dispatched at its head.
fn dispatched_at_head(fields: &str) -> Exchange {
    let mut exchange = Exchange::default();
    let request = format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let step = exchange
        .receive(
            request.as_bytes(),
            &Limits::default(),
            &mut RequestHead::default(),
        )
        .unwrap();
    assert_eq!(step.received, Received::Head);
    exchange.dispatch_at_head();
    assert!(exchange.is_dispatched());
    exchange
}

#[test]
fn a_body_may_arrive_behind_its_request_and_during_its_response() {
    let limits = Limits::default();
    let mut exchange = dispatched_at_head("Content-Length: 4\r\nExpect: 100-continue\r\n");
    assert!(exchange.wants_continue());
    let step = exchange.receive_streamed_body(b"ab", &limits).unwrap();
    assert_eq!((step.consumed, step.received), (2, Received::Data(0..2)));
    assert!(!exchange.wants_continue(), "the peer did not wait");
    let step = exchange.receive_streamed_body(b"cdGET", &limits).unwrap();
    assert_eq!((step.consumed, step.received), (2, Received::Data(0..2)));
    let step = exchange.receive_streamed_body(b"GET", &limits).unwrap();
    assert_eq!((step.consumed, step.received), (0, Received::End));
    let step = exchange.receive_streamed_body(b"GET", &limits).unwrap();
    assert_eq!((step.consumed, step.received), (0, Received::NeedData));
    let (_, finish) = answer(&mut exchange, "200 OK", &[], BodySize::Exact(0), &[]);
    assert_eq!(finish, Finish::KeepAlive);

    let mut exchange = dispatched_at_head("Transfer-Encoding: chunked\r\n");
    let mut head = ResponseHead::default();
    head.set_status(b"200 OK").unwrap();
    let mut out = Vec::new();
    exchange.respond(&head, BodySize::Unknown, &DEFAULTS, &mut out);
    assert!(
        String::from_utf8_lossy(&out).contains("Connection: close"),
        "the body is still to come"
    );
    let step = exchange
        .receive_streamed_body(b"2\r\nhi\r\n", &limits)
        .unwrap();
    assert_eq!(step.received, Received::Data(3..5));
    assert_eq!(exchange.finish(&mut out), Finish::Close);
}

#[test]
fn a_body_that_cannot_be_received_closes_behind_the_response() {
    for is_malformed in [true, false] {
        let mut exchange = dispatched_at_head("Transfer-Encoding: chunked\r\n");
        if is_malformed {
            assert!(
                exchange
                    .receive_streamed_body(b"zz\r\n", &Limits::default())
                    .is_err()
            );
        }
        exchange.give_up_body();
        let (text, finish) = answer(&mut exchange, "200 OK", &[], BodySize::Exact(0), &[]);
        assert!(text.contains("Connection: close"), "{text}");
        assert_eq!(finish, Finish::Close);
    }
}

#[test]
fn only_a_part_of_a_body_without_length_would_look_whole() {
    let begun = |request: &str, fields: &[(&str, &str)]| {
        let mut exchange = Exchange::default();
        take(&mut exchange, request.as_bytes());
        let mut head = ResponseHead::default();
        head.set_status(b"200 OK").unwrap();
        for (name, value) in fields {
            head.push(name.as_bytes(), value.as_bytes()).unwrap();
        }
        exchange.respond(&head, BodySize::Unknown, &DEFAULTS, &mut Vec::new());
        exchange
    };
    let mut aborted = begun(GET_10, &[]);
    assert!(aborted.would_look_whole(true), "its end is not encoded");
    aborted.abort();
    assert!(aborted.would_look_whole(true));
    let mut whole = begun(GET_10, &[]);
    assert_eq!(whole.finish(&mut Vec::new()), Finish::Close);
    assert!(!whole.would_look_whole(true));
    assert!(whole.would_look_whole(false), "its end is not written");
    for mut exchange in [
        begun(GET, &[]),
        begun(GET_10, &[("Content-Length", "5")]),
        begun(HEAD, &[]),
    ] {
        exchange.abort();
        assert!(!exchange.would_look_whole(false));
    }
}
