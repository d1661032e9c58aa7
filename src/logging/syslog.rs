//! Syslog: the messages of Python's `SysLogHandler` as gunicorn sets it up, sent without ever waiting.
//!
//! `<PRI>gunicorn.PREFIX.error: [PID] message` and a NUL, in a datagram of its own or behind one another in a stream.
//!
//! Invariants:
//! - No call blocks. A datagram that is not taken is dropped; a stream holds back at most `PENDING_BYTES_MAX`.
//! - What is dropped is counted, and logged when it begins and when it is over.
//! - A connection belongs to one process: a forked child makes its own.

mod endpoint;

use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send, sendto};

pub use self::endpoint::SyslogError;
use self::endpoint::{Address, Link, facility};
use crate::config::{Config, LogLevel};
use crate::fork_guard;

/// Which of the two logs a message is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Error,
    Access,
}

/// What is to be written to the error log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Messages are dropped from now on.
    Lost(Errno),
    /// They are taken again. The number is of those that were dropped.
    Back(u64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Syslog {
    address: Address,
    facility: u8,
    /// `gunicorn.PREFIX.`
    prefix: String,
    takes_access: bool,
    link: Option<Link>,
    /// Whose the link is.
    pid: u32,
    /// No new link is tried before.
    next_try: Option<Instant>,
    /// Of a stream: frames that were not taken yet.
    pending: Vec<u8>,
    /// Since messages are dropped.
    dropped: u64,
    /// Ever, in this process.
    dropped_total: u64,
}

impl Syslog {
    /// Nothing is sent or connected yet.
    ///
    /// # Errors
    /// The address or the facility makes no sense, or the host is unknown.
    pub(super) fn new(config: &Config) -> Result<Self, SyslogError> {
        let prefix = config.syslog.syslog_prefix.clone();
        let prefix = prefix.unwrap_or_else(|| config.process.proc_name.replace(':', "."));
        Ok(Self {
            facility: facility(&config.syslog.syslog_facility)?,
            address: Address::parse(&config.syslog.syslog_addr)?,
            prefix: format!("gunicorn.{prefix}."),
            takes_access: !config.syslog.disable_redirect_access_to_syslog,
            link: None,
            pid: std::process::id(),
            next_try: None,
            pending: Vec::new(),
            dropped: 0,
            dropped_total: 0,
        })
    }

    /// Whether it gets the access log's lines too.
    pub(super) fn takes_access(&self) -> bool {
        self.takes_access
    }

    /// This process was forked: link, messages and counts are its parent's.
    pub(super) fn forked(&mut self) {
        self.pid = std::process::id();
        let of_parent = self.link.take();
        if fork_guard::is_child() {
            // It is closed, and its number may be the application's by now.
            std::mem::forget(of_parent);
        }
        self.next_try = None;
        self.pending.clear();
        self.dropped = 0;
        self.dropped_total = 0;
    }

    /// How many messages were dropped in this process.
    pub(super) fn dropped_total(&self) -> u64 {
        self.dropped_total
    }

    /// Sends one message.
    #[must_use]
    pub(super) fn send(&mut self, kind: Kind, level: LogLevel, message: &[u8]) -> Option<Notice> {
        let name = match kind {
            Kind::Error => "error",
            Kind::Access => "access",
        };
        let priority = self.facility << 3 | severity(level);
        let (prefix, pid) = (&self.prefix, std::process::id());
        let mut frame = Vec::with_capacity(message.len() + 64);
        // A write to a Vec cannot fail.
        let _ = write!(frame, "<{priority}>{prefix}{name}: [{pid}] ");
        frame.extend_from_slice(message);
        frame.push(0);
        let sent = self.send_frame(&frame, pid);
        self.note(sent)
    }

    /// Tries again what is pending. To be called now and then.
    #[must_use]
    pub(super) fn tick(&mut self) -> Option<Notice> {
        if self.pending.is_empty() || self.pid != std::process::id() {
            return None;
        }
        let flushed = self.connect(self.pid).and_then(|()| self.flush());
        self.note(flushed.or_else(|errno| match errno {
            Errno::EAGAIN => Ok(()),
            errno => Err(errno),
        }))
    }

    /// The process ends: a stream gets a moment to take what is pending.
    pub(super) fn close(&mut self) {
        let until = Instant::now() + CLOSE_GRACE;
        while !self.pending.is_empty() && self.pid == std::process::id() {
            let left = until.saturating_duration_since(Instant::now());
            let Some(link) = self.link.as_ref().filter(|_| !left.is_zero()) else {
                return;
            };
            let mut waited = [PollFd::new(link.fd.as_fd(), PollFlags::POLLOUT)];
            let time = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            if poll(&mut waited, time) == Ok(0) {
                return;
            }
            match self.flush() {
                Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn note(&mut self, sent: Result<(), Errno>) -> Option<Notice> {
        match sent {
            Err(errno) => {
                self.dropped += 1;
                self.dropped_total += 1;
                (self.dropped == 1).then_some(Notice::Lost(errno))
            }
            Ok(()) if self.dropped > 0 && self.link.is_some() => {
                Some(Notice::Back(std::mem::take(&mut self.dropped)))
            }
            Ok(()) => None,
        }
    }

    fn send_frame(&mut self, frame: &[u8], pid: u32) -> Result<(), Errno> {
        self.connect(pid)?;
        let Some(link) = &self.link else {
            return Err(Errno::ENOTCONN);
        };
        if !link.is_stream {
            let sent = match &link.to {
                // Not connected, so that a refusal of one message is not held against the next.
                Some(to) => sendto(link.fd.as_raw_fd(), frame, to, SEND_FLAGS),
                None => send(link.fd.as_raw_fd(), frame, SEND_FLAGS),
            };
            return self.give_up_on(sent.map(drop));
        }
        if self.pending.len() + frame.len() > PENDING_BYTES_MAX {
            // There may be room by now.
            let _ = self.flush();
        }
        if self.pending.len() + frame.len() > PENDING_BYTES_MAX {
            return Err(Errno::ENOBUFS);
        }
        self.pending.extend_from_slice(frame);
        match self.flush() {
            // It is kept for later.
            Err(Errno::EAGAIN) => Ok(()),
            result => result,
        }
    }

    /// Writes to the stream what it takes.
    fn flush(&mut self) -> Result<(), Errno> {
        while let Some(link) = self.link.as_ref().filter(|_| !self.pending.is_empty()) {
            match send(link.fd.as_raw_fd(), &self.pending, SEND_FLAGS) {
                Ok(taken) => drop(self.pending.drain(..taken)),
                Err(Errno::EINTR) => {}
                Err(errno) => return self.give_up_on(Err(errno)),
            }
        }
        Ok(())
    }

    /// Gives up the link after an error that will not go away by itself.
    fn give_up_on(&mut self, sent: Result<(), Errno>) -> Result<(), Errno> {
        if let Err(errno) = sent
            && !matches!(errno, Errno::EAGAIN | Errno::ENOBUFS | Errno::EMSGSIZE)
        {
            self.link = None;
            self.forget_begun();
        }
        sent
    }

    /// The rest of a frame whose beginning went to a connection that is gone is of no use to the next one. Which one
    /// it is cannot be told, so the first goes.
    fn forget_begun(&mut self) {
        let end = self.pending.iter().position(|byte| *byte == 0);
        let end = end.map_or(self.pending.len(), |end| end + 1);
        self.pending.drain(..end);
    }

    /// Makes a link of this process if there is none, or fails at once. A failed attempt is repeated after
    /// `RETRY_PERIOD`.
    fn connect(&mut self, pid: u32) -> Result<(), Errno> {
        if self.pid != pid {
            self.forked();
        }
        if self.link.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        if self.next_try.is_some_and(|at| now < at) {
            return Err(Errno::ENOTCONN);
        }
        self.next_try = Some(now + RETRY_PERIOD);
        let link = self.address.connect()?;
        fork_guard::register(&link.fd);
        self.link = Some(link);
        Ok(())
    }
}

fn severity(level: LogLevel) -> u8 {
    match level {
        LogLevel::Critical => 2,
        LogLevel::Error => 3,
        LogLevel::Warning => 4,
        LogLevel::Info => 6,
        LogLevel::Debug => 7,
    }
}

const SEND_FLAGS: MsgFlags = MsgFlags::MSG_NOSIGNAL.union(MsgFlags::MSG_DONTWAIT);
/// In bytes: some thousand lines, for a receiver that is slow for a moment.
const PENDING_BYTES_MAX: usize = 1024 * 1024;
const RETRY_PERIOD: Duration = Duration::from_secs(1);
const CLOSE_GRACE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
