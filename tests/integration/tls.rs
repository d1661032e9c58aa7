//! TLS: the transport under HTTP/1, with rustls on the client's side.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferricorn::config::{self, Config, ProxyProtocol};
use ferricorn::pool::{Job, Piece, PoolThread, Reply};
use ferricorn::tls::{self, Certificates, Material, Publisher};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use crate::support::{DEADLINE, Server, answer, echo, eventually};

/// What a server serves, with a fresh certificate, and the settings of a client that trusts it.
struct Pair {
    server: Arc<Certificates>,
    publisher: Publisher,
    client: ClientConfig,
}

/// A certificate for `localhost` and its key, as the master loads them from files.
fn material(settings: impl FnOnce(&mut config::Tls)) -> (Material, CertificateDer<'static>) {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
    let signed = signed.expect("a certificate");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let text = signed.cert.pem() + &signed.signing_key.serialize_pem();
    file.write_all(text.as_bytes()).expect("a file takes bytes");
    let mut tls = config::Tls {
        certfile: vec![file.path().to_owned()],
        keyfile: Vec::new(),
        keyfile_password: None,
        ca_certs: Vec::new(),
        cert_reqs: config::ClientCertificates::None,
        ssl_crl: None,
        ciphers: None,
        ssl_minimum_version: config::TlsVersion::Tls12,
        http_protocols: vec![config::HttpProtocol::H1],
    };
    settings(&mut tls);
    let loaded = tls::load(&tls, 1_800_000_000).expect("good files");
    (loaded.material, signed.cert.der().clone())
}

impl Pair {
    fn new() -> Self {
        Self::with_versions(rustls::ALL_VERSIONS, |_| {})
    }

    fn with_versions(
        versions: &[&'static SupportedProtocolVersion],
        settings: impl FnOnce(&mut config::Tls),
    ) -> Self {
        let (material, certificate) = material(settings);
        let mut publisher = Publisher::new(None).expect("memory");
        publisher.publish(material).expect("a small one");
        publisher.rotate_tickets(1_800_000_000);
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a certificate");
        let client = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            server: publisher.certificates(),
            publisher,
            client,
        }
    }

    fn session(&self) -> ClientConnection {
        let name = ServerName::try_from("localhost").expect("a name");
        ClientConnection::new(Arc::new(self.client.clone()), name).expect("a session")
    }

    fn client(&self, server: &Server) -> Client {
        Client(StreamOwned::new(self.session(), server.connect().stream))
    }
}

struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    fn get(&mut self, target: &str) -> String {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        self.0
            .write_all(request.as_bytes())
            .expect("the worker reads");
        self.response()
    }

    /// The body of one response with a Content-Length.
    fn response(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("a whole head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("heads are text");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.expect("a length").parse().expect("a number");
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a whole body");
        String::from_utf8(body).expect("a text")
    }

    /// Everything until the server has ended its side with `close_notify`; without one this fails.
    fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0
            .read_to_end(&mut bytes)
            .expect("an end that was announced");
        bytes
    }
}

/// The bytes that a client sends first.
fn client_hello(pair: &Pair) -> Vec<u8> {
    let mut hello = Vec::new();
    pair.session()
        .write_tls(&mut hello)
        .expect("a vector takes all");
    hello
}

#[test]
fn a_connection_serves_request_after_request() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    let mut client = pair.client(&server);
    for number in 0..20 {
        assert_eq!(client.get(&format!("/{number}")), format!("GET /{number} "));
    }
    assert_eq!(server.log_lines(20)[19], "GET /19 200 8");
}

#[test]
fn both_versions_are_spoken() {
    for (version, name) in rustls::ALL_VERSIONS.iter().zip(["TLSv1.3", "TLSv1.2"]) {
        let pair = Pair::with_versions(&[*version], |_| {});
        let server = Server::start_tls(
            pair.server.clone(),
            |_| {},
            |thread, job| {
                let tls = job.tls.clone().expect("a TLS connection");
                answer(
                    thread,
                    job,
                    format!("{} {}", tls.protocol, tls.cipher).as_bytes(),
                );
            },
        );
        let shown = pair.client(&server).get("/");
        assert!(
            shown.starts_with(name) && shown.contains("_GCM_") | shown.contains("-GCM-"),
            "{shown}"
        );
    }
}

