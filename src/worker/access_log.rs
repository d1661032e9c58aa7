//! The access log's lines: one for every request that was answered, refused, timed out or cut.
//!
//! Lines of one turn of the loop are collected and written together.

use std::net::IpAddr;
use std::time::Duration;

use crate::http::Status;
use crate::logging::access::{AccessEntry, AccessFormat};
use crate::pool::Job;

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

/// Is given a request that no thread has logged, its status, the bytes sent and how long it took.
pub type AccessRelay = Box<dyn Fn(&Job, u16, u64, Duration) + Send>;

/// Who writes the lines.
pub enum AccessLog {
    Lines(AccessLines),
    /// Threads do, and somebody else for the requests that no thread has seen.
    Relay(AccessRelay),
}

/// A compiled format, where its lines go, and the lines that are not written yet.
pub struct AccessLines {
    format: AccessFormat,
    lines: Vec<u8>,
    sink: AccessSink,
    /// The last peer's address as text: most lines of a turn are of few peers.
    peer: Option<(IpAddr, String)>,
    pid: u32,
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AccessLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLines")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl AccessLog {
    /// A log of this process.
    pub fn new(format: AccessFormat, sink: AccessSink) -> Self {
        Self::Lines(AccessLines {
            format,
            lines: Vec::new(),
            sink,
            peer: None,
            pid: std::process::id(),
        })
    }

    fn record(&mut self, job: &Job, status: u16, bytes_sent: u64, times: Times) {
        match self {
            Self::Lines(lines) => lines.record(job, status, bytes_sent, times),
            Self::Relay(relay) if !job.is_logged => relay(job, status, bytes_sent, times.duration),
            Self::Relay(_) => {}
        }
    }

    /// Write the lines that were collected.
    pub(super) fn flush(&mut self) {
        if let Self::Lines(lines) = self {
            lines.flush();
        }
    }
}

impl AccessLines {
    fn record(&mut self, job: &Job, status: u16, bytes_sent: u64, times: Times) {
        let address = job.peer.ip();
        if let Some(address) = address
            && self
                .peer
                .as_ref()
                .is_none_or(|(known, _)| *known != address)
        {
            self.peer = Some((address, address.to_string()));
        }
        let peer = address.and(self.peer.as_ref()).map_or("", |(_, text)| text);
        let version = job.head.version();
        let entry = AccessEntry {
            peer,
            method: job.head.method(),
            target: job.head.target(),
            path: job.head.path(),
            query: job.head.query(),
            version: version.as_str(),
            request: &job.head,
            status,
            response: &job.response,
            bytes_sent,
            duration: times.duration,
            now: times.unix_seconds,
            pid: self.pid,
        };
        self.format.write(&entry, &mut self.lines);
        if self.lines.len() >= FLUSH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.lines.is_empty() {
            (self.sink)(&self.lines);
            self.lines.clear();
        }
    }
}

#[derive(Clone, Copy)]
struct Times {
    duration: Duration,
    unix_seconds: i64,
}

impl Core {
    pub(super) fn log_access(&mut self, job: &Job, status: u16, bytes_sent: u64) {
        let duration = std::time::Instant::now().saturating_duration_since(job.arrived);
        let slot = self.slot();
        slot.add_requests(1);
        slot.add_bytes_out(bytes_sent);
        slot.latency().record_alone(duration);
        let times = Times {
            duration,
            unix_seconds: self.clock.unix_seconds(),
        };
        if let Some(log) = &mut self.access_log {
            log.record(job, status, bytes_sent, times);
        }
    }

    /// The client was gone when the answer came.
    pub(super) fn log_gone(&mut self, job: &Job) {
        self.log_access(job, CLIENT_GONE, 0);
    }

    /// The application took the connection over, and its request has ended.
    pub(super) fn log_upgraded(&mut self, job: &Job) {
        self.log_access(job, SWITCHED, 0);
    }
}

impl Connection {
    pub(super) fn log_answered(&mut self, answered: &Answered, core: &mut Core) {
        core.log_access(&answered.job, answered.status, self.body_sent);
        self.body_sent = 0;
    }

    /// A request that was given up while it was being received: nothing is answered, but it leaves a line.
    pub(super) fn log_refused(&mut self, status: Status, core: &mut Core) {
        if let Some(job) = self.job.take() {
            core.log_access(&job, status.code, 0);
            core.recycle(job);
        }
    }
}
