//! More requests than threads: who waits, for how long, and who is sent away.

use std::time::{Duration, Instant};

use crate::hold::{get, holding, let_the_loop_see};
use crate::support::{Client, Server};

#[test]
fn a_request_that_waited_too_long_is_answered_with_503_and_never_run() {
    let (hold, run) = holding();
    let server = Server::start(
        |config| {
            config.workers.threads = 1;
            config.workers.queue_timeout = Some(Duration::from_millis(100));
        },
        run,
    );
    let (mut slow, mut queued) = (server.connect(), server.connect());
    hold.begin(&mut slow);
    let sent = Instant::now();
    get(&mut queued, "/queued");
    let refused = queued.response();
    let waited = sent.elapsed();
    assert_eq!(refused.status(), 503);
    assert!(refused.has("Retry-After: 1"), "{}", refused.head);
    assert!(
        refused.has("Connection: keep-alive"),
        "the client did nothing wrong: {}",
        refused.head
    );
    assert!(refused.text().contains("waited too long"));
    assert!(waited >= Duration::from_millis(95), "{waited:?}");
    assert!(waited < Duration::from_millis(1000), "{waited:?}");
    hold.release();
    assert_eq!(slow.response().status(), 200);
    get(&mut queued, "/again");
    assert_eq!(queued.response().status(), 200);
    assert_eq!(hold.ran(), ["/hold", "/again"]);
    let log = server.log_lines(3);
    assert!(log[0].starts_with("GET /queued 503 "), "{log:?}");
}

#[test]
fn more_requests_than_may_wait_are_answered_with_503_at_once() {
    let (hold, run) = holding();
    let server = Server::start(
        |config| {
            config.workers.threads = 1;
            config.workers.max_queue = 1;
        },
        run,
    );
    let mut slow = server.connect();
    hold.begin(&mut slow);
    let mut waiting = server.connect();
    get(&mut waiting, "/waiting");
    let_the_loop_see(&server);
    let mut head = server.connect();
    head.send("HEAD /head HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let rest = String::from_utf8(head.rest()).expect("text");
    assert!(rest.starts_with("HTTP/1.1 503 "), "{rest}");
    assert!(rest.contains("\r\nConnection: close\r\n"), "{rest}");
    assert!(rest.ends_with("\r\n\r\n"), "no body: {rest}");
    // One that pipelines is answered in order, as often as it asks.
    let mut pipelining = server.connect();
    let asked = "GET /more HTTP/1.1\r\nHost: a\r\n\r\n".repeat(300);
    pipelining.send(asked);
    for _ in 0..300 {
        let refused = pipelining.response();
        assert_eq!(refused.status(), 503);
        assert!(refused.has("Retry-After: 1"), "{}", refused.head);
    }
    hold.release();
    assert_eq!(slow.response().status(), 200);
    assert_eq!(waiting.response().status(), 200);
    assert_eq!(hold.ran(), ["/hold", "/waiting"]);
}

#[test]
fn a_refused_request_with_a_body_leaves_the_connection_in_order() {
    let (hold, run) = holding();
    let server = Server::start(
        |config| {
            config.workers.threads = 1;
            config.workers.queue_timeout = Some(Duration::from_millis(50));
        },
        run,
    );
    let (mut slow, mut queued) = (server.connect(), server.connect());
    hold.begin(&mut slow);
    queued.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(queued.response().status(), 503);
    queued.send(
        "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    assert_eq!(queued.response().status(), 503);
    hold.release();
    assert_eq!(slow.response().status(), 200);
    queued.send("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(queued.response().status(), 200);
}

#[test]
fn requests_run_in_the_order_in_which_they_were_whole() {
    let (hold, run) = holding();
    let server = Server::start(|config| config.workers.threads = 1, run);
    let mut slow = server.connect();
    hold.begin(&mut slow);
    // The first to begin is the last to be whole.
    let mut late = server.connect();
    late.send("GET /late HTTP/1.1\r\nHo");
    let_the_loop_see(&server);
    let mut clients: Vec<Client> = (0..20)
        .map(|number| {
            let mut client = server.connect();
            get(&mut client, &format!("/{number}"));
            let_the_loop_see(&server);
            client
        })
        .collect();
    late.send("st: a\r\n\r\n");
    let_the_loop_see(&server);
    hold.release();
    for client in clients.iter_mut().chain([&mut slow, &mut late]) {
        assert_eq!(client.response().status(), 200);
    }
    let mut order = vec!["/hold".to_owned()];
    order.extend((0..20).map(|number| format!("/{number}")));
    order.push("/late".to_owned());
    assert_eq!(hold.ran(), order);
}

#[test]
fn a_client_that_pipelines_gets_one_turn_like_everybody() {
    let (hold, run) = holding();
    let server = Server::start(|config| config.workers.threads = 1, run);
    let mut slow = server.connect();
    hold.begin(&mut slow);
    let mut greedy = server.connect();
    greedy.send("GET /greedy HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50));
    let_the_loop_see(&server);
    let mut modest: Vec<Client> = (0..5)
        .map(|_| {
            let mut client = server.connect();
            get(&mut client, "/modest");
            client
        })
        .collect();
    let_the_loop_see(&server);
    hold.release();
    for client in &mut modest {
        assert_eq!(client.response().status(), 200);
    }
    for _ in 0..50 {
        assert_eq!(greedy.response().status(), 200);
    }
    let seen = hold.ran();
    let before: Vec<&str> = seen[1..7].iter().map(String::as_str).collect();
    assert_eq!(
        before,
        [
            "/greedy", "/modest", "/modest", "/modest", "/modest", "/modest"
        ]
    );
}
