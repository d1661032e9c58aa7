//! Rows: SSL.

use super::row::{Default, Kind, Section, Setting, row};

const SECTION: Section = Section::Tls;
const SWITCH: Kind = Kind::Bool { cli: true };
const NO_TLS: &str = "TLS is not available yet: terminate it in a proxy such as nginx";
const WITH_TLS: &str = "it is used with certfile and keyfile";

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
];
