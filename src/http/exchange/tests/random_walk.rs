//! Calls in any order.

use super::*;

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
