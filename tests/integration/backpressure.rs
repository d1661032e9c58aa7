//! Streams that are faster than their reader, and what they must not hold up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferricorn::pool::{Piece, Reply, StreamedResponse, Window};

use crate::support::{Server, echo, eventually};

const STEP: usize = 64 * 1024;
const STEPS: usize = 1024;

/// Streams 64 MiB, counts the pieces that were sent and whether the client was gone.
fn streaming_server(handed: &Arc<AtomicUsize>, gone: &Arc<AtomicUsize>) -> Server {
    let (handed, gone) = (handed.clone(), gone.clone());
    Server::start(
        |_| {},
        move |thread, mut job| {
            if job.head.target() != b"/stream" {
                return echo(thread, job);
            }
            let window = Arc::new(Window::new(4 * STEP));
            let mut response = std::mem::take(&mut job.response);
            response.set_status(b"200 OK").expect("a status");
            thread.pool().send(Reply::Head(
                job.conn,
                Box::new(StreamedResponse {
                    response,
                    window: window.clone(),
                }),
            ));
            for _ in 0..STEPS {
                let added = window.add(STEP);
                if let Ok(must_wait) = added {
                    thread
                        .pool()
                        .send(Reply::Data(job.conn, Piece::Bytes(vec![b's'; STEP])));
                    handed.fetch_add(1, Ordering::Relaxed);
                    if !must_wait || window.wait().is_ok() {
                        continue;
                    }
                }
                gone.fetch_add(1, Ordering::Relaxed);
                return thread.pool().send(Reply::Abort(job));
            }
            thread.pool().send(Reply::End(job));
        },
    )
}

#[test]
fn a_slow_reader_holds_its_thread_back_and_then_gets_everything() {
    let (handed, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = streaming_server(&handed, &gone);
    let mut client = server.connect();
    client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually(|| handed.load(Ordering::Relaxed) > 4);
    // While the one thread waits for its window, the other serves.
    for _ in 0..100 {
        assert_eq!(
            server
                .connect()
                .send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
                .response()
                .text(),
            "GET /x "
        );
    }
    assert!(
        handed.load(Ordering::Relaxed) < STEPS,
        "the stream was held back"
    );
    assert_eq!(client.response().body.len(), STEP * STEPS);
    assert_eq!(gone.load(Ordering::Relaxed), 0);
}

#[test]
fn a_reader_that_goes_away_frees_the_thread_that_waits_for_it() {
    let (handed, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = streaming_server(&handed, &gone);
    let mut client = server.connect();
    client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually(|| handed.load(Ordering::Relaxed) > 4);
    drop(client);
    eventually(|| gone.load(Ordering::Relaxed) == 1);
}

#[test]
fn connections_past_the_limit_wait_and_idle_ones_make_room() {
    let server = Server::start(|config| config.workers.worker_connections = 4, echo);
    let mut idle: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut idle {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response();
    }
    for number in 0..20 {
        let mut client = server.connect();
        let response = client
            .send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .response();
        assert_eq!(response.text(), format!("GET /{number} "));
    }
    assert!(idle[0].is_closed(), "the oldest idle connection made room");
}