#[test]
fn a_session_is_resumed_and_new_certificates_are_for_new_connections() {
    for version in rustls::ALL_VERSIONS {
        let mut pair = Pair::with_versions(&[*version], |_| {});
        let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
        let mut old = pair.client(&server);
        old.get("/");
        let mut again = pair.client(&server);
        again.get("/");
        let kind = again.0.conn.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Resumed), "{version:?}");
        let (material, certificate) = material(|_| {});
        pair.publisher.publish(material).expect("a small one");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a certificate");
        pair.client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        eventually(|| {
            let mut client = pair.client(&server);
            client.0.conn.complete_io(&mut client.0.sock).is_ok()
        });
        assert_eq!(old.get("/old"), "GET /old ");
    }
}

#[test]
fn a_client_without_the_certificate_that_is_required_is_not_served() {
    let mut directory = tempfile::NamedTempFile::new().expect("a file");
    let authority =
        rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).expect("a certificate");
    directory
        .write_all(authority.cert.pem().as_bytes())
        .expect("a file takes bytes");
    let path = directory.path().to_owned();
    let pair = Pair::with_versions(rustls::ALL_VERSIONS, move |tls| {
        tls.ca_certs = vec![path];
        tls.cert_reqs = config::ClientCertificates::Required;
    });
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    let mut client = pair.client(&server);
    let _ = client.0.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let end = client.0.read(&mut [0; 64]).expect_err("an alert");
    assert!(end.to_string().contains("CertificateRequired"), "{end}");
}

#[test]
fn a_pipeline_in_one_record_is_answered_in_order() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    let mut client = pair.client(&server);
    let burst: String = (0..301)
        .map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    client
        .0
        .write_all(burst.as_bytes())
        .expect("the worker reads");
    for number in 0..301 {
        assert_eq!(client.response(), format!("GET /{number} "));
    }
}

#[test]
fn every_byte_may_come_alone() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    let mut stream = server.connect().stream;
    stream.set_nodelay(true).expect("nodelay");
    let mut session = pair.session();
    let mut sent_request = false;
    loop {
        let mut out = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut out).expect("a vector takes all");
        }
        for byte in out {
            stream.write_all(&[byte]).expect("the worker reads");
        }
        if !session.is_handshaking() && !sent_request {
            sent_request = true;
            let request = b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
            session.writer().write_all(request).expect("room for it");
            continue;
        }
        session.read_tls(&mut stream).expect("the worker answers");
        let state = session.process_new_packets().expect("good records");
        let mut text = vec![0; state.plaintext_bytes_to_read()];
        session
            .reader()
            .read_exact(&mut text)
            .expect("what is there");
        if String::from_utf8_lossy(&text).ends_with("POST /slow hello") {
            return;
        }
    }
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    let mut client = pair.client(&server);
    // Larger than what stays in memory, than a record, and than any socket's buffer; and one that fits a record exactly.
    for len in [3_000_000, 16_384, 16_385, 1] {
        let body: String = (0..len)
            .map(|at: usize| char::from(b'a' + (at % 23) as u8))
            .collect();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n");
        client
            .0
            .write_all(head.as_bytes())
            .expect("the worker reads");
        client
            .0
            .write_all(body.as_bytes())
            .expect("the worker reads");
        assert!(client.response() == format!("POST / {body}"), "{len}");
    }
}

/// Answers with a file of as many bytes as the target says.
fn send_file(thread: &PoolThread, mut job: Box<Job>) {
    let len: u64 = String::from_utf8_lossy(&job.head.target()[1..])
        .parse()
        .expect("a number");
    let mut file = tempfile::tempfile().expect("a file");
    let text: Vec<u8> = (0..len).map(|at| b'a' + (at % 19) as u8).collect();
    file.write_all(&text).expect("a file takes bytes");
    job.response.set_status(b"200 OK").expect("a plain status");
    let piece = Piece::File {
        file: file.into(),
        offset: 0,
        len,
        owner: None,
    };
    job.response_body.pieces.push(piece);
    thread.pool().send(Reply::Whole(job));
}

#[test]
fn a_file_is_read_and_encrypted() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, send_file);
    let mut client = pair.client(&server);
    for len in [2_000_000_u64, 65_536, 5] {
        let text: String = (0..len)
            .map(|at| char::from(b'a' + (at % 19) as u8))
            .collect();
        assert!(client.get(&format!("/{len}")) == text, "{len}");
    }
}

