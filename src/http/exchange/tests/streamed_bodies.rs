//! Bodies that arrive behind the request they belong to.

use super::*;

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
