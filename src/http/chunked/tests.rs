//! Tests of `chunked.rs`.
