//! A line of the access log: gunicorn's default format and JSON, for a small request and for a browser's.

#[path = "heads.rs"]
mod heads;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ferricorn::config::Config;
use ferricorn::http::{HeadScan, Limits, RequestHead, ResponseHead, parse_head};
use ferricorn::logging::access::{AccessEntry, AccessFormat};

fn head(bytes: &[u8]) -> RequestHead {
    let mut head = RequestHead::default();
    let mut scan = HeadScan::default();
    let parsed = parse_head(bytes, &mut scan, &Limits::default(), &mut head);
    assert!(parsed.is_ok_and(|end| end.is_some()), "the head is whole");
    head
}

fn entry<'a>(head: &'a RequestHead, response: &'a ResponseHead) -> AccessEntry<'a> {
    AccessEntry {
        peer: "192.0.2.17",
        peer_port: Some(50_123),
        method: head.method(),
        target: head.target(),
        path: head.path(),
        script_name: b"",
        query: head.query(),
        version: head.version().as_str(),
        is_https: false,
        tls: None,
        server: ("192.0.2.1", "8000"),
        request: head,
        status: 200,
        response,
        environ: &[],
        bytes_received: Some(0),
        bytes_sent: 14,
        duration: Duration::from_micros(1234),
        gil_wait: None,
        queued: Some(Duration::from_micros(56)),
        now: (1_795_170_148, 123_456_789),
        pid: 4242,
        worker: 1,
        connection: (17, 3),
        request_id: b"6f0d9c1e5b7a4f2390ab12cd34ef5678",
        trace: None,
        reason: "",
    }
}

fn lines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("access log line");
    group.throughput(Throughput::Elements(1));
    let usual = Config::default().access_log.access_log_format;
    let response = ResponseHead::default();
    for (form, format) in [("combined", usual.as_str()), ("json", "json")] {
        let format = AccessFormat::compile(format).expect("a format");
        for (size, bytes) in [("short", heads::SHORT), ("realistic", heads::REALISTIC)] {
            let head = head(bytes);
            let entry = entry(&head, &response);
            let mut out = Vec::with_capacity(64 * 1024);
            group.bench_function(format!("{form}, {size}"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    format.write(&entry, &mut out);
                    out.len()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lines);
criterion_main!(benches);