#[test]
fn a_slow_reader_gets_every_byte_and_holds_nobody() {
    let pair = Pair::new();
    let body = "0123456789abcdef".repeat(500_000);
    let sent = body.clone();
    let server = Server::start_tls(
        pair.server.clone(),
        |config| config.workers.threads = 1,
        move |thread, job| match job.head.target() {
            b"/large" => answer(thread, job, sent.as_bytes()),
            _ => echo(thread, job),
        },
    );
    let mut slow = pair.client(&server);
    slow.0
        .write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the worker reads");
    let mut fast = pair.client(&server);
    for _ in 0..10 {
        assert_eq!(fast.get("/fast"), "GET /fast ");
    }
    assert!(slow.response() == body);
    assert_eq!(slow.get("/again"), "GET /again ");
}

#[test]
fn every_orderly_end_is_announced() {
    let pair = Pair::new();
    let server = Server::start_tls(
        pair.server.clone(),
        |config| config.http.keepalive = Some(Duration::from_millis(200)),
        echo,
    );
    for (request, expected) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK",
        ),
        ("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK"),
        // Refused.
        ("BAD\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\n",
            "HTTP/1.1 400",
        ),
        // Idle until `keepalive` is over.
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK"),
    ] {
        let mut client = pair.client(&server);
        client
            .0
            .write_all(request.as_bytes())
            .expect("the worker reads");
        let rest = String::from_utf8(client.rest()).expect("a text");
        assert!(rest.starts_with(expected), "{request}: {rest}");
    }
}

#[test]
fn an_end_at_a_stop_is_announced_and_nothing_is_lost() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    let mut idle = pair.client(&server);
    idle.get("/");
    let mut new = pair.client(&server);
    new.0
        .conn
        .complete_io(&mut new.0.sock)
        .expect("a handshake");
    // In the middle of its handshake.
    let mut half = pair.client(&server);
    let hello = client_hello(&pair);
    half.0
        .sock
        .write_all(&hello[..50])
        .expect("the worker reads");
    server.signal(15);
    new.0
        .write_all(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the worker reads");
    let late = String::from_utf8(new.rest()).expect("a text");
    assert!(
        late.contains("Connection: close") && late.ends_with("GET /late "),
        "{late}"
    );
    assert_eq!(idle.rest(), b"");
    assert_eq!(server.join().code, 0);
}

#[test]
fn a_response_that_is_broken_off_is_not_taken_for_a_whole_one() {
    let pair = Pair::new();
    // A body without a length, which only the end of the stream delimits: its file is shorter than it was.
    let server = Server::start_tls(
        pair.server.clone(),
        |_| {},
        |thread, mut job| {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(b"short").expect("a file takes bytes");
            job.response.set_status(b"200 OK").expect("a plain status");
            let piece = Piece::File {
                file: file.into(),
                offset: 0,
                len: 100,
                owner: None,
            };
            job.response_body.pieces.push(piece);
            thread.pool().send(Reply::Whole(job));
        },
    );
    let mut client = pair.client(&server);
    client
        .0
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .expect("the worker reads");
    let end = client.0.read_to_end(&mut Vec::new());
    assert!(end.is_err(), "an end that was announced");
}

#[test]
fn a_body_that_is_cut_never_reaches_the_application() {
    let pair = Pair::new();
    for is_announced in [true, false] {
        let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
        let mut client = pair.client(&server);
        let cut = b"POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf";
        client.0.write_all(cut).expect("the worker reads");
        if is_announced {
            client.0.conn.send_close_notify();
            client
                .0
                .conn
                .complete_io(&mut client.0.sock)
                .expect("the worker reads");
        }
        client
            .0
            .sock
            .shutdown(Shutdown::Write)
            .expect("an open socket");
        assert_eq!(client.rest(), b"");
        assert_eq!(server.log_lines(1), ["POST /cut 400 0"], "{is_announced}");
    }
}

#[test]
fn a_client_that_says_its_end_behind_its_request_is_answered_and_closed() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    let mut client = pair.client(&server);
    client
        .0
        .conn
        .complete_io(&mut client.0.sock)
        .expect("a handshake");
    client
        .0
        .conn
        .writer()
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("room");
    client.0.conn.send_close_notify();
    let mut both = Vec::new();
    while client.0.conn.wants_write() {
        client
            .0
            .conn
            .write_tls(&mut both)
            .expect("a vector takes all");
    }
    client.0.sock.write_all(&both).expect("the worker reads");
    let rest = String::from_utf8(client.rest()).expect("a text");
    assert!(rest.ends_with("GET / "), "{rest}");
}

