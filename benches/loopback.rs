//! A whole worker in this process, asked over loopback by one client: sockets, parser, loop, pool, encoder.
//!
//! `cargo bench --no-default-features --bench loopback`

#[expect(dead_code, reason = "made for the integration tests, which use more")]
#[path = "../tests/integration/support.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{Server, answer};

const REQUEST: &[u8] =
    b"GET /hello HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
const BODY: &[u8] = b"Hello, world!";

/// One connection whose answers are all of one length, so that they can be counted without being parsed.
struct Asker {
    stream: TcpStream,
    burst: Vec<u8>,
    answers: Vec<u8>,
}

impl Asker {
    fn new(server: &Server, pipelined: usize) -> Self {
        let mut stream = server.connect().stream;
        stream
            .set_nodelay(true)
            .expect("a socket can do without delay");
        stream.write_all(REQUEST).expect("the worker reads");
        let mut first = Vec::new();
        let mut buffer = [0; 1024];
        while !first.ends_with(BODY) {
            let len = stream.read(&mut buffer).expect("the worker answers");
            first.extend_from_slice(&buffer[..len]);
        }
        Self {
            stream,
            burst: REQUEST.repeat(pipelined),
            answers: vec![0; first.len() * pipelined],
        }
    }

    fn ask(&mut self) {
        self.stream
            .write_all(&self.burst)
            .expect("the worker reads");
        self.stream
            .read_exact(&mut self.answers)
            .expect("the worker answers");
        assert!(
            self.answers.ends_with(BODY),
            "the answers are of one length"
        );
    }
}

fn loopback(criterion: &mut Criterion) {
    let server = Server::start(|_| {}, |seat, job| answer(seat, job, BODY));
    let mut group = criterion.benchmark_group("loopback");
    for pipelined in [1, 16] {
        group.throughput(Throughput::Elements(pipelined as u64));
        group.bench_function(format!("{pipelined} request(s) at a time"), |bencher| {
            let mut asker = Asker::new(&server, pipelined);
            bencher.iter(|| asker.ask());
        });
    }
    group.finish();
}

criterion_group!(benches, loopback);
criterion_main!(benches);
