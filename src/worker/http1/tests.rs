//! A request through the protocol, and what a simulation checks of it.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::pool::{ConnId, Peer};
use crate::worker::requests::recycle;
use crate::worker::requests::tests::for_tests;
use crate::worker::write_side::WriteSide;

impl Http1 {
    pub(in crate::worker) fn check_invariants(&self) {
        self.exchange.check_invariants();
    }

    /// Whether the application has the request.
    pub(in crate::worker) fn is_with_application(&self) -> bool {
        self.exchange.is_dispatched() || self.exchange.is_responding()
    }

    pub(in crate::worker) fn has_answer(&self) -> bool {
        matches!(self.request, Request::Answered(_))
    }

    /// Memory of the body budget that the request holds.
    pub(in crate::worker) fn held_bytes(&self) -> usize {
        match &self.request {
            Request::Receiving(receiving) => receiving.body.held_bytes(),
            Request::Answered(answered) => answered.job.body_held_bytes,
            _ => 0,
        }
    }
}

fn client() -> Client {
    let conn = ConnId::new(1, 2);
    Client::new(conn, Peer::Unix, true, 0)
}

#[test]
fn a_whole_request_is_answered_and_makes_room_for_the_next() {
    let (mut protocol, client) = (Http1::default(), client());
    let (mut requests, mut io) = for_tests();
    let bytes = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b";
    let (consumed, arrived) = protocol
        .receive(bytes, &client, &mut requests, &mut io.encoded)
        .unwrap();
    let Arrived::Request(mut job) = arrived else {
        panic!("{arrived:?}")
    };
    assert_eq!((consumed, job.conn), (bytes.len() - 6, client.conn()));
    assert!(protocol.is_dispatched() && protocol.wanted() == Wanted::Nothing);
    job.response.set_status(b"200 OK").unwrap();
    job.response_body.bytes.extend_from_slice(b"hello");
    let mut write = WriteSide::default();
    protocol.respond(job, &mut write, &mut requests, &mut io.encoded);
    assert!(io.encoded.ends_with(b"\r\n\r\nhello"));
    assert!(protocol.has_answer() && protocol.on_written(&mut requests));
    assert!(protocol.is_idle() && protocol.wanted() == Wanted::Request);
    let slot = requests.accounting.slot();
    assert_eq!((slot.requests(), slot.bytes_out()), (1, 5));
}

#[test]
fn a_body_is_collected_and_its_memory_counted_until_the_job_is_back() {
    let (mut protocol, client) = (Http1::default(), client());
    let (mut requests, mut io) = for_tests();
    let bytes = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel";
    let (_, arrived) = protocol
        .receive(bytes, &client, &mut requests, &mut io.encoded)
        .unwrap();
    assert!(matches!(arrived, Arrived::Nothing));
    assert_eq!(
        (protocol.wanted(), protocol.held_bytes()),
        (Wanted::Body, 3)
    );
    let (_, arrived) = protocol
        .receive(b"lo", &client, &mut requests, &mut io.encoded)
        .unwrap();
    let Arrived::Request(job) = arrived else {
        panic!("{arrived:?}")
    };
    assert_eq!((job.body.len(), requests.bodies.held_bytes()), (Some(5), 5));
    recycle(job, &mut requests);
    assert_eq!(requests.bodies.held_bytes(), 0);
}

#[test]
fn a_refused_request_is_answered_with_a_page_and_is_the_last() {
    let (mut protocol, client) = (Http1::default(), client());
    let (mut requests, mut io) = for_tests();
    let bytes = b"BAD\r\n\r\n";
    let refusal = protocol
        .receive(bytes, &client, &mut requests, &mut io.encoded)
        .unwrap_err();
    protocol.refuse(refusal, None, &client, &mut requests, &mut io.encoded);
    assert!(io.encoded.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    assert!(protocol.is_closing() && protocol.wanted() == Wanted::Nothing);
    protocol.close(client.conn(), 0, &mut requests);
    assert_eq!(requests.accounting.slot().requests(), 1);
}

#[test]
fn a_request_that_times_out_is_answered_once() {
    let (mut protocol, client) = (Http1::default(), client());
    let (mut requests, mut io) = for_tests();
    let bytes = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    drop(
        protocol
            .receive(bytes, &client, &mut requests, &mut io.encoded)
            .unwrap(),
    );
    let seen = protocol.time_out(&mut requests.clock, &mut io.encoded);
    assert_eq!((seen.status, seen.body_bytes), (504, 0));
    assert!(io.encoded.starts_with(b"HTTP/1.1 504 "));
    assert!(protocol.is_timed_out() && protocol.is_closing());
}
