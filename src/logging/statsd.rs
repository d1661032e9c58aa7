//! statsd: gunicorn's metrics by gunicorn's names, many to a datagram.
//!
//! gunicorn sends a datagram per metric. statsd and servers with its protocol take several, with a newline between
//! them. So the metrics of an iteration of the loop, or of a call, are put into as few datagrams as a network packet
//! allows.
//!
//! Invariant: no call blocks. What the system does not take at once is lost, as datagrams are.

use std::fmt::Display;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};

use crate::config::{Config, LogLevel, StatsdAddress};
use crate::fork_guard;
use crate::net::host_names;

/// A sender of metrics. Each process and each thread that counts has its own.
#[derive(Debug)]
pub struct Statsd {
    address: StatsdAddress,
    socket: Option<OwnedFd>,
    /// No new socket is tried before.
    next_try: Option<Instant>,
    /// The host's name is being looked up: where it leads may be another place than until now.
    awaits_name: bool,
    /// Where the socket leads.
    to: Option<SocketAddr>,
    /// With a dot behind it, or empty.
    prefix: String,
    /// `|#tags`, or empty.
    suffix: String,
    packet: Vec<u8>,
    /// One metric, while it is written.
    line: Vec<u8>,
}

/// What a metric's number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    Gauge,
    Counter,
    Histogram,
    Timer,
}

impl Metric {
    /// By gunicorn's word for it (`mtype` of a log record).
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "gauge" => Some(Self::Gauge),
            "counter" => Some(Self::Counter),
            "histogram" => Some(Self::Histogram),
            "timer" => Some(Self::Timer),
            _ => None,
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Gauge => "|g",
            Self::Counter => "|c|@1.0",
            Self::Histogram => "|h",
            Self::Timer => "|ms",
        }
    }
}

impl Statsd {
    /// `None` without `statsd_host`.
    pub fn new(config: &Config) -> Option<Self> {
        let tags = &config.statsd.dogstatsd_tags;
        let mut statsd = Self {
            address: config.statsd.statsd_host.clone()?,
            socket: None,
            next_try: None,
            awaits_name: false,
            to: None,
            prefix: dotted(&config.statsd.statsd_prefix),
            suffix: match tags.is_empty() {
                true => String::new(),
                false => format!("|#{tags}"),
            },
            packet: Vec::with_capacity(PACKET_BYTES),
            line: Vec::new(),
        };
        statsd.open();
        statsd.await_name();
        Some(statsd)
    }

    /// A request was answered, refused or cut.
    pub fn request(&mut self, duration: Duration, status: u16) {
        let micros = duration.as_micros();
        let millis = MillisText(u64::try_from(micros).unwrap_or(u64::MAX));
        self.add(Metric::Timer, "gunicorn.request.duration", millis);
        self.add(Metric::Counter, "gunicorn.requests", 1);
        let status = format_args!("gunicorn.request.status.{status}").to_string();
        self.add(Metric::Counter, &status, 1);
    }

    /// A line of the error log was written, whether or not its level shows.
    pub(super) fn logged(&mut self, level: LogLevel, message: &[u8]) {
        let name = match level {
            LogLevel::Critical => "gunicorn.log.critical",
            LogLevel::Error if has_traceback(message) => "gunicorn.log.exception",
            LogLevel::Error => "gunicorn.log.error",
            LogLevel::Warning => "gunicorn.log.warning",
            LogLevel::Info | LogLevel::Debug => return,
        };
        self.add(Metric::Counter, name, 1);
        self.flush();
    }

    /// Adds one metric to the datagram. The name is without the prefix.
    pub fn add(&mut self, metric: Metric, name: &str, value: impl Display) {
        let (prefix, mark, suffix) = (&self.prefix, metric.mark(), &self.suffix);
        self.line.clear();
        // A write to a Vec cannot fail.
        let _ = write!(self.line, "{prefix}{name}:{value}{mark}{suffix}");
        if !self.packet.is_empty() && self.packet.len() + 1 + self.line.len() > PACKET_BYTES {
            self.flush();
        }
        if !self.packet.is_empty() {
            self.packet.push(b'\n');
        }
        self.packet.extend_from_slice(&self.line);
    }

    /// Sends what was added.
    pub fn flush(&mut self) {
        if self.packet.is_empty() {
            return;
        }
        if fork_guard::is_child() {
            // The metrics are the worker's, and the socket is closed here.
            self.packet.clear();
            return;
        }
        self.open();
        if let Some(socket) = &self.socket {
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match send(socket.as_raw_fd(), &self.packet, flags) {
                // A refusal is of an earlier datagram, and a receiver may be there for the next. A unix socket's peer
                // is gone for good; another one may have bound the same path.
                Err(Errno::ECONNREFUSED) if matches!(self.address, StatsdAddress::Udp { .. }) => {}
                Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EMSGSIZE) => {}
                Err(_) => self.socket = None,
            }
        }
        self.packet.clear();
    }

    /// The host's name may be looked up just now.
    pub(super) fn await_name(&mut self) {
        self.awaits_name = match &self.address {
            StatsdAddress::Udp { host, .. } => host_names::is_asked(host),
            StatsdAddress::Unix(_) => false,
        };
    }

    /// What has been asked for is known by now, or will not be.
    fn take_name(&mut self) {
        let StatsdAddress::Udp { host, port } = &self.address else {
            return;
        };
        if host_names::is_asked(host) {
            return;
        }
        self.awaits_name = false;
        if self.socket.is_none() || host_names::known(host, *port) != self.to {
            self.socket = None;
            self.next_try = None;
        }
    }

    fn open(&mut self) {
        if self.awaits_name {
            self.take_name();
        }
        let now = Instant::now();
        if self.socket.is_some() || self.next_try.is_some_and(|at| now < at) {
            return;
        }
        self.next_try = Some(now + RETRY_PERIOD);
        self.socket = match &self.address {
            StatsdAddress::Udp { host, port } => {
                self.to = host_names::known(host, *port);
                self.to.and_then(open_udp)
            }
            StatsdAddress::Unix(path) => open_unix(path),
        };
        self.socket.iter().for_each(fork_guard::register);
        if self.socket.is_none() {
            self.await_name();
        }
    }
}