/// Three records and the end of the stream are one segment: each is a system call less, and the client is woken once.
#[test]
fn the_ticket_a_last_response_and_the_end_arrive_together() {
    let pair = Pair::with_versions(&[&rustls::version::TLS13], |_| {});
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    let mut client = pair.client(&server);
    let StreamOwned { conn, sock } = &mut client.0;
    // The request goes with the client's last message of the handshake.
    conn.writer()
        .write_all(b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("room");
    while conn.is_handshaking() {
        if conn.wants_write() {
            let mut bytes = Vec::new();
            while conn.wants_write() {
                conn.write_tls(&mut bytes).expect("a vector takes all");
            }
            sock.write_all(&bytes).expect("the worker reads");
        } else {
            conn.read_tls(sock).expect("a part of the handshake");
            conn.process_new_packets().expect("a handshake");
        }
    }
    let mut bytes = Vec::new();
    while conn.wants_write() {
        conn.write_tls(&mut bytes).expect("a vector takes all");
    }
    sock.write_all(&bytes).expect("the worker reads");
    let mut first = [0; 4096];
    let len = sock.read(&mut first).expect("an answer");
    conn.read_tls(&mut &first[..len]).expect("records");
    let state = conn.process_new_packets().expect("records");
    assert!(state.peer_has_closed(), "{len} bytes without close_notify");
    assert_eq!(conn.tls13_tickets_received(), 1);
    let mut text = String::new();
    conn.reader().read_to_string(&mut text).expect("a response");
    assert!(text.ends_with("GET /last "), "{text}");
    assert_eq!(sock.read(&mut first).expect("the end"), 0);
}

/// The end comes in one event of the poll set with a part of a record: of the first request, of a later one, of a body.
#[test]
fn a_client_that_leaves_within_a_record_is_gone_at_once() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    for round in 0..60 {
        let mut client = pair.client(&server);
        client.0.sock.set_nodelay(true).expect("an option");
        if round % 3 == 0 {
            let (conn, sock) = (&mut client.0.conn, &mut client.0.sock);
            conn.complete_io(sock).expect("a handshake");
        } else {
            client.get("/first");
        }
        if round % 3 == 1 {
            let head = b"POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n";
            client.0.write_all(head).expect("the worker reads");
        }
        let mut record = Vec::new();
        let mut writer = client.0.conn.writer();
        writer.write_all(b"GET / HTTP/1.1\r\n").expect("room");
        let written = client.0.conn.write_tls(&mut record);
        written.expect("a vector takes all");
        let sock = &mut client.0.sock;
        sock.set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout can be set");
        sock.write_all(&record[..record.len() / 2])
            .expect("the worker reads");
        sock.shutdown(Shutdown::Write).expect("a shutdown");
        assert_eq!(client.rest(), b"", "in round {round}");
    }
}

#[test]
fn plain_http_gets_an_answer_that_can_be_read() {
    let server = Server::start_tls(Pair::new().server, |_| {}, echo);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let rest = String::from_utf8(client.rest()).expect("a text");
    assert!(rest.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{rest}");
    assert!(
        rest.contains("The plain HTTP request was sent to an HTTPS port"),
        "{rest}"
    );
}

#[test]
fn a_handshake_on_a_plain_port_is_refused_at_once() {
    let pair = Pair::new();
    let server = Server::start(|_| {}, echo);
    let mut client = server.connect();
    let began = Instant::now();
    client.send(client_hello(&pair));
    let rest = String::from_utf8(client.rest()).expect("a text");
    assert!(rest.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{rest}");
    assert!(began.elapsed() < DEADLINE / 4);
}

#[test]
fn a_failed_handshake_gets_an_alert_and_the_next_client_is_served() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    // A record of an unknown type, one that is too long, a handshake message that is no ClientHello.
    for bytes in [
        &[0x99, 3, 3, 0, 1, 0][..],
        &[22, 3, 1, 0xff, 0xff, 1, 2],
        &[22, 3, 1, 0, 4, 2, 0, 0, 0],
    ] {
        let mut client = server.connect();
        client.send(bytes);
        let rest = client.rest();
        assert_eq!(rest.first(), Some(&21), "an alert: {rest:?}");
    }
    assert_eq!(pair.client(&server).get("/"), "GET / ");
    assert_eq!(
        server.log_lines(1),
        ["GET / 200 6"],
        "failed handshakes are no requests"
    );
}

/// The end comes with the last bytes in one event of the poll set, sooner or later.
#[test]
fn a_client_that_leaves_in_its_handshake_is_gone_at_once() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    let hello = client_hello(&pair);
    let (first, rest) = hello.split_at(hello.len() / 2);
    for _ in 0..300 {
        let mut raw = TcpStream::connect(server.address).expect("the worker accepts");
        raw.set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout can be set");
        raw.set_nodelay(true).expect("an option can be set");
        raw.write_all(first).expect("the worker reads");
        std::thread::yield_now();
        raw.write_all(&rest[..9]).expect("the worker reads");
        raw.shutdown(Shutdown::Write).expect("a shutdown");
        let mut answer = Vec::new();
        raw.read_to_end(&mut answer)
            .expect("an end before client_header_timeout");
    }
}

