//! Stopping: what is under way is finished, what is idle is closed, and it ends in time.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ferricorn::pool::{Job, PoolThread};

use crate::support::{Server, answer};

const TERM: i32 = 15;
const QUIT: i32 = 3;

/// Answers when the test lets it; `/fast` at once.
#[expect(
    clippy::type_complexity,
    reason = "an application, and the two ends the test holds"
)]
fn gated() -> (
    impl Fn(&PoolThread, Box<Job>) + Send + Sync,
    Receiver<()>,
    Sender<()>,
) {
    let (began, began_at) = channel();
    let (go, go_at) = channel();
    let (began, go_at) = (Arc::new(Mutex::new(began)), Arc::new(Mutex::new(go_at)));
    let run = move |thread: &PoolThread, job: Box<Job>| {
        if job.head.target() != b"/fast" {
            began
                .lock()
                .expect("no panic")
                .send(())
                .expect("the test waits");
            // A test that is over lets everything go.
            let _ = go_at.lock().expect("no panic").recv();
        }
        answer(thread, job, b"done");
    };
    (run, began_at, go)
}

#[test]
fn term_finishes_what_is_under_way_and_says_close() {
    let (run, began, go) = gated();
    let server = Server::start(|_| {}, run);
    let (mut idle, mut busy) = (server.connect(), server.connect());
    idle.send("GET /fast HTTP/1.1\r\nHost: a\r\n\r\n")
        .response();
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    began.recv().expect("the request runs");
    server.signal(TERM);
    assert!(idle.is_closed(), "an idle connection is closed at once");
    go.send(()).expect("the request waits");
    let response = busy.response();
    assert_eq!(response.text(), "done");
    assert!(response.has("Connection: close"), "{}", response.head);
    assert!(busy.is_closed());
    let exit = server.join();
    assert_eq!((exit.code, exit.stuck_threads), (0, 0));
}

#[test]
fn a_request_that_outlasts_graceful_timeout_is_cut_and_its_thread_reported() {
    let (run, began, _go) = gated();
    let server = Server::start(
        |config| config.workers.graceful_timeout = Duration::from_millis(200),
        run,
    );
    let mut busy = server.connect();
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    began.recv().expect("the request runs");
    server.signal(TERM);
    assert!(busy.is_closed());
    assert_eq!(server.join().stuck_threads, 1);
}

#[test]
fn quit_does_not_wait() {
    let (run, began, _go) = gated();
    let server = Server::start(|_| {}, run);
    let mut busy = server.connect();
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    began.recv().expect("the request runs");
    let start = Instant::now();
    server.signal(QUIT);
    assert!(busy.is_closed());
    server.join();
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn connections_that_wait_in_the_accept_queue_are_served_before_the_worker_leaves() {
    let (run, began, go) = gated();
    let server = Server::start(|config| config.workers.worker_connections = 1, run);
    let mut first = server.connect();
    first.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    began.recv().expect("the request runs");
    let mut waiting: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.send("GET /fast HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    server.signal(TERM);
    go.send(()).expect("the request waits");
    assert_eq!(first.response().text(), "done");
    for client in &mut waiting {
        assert_eq!(client.response().text(), "done");
    }
    assert_eq!(server.join().code, 0);
}
