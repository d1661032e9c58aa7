//! The access log's lines: one for every request that was answered, refused, timed out or cut.
//!
//! Lines of one iteration of the loop are collected and written together.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::http::{TraceParent, client_request_id, made_request_id, trace_parent};
use crate::logging::access::{AccessEntry, AccessFilter, AccessFormat};
use crate::pool::{AccessLine, Job, Peer};

/// Lines are written when they are this many bytes together, or when the iteration is over.
const FLUSH_BYTES: usize = 32 * 1024;

/// Appends whole lines to the log, in one piece.
pub type AccessSink = Box<dyn Fn(&[u8]) + Send>;

/// What lines show of the worker.
#[derive(Clone, Debug, Default)]
pub struct LoggedWorker {
    /// Its number (`worker.age`).
    pub number: u64,
    /// Address and port of each listener, in their order; empty for unix sockets.
    pub listeners: Vec<(String, String)>,
    /// Where the application is mounted, unless a proxy names the place.
    pub script_name: Vec<u8>,
    /// Distinguishes its made-up request ids from those of all other workers.
    pub request_id_seed: u64,
}

/// Is given a request that no thread has logged, its status, the bytes sent and how long it took.
pub type AccessRelay = Box<dyn Fn(&Job, u16, u64, Duration) + Send>;

/// What writes the lines.
pub enum AccessLog {
    Lines(Box<AccessLines>),
    /// The pool threads do; the relay gets the requests that no thread has logged.
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

    pub(super) fn record(
        &mut self,
        job: &Job,
        end: &RequestEnd<'_>,
        duration: Duration,
        now: (i64, u32),
    ) {
        if job.access_line == AccessLine::FromThread {
            return;
        }
        match self {
            Self::Lines(lines) => lines.record(job, end, duration, now),
            Self::Relay(relay) => relay(job, end.status, end.bytes_sent, duration),
        }
    }

    /// Write the lines that were collected.
    pub(super) fn flush(&mut self) {
        if let Self::Lines(lines) = self {
            lines.flush();
        }
    }

    /// The end of an iteration: lines wait for others, but at most [`LINES_WAIT_MAX`].
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
    info: LoggedWorker,
    lines: Vec<u8>,
    /// The end of the iteration in which the oldest of them was made.
    oldest: Option<Instant>,
    sink: AccessSink,
    /// The last peer's address as text: most lines of an iteration are of few peers.
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
            info: LoggedWorker::default(),
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
    pub fn of_worker(mut self, info: LoggedWorker) -> Self {
        self.info = info;
        self
    }

    fn record(&mut self, job: &Job, end: &RequestEnd<'_>, duration: Duration, now: (i64, u32)) {
        let path = job.head.path();
        if !self.filter.admits(path, end.status, duration) {
            return;
        }
        self.cache_peer(job.peer);
        let peer = job.peer.ip().and(self.peer.as_ref());
        // Looked for and made only to be shown: both cost about as much as the line.
        let made;
        let request_id = if self.format.shows_request_id() {
            made = made_request_id(self.info.request_id_seed, job.serial);
            client_request_id(&job.head).unwrap_or(&made)
        } else {
            &[]
        };
        let trace = self.format.shows_trace().then(|| trace_parent(&job.head));
        let listener = self.info.listeners.get(job.listener);
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
                false => &self.info.script_name,
            },
            query: job.head.query(),
            version: job.head.version().as_str(),
            is_https: job.is_https(),
            tls: job.tls.as_deref().map(|tls| (tls.protocol, tls.cipher)),
            server: listener.map_or(("", ""), |(address, port)| (address, port)),
            request: &job.head,
            status: end.status,
            response: &job.response,
            environ: &job.noted,
            bytes_received: job.body_bytes,
            bytes_sent: end.bytes_sent,
            duration,
            queued: queued(job),
            gil_wait: queued(job).map(|_| job.gil_wait),
            now,
            pid: self.pid,
            worker: self.info.number,
            connection: (job.conn.slot, job.conn.generation),
            request_id,
            trace: trace
                .flatten()
                .map(|TraceParent { trace_id, span_id }| (trace_id, span_id)),
            reason: end.reason,
        };
        self.format.write(&entry, &mut self.lines);
        if self.lines.len() >= FLUSH_BYTES {
            self.flush();
        }
    }

    /// Keep the peer's address as text.
    fn cache_peer(&mut self, peer: Peer) {
        let Some(address) = peer.ip() else { return };
        if self
            .peer
            .as_ref()
            .is_none_or(|(cached, _)| *cached != address)
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

/// How a request ended.
#[derive(Debug)]
pub(super) struct RequestEnd<'a> {
    pub(super) status: u16,
    /// Body bytes that the client's socket has taken.
    pub(super) bytes_sent: u64,
    /// Why it is not the application's answer; empty if it is.
    pub(super) reason: &'a str,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn lines_wait_for_others_but_not_for_long_and_none_is_lost_at_the_end() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = written.clone();
        let format = AccessFormat::compile("%(s)s").unwrap();
        let sink = move |lines: &[u8]| sink.lock().unwrap().extend_from_slice(lines);
        let mut log = AccessLog::new(format, Box::new(sink));
        let text = || String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let (now, job) = (Instant::now(), Job::new(Instant::now()));
        let end = |status| RequestEnd {
            status,
            bytes_sent: 0,
            reason: "",
        };
        log.record(&job, &end(200), Duration::ZERO, (0, 0));
        log.flush_if_due(now);
        assert_eq!(text(), "");
        log.record(&job, &end(404), Duration::ZERO, (0, 0));
        log.flush_if_due(now + LINES_WAIT_MAX);
        assert_eq!(text(), "200\n404\n");
        log.record(&job, &end(500), Duration::ZERO, (0, 0));
        drop(log);
        assert_eq!(text(), "200\n404\n500\n");
    }
}
