//! What came of some bytes: the requests that an exchange took from them, and how it ended.
#![allow(clippy::unwrap_used)]

use ferricorn::http::{
    BodySize, Exchange, Finish, Limits, Received, RequestHead, ResponseDefaults, ResponseHead,
};

/// A request that reached the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) line: Vec<u8>,
    pub(crate) path: Vec<u8>,
    pub(crate) query: Vec<u8>,
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) closes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Idle,
    Partial,
    Closed,
    Refused { code: u16, message: String },
}

/// What came of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transcript {
    pub(crate) requests: Vec<Seen>,
    pub(crate) end: End,
    /// For each head: the peer waited for `100 Continue` when it was whole.
    pub(crate) waited: Vec<bool>,
}

/// Feeds `bytes` in arrivals that end at `ends`, and answers each request.
pub(crate) fn play(bytes: &[u8], ends: &[usize], limits: &Limits) -> Transcript {
    let mut exchange = Exchange::default();
    let mut head = RequestHead::default();
    let mut seen = Seen::default();
    let mut transcript = Transcript {
        requests: Vec::new(),
        end: End::Idle,
        waited: Vec::new(),
    };
    let mut from = 0;
    for &end in ends {
        loop {
            let received = &bytes[from..end];
            let step = match exchange.receive(received, limits, &mut head) {
                Ok(step) => step,
                Err(error) => {
                    refuse(&mut exchange, &error);
                    transcript.end = End::Refused {
                        code: error.status().code,
                        message: error.page_message(),
                    };
                    return transcript;
                }
            };
            assert!(step.consumed <= received.len());
            from += step.consumed;
            if matches!(step.received, Received::Head | Received::Whole) {
                seen = describe(&head);
                transcript.waited.push(exchange.wants_continue());
            }
            match step.received {
                Received::NeedData => break,
                Received::Head => {}
                Received::Data(range) => {
                    assert!(!range.is_empty() && range.end <= step.consumed);
                    seen.body.extend_from_slice(&received[range]);
                }
                Received::Whole | Received::End => {
                    assert!(exchange.is_dispatched());
                    seen.closes = answer(&mut exchange) == Finish::Close;
                    transcript.requests.push(std::mem::take(&mut seen));
                    if exchange.is_closing() {
                        transcript.end = End::Closed;
                        return transcript;
                    }
                }
            }
        }
    }
    if !exchange.is_idle() {
        transcript.end = End::Partial;
    }
    transcript
}

fn describe(head: &RequestHead) -> Seen {
    Seen {
        line: head.request_line().to_vec(),
        path: head.path().to_vec(),
        query: head.query().to_vec(),
        fields: head
            .fields()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect(),
        body: Vec::new(),
        closes: false,
    }
}

fn answer(exchange: &mut Exchange) -> Finish {
    let mut head = ResponseHead::default();
    head.set_status(b"200 OK").unwrap();
    let mut out = Vec::new();
    exchange.respond(&head, BodySize::Exact(0), &DEFAULTS, &mut out);
    exchange.finish(&mut out)
}

/// The page is written, and nothing that follows is looked at.
fn refuse(exchange: &mut Exchange, error: &ferricorn::http::ParseError) {
    let mut out = Vec::new();
    exchange.refuse(error.status(), &error.page_message(), &DEFAULTS, &mut out);
    let start = format!(
        "HTTP/1.1 {} {}\r\n",
        error.status().code,
        error.status().reason
    );
    assert!(out.starts_with(start.as_bytes()));
    assert!(!error.to_string().contains(['\r', '\n']), "{error}");
    assert!(exchange.is_closing());
    let next = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let step = exchange
        .receive(next, &Limits::default(), &mut RequestHead::default())
        .unwrap();
    assert_eq!(
        (step.consumed, step.received),
        (next.len(), Received::NeedData)
    );
}

const DEFAULTS: ResponseDefaults<'static> = ResponseDefaults {
    server: b"ferricorn",
    date: b"Thu, 01 Jan 1970 00:00:00 GMT",
};
