//! Clients of every manner, over real sockets.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::control::{Command, Topic};
use std::time::Duration;

struct Room {
    _directory: tempfile::TempDir,
    path: std::path::PathBuf,
    listener: UnixListener,
    clients: Clients,
}

impl Room {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self {
            _directory: directory,
            path,
            listener,
            clients: Clients::default(),
        }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream
    }

    /// Answers everything that is asked at `now`.
    fn serve(&mut self, now: u64) -> usize {
        let mut count = 0;
        loop {
            let requests = self.clients.receive(&self.listener, now);
            for (id, request) in &requests {
                assert_eq!(request.command, Command::Show(Topic::Stats));
                self.clients
                    .answer(*id, &json!({"id": request.id, "status": "ok"}), now);
            }
            count += requests.len();
            if requests.is_empty() && !self.clients.have_more() {
                return count;
            }
        }
    }
}

fn ask(id: u64) -> Vec<u8> {
    frame::encode(&json!({"id": id, "command": "show stats"}))
}

fn answer(stream: &mut UnixStream) -> Value {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut payload = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut payload).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

fn is_closed(stream: &mut UnixStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

#[test]
fn several_requests_on_one_connection_are_answered_in_order() {
    let mut room = Room::new();
    let mut stream = room.connect();
    stream
        .write_all(&[ask(1), ask(2), ask(3)].concat())
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(room.serve(0), 3);
    for id in 1..=3 {
        assert_eq!(answer(&mut stream)["id"], id);
    }
    assert!(is_closed(&mut stream));
    assert_eq!(room.clients.clients.len(), 0);
}

#[test]
fn requests_may_trickle_in() {
    let mut room = Room::new();
    let mut stream = room.connect();
    for byte in ask(9) {
        assert_eq!(room.serve(0), 0);
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(room.serve(0), 1);
    assert_eq!(answer(&mut stream)["id"], 9);
}

#[test]
fn mistakes_are_answered_and_too_much_is_the_end() {
    let mut room = Room::new();
    let mut stream = room.connect();
    stream.write_all(&[0, 0, 0, 2, b'{', b'x']).unwrap();
    assert_eq!(room.serve(0), 0);
    let answered = answer(&mut stream);
    assert_eq!(answered["status"], "error");
    assert!(answered["error"].as_str().unwrap().contains("Invalid JSON"));
    stream.write_all(&ask(1)).unwrap();
    assert_eq!(room.serve(0), 1);
    assert_eq!(answer(&mut stream)["status"], "ok");
    stream.write_all(&[0xff; 64]).unwrap();
    assert_eq!(room.serve(0), 0);
    assert!(
        answer(&mut stream)["error"]
            .as_str()
            .unwrap()
            .contains("too large")
    );
    assert!(is_closed(&mut stream));
}

#[test]
fn the_idle_go_after_five_minutes() {
    let mut room = Room::new();
    let mut silent = room.connect();
    let mut active = room.connect();
    room.serve(0);
    active.write_all(&ask(1)).unwrap();
    assert_eq!(room.serve(200_000), 1);
    assert_eq!(room.serve(300_001), 0);
    assert!(is_closed(&mut silent));
    assert_eq!(answer(&mut active)["id"], 1);
    active.write_all(&ask(2)).unwrap();
    assert_eq!(room.serve(300_002), 1);
}

#[test]
fn in_a_crowd_the_one_that_idles_longest_makes_room() {
    let mut room = Room::new();
    let mut streams: Vec<_> = (0..CLIENTS_MAX as u64)
        .map(|now| {
            let stream = room.connect();
            room.serve(now);
            stream
        })
        .collect();
    streams.push(room.connect());
    room.serve(IDLE_WITH_OTHERS_MS - 1);
    assert!(!room.clients.are_accepted(), "it waits in the queue");
    assert_eq!(
        room.clients.patience(IDLE_WITH_OTHERS_MS),
        Some(ROOM_MS - 1)
    );
    room.serve(IDLE_WITH_OTHERS_MS - 1 + ROOM_MS);
    assert!(room.clients.are_accepted());
    assert!(is_closed(&mut streams[0]));
    assert_eq!(room.clients.clients.len(), CLIENTS_MAX);
}

#[test]
fn a_crowd_that_comes_at_once_is_answered_one_and_all() {
    let mut room = Room::new();
    let mut streams: Vec<_> = (0..100).map(|_| room.connect()).collect();
    room.serve(0);
    for stream in &mut streams {
        stream.write_all(&ask(1)).unwrap();
    }
    for now in 1..10 {
        room.serve(now);
    }
    for stream in &mut streams {
        assert_eq!(answer(stream)["id"], 1);
    }
}

#[test]
fn who_is_worked_for_is_neither_polled_nor_forgotten() {
    let mut room = Room::new();
    let mut stream = room.connect();
    stream.write_all(&[ask(1), ask(2)].concat()).unwrap();
    let requests = room.clients.receive(&room.listener, 0);
    let (id, _) = requests[0];
    assert_eq!(requests.len(), 1);
    assert_eq!(room.clients.descriptors().count(), 0);
    assert!(room.clients.receive(&room.listener, 1_000_000).is_empty());
    room.clients.answer(id, &json!({"id": 1}), 1_000_000);
    assert_eq!(answer(&mut stream)["id"], 1);
    assert!(room.clients.have_more());
}
