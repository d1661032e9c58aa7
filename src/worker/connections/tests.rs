//! Connections come, wait, are resumed and go.
#![allow(clippy::unwrap_used)]
use std::io::Write as _;
use std::os::unix::net::UnixStream;

use super::*;
use crate::worker::events::InputEvent;
use crate::worker::requests::tests::for_tests;
use crate::worker::shared_io::renew_budgets;

fn worker() -> (mio::Poll, Connections, Requests, SharedIo) {
    let poll = mio::Poll::new().unwrap();
    let connections = Connections::new(poll.registry().try_clone().unwrap());
    let (requests, io) = for_tests();
    (poll, connections, requests, io)
}

fn connect(
    connections: &mut Connections,
    requests: &mut Requests,
    io: &SharedIo,
) -> (ConnId, UnixStream) {
    let (ours, theirs) = Transport::pair();
    (connections.open(ours, Peer::Unix, 0, requests, io), theirs)
}

#[test]
fn an_id_does_not_name_the_next_connection_in_its_slot() {
    let (_poll, mut connections, mut requests, mut io) = worker();
    let (first, _one) = connect(&mut connections, &mut requests, &io);
    assert!(connections.act(first, &mut requests, &mut io, |_, _, _| Action::Close));
    let (second, _other) = connect(&mut connections, &mut requests, &io);
    assert_eq!(first.slot, second.slot);
    assert!(connections.get(first).is_none() && connections.get(second).is_some());
    assert!(connections.take_room());
}

#[test]
fn a_hijacked_connection_counts_until_its_request_is_over() {
    let (_poll, mut connections, mut requests, io) = worker();
    let (id, _client) = connect(&mut connections, &mut requests, &io);
    connections.hijack(id, &requests.dispatch);
    assert_eq!((connections.len(), connections.len_with_hijacked()), (0, 1));
    assert!(connections.is_hijacked(id) && connections.end_hijacked(id));
    assert_eq!(connections.len_with_hijacked(), 0);
    assert!(!connections.end_hijacked(id));
}

#[test]
fn long_bodies_come_one_after_another_and_a_short_request_does_not_wait_for_them() {
    let (_poll, mut connections, mut requests, mut io) = worker();
    let body = vec![b'x'; 150_000];
    let head = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut clients = Vec::new();
    for _ in 0..6 {
        let (id, mut client) = connect(&mut connections, &mut requests, &io);
        client.write_all(head.as_bytes()).unwrap();
        client.write_all(&body).unwrap();
        clients.push((id, client));
    }
    let (short, mut client) = connect(&mut connections, &mut requests, &io);
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    clients.push((short, client));
    let readable = SocketEvent {
        input: InputEvent::Readable,
        is_writable: false,
        is_broken: false,
    };
    let mut arrived = Vec::new();
    let mut iterate = |connections: &mut Connections, is_announced: bool| {
        renew_budgets(&mut io);
        connections.resume(&mut requests, &mut io);
        for (id, _) in clients.iter().filter(|_| is_announced) {
            let token = events::of_connection(*id);
            connections.on_event(token, readable, &mut requests, &mut io);
        }
        let found = std::iter::from_fn(|| requests.dispatch.take_first());
        arrived.extend(found.map(|job| job.conn));
        arrived.len()
    };
    assert_eq!(
        iterate(&mut connections, true),
        5,
        "four bodies, and the short request"
    );
    // It is announced again, and waits once.
    assert_eq!(iterate(&mut connections, true), 7);
    iterate(&mut connections, false);
    assert!(!connections.has_to_resume());
    let expected = [0, 1, 2, 3, 6, 4, 5].map(|index: usize| clients[index].0);
    assert_eq!(arrived, expected);
}
