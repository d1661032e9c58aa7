//! Rows: SSL, HTTP/2.

use super::row::{Default, Kind, Section, Setting, row};

const SECTION: Section = Section::Tls;
const SWITCH: Kind = Kind::Bool { cli: true };
const NO_TLS: &str = "TLS is not available yet: terminate it in a proxy such as nginx";
const WITH_TLS: &str = "it is used with certfile and keyfile";
const NO_HTTP2: &str = "HTTP/2 is not supported: use it in the proxy in front";
const WITH_HTTP2: &str = "HTTP/2 is not supported";

pub(super) const ROWS: &[Setting] = &[
    row(
        "keyfile",
        SECTION,
        Kind::Text,
        Default::None,
        "Key of the certificate.",
    )
    .flags(&["--keyfile"])
    .refused(&["None"], NO_TLS),
    row(
        "certfile",
        SECTION,
        Kind::Text,
        Default::None,
        "Certificate chain.",
    )
    .flags(&["--certfile"])
    .refused(&["None"], NO_TLS),
    row(
        "ssl_version",
        SECTION,
        Kind::Anything,
        Default::Int(2),
        "Not used, as in gunicorn.",
    )
    .flags(&["--ssl-version"])
    .no_effect("gunicorn does not use it either"),
    row(
        "cert_reqs",
        SECTION,
        Kind::Int,
        Default::Int(0),
        "Whether clients need a certificate.",
    )
    .flags(&["--cert-reqs"])
    .no_effect(WITH_TLS),
    row(
        "ca_certs",
        SECTION,
        Kind::Text,
        Default::None,
        "Authorities for client certificates.",
    )
    .flags(&["--ca-certs"])
    .no_effect(WITH_TLS),
    row(
        "suppress_ragged_eofs",
        SECTION,
        SWITCH,
        Default::Bool(true),
        "Option of Python's ssl module.",
    )
    .flags(&["--suppress-ragged-eofs"])
    .no_effect(WITH_TLS),
    row(
        "do_handshake_on_connect",
        SECTION,
        SWITCH,
        Default::Bool(false),
        "Option of Python's ssl module.",
    )
    .flags(&["--do-handshake-on-connect"])
    .no_effect(WITH_TLS),
    row(
        "ciphers",
        SECTION,
        Kind::Text,
        Default::None,
        "Ciphers, as OpenSSL names them.",
    )
    .flags(&["--ciphers"])
    .no_effect(WITH_TLS),
    row(
        "http_protocols",
        Section::Http2,
        Kind::HttpProtocols,
        Default::Text("h1"),
        "Protocols to offer: h1.",
    )
    .flags(&["--http-protocols"])
    .refused(&["['h1']"], NO_HTTP2),
    row(
        "http2_cleartext",
        Section::Http2,
        Kind::Http2Cleartext,
        Default::Text("off"),
        "off.",
    )
    .flags(&["--http2-cleartext"])
    .refused(&["off"], NO_HTTP2),
    row(
        "http2_max_concurrent_streams",
        Section::Http2,
        Kind::IntWithin {
            min: 1,
            max: i64::MAX,
            complaint: |n| format!("HTTP/2 max concurrent streams must be at least 1: {n}"),
        },
        Default::Int(100),
        "Streams of an HTTP/2 connection.",
    )
    .flags(&["--http2-max-concurrent-streams"])
    .no_effect(WITH_HTTP2),
    row(
        "http2_initial_window_size",
        Section::Http2,
        Kind::IntWithin {
            min: 0,
            max: 2_147_483_647,
            complaint: |n| format!("HTTP/2 window size must be at most 2147483647: {n}"),
        },
        Default::Int(65_535),
        "Window of an HTTP/2 stream.",
    )
    .flags(&["--http2-initial-window-size"])
    .no_effect(WITH_HTTP2),
    row(
        "http2_max_frame_size",
        Section::Http2,
        Kind::IntWithin {
            min: 16_384,
            max: 16_777_215,
            complaint: |n| {
                format!("http2_max_frame_size must be between 16384 and 16777215, got {n}")
            },
        },
        Default::Int(16_384),
        "Largest HTTP/2 frame.",
    )
    .flags(&["--http2-max-frame-size"])
    .no_effect(WITH_HTTP2),
    row(
        "http2_max_header_list_size",
        Section::Http2,
        Kind::Int,
        Default::Int(65_536),
        "Largest HTTP/2 header list.",
    )
    .flags(&["--http2-max-header-list-size"])
    .no_effect(WITH_HTTP2),
];
