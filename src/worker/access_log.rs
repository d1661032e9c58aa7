//! The access log's lines: one for every request that was answered, refused, timed out or cut.
//!
//! Lines of one turn of the loop are collected and written together.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::http::{
    ParseError, Status, TraceParent, client_request_id, made_request_id, trace_parent,
};
use crate::logging::access::{AccessEntry, AccessFilter, AccessFormat};
use crate::pool::{Job, Peer};

use super::connection::{Answered, Connection};
use super::core::Core;

/// Status of a request whose client was gone before it was answered (nginx's number for it).
const CLIENT_GONE: u16 = 499;
/// Status of a request whose connection the application took over.
const SWITCHED: u16 = 101;
/// Lines are written when they are this long together, or when the turn is over.
const FLUSH_BYTES: usize = 32 * 1024;

/// Appends whole lines to the log, in one piece.
pub type AccessSink = Box<dyn Fn(&[u8]) + Send>;

/// What lines show of the worker.
#[derive(Clone, Debug, Default)]
pub struct WorkerFace {
    /// Its number (`worker.age`).
    pub number: u64,
    /// Address and port of each listener, in their order; empty for unix sockets.
    pub listeners: Vec<(String, String)>,
    /// Where the application is mounted, unless a proxy says it.
    pub script_name: Vec<u8>,
    /// Distinguishes its made-up request ids from those of all other workers.
    pub request_id_seed: u64,
}

/// Is given a request that no thread has logged, its status, the bytes sent and how long it took.
pub type AccessRelay = Box<dyn Fn(&Job, u16, u64, Duration) + Send>;

/// Who writes the lines.
pub enum AccessLog {
    Lines(Box<AccessLines>),
    /// Threads do, and somebody else for the requests that no thread has seen.
    Relay(AccessRelay),
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}

impl From<AccessLines> for AccessLog {
    fn from(lines: AccessLines) -> Self {
        Self::Lines(Box::new(lines))
    }
}

impl AccessLog {
    /// A log of this process, of every request.
    pub fn new(format: AccessFormat, sink: AccessSink) -> Self {
        AccessLines::new(format, sink).into()
    }

    fn record(&mut self, exchange: &Exchange<'_>, duration: Duration, now: (i64, u32)) {
        match self {
            Self::Lines(lines) => lines.record(exchange, duration, now),
            Self::Relay(relay) if !exchange.job.is_logged => {
                relay(exchange.job, exchange.status, exchange.bytes_sent, duration);
            }
            Self::Relay(_) => {}
        }
    }

    /// Write the lines that were collected.
    pub(super) fn flush(&mut self) {
        if let Self::Lines(lines) = self {
            lines.flush();
        }
    }

    /// The end of a busy turn: lines wait for others, but not for long.
    pub(super) fn flush_if_due(&mut self, now: Instant) {
        if let Self::Lines(lines) = self
            && !lines.lines.is_empty()
            && now.saturating_duration_since(*lines.oldest.get_or_insert(now)) >= LINES_WAIT_MAX
        {
            lines.flush();
        }
    }
}

/// While the loop is busy a line waits at most this for others to be written with; before it sleeps all are written.
const LINES_WAIT_MAX: Duration = Duration::from_millis(5);

/// A compiled format, where its lines go, and the lines that are not written yet.
pub struct AccessLines {
    format: AccessFormat,
    filter: AccessFilter,
    face: WorkerFace,
    lines: Vec<u8>,
    /// The end of the turn in which the oldest of them was made.
    oldest: Option<Instant>,
    sink: AccessSink,
    /// The last peer's address as text: most lines of a turn are of few peers.
    peer: Option<(IpAddr, String)>,
    pid: u32,
}

