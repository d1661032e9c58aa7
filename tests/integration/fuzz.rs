//! The fuzz targets over mutated corpus files: seconds of what `make fuzz` does for as long as one likes.
//!
//! `FUZZ_SECONDS=n` runs each target longer.

use std::time::{Duration, Instant};

#[path = "../fuzz/bodies.rs"]
mod bodies;
#[path = "../fuzz/first_bytes.rs"]
mod first_bytes;

use crate::corpus::Mutator;

const PROXY_SEEDS: &str = include_str!("../fuzz/proxy.seeds");
const PROXY_TLS_SEEDS: &str = include_str!("../fuzz/proxy_tls.seeds");
const CONTROL_SEEDS: &str = include_str!("../fuzz/control.seeds");
const CERTIFICATE_SEEDS: &str = include_str!("../fuzz/certificate.seeds");
const CIPHERS_SEEDS: &str = include_str!("../fuzz/ciphers.seeds");
const FRAMES_SEEDS: &str = include_str!("../fuzz/http2_frames.seeds");
const UWSGI_SEEDS: &str = include_str!("../fuzz/uwsgi.seeds");
const FORWARDED_SEEDS: &str = include_str!("../fuzz/forwarded.seeds");

fn run(target: fn(&[u8]), part: fn(&[u8]) -> &[u8]) {
    run_on(Mutator::of_corpus(seed()), target, part);
}

/// Another run tries other bytes; a failure shows its own.
fn seed() -> u64 {
    u64::from(std::process::id())
}

fn run_on(mut mutator: Mutator, target: fn(&[u8]), part: fn(&[u8]) -> &[u8]) {
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(1, |text| text.parse().expect("FUZZ_SECONDS is a number"));
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let bytes = mutator.mutated();
        let shown = ShownOnFailure(&bytes);
        target(part(&bytes));
        drop(shown);
    }
}

struct ShownOnFailure<'a>(&'a [u8]);

impl Drop for ShownOnFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the bytes were b\"{}\"", self.0.escape_ascii());
        }
    }
}

#[test]
fn heads() {
    run(bodies::head, |bytes| bytes);
}

#[test]
fn chunked_bodies() {
    run(bodies::chunked, |bytes| {
        let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        &bytes[head_end.map_or(0, |at| at + 4)..]
    });
}

#[test]
fn exchanges() {
    run(bodies::exchange, |bytes| bytes);
}

#[test]
fn proxy_headers() {
    run_on(
        Mutator::of_lines(seed(), PROXY_SEEDS),
        bodies::proxy,
        |bytes| bytes,
    );
}

#[test]
fn proxy_headers_before_tls() {
    run_on(
        Mutator::of_lines(seed(), PROXY_TLS_SEEDS),
        first_bytes::proxy_tls,
        |bytes| bytes,
    );
}

#[test]
fn http2_frames() {
    run_on(
        Mutator::of_lines(seed(), FRAMES_SEEDS),
        bodies::http2_frames,
        |bytes| bytes,
    );
}

#[test]
fn uwsgi_packets() {
    run_on(
        Mutator::of_lines(seed(), UWSGI_SEEDS),
        bodies::uwsgi,
        |bytes| bytes,
    );
}

#[test]
fn forwarded_fields() {
    run_on(
        Mutator::of_lines(seed(), FORWARDED_SEEDS),
        bodies::forwarded,
        |bytes| bytes,
    );
}

#[test]
fn control_frames() {
    run_on(
        Mutator::of_lines(seed(), CONTROL_SEEDS),
        bodies::control,
        |bytes| bytes,
    );
}

#[test]
fn cipher_lists() {
    run_on(
        Mutator::of_lines(seed(), CIPHERS_SEEDS),
        bodies::ciphers,
        |bytes| bytes,
    );
}

#[test]
fn client_certificates() {
    run_on(
        Mutator::of_lines(seed(), CERTIFICATE_SEEDS),
        bodies::certificate,
        |bytes| bytes,
    );
}
