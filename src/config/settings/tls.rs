//! Rows: SSL.

use super::row::{Default, Kind, Section, Setting, row};

const SECTION: Section = Section::Tls;
const SWITCH: Kind = Kind::Bool { cli: true };

pub(super) const ROWS: &[Setting] = &[
    row(
        "keyfile",
        SECTION,
        Kind::Paths,
        Default::None,
        "Private key of the certificate, as PEM. Not set: it is in certfile.",
    )
    .flags(&["--keyfile"]),
    row(
        "certfile",
        SECTION,
        Kind::Paths,
        Default::None,
        "Certificate with its chain (PEM). Of several, or a directory, clients get the one for the name they ask for.",
    )
    .flags(&["--certfile"]),
    row(
        "ssl_version",
        SECTION,
        Kind::Anything,
        Default::Int(2),
        "Not used, as in gunicorn. See ssl_minimum_version.",
    )
    .flags(&["--ssl-version"])
    .no_effect("gunicorn does not use it either; see ssl_minimum_version"),
    row(
        "cert_reqs",
        SECTION,
        Kind::IntWithin {
            min: 0,
            max: 2,
            complaint: |n| match n {
                ..0 => format!("Value must be positive: {n}"),
                _ => format!("cert_reqs must be 0 (none), 1 (optional) or 2 (required): {n}"),
            },
        },
        Default::Int(0),
        "Whether clients need a certificate of ca_certs: 0 no, 1 if they have one, 2 always.",
    )
    .flags(&["--cert-reqs"]),
    row(
        "ca_certs",
        SECTION,
        Kind::Text,
        Default::None,
        "Authorities whose client certificates are accepted, as PEM.",
    )
    .flags(&["--ca-certs"]),
    row(
        "suppress_ragged_eofs",
        SECTION,
        SWITCH,
        Default::Bool(true),
        "Option of Python's ssl module. A body that ends without a close_notify is always cut.",
    )
    .flags(&["--suppress-ragged-eofs"])
    .no_effect("a request body that ends without a close_notify is always cut"),
    row(
        "do_handshake_on_connect",
        SECTION,
        SWITCH,
        Default::Bool(false),
        "Option of Python's ssl module. Handshakes never hold a thread.",
    )
    .flags(&["--do-handshake-on-connect"])
    .no_effect("handshakes are made by the event loop in either case"),
    row(
        "ciphers",
        SECTION,
        Kind::Text,
        Default::None,
        "Ciphers of TLS 1.2, as OpenSSL lists them; names of TLS 1.3 limit those of TLS 1.3.",
    )
    .flags(&["--ciphers"]),
    row(
        "ssl_minimum_version",
        SECTION,
        Kind::Word {
            words: &["tlsv1.2", "tlsv1.3", "tlsv1_2", "tlsv1_3", "1.2", "1.3"],
            complaint: |value| {
                format!("ssl_minimum_version must be TLSv1.2 or TLSv1.3; there is nothing older: {value}")
            },
        },
        Default::Text("TLSv1.2"),
        "Oldest version of TLS: TLSv1.2 or TLSv1.3.",
    )
    .flags(&["--ssl-minimum-version"])
    .ours(),
    row(
        "keyfile_password",
        SECTION,
        Kind::Secret,
        Default::None,
        "Password of keyfile: env:NAME, file:PATH, or the password itself. It is never shown.",
    )
    .flags(&["--keyfile-password"])
    .ours(),
    row(
        "ssl_crl",
        SECTION,
        Kind::Text,
        Default::None,
        "Revocation lists for client certificates, as PEM.",
    )
    .flags(&["--ssl-crl"])
    .ours(),
];
