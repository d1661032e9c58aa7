//! Rows: Security, which here also means the size of bodies.

use super::row::{Default, Kind, Section, Setting, row};

const SECTION: Section = Section::Security;

pub(super) const ROWS: &[Setting] = &[
    row(
        "limit_request_line",
        SECTION,
        Kind::Int,
        Default::Int(4094),
        "Bytes a request line may have. 0: no limit.",
    )
    .flags(&["--limit-request-line"]),
    row(
        "limit_request_fields",
        SECTION,
        Kind::Int,
        Default::Int(100),
        "Header fields a request may have.",
    )
    .flags(&["--limit-request-fields"]),
    row(
        "limit_request_field_size",
        SECTION,
        Kind::Int,
        Default::Int(8190),
        "Bytes one header field may have.",
    )
    .flags(&["--limit-request-field_size", "--limit-request-field-size"]),
    row(
        "limit_request_body",
        SECTION,
        Kind::Int,
        Default::Int(0),
        "Bytes a request body may have. 0: no limit.",
    )
    .flags(&["--limit-request-body"])
    .ours(),
    row(
        "body_buffer_size",
        SECTION,
        Kind::Int,
        Default::Int(1 << 20),
        "Bytes of a request body kept in memory; longer bodies go to a file.",
    )
    .flags(&["--body-buffer-size"])
    .ours(),
    row(
        "body_buffer_total",
        SECTION,
        Kind::Int,
        Default::Int(64 << 20),
        "Bytes of all request bodies a worker keeps in memory.",
    )
    .flags(&["--body-buffer-total"])
    .ours(),
    row(
        "response_buffer_total",
        SECTION,
        Kind::Int,
        Default::Int(64 << 20),
        "Bytes of unread responses a worker keeps in memory; further ones go to a file. 0: no limit.",
    )
    .flags(&["--response-buffer-total"])
    .ours(),
    row(
        "request_buffering",
        SECTION,
        Kind::Bool { cli: false },
        Default::Bool(true),
        "Call the application before the request body has arrived.",
    )
    .flags(&["--no-request-buffering"])
    .ours(),
];
