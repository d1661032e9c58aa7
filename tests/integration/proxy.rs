//! What proxies say, on a live worker: PROXY headers, trusted fields, the client's address, dropped names.

use std::time::{Duration, Instant};

use ferricorn::config::{AllowedPeers, Config, HeaderMap, ProxyHeaders, ProxyProtocol};
use ferricorn::pool::{Job, Peer, PoolThread};

use crate::support::{Server, answer};

const LOG: &str = "%(h)s %(m)s %(U)s %(s)s";
const GET: &str = "GET /path HTTP/1.1\r\nHost: a\r\n\r\n";
const V1: &str = "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";

/// Version 2: signature, version and command, family and transport, length.
fn v2(version_command: u8, family_transport: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("payloads are short");
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([version_command, family_transport]);
    header.extend(length.to_be_bytes());
    header.extend(payload);
    header
}

fn v2_tcp4() -> Vec<u8> {
    v2(
        0x21,
        0x11,
        &[192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 1, 0xbb],
    )
}

/// Answer with what the worker makes of the request's way.
fn tell(thread: &PoolThread, job: Box<Job>) {
    let peer = match job.peer {
        // The test's own port is another one each time.
        Peer::Tcp(address) if address.ip().is_loopback() => "direct".to_owned(),
        Peer::Tcp(address) => address.to_string(),
        Peer::Ip(ip) => ip.to_string(),
        Peer::Unix => "unix".to_owned(),
    };
    let proxy = job.proxy.map_or("-", |header| header.protocol);
    let fields: Vec<_> = job
        .head
        .fields()
        .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
        .collect();
    let told = format!(
        "{peer} {proxy} https={:?} script={} {}",
        job.forwarded.is_https,
        job.forwarded.has_script_name,
        fields.join(",")
    );
    answer(thread, job, told.as_bytes());
}

fn auto(config: &mut Config) {
    config.proxy.proxy_protocol = ProxyProtocol::Auto;
}

fn nobody() -> AllowedPeers {
    AllowedPeers::Networks(Vec::new())
}

#[test]
fn a_proxy_header_names_the_client_of_all_requests_of_its_connection() {
    let server = Server::start_logging(LOG, auto, tell);
    for (header, told) in [
        (V1.as_bytes().to_vec(), "192.0.2.1:56324 TCP4"),
        (v2_tcp4(), "192.0.2.1:56324 TCP4"),
        (
            b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(),
            "[2001:db8::1]:1 TCP6",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), "direct UNKNOWN"),
        (v2(0x20, 0, b""), "direct LOCAL"),
        (v2(0x21, 0, b""), "direct UNSPEC"),
        (v2(0x21, 0x31, &[0; 216]), "unix UNIX"),
        (b"".to_vec(), "direct -"),
    ] {
        let mut client = server.connect();
        client.send([&header[..], GET.as_bytes(), GET.as_bytes()].concat());
        for _ in 0..2 {
            let text = client.response().text();
            assert!(text.starts_with(told), "{text}");
        }
        let text = client.send(GET).response().text();
        assert!(text.starts_with(told), "{text}");
    }
    let lines = server.log_lines(24);
    assert_eq!(lines[0], "192.0.2.1 GET /path 200");
}

#[test]
fn a_proxy_header_may_come_byte_by_byte() {
    let server = Server::start(auto, tell);
    for header in [V1.as_bytes().to_vec(), v2_tcp4()] {
        let mut client = server.connect();
        client.stream.set_nodelay(true).expect("an option");
        for byte in [&header[..], GET.as_bytes()].concat() {
            client.send([byte]);
        }
        let text = client.response().text();
        assert!(text.starts_with("192.0.2.1:56324 TCP4"), "{text}");
    }
}

#[test]
fn no_request_waits_for_bytes_that_would_tell_it_from_a_header() {
    let server = Server::start(auto, tell);
    for start in ["P", "PU", "\r\n", "\r"] {
        let mut client = server.connect();
        let request = match start {
            "P" | "PU" => "PUT / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            _ => format!("\r\n{GET}"),
        };
        client.send(start);
        assert_eq!(
            client.send(&request[start.len()..]).response().status(),
            200
        );
    }
    // Shorter than a signature, and wrong: answered, not waited for.
    let mut client = server.connect();
    assert_eq!(client.send("G\n").response().status(), 400);
    let mut client = server.connect();
    assert_eq!(client.send("PRX /\n").response().status(), 400);
}