#[test]
fn a_handshake_has_the_deadline_of_the_first_head() {
    let pair = Pair::new();
    let header_timeout = |config: &mut Config| {
        config.http.client_header_timeout = Some(Duration::from_millis(400));
    };
    let server = Server::start_tls(pair.server.clone(), header_timeout, echo);
    // It stops in its first message.
    let mut half = server.connect();
    half.send(&client_hello(&pair)[..100]);
    // It is done with its handshake, and sends a byte of a head now and then.
    let mut slow = pair.client(&server);
    let began = Instant::now();
    slow.0
        .write_all(b"GET / HTTP/1.1\r\n")
        .expect("the worker reads");
    half.rest();
    let rest = String::from_utf8(slow.rest()).expect("a text");
    assert!(rest.starts_with("HTTP/1.1 408 "), "{rest}");
    assert!(began.elapsed() < DEADLINE / 2);
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let pair = Pair::new();
    let auto = |config: &mut Config| config.proxy.proxy_protocol = ProxyProtocol::Auto;
    let server = Server::start_tls(pair.server.clone(), auto, |thread, job| {
        let peer = format!("{:?}", job.peer.ip());
        answer(thread, job, peer.as_bytes());
    });
    let line = b"PROXY TCP4 192.0.2.7 192.0.2.2 4000 443\r\n";
    // In one piece with the first bytes of the handshake, or alone before them.
    for is_alone in [true, false] {
        let mut stream = server.connect().stream;
        stream.set_nodelay(true).expect("nodelay");
        let mut session = pair.session();
        let mut first = line.to_vec();
        if is_alone {
            stream.write_all(&first[..20]).expect("the worker reads");
            stream.write_all(&first[20..]).expect("the worker reads");
            first.clear();
        }
        session.write_tls(&mut first).expect("a vector takes all");
        stream.write_all(&first).expect("the worker reads");
        let mut client = Client(StreamOwned::new(session, stream));
        assert_eq!(client.get("/"), "Some(192.0.2.7)");
    }
    // Without one the client is the peer.
    assert_eq!(pair.client(&server).get("/"), "Some(127.0.0.1)");
}

#[test]
fn half_open_handshakes_do_not_delay_others() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    let hello = client_hello(&pair);
    let half: Vec<_> = (0..200)
        .map(|number| {
            let mut client = server.connect();
            client.send(&hello[..hello.len() - number % 2 * 10]);
            client
        })
        .collect();
    let mut client = pair.client(&server);
    for _ in 0..200 {
        assert_eq!(client.get("/"), "GET / ");
    }
    drop(half);
}

#[test]
fn a_key_update_is_answered() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    let mut client = pair.client(&server);
    for number in 0..5 {
        assert_eq!(client.get(&format!("/{number}")), format!("GET /{number} "));
        client.0.conn.refresh_traffic_keys().expect("TLS 1.3");
    }
}

#[test]
fn a_changed_record_ends_the_connection() {
    let pair = Pair::new();
    let server = Server::start_tls(pair.server.clone(), |_| {}, echo);
    let mut client = pair.client(&server);
    client.get("/");
    client
        .0
        .sock
        .write_all(&[23, 3, 3, 0, 20])
        .expect("the worker reads");
    client.0.sock.write_all(&[7; 20]).expect("the worker reads");
    let end = client.0.read(&mut [0; 64]).expect_err("an alert");
    assert_eq!(end.kind(), ErrorKind::InvalidData, "{end}");
    assert!(end.to_string().contains("BadRecordMac"), "{end}");
}
