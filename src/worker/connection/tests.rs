//! One connection over a socket pair, step by step, and what a simulation checks of it.
#![allow(clippy::unwrap_used)]

use crate::pool::{Piece, StreamedResponse, Window};
use crate::worker::events::InputEvent;
use crate::worker::requests::Requests;
use crate::worker::requests::tests::for_tests;
use crate::worker::shared_io::SharedIo;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::*;

impl Connection {
    /// What must hold after every iteration: the connection waits for the application, or it has a deadline.
    pub(in crate::worker) fn check_invariants(&self) {
        let Protocol::Http1 { http1, .. } = &self.protocol else {
            panic!("of HTTP/1 only: {self:?}");
        };
        http1.check_invariants();
        if self.link.lifecycle.state() == State::Dispatched {
            assert!(http1.is_with_application(), "{self:?}");
        } else {
            assert!(self.due().is_some(), "waits for ever: {self:?}");
        }
        if !self.link.write.is_empty() {
            assert!(self.link.lifecycle.is_sending(), "{self:?}");
        }
        if self.is_idle() {
            assert!(!self.link.write.has_window(), "{self:?}");
            assert!(!http1.has_answer(), "{self:?}");
            assert_eq!(http1.held_bytes(), 0);
        }
    }

    /// Memory of the body budget that the request holds.
    pub(in crate::worker) fn held_bytes(&self) -> usize {
        match &self.protocol {
            Protocol::Http1 { http1, .. } => http1.held_bytes(),
            Protocol::Http2(http2) => http2.held_bytes(),
        }
    }
}

const READABLE: SocketEvent = SocketEvent {
    input: InputEvent::Readable,
    is_writable: false,
    is_broken: false,
};

const WRITABLE: SocketEvent = SocketEvent {
    input: InputEvent::Nothing,
    is_writable: true,
    is_broken: false,
};

fn connect() -> (Connection, UnixStream, Requests, SharedIo) {
    let (ours, theirs) = Transport::pair();
    let (mut requests, io) = for_tests();
    let conn = ConnId::new(0, 0);
    let connection = Connection::new(conn, ours, Peer::Unix, 0, &mut requests, &io);
    (connection, theirs, requests, io)
}

#[test]
fn an_answered_connection_waits_for_its_next_request() {
    let (mut connection, mut client, mut requests, mut io) = connect();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    assert_eq!(
        connection.on_event(READABLE, &mut requests, &mut io),
        Action::Wait
    );
    connection.check_invariants();
    assert!(!connection.is_idle());
    let mut job = requests.dispatch.take_first().unwrap();
    job.response.set_status(b"204 No Content").unwrap();
    let action = connection.on_reply(Reply::Whole(job), &mut requests, &mut io);
    assert_eq!(action.0, Action::Idle);
    connection.check_invariants();
    let spare = connection.spare(Shortage::Connections, Instant::now());
    assert!(matches!(spare, Some((Spare::Idle, _))), "{spare:?}");
    let mut bytes = [0; 64];
    let len = client.read(&mut bytes).unwrap();
    assert!(bytes[..len].starts_with(b"HTTP/1.1 204 No Content\r\n"));
    assert_eq!(connection.begin_drain(&mut requests, &mut io), Action::Wait);
    connection.close(&mut requests);
}

#[test]
fn a_request_that_comes_with_the_room_for_the_last_response_is_read() {
    let (mut connection, mut client, mut requests, mut io) = connect();
    let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    client.write_all(request).unwrap();
    assert_eq!(
        connection.on_event(READABLE, &mut requests, &mut io),
        Action::Wait
    );
    let mut job = requests.dispatch.take_first().unwrap();
    job.response.set_status(b"200 OK").unwrap();
    job.response_body.bytes = vec![b'x'; 400_000];
    let action = connection.on_reply(Reply::Whole(job), &mut requests, &mut io);
    assert_eq!(action.0, Action::Wait, "the socket is full");
    // The client reads all there is, and sends its next request in the same moment.
    client.set_nonblocking(true).unwrap();
    let mut bytes = vec![0; 400_000];
    while client.read(&mut bytes).is_ok_and(|len| len > 0) {}
    client.write_all(request).unwrap();
    let both = SocketEvent {
        is_writable: true,
        ..READABLE
    };
    let mut action = connection.on_event(both, &mut requests, &mut io);
    while requests.dispatch.pool().queue_length() == 0 {
        assert_ne!(action, Action::Idle, "nothing announces it again");
        while client.read(&mut bytes).is_ok_and(|len| len > 0) {}
        action = match action {
            Action::Resume => connection.resume(&mut requests, &mut io),
            _ => connection.on_event(WRITABLE, &mut requests, &mut io),
        };
    }
    connection.close(&mut requests);
}