#[test]
fn malformed_proxy_headers_are_refused_and_nothing_behind_them_is_read() {
    let server = Server::start(auto, tell);
    let line = |line: &str| format!("{line}\r\n").into_bytes();
    for (header, message) in [
        (
            line("PROXY TCP4 1.1.1.1 1.1.1.1 1"),
            "'Invalid PROXY line: &#x27;PROXY TCP4",
        ),
        (
            line("PROXY UDP4 1.1.1.1 1.1.1.1 1 1"),
            "'Invalid PROXY line",
        ),
        (line("PROXY TCP4 1.1.1.1 1.1.1.1 1 65536"), "Invalid PROXY"),
        (
            format!("PROXY {}", "x".repeat(200)).into_bytes(),
            "Invalid PROXY line",
        ),
        (
            v2(0x31, 0x11, &[0; 12]),
            "'Invalid PROXY header: unsupported version'",
        ),
        (
            v2(0x21, 0x11, &[0; 3]),
            "'Invalid PROXY header: insufficient address data for IPv4'",
        ),
        (
            v2(0x21, 0x11, &[0; 5000]),
            "'Invalid PROXY header: too long'",
        ),
    ] {
        let mut client = server.connect();
        client.send([&header[..], GET.as_bytes()].concat());
        let response = client.response();
        assert_eq!(response.status(), 400);
        assert!(response.has("Connection: close"));
        let text = response.text().replace("&#39;", "'");
        let message = message.replace("&#x27;", "'");
        let text = text.replace("&#x27;", "'");
        assert!(text.contains(&message), "{text}");
        assert!(client.is_closed());
    }
}

#[test]
fn only_allowed_peers_may_send_a_proxy_header() {
    let server = Server::start(
        |config| {
            auto(config);
            config.proxy.proxy_allow_ips = nobody();
        },
        tell,
    );
    for header in [
        V1.as_bytes().to_vec(),
        v2_tcp4(),
        // Enough is known before the end of the header.
        b"PROXY ".to_vec(),
        b"PROXY nonsense\r\n".to_vec(),
    ] {
        let mut client = server.connect();
        let response = client.send(&header).response();
        assert_eq!(response.status(), 403);
        assert!(response.text().contains("Request forbidden"));
        assert!(client.is_closed());
    }
    let text = server.connect().send(GET).response().text();
    assert!(text.starts_with("direct -"), "{text}");
}

#[test]
fn a_proxy_header_is_read_only_when_asked_for_and_only_once() {
    let server = Server::start(|_| {}, tell);
    assert_eq!(server.connect().send(V1).response().status(), 400);
    let server = Server::start(auto, tell);
    for before in [format!("{V1}{GET}"), GET.to_owned()] {
        let mut client = server.connect();
        assert_eq!(client.send(before).response().status(), 200);
        assert_eq!(client.send(V1).response().status(), 400);
        assert!(client.is_closed());
    }
    let mut client = server.connect();
    assert_eq!(
        client.send(format!("{V1}{V1}{GET}")).response().status(),
        400
    );
    for (mode, header) in [
        (ProxyProtocol::V1, v2_tcp4()),
        (ProxyProtocol::V2, V1.as_bytes().to_vec()),
    ] {
        let server = Server::start(|config| config.proxy.proxy_protocol = mode, tell);
        assert_eq!(server.connect().send(header).response().status(), 400);
    }
}

#[test]
fn an_unfinished_proxy_header_has_the_time_of_a_head() {
    let server = Server::start(
        |config| {
            auto(config);
            config.http.client_header_timeout = Some(Duration::from_millis(300));
        },
        tell,
    );
    let began = Instant::now();
    for bytes in [&V1.as_bytes()[..20], &v2_tcp4()[..15], V1.as_bytes()] {
        let mut client = server.connect();
        assert!(client.send(bytes).is_closed());
    }
    assert!(began.elapsed() >= Duration::from_millis(900));
}

#[test]
fn trust_is_in_who_is_connected_not_in_whom_the_header_names() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n";
    let told = |trusts: AllowedPeers| {
        let server = Server::start(
            |config| {
                auto(config);
                config.proxy.forwarded_allow_ips = trusts;
            },
            tell,
        );
        server
            .connect()
            .send(format!("{V1}{request}"))
            .response()
            .text()
    };
    let proxy = AllowedPeers::new(["127.0.0.1"]).expect("an address");
    assert!(told(proxy).starts_with("192.0.2.1:56324 TCP4 https=Some(true)"));
    let client = AllowedPeers::new(["192.0.2.1"]).expect("an address");
    assert!(told(client).starts_with("192.0.2.1:56324 TCP4 https=None"));
}

