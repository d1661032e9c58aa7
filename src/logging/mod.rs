//! The logs: error log, access log, syslog and statsd, written without the GIL.
//!
//! [`Log`] is the handle. One stands for the process, because two callers cannot be passed one: the `log` crate, whose
//! `set_logger` wants a `&'static` backend, and the interpreter, which calls the functions of `launcher/api.rs` by
//! name. All others are passed it.
//!
//! Invariants:
//! - A line is one `write` to a descriptor opened for appending, so lines of several processes never mix.
//! - A lock is held for formatting and that one write only. The arbiter has no second thread, so no child
//!   can be forked while it is held. Where two are held, the error log's is the first.
//! - A log that cannot be written is lost in silence: there is nowhere to complain. (What can be noticed without
//!   losing the line, a file that cannot be opened anew or a syslog that takes nothing, is said once.)

pub mod access;
pub mod clock;
pub mod destination;
mod error_log;
mod open;
mod outlet;
pub mod statsd;
pub mod syslog;
mod whole_lines;
mod write_mode;
mod writer;

use std::fmt::{Arguments, Display};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use log::{Metadata, Record};
use nix::unistd::{getegid, geteuid};

use self::destination::{Destination, FileOptions, LogError, Standard};
use self::error_log::ErrorLog;
use self::statsd::{Metric, Statsd};
use self::syslog::{Kind, Syslog, SyslogError};
use crate::config::{Config, LogLevel};
use crate::fork_guard;

/// What the operator got wrong about the logs.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Syslog(#[from] SyslogError),
}

