//! See `proxy_tls` in `first_bytes.rs`.
#![no_main]

#[path = "../first_bytes.rs"]
mod first_bytes;
#[path = "../../integration/support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| first_bytes::proxy_tls(bytes));