#[test]
fn the_client_of_trusted_proxies_is_counted_from_the_right() {
    let ask = |field: ProxyHeaders, hops: usize, trusts: AllowedPeers, header: &str| {
        let server = Server::start_logging(
            LOG,
            |config| {
                config.proxy.proxy_headers = field;
                config.proxy.proxy_headers_hops = hops;
                config.proxy.forwarded_allow_ips = trusts;
            },
            tell,
        );
        let request = format!("GET /path HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n");
        let text = server.connect().send(request).response().text();
        let logged = server.log_lines(1).remove(0);
        let told = text.split(' ').next().unwrap_or_default().to_owned();
        let address = logged.split(' ').next().unwrap_or_default().to_owned();
        (told, address)
    };
    let pair = |told: &str, logged: &str| (told.to_owned(), logged.to_owned());
    let x = ProxyHeaders::XForwardedFor;
    let chain = "X-Forwarded-For: 6.6.6.6, 192.0.2.1:77, 10.0.0.1";
    let any = || AllowedPeers::Any;
    assert_eq!(ask(x, 1, any(), chain), pair("10.0.0.1", "10.0.0.1"));
    assert_eq!(ask(x, 2, any(), chain), pair("192.0.2.1:77", "192.0.2.1"));
    let own = pair("direct", "127.0.0.1");
    assert_eq!(ask(x, 4, any(), chain), own);
    assert_eq!(ask(x, 1, nobody(), chain), own);
    assert_eq!(ask(ProxyHeaders::Off, 1, any(), chain), own);
    assert_eq!(ask(ProxyHeaders::Forwarded, 1, any(), chain), own);
    assert_eq!(ask(x, 1, any(), "X-Forwarded-For: who knows"), own);
    let forwarded = "Forwarded: for=6.6.6.6, for=\"[2001:db8::1]:9\";proto=https";
    assert_eq!(
        ask(ProxyHeaders::Forwarded, 1, any(), forwarded),
        pair("[2001:db8::1]:9", "2001:db8::1")
    );
    assert_eq!(
        ask(
            ProxyHeaders::Forwarded,
            1,
            any(),
            "Forwarded: for=\"6.6.6.6"
        ),
        own
    );
}

#[test]
fn the_client_of_one_request_is_not_that_of_the_next() {
    let server = Server::start(
        |config| config.proxy.proxy_headers = ProxyHeaders::XForwardedFor,
        tell,
    );
    let mut client = server.connect();
    let request = |address: &str| {
        format!("GET /path HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {address}\r\n\r\n")
    };
    for address in ["192.0.2.1", "192.0.2.2"] {
        let text = client.send(request(address)).response().text();
        assert!(text.starts_with(address), "{text}");
    }
    assert!(client.send(GET).response().text().starts_with("direct"));
}

#[test]
fn contradictions_and_misfits_are_refused_before_the_application_and_before_the_body() {
    let server = Server::start_logging(
        LOG,
        |config| config.http.header_map = HeaderMap::Refuse,
        |_, _| panic!("no such request is dispatched"),
    );
    for (fields, status, message) in [
        (
            "X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off",
            400,
            "Contradictory scheme headers",
        ),
        ("X_Other: 1", 400, "Invalid HTTP header name: "),
        (
            "SCRIPT_NAME: /a\r\nScript_Name: /b",
            400,
            "Contradictory SCRIPT_NAME headers",
        ),
        (
            "SCRIPT_NAME: /a\r\nScript-Name: /a",
            400,
            "Invalid HTTP header name: ",
        ),
        (
            "SCRIPT_NAME: /foo",
            500,
            "Configuration problem: Request path ",
        ),
    ] {
        let mut client = server.connect();
        client.send(format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n{fields}\r\n\r\n"
        ));
        let response = client.response();
        assert_eq!(response.status(), status, "{fields}");
        assert!(response.text().contains(message), "{}", response.text());
        assert!(client.is_closed());
    }
    for line in server.log_lines(5) {
        assert!(line.starts_with("127.0.0.1 POST /x "), "{line}");
    }
}

#[test]
fn dropped_names_are_out_of_the_head() {
    let server = Server::start(|_| {}, tell);
    let text = server
        .connect()
        .send("GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\nX-Y: 2\r\nPath_Info: /x\r\n\r\n")
        .response()
        .text();
    assert_eq!(text, "direct - https=None script=false Host,X-Y,Path_Info");
}

#[test]
fn leniencies_come_from_the_settings() {
    let folded = "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n";
    let spaced = "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n";
    let method = "get#it / HTTP/1.1\r\nHost: a\r\n\r\n";
    let version = "GET / HTTP/2.0\r\nHost: a\r\n\r\n";
    type Change = fn(&mut Config);
    let cases: [(&str, Change, u16); 4] = [
        (
            folded,
            |config| config.http.permit_obsolete_folding = true,
            400,
        ),
        (spaced, |config| config.http.strip_header_spaces = true, 400),
        (
            method,
            |config| config.http.permit_unconventional_http_method = true,
            400,
        ),
        (
            version,
            |config| config.http.permit_unconventional_http_version = true,
            505,
        ),
    ];
    for (request, change, refusal) in cases {
        let strict = Server::start(|_| {}, tell);
        assert_eq!(strict.connect().send(request).response().status(), refusal);
        let lenient = Server::start(change, tell);
        let response = lenient.connect().send(request).response();
        assert_eq!(response.status(), 200, "{request}");
    }
    let server = Server::start(
        |config| {
            config.http.casefold_http_method = true;
            config.http.permit_unconventional_http_method = true;
        },
        |thread, job| {
            let method = job.head.method().to_vec();
            answer(thread, job, &method);
        },
    );
    let response = server
        .connect()
        .send("post / HTTP/1.1\r\nHost: a\r\n\r\n")
        .response();
    assert_eq!(response.text(), "POST");
}
