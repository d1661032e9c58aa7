//! Tests that use the crate from outside. One binary.

/// Every file of tests/corpus, arriving in every way.
mod corpus;
/// Attack shapes known from the history of HTTP servers.
mod smuggling;
