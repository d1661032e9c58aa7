//! The HTTP core alone: head parsing, chunked decoding, response encoding.
//!
//! `cargo bench --no-default-features --bench http`

#[path = "heads.rs"]
mod heads;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ferricorn::http::{
    BodySize, ChunkedDecoder, Exchange, HeadScan, HeaderPolicy, Limits, Piece, Received,
    RequestHead, ResponseDefaults, ResponseHead, Underscores, parse_head,
};

use heads::{REALISTIC, SHORT};

fn parse_heads(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut head = RequestHead::default();
    let mut group = criterion.benchmark_group("head");
    for (name, bytes) in [("short", SHORT), ("realistic", REALISTIC)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("{name}/whole"), |bencher| {
            bencher.iter(|| {
                parse_head(
                    black_box(bytes),
                    &mut HeadScan::default(),
                    &limits,
                    &mut head,
                )
                .is_ok_and(|head| head.is_some())
            });
        });
        group.bench_function(format!("{name}/two arrivals"), |bencher| {
            bencher.iter(|| {
                let mut scan = HeadScan::default();
                let early = parse_head(
                    black_box(&bytes[..bytes.len() / 2]),
                    &mut scan,
                    &limits,
                    &mut head,
                );
                let late = parse_head(black_box(bytes), &mut scan, &limits, &mut head);
                early.is_ok() && late.is_ok_and(|head| head.is_some())
            });
        });
    }
    group.finish();
}

/// What the header policy costs for a head in which only the scheme matters.
fn policy(criterion: &mut Criterion) {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let policy = HeaderPolicy::new(
        Underscores::Drop,
        &["SCRIPT_NAME".to_owned(), "PATH_INFO".to_owned()],
        &[
            pair("X-FORWARDED-PROTOCOL", "ssl"),
            pair("X-FORWARDED-PROTO", "https"),
            pair("X-FORWARDED-SSL", "on"),
        ],
        b"",
    );
    let mut group = criterion.benchmark_group("policy");
    for (name, bytes) in [("short", SHORT), ("realistic", REALISTIC)] {
        let mut head = RequestHead::default();
        let parsed = parse_head(
            bytes,
            &mut HeadScan::default(),
            &Limits::default(),
            &mut head,
        );
        assert!(parsed.is_ok_and(|end| end.is_some()), "the head is whole");
        group.bench_function(name, |bencher| {
            bencher.iter(|| policy.apply(black_box(&mut head), true, |_| {}).is_ok());
        });
    }
    group.finish();
}

fn chunked(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut group = criterion.benchmark_group("chunked");
    for (name, size) in [("16 B chunks", 16), ("8 KiB chunks", 8192)] {
        let mut body = Vec::new();
        while body.len() < 256 * 1024 {
            body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
            body.resize(body.len() + size, b'x');
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut decoder = ChunkedDecoder::default();
                let (mut at, mut sum) = (0, 0);
                while let Ok((consumed, Piece::Data(range))) =
                    decoder.decode(black_box(&body[at..]), &limits)
                {
                    at += consumed;
                    sum += range.len();
                }
                sum
            });
        });
    }
    group.finish();
}

fn push_fields(head: &mut ResponseHead) {
    head.clear();
    let pushed = head
        .set_status(b"200 OK")
        .and_then(|()| head.push(b"Content-Type", b"text/html; charset=utf-8"))
        .and_then(|()| head.push(b"Content-Length", b"13"))
        .and_then(|()| head.push(b"Vary", b"Cookie"))
        .and_then(|()| head.push(b"X-Frame-Options", b"DENY"))
        .and_then(|()| {
            head.push(
                b"Set-Cookie",
                b"session=0123456789abcdef; HttpOnly; Path=/; SameSite=Lax",
            )
        });
    assert!(pushed.is_ok(), "every field of this response is valid");
}

fn responses(criterion: &mut Criterion) {
    let limits = Limits::default();
    let defaults = ResponseDefaults {
        server: b"ferricorn",
        date: b"Thu, 01 Jan 1970 00:00:00 GMT",
    };
    let mut request = RequestHead::default();
    let mut response = ResponseHead::default();
    let mut out = Vec::new();
    let mut group = criterion.benchmark_group("response");
    group.bench_function("push six fields", |bencher| {
        bencher.iter(|| push_fields(black_box(&mut response)))
    });
    push_fields(&mut response);
    let mut dispatched = Exchange::default();
    while !matches!(dispatched.receive(SHORT, &limits, &mut request), Ok(step) if step.received == Received::Whole)
    {
    }
    dispatched.respond(&response, BodySize::Exact(13), &defaults, &mut out);
    group.throughput(Throughput::Bytes(out.len() as u64));
    group.bench_function("a whole exchange", |bencher| {
        bencher.iter(|| {
            out.clear();
            let mut exchange = Exchange::default();
            while !matches!(exchange.receive(black_box(SHORT), &limits, &mut request), Ok(step) if step.received == Received::Whole) {}
            exchange.respond(black_box(&response), BodySize::Exact(13), &defaults, &mut out);
            let admitted = exchange.data(13, &mut out);
            out.extend_from_slice(&b"Hello, world!"[..admitted]);
            exchange.data_end(&mut out);
            exchange.finish(&mut out)
        });
    });
    group.finish();
}

criterion_group!(benches, parse_heads, policy, chunked, responses);
criterion_main!(benches);
