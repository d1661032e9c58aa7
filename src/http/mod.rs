//! HTTP/1.0 and 1.1 messages: bytes to requests, responses to bytes.
//!
//! Pure: no I/O, no clock, no threads, no Python. Everything here is driven by the event loop, which feeds
//! received bytes to an [`Exchange`] and writes out what it encodes.
//!
//! | RFC 9112 | file |
//! | --- | --- |
//! | 2 message format, 3 request line, 5 field syntax | `head.rs`, `refusal.rs`, `fields.rs`, `target.rs` |
//! | 6 message body length | `framing.rs` |
//! | 7 chunked coding | `decode.rs`, `chunked.rs` |
//! | 9 connection management | `exchange.rs` |
//! | 4 and 6, as a sender | `response.rs`, `encode.rs` |
//!
//! Of HTTP/2: `frame_scan.rs` (frames), `header_block.rs` and `huffman.rs` (RFC 7541).
//!
//! What stands before HTTP, and what proxies say within it: `proxy.rs` (the PROXY protocol), `forwarded.rs` (names,
//! scheme, mount point), `forwarded_for.rs` (the client's address),
//! `request_id.rs` (the request's name).
//!
//! # Why a request cannot be smuggled through here
//!
//! Two readers of one byte stream disagree only where a message has more than one plausible end. So:
//! every line ends in CRLF (`head.rs`), a body has exactly one length and any second statement of it is refused
//! (`framing.rs`), a chunk size is hexadecimal digits and nothing else (`chunked.rs`), and after any refusal the
//! connection closes with nothing that follows being parsed (`exchange.rs`).
#![forbid(unsafe_code)]

mod chunked;
mod date;
mod decode;
mod encode;
mod error;
mod exchange;
mod fields;
mod forwarded;
mod forwarded_for;
mod frame_scan;
mod framing;
mod head;
mod header_block;
mod huffman;
mod limits;
mod proxy;
mod refusal;
mod request_id;
mod response;
mod step;
mod stream_priority;
mod target;
mod uwsgi;
mod version;

pub use chunked::{ChunkedDecoder, Piece};
pub use date::HttpDate;
pub use encode::{BodySize, ResponseDefaults, error_page, write_continue, write_error_page};
pub use error::{ParseError, ResponseError, Status};
pub use exchange::Exchange;
pub use forwarded::{Forwarded, HeaderPolicy, Underscores};
pub use forwarded_for::{ClientAddress, ClientField, ClientUnknown, client as forwarded_client};
#[cfg(test)]
pub use frame_scan::frame;
pub use frame_scan::{FrameEvent, FrameHead, FrameKind, FrameScan};
pub use framing::{BodyLength, Framing, Upgrade};
pub use head::{HeadScan, RequestHead, RequestParts, parse_head};
pub use header_block::{BrokenBlock, HeaderBlock, HeaderTable, write_header_field};
pub use limits::{Limits, Rules};
pub use proxy::{ProxyHeader, ProxyMode, ProxyParse, ProxyRoute, parse as parse_proxy_header};
pub use request_id::{TraceParent, client_request_id, made_request_id, trace_parent};
pub use response::ResponseHead;
pub use step::{Finish, Received, Step, WholeResponse};
pub use stream_priority::StreamPriority;
pub use target::percent_decode;
pub use uwsgi::parse_packet;
pub use version::Version;
