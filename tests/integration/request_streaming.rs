//! Requests that are dispatched at their head, and their bodies that arrive meanwhile.

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferricorn::config::Config;
use ferricorn::pool::{Job, PoolThread, RequestBody, StreamingBody};

use crate::support::{Server, answer, echo};

fn unbuffered(config: &mut Config) {
    config.limits.request_buffering = false;
}

fn streaming_body_of(job: &mut Job) -> Arc<StreamingBody> {
    match std::mem::take(&mut job.body) {
        RequestBody::Streaming(stream) => stream,
        other => panic!("the body was not to be waited for: {other:?}"),
    }
}

/// Says that it began, waits for the test, then reads the body and answers with its length or the error.
#[expect(
    clippy::type_complexity,
    reason = "an application, and the ends the test holds"
)]
fn reading() -> (
    Receiver<()>,
    Sender<()>,
    impl Fn(&PoolThread, Box<Job>) + Send + Sync,
) {
    let (began, began_at) = channel();
    let (go, go_at) = channel();
    let (began, go_at) = (Mutex::new(began), Mutex::new(go_at));
    let run = move |thread: &PoolThread, mut job: Box<Job>| {
        let stream = streaming_body_of(&mut job);
        began
            .lock()
            .expect("no panic")
            .send(())
            .expect("the test waits");
        // A test that is over lets everything go.
        let _ = go_at.lock().expect("no panic").recv();
        let mut body = Vec::new();
        let text = loop {
            match stream.take(&mut body, None) {
                Ok(true) => {}
                Ok(false) => break body.len().to_string(),
                Err(error) => break format!("{:?} after {}", error.kind(), body.len()),
            }
        };
        answer(thread, job, text.as_bytes());
    };
    (began_at, go, run)
}

#[test]
fn the_application_begins_before_the_body_has_come() {
    let (began, go, run) = reading();
    let server = Server::start(unbuffered, run);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    began.recv().expect("the request runs");
    client.send("56789GET / HTTP/1.1\r\n");
    go.send(()).expect("the request waits");
    let response = client.response();
    assert_eq!(response.text(), "10");
    // Everything had arrived when the response began, so the connection goes on with what was pipelined.
    assert!(response.has("Connection: keep-alive"), "{}", response.head);
}

#[test]
fn chunks_in_any_pieces_arrive_whole_and_requests_without_a_body_go_on() {
    let server = Server::start(unbuffered, echo);
    let mut client = server.connect();
    let request = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nabcd\r\n3\r\nefg\r\n0\r\nT: v\r\n\r\n";
    for step in [1, 2, 7, 1000] {
        for piece in request.chunks(step) {
            client.send(piece);
            std::thread::yield_now();
        }
        assert_eq!(client.response().text(), "POST /c abcdefg");
        assert_eq!(
            client
                .send("GET /g HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
                .response()
                .text(),
            "GET /g "
        );
    }
}

#[test]
fn a_full_window_holds_the_client_back() {
    let (began, go, run) = reading();
    let server = Server::start(unbuffered, run);
    let mut client = server.connect();
    let total = 64 * 1024 * 1024;
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {total}\r\n\r\n"
    ));
    began.recv().expect("the request runs");
    client
        .stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout can be set");
    let piece = vec![b'x'; 256 * 1024];
    let mut sent = 0;
    while let Ok(len) = client.stream.write(&piece) {
        sent += len;
        assert!(sent < total, "nothing held the client back");
    }
    // What the kernel holds on both sides and one window.
    assert!(sent < total / 2, "{sent} bytes were taken");
    go.send(()).expect("the request waits");
    client
        .stream
        .set_write_timeout(None)
        .expect("a timeout can be set");
    while sent < total {
        let len = piece.len().min(total - sent);
        client.send(&piece[..len]);
        sent += len;
    }
    assert_eq!(client.response().text(), total.to_string());
}

#[test]
fn a_truncated_body_is_an_error_and_never_the_whole() {
    let (began, go, run) = reading();
    let server = Server::start(unbuffered, run);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    began.recv().expect("the request runs");
    client
        .stream
        .shutdown(std::net::Shutdown::Write)
        .expect("a socket has two sides");
    go.send(()).expect("the request waits");
    let response = client.response();
    assert_eq!(response.text(), "UnexpectedEof after 5");
    assert!(response.has("Connection: close"), "{}", response.head);
}

#[test]
fn a_body_that_stops_has_a_deadline() {
    let (began, go, run) = reading();
    let server = Server::start(
        |config| {
            unbuffered(config);
            config.http.client_body_timeout = Some(Duration::from_millis(300));
        },
        run,
    );
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    began.recv().expect("the request runs");
    go.send(()).expect("the request waits");
    assert_eq!(client.response().text(), "TimedOut after 5");
}

#[test]
fn a_malformed_chunk_is_an_error_to_the_reader() {
    let (began, go, run) = reading();
    let server = Server::start(unbuffered, run);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    began.recv().expect("the request runs");
    client.send("zz\r\n");
    go.send(()).expect("the request waits");
    let response = client.response();
    assert_eq!(response.text(), "InvalidData after 3");
    assert!(response.has("Connection: close"), "{}", response.head);
    assert!(client.is_closed());
}

#[test]
fn continue_is_sent_when_the_application_reads_and_not_before() {
    let (began, go, run) = reading();
    let server = Server::start(unbuffered, run);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    began.recv().expect("the request runs");
    client
        .stream
        .set_nonblocking(true)
        .expect("a socket can be non-blocking");
    assert!(
        client.stream.peek(&mut [0; 1]).is_err(),
        "nothing was read yet"
    );
    client
        .stream
        .set_nonblocking(false)
        .expect("a socket can be blocking");
    go.send(()).expect("the request waits");
    assert_eq!(client.response().status(), 100);
    assert_eq!(client.send("body").response().text(), "4");
}

#[test]
fn a_response_before_the_body_says_close_and_is_read_whole() {
    let server = Server::start(unbuffered, |thread, job| answer(thread, job, b"too much"));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n01234");
    let response = client.response();
    assert_eq!(response.text(), "too much");
    assert!(response.has("Connection: close"), "{}", response.head);
    // The client may go on for a moment without being reset.
    client.send(vec![b'x'; 100_000]);
    assert!(client.is_closed());
}

#[test]
fn a_client_that_leaves_frees_the_thread_that_reads() {
    let (began, go, run) = reading();
    let server = Server::start(
        |config| {
            unbuffered(config);
            config.workers.threads = 1;
        },
        run,
    );
    let mut client = server.connect();
    client.send("POST /left HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    began.recv().expect("the request runs");
    go.send(()).expect("the request waits");
    drop(client);
    let mut next = server.connect();
    next.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    began.recv().expect("the next request runs");
    go.send(()).expect("the request waits");
    assert_eq!(next.response().text(), "1");
}
