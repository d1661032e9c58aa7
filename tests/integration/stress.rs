//! The pool under stress: many connections, few threads, no lost wake-up and no mixed-up answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};

use crate::support::{DEADLINE, Server, echo};

#[test]
fn every_request_of_many_clients_gets_its_own_answer() {
    for threads in [1, 2, 8] {
        let server = Server::start(|config| config.workers.threads = threads, echo);
        let address = server.address;
        std::thread::scope(|scope| {
            for client in 0..32 {
                scope.spawn(move || {
                    let mut stream = TcpStream::connect(address).expect("the worker accepts");
                    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
                    for number in 0..200 {
                        let target = format!("/{client}/{number}");
                        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
                        stream
                            .write_all(request.as_bytes())
                            .expect("the worker reads");
                        let expected = format!("GET {target} ");
                        let mut text = String::new();
                        while !text.ends_with(&expected) {
                            let mut buffer = [0; 1024];
                            let len = stream
                                .read(&mut buffer)
                                .expect("an answer within the deadline");
                            assert!(len > 0, "the connection closed after {text:?}");
                            text.push_str(&String::from_utf8_lossy(&buffer[..len]));
                        }
                    }
                });
            }
        });
        assert_eq!(server.log_lines(32 * 200).len(), 32 * 200);
    }
}

/// Eight clients at once, each with so many requests.
fn hammer(server: &Server, requests: usize) {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = server.connect();
                for _ in 0..requests {
                    client.send("GET /short HTTP/1.1\r\nHost: a\r\n\r\n");
                    assert_eq!(client.response().text(), "GET /short ");
                }
            });
        }
    });
}

#[test]
fn threads_held_up_among_fast_requests_hold_up_nobody_else() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let opened = gate.clone();
    let server = Server::start(
        |config| config.workers.threads = 4,
        move |thread, job| {
            if job.head.target() == b"/held" {
                let (is_open, changed) = &*opened;
                let lock = is_open.lock().expect("nobody panicked");
                drop(changed.wait_while(lock, |is_open| !*is_open));
            }
            echo(thread, job);
        },
    );
    // After this many the pool takes all requests for fast ones.
    hammer(&server, 100);
    let mut held: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut held {
        client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
        hammer(&server, 100);
    }
    *gate.0.lock().expect("nobody panicked") = true;
    gate.1.notify_all();
    for client in &mut held {
        assert_eq!(client.response().text(), "GET /held ");
    }
}

#[test]
fn requests_that_wait_a_little_are_run_by_all_threads() {
    let seen = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let threads = seen.clone();
    let server = Server::start(
        |config| config.workers.threads = 4,
        move |thread, job| {
            // Far less than a slow request, but the thread has no use for its processor meanwhile.
            std::thread::sleep(std::time::Duration::from_micros(100));
            threads
                .lock()
                .expect("nobody panicked")
                .insert(thread.index());
            echo(thread, job);
        },
    );
    // After this many the pool knows how long they last.
    hammer(&server, 200);
    seen.lock().expect("nobody panicked").clear();
    hammer(&server, 100);
    assert_eq!(seen.lock().expect("nobody panicked").len(), 4);
}
