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

const REQUEST: &str =
    "GET /hello HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
const BODY: &[u8] = b"Hello, world!";

/// One connection whose answers are all of one length, so that they can be counted without being parsed.
struct Asker {
    stream: TcpStream,
    burst: Vec<u8>,
    answers: Vec<u8>,
}

impl Asker {
    fn new(server: &Server, request: &str, body: &[u8], pipelined: usize) -> Self {
        let mut stream = server.connect().stream;
        stream
            .set_nodelay(true)
            .expect("a socket can do without delay");
        stream
            .write_all(request.as_bytes())
            .expect("the worker reads");
        let mut first = Vec::new();
        let mut buffer = [0; 65536];
        while !first.ends_with(body) {
            let len = stream.read(&mut buffer).expect("the worker answers");
            first.extend_from_slice(&buffer[..len]);
        }
        Self {
            stream,
            burst: request.as_bytes().repeat(pipelined),
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
    }
}

fn loopback(criterion: &mut Criterion) {
    let server = Server::start(|_| {}, |thread, job| answer(thread, job, BODY));
    let mut group = criterion.benchmark_group("loopback");
    for pipelined in [1, 16] {
        group.throughput(Throughput::Elements(pipelined as u64));
        group.bench_function(format!("{pipelined} request(s) at a time"), |bencher| {
            let mut asker = Asker::new(&server, REQUEST, BODY, pipelined);
            bencher.iter(|| asker.ask());
        });
    }
    // Both ways of a body: into memory that is used again, and through the write buffer.
    let len = 64 * 1024;
    let body = "x".repeat(len);
    let upload = format!("POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}");
    let generous = Server::start(
        |_| {},
        move |thread, job| answer(thread, job, body.as_bytes()),
    );
    let large = vec![b'x'; len];
    group.throughput(Throughput::Bytes(len as u64));
    group.bench_function("64 KiB of request", |bencher| {
        let mut asker = Asker::new(&server, &upload, BODY, 1);
        bencher.iter(|| asker.ask());
    });
    group.bench_function("64 KiB of response", |bencher| {
        let mut asker = Asker::new(&generous, REQUEST, &large, 1);
        bencher.iter(|| asker.ask());
    });
    group.finish();
}

criterion_group!(benches, loopback);
criterion_main!(benches);
