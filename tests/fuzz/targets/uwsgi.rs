//! See `uwsgi` in `bodies.rs`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;
#[path = "../../integration/transcript.rs"]
mod transcript;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::uwsgi(bytes));
