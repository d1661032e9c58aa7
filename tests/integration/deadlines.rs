//! Clients that are too slow, silent or gone.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Server, answer, echo};

const SHORT: Option<Duration> = Some(Duration::from_millis(200));

#[test]
fn half_a_head_is_a_408_and_a_byte_now_and_then_does_not_extend_it() {
    let server = Server::start(|config| config.http.client_header_timeout = SHORT, echo);
    let mut client = server.connect();
    client.send("GET / HT");
    let end = std::time::Instant::now() + Duration::from_secs(5);
    client
        .stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout");
    let mut first = [0; 12];
    loop {
        assert!(
            std::time::Instant::now() < end,
            "the head was never given up"
        );
        match std::io::Read::read(&mut client.stream, &mut first) {
            Ok(len) => break assert_eq!(&first[..len], &b"HTTP/1.1 408"[..len]),
            Err(_) => drop(client.send("X")),
        }
    }
    assert!(server.log_lines(1)[0].ends_with(" 408 0") || !server.log_lines(1).is_empty());
}

#[test]
fn a_silent_connection_and_an_idle_one_are_closed_silently() {
    let server = Server::start(
        |config| {
            config.http.client_header_timeout = SHORT;
            config.http.keepalive = SHORT;
        },
        echo,
    );
    assert!(server.connect().is_closed());
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response();
    assert!(client.is_closed());
}

#[test]
fn a_body_that_stops_coming_is_a_408_and_never_reaches_the_application() {
    let ran = Arc::new(AtomicUsize::new(0));
    let count = ran.clone();
    let server = Server::start(
        |config| config.http.client_body_timeout = SHORT,
        move |thread, job| {
            count.fetch_add(1, Ordering::Relaxed);
            echo(thread, job);
        },
    );
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.response().status(), 408);
    let truncated = server.connect();
    (&truncated.stream)
        .write_all_and_shut("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert!(truncated.rest().is_empty());
    assert_eq!(ran.load(Ordering::Relaxed), 0);
    assert_eq!(server.log_lines(2), ["POST / 408 0", "POST / 400 0"]);
}

#[test]
fn a_body_that_trickles_uses_up_its_time() {
    let server = Server::start(|config| config.http.client_body_timeout = SHORT, echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    let began = std::time::Instant::now();
    client
        .stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("a timeout");
    // A byte each time that nothing has come for 20 ms: each arrives well within the timeout.
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match std::io::Read::read(&mut client.stream, &mut buffer) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&buffer[..len]),
            Err(_) if began.elapsed() < Duration::from_secs(10) => {
                if std::io::Write::write_all(&mut client.stream, b"x").is_err() {
                    break;
                }
            }
            Err(error) => panic!("the trickle goes on: {error}"),
        }
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 408 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[test]
fn a_client_that_has_sent_nothing_makes_room_for_one_that_waits() {
    let server = Server::start(|config| config.workers.worker_connections = 2, echo);
    let [mut first, mut second] = [server.connect(), server.connect()];
    let mut client = server.connect();
    let text = client
        .send("GET /here HTTP/1.1\r\nHost: a\r\n\r\n")
        .response();
    assert_eq!(text.status(), 200);
    assert!(first.is_closed());
    // The other still has its place.
    let text = second
        .send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        .response();
    assert_eq!(text.status(), 200);
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let server = Server::start(|_| {}, echo);
    let client = server.connect();
    (&client.stream).write_all_and_shut("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.rest().ends_with(b"GET /half "));
}

#[test]
fn a_reader_that_stops_is_cut_after_send_timeout_and_its_memory_is_given_back() {
    let server = Server::start(
        |config| config.http.send_timeout = SHORT,
        |thread, job| answer(thread, job, &vec![b'x'; 64 * 1024 * 1024]),
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(server.log_lines(1).len(), 1);
    assert!(
        client.rest().len() < 64 * 1024 * 1024,
        "the response was cut"
    );
}

trait WriteAndShut {
    fn write_all_and_shut(self, text: &str);
}

impl WriteAndShut for &std::net::TcpStream {
    fn write_all_and_shut(mut self, text: &str) {
        std::io::Write::write_all(&mut self, text.as_bytes()).expect("the worker reads");
        self.shutdown(Shutdown::Write)
            .expect("a side can be closed");
    }
}
