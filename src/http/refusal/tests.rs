//! Tests of `refusal.rs`.
