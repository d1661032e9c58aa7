//! The fuzz targets over mutated corpus files: seconds of what `make fuzz` does for as long as one likes.
//!
//! `FUZZ_SECONDS=n` runs each target longer.

use std::time::{Duration, Instant};

#[path = "../fuzz/bodies.rs"]
mod bodies;

use crate::corpus::Mutator;

fn run(target: fn(&[u8]), part: fn(&[u8]) -> &[u8]) {
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(1, |text| text.parse().expect("FUZZ_SECONDS is a number"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut mutator = Mutator::new(u64::from(std::process::id()));
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