fn open_udp(to: SocketAddr) -> Option<OwnedFd> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    Some(socket.into())
}

fn open_unix(path: &Path) -> Option<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None).ok()?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path).ok()?).ok()?;
    Some(fd)
}

/// gunicorn puts one dot behind a prefix, whatever dots it has; not behind one of a single letter, though.
fn dotted(prefix: &str) -> String {
    let bare = prefix.trim_end_matches('.');
    if bare.chars().count() < 2 {
        return prefix.to_owned();
    }
    format!("{bare}.")
}

/// Where gunicorn logs an exception, a traceback follows the message.
fn has_traceback(message: &[u8]) -> bool {
    let mark = b"\nTraceback (most recent call last):";
    message.windows(mark.len()).any(|window| window == mark)
}

/// Microseconds, shown as milliseconds in the way Python shows a float.
struct MillisText(u64);

impl Display for MillisText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, part) = (self.0 / 1000, self.0 % 1000);
        match part {
            part if part % 100 == 0 => write!(f, "{whole}.{}", part / 100),
            part if part % 10 == 0 => write!(f, "{whole}.{:02}", part / 10),
            part => write!(f, "{whole}.{part:03}"),
        }
    }
}

/// Bytes of an Ethernet frame, less the headers of IPv6 and UDP, and some for a tunnel.
const PACKET_BYTES: usize = 1432;
const RETRY_PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn statsd(address: StatsdAddress, prefix: &str, tags: &str) -> Statsd {
        let mut config = Config::default();
        config.statsd.statsd_host = Some(address);
        config.statsd.statsd_prefix = prefix.to_owned();
        config.statsd.dogstatsd_tags = tags.to_owned();
        Statsd::new(&config).unwrap()
    }

    fn udp(receiver: &UdpSocket) -> StatsdAddress {
        let address = receiver.local_addr().unwrap();
        StatsdAddress::Udp {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }

    fn read(receiver: &UdpSocket) -> String {
        let mut bytes = [0; 4096];
        let length = receiver.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_request_is_three_metrics() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut statsd = statsd(udp(&receiver), "my.app..", "a:b,c:d");
        statsd.request(Duration::from_micros(12_340), 200);
        statsd.flush();
        assert_eq!(
            read(&receiver),
            "my.app.gunicorn.request.duration:12.34|ms|#a:b,c:d\n\
             my.app.gunicorn.requests:1|c|@1.0|#a:b,c:d\n\
             my.app.gunicorn.request.status.200:1|c|@1.0|#a:b,c:d"
        );
    }

    #[test]
    fn a_datagram_is_no_longer_than_a_packet_and_breaks_between_metrics() {
        let receiver = UdpSocket::bind("[::1]:0").unwrap();
        let mut statsd = statsd(udp(&receiver), "", "");
        for _ in 0..40 {
            statsd.request(Duration::from_micros(1), 404);
        }
        statsd.flush();
        let mut metrics = Vec::new();
        while metrics.len() < 120 {
            let datagram = read(&receiver);
            assert!(datagram.len() <= PACKET_BYTES);
            metrics.extend(datagram.split('\n').map(str::to_owned));
        }
        assert_eq!(metrics.len(), 120);
        let durations = metrics.iter().step_by(3);
        assert!(
            durations
                .into_iter()
                .all(|metric| metric == "gunicorn.request.duration:0.001|ms")
        );
    }

    #[test]
    fn levels_are_counted_as_gunicorn_counts_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("statsd");
        let mut statsd = statsd(StatsdAddress::Unix(path.clone()), "", "");
        // Nothing is bound there yet.
        statsd.logged(LogLevel::Error, b"lost");
        let receiver = UnixDatagram::bind(&path).unwrap();
        statsd.next_try = None;
        let logged = [
            (LogLevel::Critical, &b"a"[..], "critical"),
            (LogLevel::Error, b"a", "error"),
            (LogLevel::Warning, b"a", "warning"),
            (
                LogLevel::Error,
                b"a\nTraceback (most recent call last):\n",
                "exception",
            ),
        ];
        for (level, message, name) in logged {
            statsd.logged(LogLevel::Info, b"not counted");
            statsd.logged(level, message);
            let mut bytes = [0; 100];
            let length = receiver.recv(&mut bytes).unwrap();
            let expected = format!("gunicorn.log.{name}:1|c|@1.0");
            assert_eq!(&bytes[..length], expected.as_bytes());
        }
    }

    #[test]
    fn numbers_and_prefixes_as_python_writes_them() {
        let texts = [0, 1, 10, 100, 1000, 1_234_500].map(|micros| MillisText(micros).to_string());
        assert_eq!(texts, ["0.0", "0.001", "0.01", "0.1", "1.0", "1234.5"]);
        let prefixes = ["", "ab", "ab.", "ab..", "a.b", "a", "a."].map(dotted);
        assert_eq!(prefixes, ["", "ab.", "ab.", "ab.", "a.b.", "a", "a."]);
    }
}
