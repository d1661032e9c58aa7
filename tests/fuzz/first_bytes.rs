//! A connection's first bytes on a port of TLS that takes PROXY headers, at a whole worker: a target of its own, because it
//! needs sockets. Used as those of `bodies.rs` are.
//!
//! It checks that what is answered is what a simpler reading of the bytes allows, however they arrive: nothing, a page in
//! plain text for what is plain text, records of TLS for everything else; and that the application never runs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::OnceLock;

use ferricorn::config::{self, ProxyProtocol};
use ferricorn::http::{ProxyMode, ProxyParse, parse_proxy_header};
use ferricorn::tls::{Publisher, load};

use crate::support::{DEADLINE, Server};

/// What may be answered.
#[derive(Debug, PartialEq)]
enum Allowed {
    /// The bytes are not enough to say.
    NothingOrPage,
    Page,
    Records,
}

pub(crate) fn proxy_tls(bytes: &[u8]) {
    let allowed = allowed(bytes);
    for cut in [0, bytes.len() / 2] {
        let answer = answer(&bytes[..cut], &bytes[cut..]);
        let is_page = answer.starts_with(b"HTTP/1.1 400 ");
        let is_right = match allowed {
            Allowed::Page => is_page,
            Allowed::NothingOrPage => is_page || answer.is_empty(),
            Allowed::Records => are_records(&answer),
        };
        assert!(
            is_right,
            "cut at {cut}, {allowed:?}: {}",
            answer.escape_ascii()
        );
    }
}

fn allowed(bytes: &[u8]) -> Allowed {
    let rest = match parse_proxy_header(bytes, ProxyMode::Auto) {
        Ok(ProxyParse::NeedData { .. }) => return Allowed::NothingOrPage,
        Ok(ProxyParse::Absent) => bytes,
        Ok(ProxyParse::Present { length, .. }) => &bytes[length..],
        Err(_) => return Allowed::Page,
    };
    match rest.first() {
        Some(first) if first.is_ascii_alphabetic() => Allowed::Page,
        Some(_) => Allowed::Records,
        None => Allowed::NothingOrPage,
    }
}

/// Alerts and handshake records, or nothing.
fn are_records(mut answer: &[u8]) -> bool {
    while let [kind, 3, _, high, low, rest @ ..] = answer {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        // Of a handshake with TLS 1.3 also those that look like data.
        if !(20..=23).contains(kind) || rest.len() < length {
            return false;
        }
        answer = &rest[length..];
    }
    answer.is_empty()
}

/// What is read until the worker ends the connection. A worker that has panicked ends them all.
fn answer(first: &[u8], second: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server().address).expect("the worker accepts");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("a timeout can be set");
    stream.set_nodelay(true).expect("an option can be set");
    // A refused client may find the connection closed.
    let _ = stream
        .write_all(first)
        .and_then(|()| stream.write_all(second));
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let is_reset = error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(is_reset, "the connection does not end: {error}");
    }
    answer
}

/// One for all runs.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let root = option_env!("CARGO_MANIFEST_DIR").unwrap_or_default();
        let file =
            ["tests/fuzz/server.pem", "server.pem"].map(|name| PathBuf::from(root).join(name));
        let file = file.into_iter().find(|file| file.exists());
        let settings = config::Tls {
            certfile: vec![file.expect("the certificate is there")],
            keyfile: Vec::new(),
            keyfile_password: None,
            ca_certs: Vec::new(),
            cert_reqs: config::ClientCertificates::None,
            ssl_crl: None,
            ciphers: None,
            ssl_minimum_version: config::TlsVersion::Tls12,
            http_protocols: vec![config::HttpProtocol::H2, config::HttpProtocol::H1],
        };
        let loaded = load(&settings, 1_800_000_000).expect("good files");
        let mut publisher = Publisher::new(None).expect("memory");
        publisher.publish(loaded.material).expect("a small one");
        Server::start_tls(
            publisher.certificates(),
            |config| config.proxy.proxy_protocol = ProxyProtocol::Auto,
            |_, job| panic!("nobody has asked for {:?}", job.head.target()),
        )
    })
}
