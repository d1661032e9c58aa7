//! The state machine: requests in, and every way a connection ends. The rest is in the files below.
#![allow(clippy::unwrap_used)]

use super::super::error::Status;
use super::*;
use crate::http::Upgrade;

mod random_walk;
mod responses;
mod streamed_bodies;

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

#[test]
fn an_upgrade_is_asked_for_by_both_fields_of_a_1_1_request_without_a_body() {
    let asks = |rest: &str| {
        let mut exchange = Exchange::default();
        take(&mut exchange, rest.as_bytes());
        exchange.upgrade()
    };
    let get = |fields: &str| asks(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
    assert_eq!(
        get("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"),
        Upgrade::Other
    );
    assert_eq!(
        get("UPGRADE: x\r\nCONNECTION: upgrade\r\nContent-Length: 0\r\n"),
        Upgrade::Other
    );
    assert_eq!(
        get("Connection: keep-alive\r\nUpgrade: websocket\r\n"),
        Upgrade::None
    );
    assert_eq!(get("Connection: Upgrade\r\n"), Upgrade::None);
    assert_eq!(get("Connection: Upgrade\r\nUpgrade:\r\n"), Upgrade::None);
    let h2c = get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n");
    assert_eq!(h2c, Upgrade::Http2);
    assert_eq!(
        asks("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
        Upgrade::None
    );
    assert_eq!(
        asks(
            "POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\nx"
        ),
        Upgrade::None
    );
    assert_eq!(
        asks(
            "POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx"
        ),
        Upgrade::Http2,
        "HTTP/2 begins behind a body"
    );
}