impl std::fmt::Debug for AccessLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLines")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl AccessLines {
    /// A log of this process, of every request.
    pub fn new(format: AccessFormat, sink: AccessSink) -> Self {
        Self {
            format,
            filter: AccessFilter::default(),
            face: WorkerFace::default(),
            lines: Vec::new(),
            oldest: None,
            sink,
            peer: None,
            pid: std::process::id(),
        }
    }

    /// With lines only of the requests that `filter` admits.
    #[must_use]
    pub fn filtered(mut self, filter: AccessFilter) -> Self {
        self.filter = filter;
        self
    }

    /// With what the lines may show of the worker.
    #[must_use]
    pub fn of_worker(mut self, face: WorkerFace) -> Self {
        self.face = face;
        self
    }

    fn record(&mut self, exchange: &Exchange<'_>, duration: Duration, now: (i64, u32)) {
        let job = exchange.job;
        let path = job.head.path();
        if !self.filter.admits(path, exchange.status, duration) {
            return;
        }
        self.know(job.peer);
        let peer = job.peer.ip().and(self.peer.as_ref());
        // Looked for and made only to be shown: both cost about as much as the line.
        let made;
        let request_id = if self.format.shows_request_id() {
            made = made_request_id(self.face.request_id_seed, job.serial);
            client_request_id(&job.head).unwrap_or(&made)
        } else {
            &[]
        };
        let trace = self.format.shows_trace().then(|| trace_parent(&job.head));
        let listener = self.face.listeners.get(job.listener);
        let entry = AccessEntry {
            peer: peer.map_or("", |(_, text)| text),
            peer_port: match job.peer {
                Peer::Tcp(address) => Some(address.port()),
                Peer::Ip(_) | Peer::Unix => None,
            },
            method: job.head.method(),
            target: job.head.target(),
            path,
            script_name: match job.forwarded.has_script_name {
                true => job.head.field(b"script_name").unwrap_or_default(),
                false => &self.face.script_name,
            },
            query: job.head.query(),
            version: job.head.version().as_str(),
            is_https: job.forwarded.is_https == Some(true),
            server: listener.map_or(("", ""), |(address, port)| (address, port)),
            request: &job.head,
            status: exchange.status,
            response: &job.response,
            environ: &job.noted,
            bytes_received: job.body_bytes,
            bytes_sent: exchange.bytes_sent,
            duration,
            queued: queued(job),
            gil_wait: queued(job).map(|_| job.gil_wait),
            now,
            pid: self.pid,
            worker: self.face.number,
            connection: (job.conn.slot, job.conn.generation),
            request_id,
            trace: trace
                .flatten()
                .map(|TraceParent { trace_id, span_id }| (trace_id, span_id)),
            reason: exchange.reason,
        };
        self.format.write(&entry, &mut self.lines);
        if self.lines.len() >= FLUSH_BYTES {
            self.flush();
        }
    }

    /// Have the peer's address as text.
    fn know(&mut self, peer: Peer) {
        let Some(address) = peer.ip() else { return };
        if self
            .peer
            .as_ref()
            .is_none_or(|(known, _)| *known != address)
        {
            self.peer = Some((address, address.to_string()));
        }
    }

    /// Write the lines that were collected.
    fn flush(&mut self) {
        if !self.lines.is_empty() {
            (self.sink)(&self.lines);
            self.lines.clear();
            self.oldest = None;
        }
    }
}

/// The loop has ended, or has failed: what it logged last is not lost with it.
impl Drop for AccessLines {
    fn drop(&mut self) {
        self.flush();
    }
}

/// How long the request waited for a thread; `None` if none took it. (Its job may be one that was used before.)
fn queued(job: &Job) -> Option<Duration> {
    let queued = job.started.checked_duration_since(job.arrived);
    queued.filter(|queued| !queued.is_zero())
}

/// How an exchange ended.
#[derive(Debug)]
struct Exchange<'a> {
    job: &'a Job,
    status: u16,
    bytes_sent: u64,
    reason: &'a str,
}

impl Core {
    fn log_access(&mut self, exchange: &Exchange<'_>) {
        let now = std::time::Instant::now();
        let duration = now.saturating_duration_since(exchange.job.arrived);
        let slot = self.slot();
        slot.add_requests(1);
        slot.add_bytes_out(exchange.bytes_sent);
        slot.latency().record_alone(duration);
        if let Some(metrics) = &mut self.metrics {
            metrics.request(duration, exchange.status);
        }
        let now = self.clock.unix_time(now);
        if let Some(log) = &mut self.access_log {
            log.record(exchange, duration, now);
        }
    }

    /// Nothing was answered.
    fn log_unanswered(&mut self, job: &Job, status: u16, reason: &str) {
        self.log_access(&Exchange {
            job,
            status,
            bytes_sent: 0,
            reason,
        });
    }

    /// The client was gone when the answer came, or we had closed its connection ourselves.
    pub(super) fn log_gone(&mut self, job: &Job) {
        let reason = match self.cut {
            true => "cut by the stop",
            false => "client gone",
        };
        self.log_unanswered(job, CLIENT_GONE, reason);
    }

    /// The request ran for too long and was answered without the application.
    pub(super) fn log_overrun(&mut self, job: &Job, status: u16, bytes_sent: u64) {
        self.log_access(&Exchange {
            job,
            status,
            bytes_sent,
            reason: "request_timeout",
        });
    }

    /// The application took the connection over, and its request has ended.
    pub(super) fn log_upgraded(&mut self, job: &Job) {
        self.log_unanswered(job, SWITCHED, "");
    }
}

impl Connection {
    pub(super) fn log_answered(&mut self, answered: &Answered, core: &mut Core) {
        core.log_access(&Exchange {
            job: &answered.job,
            status: answered.status,
            bytes_sent: self.body_sent,
            reason: &answered.reason,
        });
        self.body_sent = 0;
    }

    /// A request that was given up while it was being received: nothing is answered, but it leaves a line.
    pub(super) fn log_refused(&mut self, status: Status, reason: &str, core: &mut Core) {
        if let Some(job) = self.job.take() {
            core.log_unanswered(&job, status.code, reason);
            core.recycle(job);
        }
    }

    /// Why the answer that is on its way is not what was asked for.
    pub(super) fn note_reason(&mut self, reason: impl Into<Cow<'static, str>>) {
        if let Some(answered) = &mut self.answered {
            answered.reason = reason.into();
        }
    }

    /// See `note_reason`.
    pub(super) fn note_parse_error(&mut self, error: &ParseError) {
        self.note_reason(error.to_string());
    }
}
