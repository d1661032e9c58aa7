//! Bodies in and out: lengths, chunks, spools, 100-continue, files, HEAD.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Barrier};

use ferricorn::pool::{Piece, Reply, StreamedResponse, Window};

use crate::support::{Server, answer, echo, eventually};

#[test]
fn a_chunked_body_arrives_whole() {
    let server = Server::start(|_| {}, echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.send("6;x=y\r\n world\r\n0\r\nX-Sum: t\r\n\r\n");
    assert_eq!(client.response().text(), "POST / hello world");
    assert_eq!(
        client
            .send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            .response()
            .text(),
        "GET /next "
    );
}

#[test]
fn what_is_pipelined_behind_a_body_is_no_part_of_it_whatever_memory_the_body_was_read_into() {
    let server = Server::start(|_| {}, echo);
    let mut client = server.connect();
    // Memory of the longer ones serves the shorter ones, and has room for what comes behind them.
    let bodies: Vec<String> = [120_000, 90_000, 17_000, 40_000, 16_384, 1, 30_000]
        .iter()
        .zip('a'..)
        .map(|(len, letter)| letter.to_string().repeat(*len))
        .collect();
    for _ in 0..3 {
        let requests = bodies.iter().map(|body| {
            let len = body.len();
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        });
        client.send(requests.collect::<String>());
        for body in &bodies {
            assert_eq!(client.response().text(), format!("POST / {body}"));
            assert_eq!(client.response().text(), "GET /next ");
        }
    }
}

#[test]
fn a_body_past_the_buffer_goes_through_a_file() {
    let server = Server::start(
        |config| config.limits.body_buffer_size = 1000,
        |thread, job| {
            assert!(
                matches!(job.body, ferricorn::pool::RequestBody::File { .. }),
                "spooled"
            );
            echo(thread, job);
        },
    );
    let mut client = server.connect();
    let body = "0123456789".repeat(100_000);
    client.send(format!(
        "PUT /big HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.response().text(), format!("PUT /big {body}"));
}

#[test]
fn one_hundred_continue_is_sent_when_the_body_is_wanted_and_only_then() {
    let server = Server::start(|config| config.limits.limit_request_body = 10, echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.response().status(), 100);
    assert_eq!(client.send("ok").response().text(), "POST / ok");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n");
    assert_eq!(client.response().status(), 413);
    assert!(client.is_closed());
}

#[test]
fn head_has_the_length_but_not_the_body() {
    let server = Server::start(|_| {}, |thread, job| answer(thread, job, b"content"));
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let all = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(
        all.contains("Content-Length: 7\r\n") && all.ends_with("\r\n\r\n"),
        "{all}"
    );
}

#[test]
fn a_large_body_of_many_pieces_and_a_file_arrive_in_order() {
    let server = Server::start(
        |_| {},
        |thread, mut job| {
            let mut file = tempfile::tempfile().expect("a temporary file");
            file.write_all(&vec![b'f'; 300_000]).expect("room");
            job.response.set_status(b"200 OK").expect("a status");
            job.response_body.bytes.extend_from_slice(b"start");
            job.response_body
                .pieces
                .push(Piece::Bytes(vec![b'p'; 3_000_000]));
            job.response_body.pieces.push(Piece::File {
                file: file.into(),
                offset: 0,
                len: 300_000,
                owner: None,
            });
            job.response_body.pieces.push(Piece::Bytes(b"end".to_vec()));
            thread.pool().send(Reply::Whole(job));
        },
    );
    let mut client = server.connect();
    let body = client
        .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .response()
        .body;
    assert_eq!(body.len(), 5 + 3_000_000 + 300_000 + 3);
    assert!(body.starts_with(b"startp") && body.ends_with(b"fend"));
}

#[test]
fn a_file_that_is_shorter_than_declared_resets_the_connection() {
    let server = Server::start(
        |_| {},
        |thread, mut job| {
            let mut file = tempfile::tempfile().expect("a temporary file");
            file.write_all(b"short").expect("room");
            job.response.set_status(b"200 OK").expect("a status");
            job.response_body.pieces.push(Piece::File {
                file: file.into(),
                offset: 0,
                len: 100,
                owner: None,
            });
            thread.pool().send(Reply::Whole(job));
        },
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.ends_in_reset());
}

#[test]
fn a_stream_is_chunked_as_it_comes_and_an_abort_leaves_it_unfinished() {
    let server = Server::start(
        |_| {},
        |thread, mut job| {
            let window = Arc::new(Window::new(1024));
            let mut response = std::mem::take(&mut job.response);
            response.set_status(b"200 OK").expect("a status");
            let streaming = Box::new(StreamedResponse {
                response,
                window: window.clone(),
            });
            thread.pool().send(Reply::Head(job.conn, streaming));
            for piece in ["one", "two"] {
                window.add(piece.len()).expect("the client is there");
                thread.pool().send(Reply::Data(
                    job.conn,
                    Piece::Bytes(piece.as_bytes().to_vec()),
                ));
            }
            let broken = job.head.target() == b"/broken";
            thread.pool().send(if broken {
                Reply::Abort(job)
            } else {
                Reply::End(job)
            });
        },
    );
    let mut client = server.connect();
    let response = client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response();
    assert!(response.has("Transfer-Encoding: chunked"));
    assert_eq!(response.text(), "onetwo");
    client.send("GET /broken HTTP/1.1\r\nHost: a\r\n\r\n");
    let all = client.rest();
    assert!(
        all.ends_with(b"3\r\none\r\n3\r\ntwo\r\n"),
        "{}",
        String::from_utf8_lossy(&all)
    );
    assert_eq!(server.log_lines(2), ["GET / 200 6", "GET /broken 200 6"]);
}

#[test]
fn an_application_that_fails_before_the_first_byte_is_a_500() {
    let server = Server::start(|_| {}, |thread, job| thread.pool().send(Reply::Abort(job)));
    let mut client = server.connect();
    assert_eq!(
        client
            .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .response()
            .status(),
        500
    );
    let mut byte = [0];
    assert_eq!(client.stream.read(&mut byte).expect("an end"), 0);
}

#[test]
fn a_client_that_sends_on_after_a_refusal_gets_the_page_and_no_reset() {
    let server = Server::start(|config| config.limits.limit_request_body = 10, echo);
    for closes_its_side in [false, true] {
        for body_bytes in [1000, 200_000, 3_000_000] {
            let mut client = server.connect();
            let mut request =
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n".to_vec();
            request.resize(request.len() + body_bytes, b'x');
            client.send(request);
            if closes_its_side {
                client
                    .stream
                    .shutdown(Shutdown::Write)
                    .expect("a side can be closed");
            }
            // A reset would be an error here.
            let page = client.rest();
            assert!(page.starts_with(b"HTTP/1.1 413 "), "{body_bytes}");
        }
    }
}

#[test]
fn a_client_that_sends_on_behind_a_last_request_and_closes_its_side_is_not_reset() {
    let gate = Arc::new(Barrier::new(2));
    let opened = gate.clone();
    let server = Server::start(
        |_| {},
        move |thread, job| {
            if job.head.target() == b"/last" {
                opened.wait();
            }
            answer(thread, job, b"the last answer");
        },
    );
    let mut client = server.connect();
    client.send("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.send("GET /unread HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000));
    client
        .stream
        .shutdown(Shutdown::Write)
        .expect("a side can be closed");
    // Once another client is answered the loop has seen that.
    let mut other = server.connect();
    other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response();
    gate.wait();
    assert!(client.rest().ends_with(b"the last answer"));
}

/// The memory of a body counts for as long as the body is there, also when its client has gone.
#[test]
fn bodies_of_clients_that_are_gone_still_count() {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    let (open, waiting) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let spooled = Arc::new(Mutex::new(Vec::new()));
    let (gate, count, seen) = (open.clone(), waiting.clone(), spooled.clone());
    let server = Server::start(
        |config| {
            config.workers.threads = 3;
            config.limits.body_buffer_size = 1000;
            config.limits.body_buffer_total = 1500;
        },
        move |thread, job| {
            let is_file = matches!(job.body, ferricorn::pool::RequestBody::File { .. });
            seen.lock().expect("no panic").push(is_file);
            count.fetch_add(1, Ordering::SeqCst);
            eventually(|| gate.load(Ordering::SeqCst));
            answer(thread, job, b"");
        },
    );
    let post = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n{}",
        "x".repeat(900)
    );
    let mut gone = server.connect();
    gone.send(&post);
    eventually(|| waiting.load(Ordering::SeqCst) == 1);
    let reset = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&gone.stream, nix::sys::socket::sockopt::Linger, &reset)
        .expect("an option");
    drop(gone);
    // Accepted and read behind the end of the first, so the worker knows of it.
    server.connect().send("x\n").response();
    let mut second = server.connect();
    second.send(&post);
    eventually(|| waiting.load(Ordering::SeqCst) == 2);
    open.store(true, Ordering::SeqCst);
    second.response();
    server.log_lines(3);
    server.connect().send(&post).response();
    assert_eq!(*spooled.lock().expect("no panic"), [false, true, false]);
}
