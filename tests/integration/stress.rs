//! The pool under stress: many connections, few threads, no lost wake-up and no mixed-up answer.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{DEADLINE, Server, echo};

#[test]
fn every_request_of_many_clients_gets_its_own_answer() {
    for threads in [1, 2, 8] {
        let server = Server::start(|config| config.threads = threads, echo);
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
