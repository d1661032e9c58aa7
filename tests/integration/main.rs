//! The whole worker in one process, with a Rust closure as its application: no interpreter is needed.

// What came of some bytes: for the corpus, the attacks and the fuzz targets.
mod transcript;
// Every file of tests/corpus against the exchange: whole, byte by byte, split at every offset.
mod corpus;
// Request smuggling as it happened elsewhere: refused here.
mod smuggling;
// The fuzz targets, for seconds instead of hours.
mod fuzz;
// A worker on a free port, and a client that speaks raw bytes.
mod support;
// One connection, many requests.
mod keepalive;
// Bodies in and out: lengths, chunks, spools, 100-continue.
mod bodies;
// Clients that are too slow, or gone.
mod deadlines;
// Streaming request bodies.
mod request_streaming;
// An application that holds requests until the test lets them go.
mod hold;
// Clients that leave while their request waits or runs.
mod gone;
// More requests than threads.
mod overload;
// Streams that are faster than their reader, and many at once.
mod backpressure;
// TLS.
mod tls;
// What proxies say of a request's way, and which peers the worker trusts.
mod proxy;
// Stopping.
mod drain;
// The pool under stress.
mod stress;
// The documents, where they speak of the tests.
mod documents;
// The repository's own law.
mod tidy;
