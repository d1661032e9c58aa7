//! Rows: HTTP/2.

use super::row::{Default, Kind, Section, Setting, row};

const SECTION: Section = Section::Http2;
/// RFC 9113 section 6.5.2.
const WINDOW_BYTES_MAX: i64 = 0x7fff_ffff;

pub(super) const ROWS: &[Setting] = &[
    row(
        "http_protocols",
        SECTION,
        Kind::HttpProtocols,
        Default::Text("h1"),
        "Protocols to offer, the preferred one first: h1, h2.",
    )
    .flags(&["--http-protocols"]),
    row(
        "http2_cleartext",
        SECTION,
        Kind::Http2Cleartext,
        Default::Text("off"),
        "How trusted peers may begin HTTP/2 without TLS: off, prior-knowledge (HTTP/1 of such peers is then refused), upgrade, both.",
    )
    .flags(&["--http2-cleartext"]),
    row(
        "http2_max_concurrent_streams",
        SECTION,
        Kind::IntWithin {
            min: 1,
            max: i64::MAX,
            complaint: |n| format!("HTTP/2 max concurrent streams must be at least 1: {n}"),
        },
        Default::Int(100),
        "How many requests one HTTP/2 connection may have at a time.",
    )
    .flags(&["--http2-max-concurrent-streams"]),
    row(
        "http2_initial_window_size",
        SECTION,
        Kind::IntWithin {
            // gunicorn takes 0, with which no client could send a body.
            min: 1,
            max: WINDOW_BYTES_MAX,
            complaint: |n| {
                let (bound, limit) = match n > WINDOW_BYTES_MAX {
                    true => ("most", WINDOW_BYTES_MAX),
                    false => ("least", 1),
                };
                format!("HTTP/2 window size must be at {bound} {limit}: {n}")
            },
        },
        Default::Int(65_535),
        "Bytes of a request's body that an HTTP/2 client may send ahead.",
    )
    .flags(&["--http2-initial-window-size"]),
    row(
        "http2_max_frame_size",
        SECTION,
        Kind::IntWithin {
            min: 16_384,
            max: 16_777_215,
            complaint: |n| {
                format!("http2_max_frame_size must be between 16384 and 16777215, got {n}")
            },
        },
        Default::Int(16_384),
        "Largest HTTP/2 frame that is accepted, in bytes.",
    )
    .flags(&["--http2-max-frame-size"]),
    row(
        "http2_max_header_list_size",
        SECTION,
        Kind::Int,
        Default::Int(65_536),
        "Largest HTTP/2 header list that is accepted, in bytes; 0 is no limit.",
    )
    .flags(&["--http2-max-header-list-size"]),
];
