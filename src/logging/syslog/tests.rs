//! Against sockets of our own: what arrives, and that nothing waits.

use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;

use super::endpoint::Host;
use super::*;

fn syslog(address: &str) -> Syslog {
    let mut config = Config::default();
    config.syslog.syslog_addr = address.to_owned();
    config.syslog.syslog_facility = "LOCAL3".to_owned();
    config.process.proc_name = "shop:app".to_owned();
    Syslog::new(&config).unwrap()
}

fn expected(priority: u8, kind: &str, message: &str) -> String {
    let pid = std::process::id();
    format!("<{priority}>gunicorn.shop.app.{kind}: [{pid}] {message}\0")
}

#[test]
fn a_datagram_per_message() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = receiver.local_addr().unwrap().port();
    let mut syslog = syslog(&format!("udp://127.0.0.1:{port}"));
    assert_eq!(
        syslog.send(Kind::Error, LogLevel::Critical, b"one\ntwo"),
        None
    );
    assert_eq!(syslog.send(Kind::Access, LogLevel::Info, b"GET /"), None);
    let read = || {
        let mut bytes = [0; 200];
        let length = receiver.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    assert_eq!(read(), expected(19 * 8 + 2, "error", "one\ntwo"));
    assert_eq!(read(), expected(19 * 8 + 6, "access", "GET /"));
}

#[test]
fn a_stream_has_frames() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut syslog = syslog(&format!("tcp://127.0.0.1:{port}"));
    assert_eq!(syslog.send(Kind::Error, LogLevel::Info, b"one"), None);
    assert_eq!(syslog.send(Kind::Error, LogLevel::Debug, b"two"), None);
    let (mut stream, _) = listener.accept().unwrap();
    syslog.close();
    drop(syslog);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let frames = [expected(158, "error", "one"), expected(159, "error", "two")];
    assert_eq!(text, frames.concat());
}

#[test]
fn a_receiver_that_does_not_read_costs_messages_and_not_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let receiver = UnixDatagram::bind(&path).unwrap();
    let mut syslog = syslog(&format!("unix://{}#dgram", path.display()));
    let begun = Instant::now();
    let mut notices = Vec::new();
    for _ in 0..5000 {
        notices.extend(syslog.send(Kind::Error, LogLevel::Info, &[b'x'; 500]));
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(notices, [Notice::Lost(Errno::EAGAIN)]);
    let dropped = syslog.dropped;
    receiver.recv(&mut [0; 600]).unwrap();
    assert_eq!(
        syslog.send(Kind::Error, LogLevel::Info, b"again"),
        Some(Notice::Back(dropped))
    );
}

#[test]
fn a_stream_that_is_not_read_holds_a_bounded_amount() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut syslog = syslog(&format!("tcp://127.0.0.1:{port}"));
    let mut notices = Vec::new();
    for _ in 0..100_000 {
        notices.extend(syslog.send(Kind::Access, LogLevel::Info, &[b'x'; 1000]));
        if !notices.is_empty() {
            break;
        }
    }
    assert_eq!(notices, [Notice::Lost(Errno::ENOBUFS)]);
    assert!(syslog.pending.len() <= PENDING_BYTES_MAX);
}

#[test]
fn nobody_there_is_said_once_and_tried_again_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut syslog = syslog(&format!("unix://{}", path.display()));
    let lost = syslog.send(Kind::Error, LogLevel::Info, b"lost");
    assert_eq!(lost, Some(Notice::Lost(Errno::ENOENT)));
    let receiver = UnixDatagram::bind(&path).unwrap();
    assert_eq!(syslog.send(Kind::Error, LogLevel::Info, b"too early"), None);
    syslog.next_try = None;
    let back = syslog.send(Kind::Error, LogLevel::Info, b"taken");
    assert_eq!(back, Some(Notice::Back(2)));
    let mut bytes = [0; 200];
    let length = receiver.recv(&mut bytes).unwrap();
    assert!(bytes[..length].ends_with(b"] taken\0"));
}

#[test]
fn addresses_are_read_as_gunicorn_reads_them() {
    let udp = |text: &str| Address::parse(text).unwrap();
    let address = |name: &str, port| {
        let name = name.to_owned();
        Address::Udp(Host { name, port })
    };
    assert_eq!(udp("udp://127.0.0.1"), address("127.0.0.1", 514));
    assert_eq!(udp("udp://127.0.0.1:99"), address("127.0.0.1", 99));
    assert_eq!(udp("udp://[::1]:99"), address("::1", 99));
    assert_eq!(udp("udp://[::1]"), address("::1", 514));
    assert_eq!(udp("udp://"), address("localhost", 514));
    let message = |text| Address::parse(text).unwrap_err().to_string();
    assert_eq!(message("localhost:514"), "invalid syslog address");
    assert_eq!(message("udp://h:x"), "'x' is not a valid port number.");
    assert_eq!(message("tcp://h:+1"), "'+1' is not a valid port number.");
    assert_eq!(facility("local9"), Err(SyslogError::Facility));
    assert_eq!(facility("AuthPriv"), Ok(10));
}