/// Takes records in place of the error log: every one that the level lets through, with whether it is raw text. False:
/// it could not, and the record is written to the error log. It may be called on any thread.
pub type Relay = Arc<dyn Fn(LogLevel, &Arguments<'_>, bool) -> bool + Send + Sync>;

/// A handle on the process's logs, as cheap to copy as a reference.
#[derive(Clone, Copy)]
pub struct Log(&'static Shared);

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl Log {
    /// The process's. To be called where nothing can be passed; see the module.
    #[must_use]
    pub fn of_process() -> Self {
        Self(&PROCESS)
    }

    /// Opens the logs that the settings ask for, and takes the records of the `log` crate. May be called again, after a
    /// reload: when something cannot be opened, everything stays as it was.
    ///
    /// # Errors
    /// When a file cannot be opened for writing, or syslog's settings make no sense.
    pub fn apply(self, config: &Config) -> Result<(), ApplyError> {
        let changes_user =
            (config.process.user, config.process.group) != (geteuid().as_raw(), getegid().as_raw());
        let options = FileOptions {
            owner: changes_user.then_some((config.process.user, config.process.group)),
            captures: false,
        };
        let error_options = FileOptions {
            captures: config.logging.capture_output,
            ..options
        };
        let is_built_in = config.logging.is_built_in();
        let syslog = (config.syslog.syslog && is_built_in)
            .then(|| Syslog::new(config))
            .transpose()?;
        let open_access = |name: &str| Destination::open(name, Standard::Output, options);
        let accesslog = config.access_log.accesslog.as_deref();
        let accesslog = accesslog.filter(|_| is_built_in);
        let mut accesslog = accesslog.map(open_access).transpose()?;
        let errorlog = Destination::open(&config.logging.errorlog, Standard::Error, error_options)?;
        let statsd = Statsd::new(config);
        // What statsd counts is counted whether or not it shows.
        let shown = config.logging.loglevel.filter();
        let counted = if statsd.is_some() {
            shown.max(log::LevelFilter::Warn)
        } else {
            shown
        };
        self.error_log()
            .apply(errorlog, config.logging.loglevel, statsd);
        let mut access = lock(&self.0.access);
        if let (Some(before), Some(now)) = (access.take(), accesslog.as_mut()) {
            now.succeed(before);
        }
        *access = accesslog;
        drop(access);
        *lock(&self.0.syslog) = syslog;
        // This fails from the second call on, when the backend is in place.
        let _ = log::set_logger(self.0);
        log::set_max_level(counted);
        Ok(())
    }

    /// Logs a critical line. The `log` crate knows no such level.
    pub fn critical(self, message: &Arguments<'_>) {
        self.0.take(LogLevel::Critical, message, false);
    }

    /// Sends a metric to statsd, if there is one. The name is without the prefix.
    pub fn metric(self, metric: Metric, name: &str, value: impl Display) {
        if let Some(statsd) = self.error_log().statsd() {
            statsd.add(metric, name, value);
            statsd.flush();
        }
    }

    /// Writes a line that Python's logger `gunicorn.error` lets through: that has looked at the level itself.
    pub fn write_line(self, level: LogLevel, text: &str) {
        self.0.write(level, &format_args!("{text}"));
    }

    /// Writes text to the error log as it is.
    pub fn write_raw(self, text: &str) {
        self.error_log().write_raw(&format_args!("{text}"));
    }

    /// Appends finished lines to the access log, if there is one.
    pub fn write_access(self, lines: &[u8]) {
        self.tend_access(lines);
        let notices = self.0.with_syslog(|syslog| {
            let mut notices = Vec::new();
            if syslog.takes_access() {
                for line in lines.split_inclusive(|byte| *byte == b'\n') {
                    let line = line.strip_suffix(b"\n").unwrap_or(line);
                    notices.extend(syslog.send(Kind::Access, LogLevel::Info, line));
                }
            }
            notices
        });
        for notice in notices.into_iter().flatten() {
            self.error_log().write_notice(&notice);
        }
    }

    /// Writes lines, if there are any, and looks after what waits for none.
    fn tend_access(self, lines: &[u8]) {
        let tended = self.0.with_access(|destination| {
            let failed = destination.follow().err();
            destination.write(lines);
            (failed, destination.take_dropped())
        });
        let (failed, dropped) = tended.unwrap_or_default();
        if let Some(error) = failed {
            log::error!("{error}");
        }
        if let Some(lines) = dropped {
            self.error_log().write_dropped("access log", lines);
        }
    }

    /// How many lines the logs of this process have dropped, and syslog.
    #[must_use]
    pub fn dropped_lines(self) -> u64 {
        let access = self.0.with_access(|access| access.dropped_total());
        let syslog = self.0.with_syslog(|syslog| syslog.dropped_total());
        access.unwrap_or(0) + syslog.unwrap_or(0) + self.error_log().destination().dropped_total()
    }

    /// This process was forked by the server. To be called before it logs.
    pub fn forked(self) {
        self.error_log().destination().forked();
        self.0.with_access(Destination::forked);
        self.0.with_syslog(Syslog::forked);
    }

    /// This process will not fork, so it may have threads for logs on which a write may wait, and for names of their hosts.
    pub fn allow_threads(self) {
        crate::net::host_names::allow_threads();
        self.error_log().allow_thread();
        self.0.with_access(Destination::allow_thread);
    }

    /// The level of the error log has changed.
    pub fn set_level(self, level: LogLevel) {
        self.error_log().set_level(level);
        log::set_max_level(log::max_level().max(level.filter()));
    }

    /// Lets a logger of the operator's take the error log's records, or takes that back.
    pub fn set_relay(self, relay: Option<Relay>) {
        *self.0.relay.write().unwrap_or_else(PoisonError::into_inner) = relay;
    }

    /// Opens the files of both logs anew, after they were rotated. Standard streams stay as they are.
    ///
    /// # Errors
    /// When a file cannot be opened: then the old one stays in use.
    pub fn reopen(self) -> Result<(), LogError> {
        let error_log = self.error_log().destination().reopen();
        let access_log = self.0.with_access(Destination::reopen);
        error_log.and(access_log.unwrap_or(Ok(())))
    }

    /// Looks after what waits for no line: files that were rotated, messages that a stream did not take. To be called
    /// about once a second.
    pub fn tick(self) {
        self.error_log().tick();
        self.tend_access(b"");
        if let Some(notice) = self.0.with_syslog(Syslog::tick).flatten() {
            self.error_log().write_notice(&notice);
        }
    }

    /// The process ends: what was not taken yet gets a moment.
    pub fn close(self) {
        let until = Instant::now() + CLOSE_GRACE;
        self.error_log().destination().close(until);
        self.0.with_access(|destination| destination.close(until));
        self.0.with_syslog(Syslog::close);
    }

    /// Standard output and error were changed: with `capture_output` they go to the error log again.
    pub fn capture(self) {
        self.error_log().destination().capture();
    }

    /// Where code that cannot call us writes to the error log, for as long as the process has it open.
    #[must_use]
    pub fn error_log_fd(self) -> RawFd {
        self.error_log().destination().raw_fd()
    }

    fn error_log(self) -> impl std::ops::DerefMut<Target = ErrorLog> {
        self.0.error_log()
    }
}

/// A process that ends waits at most this for its logs to take what is pending.
const CLOSE_GRACE: Duration = Duration::from_millis(300);

/// Records with this target are the application's text (`wsgi.errors`): written without a prefix, at any level.
pub const RAW_TARGET: &str = "wsgi.errors";

/// What all handles share.
struct Shared {
    /// `None` until the first use.
    error: Mutex<Option<ErrorLog>>,
    access: Mutex<Option<Destination>>,
    syslog: Mutex<Option<Syslog>>,
    relay: RwLock<Option<Relay>>,
}

static PROCESS: Shared = Shared::new();

impl Shared {
    const fn new() -> Self {
        Self {
            error: Mutex::new(None),
            access: Mutex::new(None),
            syslog: Mutex::new(None),
            relay: RwLock::new(None),
        }
    }

    fn error_log(&self) -> ErrorLogGuard<'_> {
        match self.lock(&self.error) {
            Some(mut guard) => {
                guard.get_or_insert_with(ErrorLog::new);
                ErrorLogGuard::Shared(guard)
            }
            None => ErrorLogGuard::Orphan(Box::new(ErrorLog::new())),
        }
    }

    fn with_access<T>(&self, act: impl FnOnce(&mut Destination) -> T) -> Option<T> {
        self.lock(&self.access)?.as_mut().map(act)
    }

    fn with_syslog<T>(&self, act: impl FnOnce(&mut Syslog) -> T) -> Option<T> {
        self.lock(&self.syslog)?.as_mut().map(act)
    }

    /// `None` in a child that the application has forked while another thread held the lock: that thread does not exist
    /// there, and the lock stays held.
    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> Option<MutexGuard<'a, T>> {
        match mutex.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => (!fork_guard::is_child()).then(|| lock(mutex)),
        }
    }

    /// A record, which may not show and may be the relay's.
    fn take(&self, level: LogLevel, message: &Arguments<'_>, is_raw: bool) {
        if !is_raw && !self.error_log().shows(level) {
            if let Some(statsd) = self.error_log().statsd() {
                statsd.logged(level, b"");
            }
            return;
        }
        if self.is_relayed(level, message, is_raw) {
            if let Some(statsd) = self.error_log().statsd().filter(|_| !is_raw) {
                statsd.logged(level, message.to_string().as_bytes());
            }
        } else if is_raw {
            self.error_log().write_raw(message);
        } else {
            self.write(level, message);
        }
    }

    /// Whether the relay has taken the record. No lock is held while it works.
    fn is_relayed(&self, level: LogLevel, message: &Arguments<'_>, is_raw: bool) -> bool {
        let relay = self.relay.read().unwrap_or_else(PoisonError::into_inner);
        let relay = relay.clone();
        relay.is_some_and(|relay| relay(level, message, is_raw))
    }

    /// A line for the error log and for syslog.
    fn write(&self, level: LogLevel, message: &Arguments<'_>) {
        let mut error_log = self.error_log();
        let text = error_log.write(level, message);
        let sent = self.with_syslog(|syslog| syslog.send(Kind::Error, level, text));
        if let Some(notice) = sent.flatten() {
            error_log.write_notice(&notice);
        }
    }
}