#[test]
fn what_was_spooled_of_a_response_without_a_body_is_taken_to_its_end() {
    let (mut connection, mut client, mut requests, mut io) = connect();
    client
        .write_all(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    assert_eq!(
        connection.on_event(READABLE, &mut requests, &mut io),
        Action::Wait
    );
    let mut job = requests.dispatch.take_first().unwrap();
    job.response.set_status(b"200 OK").unwrap();
    let window = Arc::new(Window::new(10));
    assert_eq!(window.add(20), Ok(true));
    window.begin_spool();
    assert!(matches!(window.store(&vec![b'x'; 2 << 20]), (true, Ok(()))));
    let streamed = StreamedResponse {
        response: std::mem::take(&mut job.response),
        window: window.clone(),
    };
    let data = Piece::Bytes(vec![b'x'; 20]);
    for reply in [
        Reply::Head(job.conn, Box::new(streamed)),
        Reply::Data(job.conn, data),
        Reply::Spooled(job.conn),
    ] {
        let (_, late) = connection.on_reply(reply, &mut requests, &mut io);
        assert!(late.is_none());
    }
    let mut action = connection.flush_scheduled(&mut requests, &mut io);
    while action == Action::Resume {
        action = connection.resume(&mut requests, &mut io);
    }
    assert!(!window.has_spooled());
    assert_eq!(window.wait(), Ok(()));
    connection.close(&mut requests);
}

#[test]
fn a_body_has_its_time_although_its_socket_is_never_seen_empty() {
    let (mut connection, mut client, mut requests, mut io) = connect();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nf4240\r\n")
        .unwrap();
    client.set_nonblocking(true).unwrap();
    // More than is read in one iteration.
    for (round, bytes) in [110_000, 64_000, 64_000].into_iter().enumerate() {
        client.write_all(&vec![b'x'; bytes]).unwrap();
        let action = match round {
            0 => connection.on_event(READABLE, &mut requests, &mut io),
            _ => connection.resume(&mut requests, &mut io),
        };
        assert_eq!(action, Action::Resume);
        assert!(connection.due().unwrap() > requests.clock.now());
        requests.clock.advance(Duration::from_secs(59));
    }
    assert!(connection.due().unwrap() > requests.clock.now());
    connection.close(&mut requests);
}

#[test]
fn a_refused_client_may_finish_sending_before_the_connection_closes() {
    let (mut connection, mut client, mut requests, mut io) = connect();
    client.write_all(b"BAD\r\n\r\n").unwrap();
    assert_eq!(
        connection.on_event(READABLE, &mut requests, &mut io),
        Action::Resume
    );
    client.write_all(b"the rest").unwrap();
    assert_eq!(connection.resume(&mut requests, &mut io), Action::Wait);
    connection.check_invariants();
    drop(client);
    let closed = SocketEvent {
        input: InputEvent::Closed,
        ..READABLE
    };
    assert_eq!(
        connection.on_event(closed, &mut requests, &mut io),
        Action::Close
    );
    connection.close(&mut requests);
    let slot = requests.accounting.slot();
    assert_eq!((slot.requests(), slot.refused()), (1, 1));
}

#[test]
fn a_client_that_leaves_in_a_head_is_logged_and_gets_no_answer() {
    let (mut connection, mut client, mut requests, mut io) = connect();
    client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert_eq!(
        connection.on_event(READABLE, &mut requests, &mut io),
        Action::Wait
    );
    connection.check_invariants();
    drop(client);
    connection.link.read.on_edge(InputEvent::Closed);
    assert_eq!(connection.resume(&mut requests, &mut io), Action::Close);
    connection.close(&mut requests);
    assert_eq!(requests.accounting.slot().requests(), 1);
}

#[test]
fn a_pause_of_the_loop_is_not_the_clients_time() {
    let (mut connection, _client, mut requests, _) = connect();
    let (id, pause) = (connection.id(), Duration::from_secs(3600));
    requests.clock.advance(pause);
    connection.excuse(pause);
    assert!(!connection.has_expired(id, &mut requests.clock));
    requests.clock.advance(pause);
    assert!(connection.has_expired(id, &mut requests.clock));
    connection.close(&mut requests);
}
