//! Clients that leave while their request waits or runs.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use ferricorn::pool::{Job, PoolThread};
use nix::sys::socket::{setsockopt, sockopt::Linger};

use crate::support::{Client, Server, answer, eventually};

type Seen = Arc<Mutex<Vec<String>>>;

/// Notes each target; `/slow` says that it began and waits for the test, then notes whether its client is gone.
#[expect(
    clippy::type_complexity,
    reason = "an application, and the ends the test holds"
)]
fn noting() -> (
    Seen,
    Receiver<()>,
    Sender<()>,
    impl Fn(&PoolThread, Box<Job>) + Send + Sync,
) {
    let seen = Seen::default();
    let (began, began_at) = channel();
    let (go, go_at) = channel();
    let (began, go_at) = (Mutex::new(began), Mutex::new(go_at));
    let noted = seen.clone();
    let run = move |thread: &PoolThread, job: Box<Job>| {
        let note = |text: String| noted.lock().expect("no panic").push(text);
        let target = String::from_utf8_lossy(job.head.target()).into_owned();
        if target == "/slow" {
            began
                .lock()
                .expect("no panic")
                .send(())
                .expect("the test waits");
            // A test that is over lets everything go.
            let _ = go_at.lock().expect("no panic").recv();
            note(format!("gone: {}", thread.pool().is_gone(job.conn)));
        }
        note(target);
        answer(thread, job, b"done");
    };
    (seen, began_at, go, run)
}

fn get(client: &mut Client, target: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
}

/// The loop has handled what came before when it has refused something that came after; no thread is needed for that.
fn let_the_loop_see(server: &Server) {
    server.connect().send("BAD\r\n\r\n").response();
}

/// Close with a reset, as a crashed client does.
fn reset(client: Client) {
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&client.stream, Linger, &at_once).expect("a socket option");
}

#[test]
fn a_queued_request_of_a_client_that_is_gone_never_runs_and_leaves_a_line() {
    let (seen, began, go, run) = noting();
    let server = Server::start(|config| config.workers.threads = 1, run);
    let (mut slow, mut queued) = (server.connect(), server.connect());
    get(&mut slow, "/slow");
    began.recv().expect("the request runs");
    get(&mut queued, "/queued");
    let mut behind = server.connect();
    get(&mut behind, "/behind");
    let_the_loop_see(&server);
    reset(queued);
    let_the_loop_see(&server);
    go.send(()).expect("the request waits");
    assert_eq!(slow.response().text(), "done");
    assert_eq!(behind.response().text(), "done");
    let lines = server.log_lines(5).join("\n");
    assert!(lines.contains("GET /queued 499 0"), "{lines}");
    assert_eq!(
        *seen.lock().expect("no panic"),
        ["gone: false", "/slow", "/behind"]
    );
}

#[test]
fn a_running_request_can_ask_whether_its_client_is_gone() {
    let (seen, began, go, run) = noting();
    let server = Server::start(|_| {}, run);
    let mut slow = server.connect();
    get(&mut slow, "/slow");
    began.recv().expect("the request runs");
    reset(slow);
    let_the_loop_see(&server);
    go.send(()).expect("the request waits");
    eventually(|| seen.lock().expect("no panic").len() == 2);
    assert_eq!(*seen.lock().expect("no panic"), ["gone: true", "/slow"]);
    assert!(server.log_lines(2).contains(&"GET /slow 499 0".to_owned()));
}

#[test]
fn a_client_that_has_only_closed_its_side_is_there_and_gets_its_answer() {
    let (seen, began, go, run) = noting();
    let server = Server::start(|config| config.workers.threads = 1, run);
    let (mut slow, mut queued) = (server.connect(), server.connect());
    get(&mut slow, "/slow");
    began.recv().expect("the request runs");
    get(&mut queued, "/queued");
    for client in [&slow, &queued] {
        client
            .stream
            .shutdown(std::net::Shutdown::Write)
            .expect("a socket has two sides");
    }
    let_the_loop_see(&server);
    go.send(()).expect("the request waits");
    assert_eq!(slow.response().text(), "done");
    assert_eq!(queued.response().text(), "done");
    assert_eq!(
        *seen.lock().expect("no panic"),
        ["gone: false", "/slow", "/queued"]
    );
}

/// Somebody else's descriptor of a socket keeps it in the poll set after the loop has closed its own.
#[test]
fn what_happens_to_a_connection_that_is_over_does_not_concern_the_next_in_its_place() {
    let kept: Arc<Mutex<Vec<OwnedFd>>> = Arc::default();
    let (_, began, go, run) = noting();
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
    get(&mut second, "/slow");
    began.recv().expect("the request runs");
    reset(first);
    let_the_loop_see(&server);
    go.send(()).expect("the request waits");
    assert_eq!(second.response().text(), "done");
}