impl log::Log for Shared {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.error_log().shows(level_of(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        let is_raw = record.target() == RAW_TARGET;
        self.take(level_of(record.metadata()), record.args(), is_raw);
    }

    fn flush(&self) {}
}

/// The level of a message as gunicorn would name it.
fn level_of(metadata: &Metadata<'_>) -> LogLevel {
    match metadata.level() {
        log::Level::Error => LogLevel::Error,
        log::Level::Warn => LogLevel::Warning,
        log::Level::Info => LogLevel::Info,
        log::Level::Debug | log::Level::Trace => LogLevel::Debug,
    }
}

/// A panic while a line was written leaves nothing that could spoil the next one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Access to the error log.
enum ErrorLogGuard<'a> {
    /// It exists from the first lock on.
    Shared(MutexGuard<'a, Option<ErrorLog>>),
    /// Of a child that cannot have the lock; it writes to standard error.
    Orphan(Box<ErrorLog>),
}

impl std::ops::Deref for ErrorLogGuard<'_> {
    type Target = ErrorLog;

    fn deref(&self) -> &ErrorLog {
        match self {
            Self::Shared(guard) => guard.as_ref().expect("error_log() filled it"),
            Self::Orphan(log) => log,
        }
    }
}

impl std::ops::DerefMut for ErrorLogGuard<'_> {
    fn deref_mut(&mut self) -> &mut ErrorLog {
        match self {
            Self::Shared(guard) => guard.as_mut().expect("error_log() filled it"),
            Self::Orphan(log) => log,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A log of its own, into a file.
    fn log_into(path: &std::path::Path) -> Log {
        let log = Log(Box::leak(Box::new(Shared::new())));
        let name = path.to_str().unwrap();
        let file = Destination::open(name, Standard::Error, FileOptions::default()).unwrap();
        log.error_log().apply(file, LogLevel::Info, None);
        log
    }

    #[test]
    fn critical_lines_say_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        log_into(&path).critical(&format_args!("WORKER {}", 1));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with(" [CRITICAL] WORKER 1\n"), "{text}");
    }

    #[test]
    fn a_relay_takes_what_shows_and_what_it_refuses_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = log_into(&path);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&taken);
        log.set_relay(Some(Arc::new(move |level, text, is_raw| {
            lock(&sink).push((level, text.to_string(), is_raw));
            !is_raw
        })));
        log.0.take(LogLevel::Debug, &format_args!("hidden"), false);
        log.0.take(LogLevel::Error, &format_args!("shown"), false);
        log.0.take(LogLevel::Info, &format_args!("raw"), true);
        assert_eq!(
            *lock(&taken),
            [
                (LogLevel::Error, "shown".to_owned(), false),
                (LogLevel::Info, "raw".to_owned(), true)
            ]
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "raw");
    }
}
