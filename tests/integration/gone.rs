//! Clients that leave while their request waits or runs.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use nix::sys::socket::{setsockopt, sockopt};

use crate::hold::{get, holding, let_the_loop_see};
use crate::support::{Client, Server, answer, eventually};

/// Close with a reset, as a crashed client does.
fn reset(client: Client) {
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&client.stream, sockopt::Linger, &at_once).expect("a socket option");
}

#[test]
fn a_queued_request_of_a_client_that_is_gone_never_runs_and_leaves_a_line() {
    let (hold, run) = holding();
    let server = Server::start(|config| config.workers.threads = 1, run);
    let (mut slow, mut queued) = (server.connect(), server.connect());
    hold.begin(&mut slow);
    get(&mut queued, "/queued");
    let mut behind = server.connect();
    get(&mut behind, "/behind");
    let_the_loop_see(&server);
    reset(queued);
    let_the_loop_see(&server);
    hold.release();
    assert_eq!(slow.response().text(), "done");
    assert_eq!(behind.response().text(), "done");
    let lines = server.log_lines(5).join("\n");
    assert!(lines.contains("GET /queued 499 0"), "{lines}");
    assert_eq!(hold.gone(), [false]);
    assert_eq!(hold.ran(), ["/hold", "/behind"]);
}

#[test]
fn a_running_request_can_ask_whether_its_client_is_gone() {
    let (hold, run) = holding();
    let server = Server::start(|_| {}, run);
    let mut slow = server.connect();
    hold.begin(&mut slow);
    reset(slow);
    let_the_loop_see(&server);
    hold.release();
    eventually(|| hold.ran() == ["/hold"]);
    assert_eq!(hold.gone(), [true]);
    assert!(server.log_lines(2).contains(&"GET /hold 499 0".to_owned()));
}

#[test]
fn a_client_that_has_only_closed_its_side_is_there_and_gets_its_answer() {
    let (hold, run) = holding();
    let server = Server::start(|config| config.workers.threads = 1, run);
    let (mut slow, mut queued) = (server.connect(), server.connect());
    hold.begin(&mut slow);
    get(&mut queued, "/queued");
    for client in [&slow, &queued] {
        client
            .stream
            .shutdown(std::net::Shutdown::Write)
            .expect("a socket has two sides");
    }
    let_the_loop_see(&server);
    hold.release();
    assert_eq!(slow.response().text(), "done");
    assert_eq!(queued.response().text(), "done");
    assert_eq!(hold.gone(), [false]);
    assert_eq!(hold.ran(), ["/hold", "/queued"]);
}

/// A descriptor of a socket that the application holds keeps it in the poll set after the loop has closed its own.
#[test]
fn what_happens_to_a_connection_that_is_over_does_not_concern_the_next_in_its_place() {
    let kept: Arc<Mutex<Vec<OwnedFd>>> = Arc::default();
    let (hold, run) = holding();
    let keep = kept.clone();
    let server = Server::start(
        |_| {},
        move |thread, mut job| {
            if job.head.target() != b"/keep" {
                return run(thread, job);
            }
            keep.lock().expect("no panic").extend(job.socket.take());
            job.response
                .push(b"Connection", b"close")
                .expect("a plain header");
            answer(thread, job, b"kept");
        },
    );
    let mut first = server.connect();
    first.send("GET /keep HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(first.response().text(), "kept");
    assert_eq!(kept.lock().expect("no panic").len(), 1);
    let mut second = server.connect();
    hold.begin(&mut second);
    reset(first);
    let_the_loop_see(&server);
    hold.release();
    assert_eq!(second.response().text(), "done");
}
