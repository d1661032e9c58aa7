//! The log: the backend of the `log` facade, writing gunicorn's line format. It never takes the GIL.
//!
//! `[2026-11-20 10:22:28 +0000] [30869] [INFO] message`
//!
//! Invariants:
//! - A line is one `write` to a descriptor opened for appending, so lines of several processes never mix.
//! - A lock is held for formatting and that one write only. The arbiter has no second thread, so no child
//!   can be forked while it is held. Where two are held, the error log's is the first.
//! - A log that cannot be written is lost in silence: there is nowhere to complain. (What can be noticed without
//!   losing the line, a file that cannot be opened anew or a syslog that takes nothing, is said once.)
//!
//! `log` knows no "critical": a message with the target `"critical"` is shown as such.

pub mod access;
pub mod clock;
pub mod destination;
pub mod statsd;
pub mod syslog;

use std::io::Write as _;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Log, Metadata, Record};
use nix::unistd::{getegid, geteuid};

use self::clock::LocalTime;
use self::destination::{Destination, FileOptions, LogError, Standard};
#[cfg(doc)]
use self::statsd::Metric;
use self::statsd::Statsd;
use self::syslog::{Kind, Notice, Syslog, SyslogError};
use crate::config::{Config, LogLevel};

/// The level of a message as gunicorn would name it.
fn level_of(metadata: &Metadata<'_>) -> LogLevel {
    match metadata.level() {
        log::Level::Error if metadata.target() == "critical" => LogLevel::Critical,
        log::Level::Error => LogLevel::Error,
        log::Level::Warn => LogLevel::Warning,
        log::Level::Info => LogLevel::Info,
        log::Level::Debug | log::Level::Trace => LogLevel::Debug,
    }
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "DEBUG",
        LogLevel::Info => "INFO",
        LogLevel::Warning => "WARNING",
        LogLevel::Error => "ERROR",
        LogLevel::Critical => "CRITICAL",
    }
}

/// What the operator got wrong about the logs.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Syslog(#[from] SyslogError),
}

/// Opens the logs that the settings ask for. May be called again, after a reload: when something cannot be opened,
/// everything stays as it was.
///
/// # Errors
/// When a file cannot be opened for writing, or syslog's settings make no sense.
pub fn init(config: &Config) -> Result<(), InitError> {
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
    let new_syslog = (config.syslog.syslog && is_built_in)
        .then(|| Syslog::new(config))
        .transpose()?;
    let open_access = |name: &str| Destination::open(name, Standard::Output, options);
    let accesslog = config
        .access_log
        .accesslog
        .as_deref()
        .filter(|_| is_built_in);
    let accesslog = accesslog.map(open_access).transpose()?;
    let errorlog = Destination::open(&config.logging.errorlog, Standard::Error, error_options)?;
    let statsd = Statsd::new(config);
    // What statsd counts is counted whether or not it shows.
    let shown = config.logging.loglevel.filter();
    let counted = if statsd.is_some() {
        shown.max(log::LevelFilter::Warn)
    } else {
        shown
    };
    let mut sink = BACKEND.sink();
    sink.destination = errorlog;
    sink.level = config.logging.loglevel;
    sink.statsd = statsd;
    drop(sink);
    *lock(&ACCESS) = accesslog;
    *lock(&SYSLOG) = new_syslog;
    // Fails from the second call on, when the backend is already ours.
    let _ = log::set_logger(&BACKEND);
    log::set_max_level(counted);
    Ok(())
}

/// Whether there is an access log to write to.
pub fn logs_access(config: &Config) -> bool {
    config.access_log.accesslog.is_some()
        || config.syslog.syslog && !config.syslog.disable_redirect_access_to_syslog
}

/// Appends finished lines to the access log, if there is one.
pub fn write_access(lines: &[u8]) {
    let mut failed = None;
    if let Some(destination) = lock(&ACCESS).as_mut() {
        failed = destination.follow().err();
        destination.write(lines);
    }
    if let Some(error) = failed {
        log::error!("{error}");
    }
    let mut notices = Vec::new();
    if let Some(syslog) = lock(&SYSLOG).as_mut().filter(|syslog| syslog.takes_access) {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            notices.extend(syslog.send(Kind::Access, LogLevel::Info, line));
        }
    }
    for notice in notices {
        BACKEND.sink().write_notice(&notice);
    }
}

/// Opens the files of both logs anew, after they were rotated. Standard streams stay as they are.
///
/// # Errors
/// When a file cannot be opened: then the old one stays in use.
pub fn reopen() -> Result<(), LogError> {
    let error_log = BACKEND.sink().destination.reopen();
    let access_log = lock(&ACCESS).as_mut().map(Destination::reopen);
    error_log.and(access_log.unwrap_or(Ok(())))
}

/// Looks after what waits for no line: files that were rotated, messages that a stream did not take. To be called
/// about once a second.
pub fn tick() {
    let access_log = lock(&ACCESS).as_mut().map(Destination::follow);
    let error_log = BACKEND.sink().destination.follow();
    let failed = [Some(error_log), access_log].into_iter().flatten();
    for error in failed.filter_map(Result::err) {
        log::error!("{error}");
    }
    let notice = lock(&SYSLOG).as_mut().and_then(Syslog::tick);
    if let Some(notice) = notice {
        BACKEND.sink().write_notice(&notice);
    }
}

/// The process ends: what a stream has not taken yet gets a moment.
pub fn close() {
    if let Some(syslog) = lock(&SYSLOG).as_mut() {
        syslog.close();
    }
}

/// Standard output and error were changed: with `capture_output` they go to the error log again.
pub fn capture() {
    BACKEND.sink().destination.capture();
}

/// Where code that cannot call us writes to the error log, for as long as the process has it open.
pub fn error_log_fd() -> RawFd {
    BACKEND.sink().destination.raw_fd()
}

static ACCESS: Mutex<Option<Destination>> = Mutex::new(None);
static SYSLOG: Mutex<Option<Syslog>> = Mutex::new(None);

/// A panic while something was written leaves nothing that the next line could trip over.
fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records with this target are the application's text (`wsgi.errors`): written without a prefix, at any level.
pub const RAW_TARGET: &str = "wsgi.errors";

/// Records with this target are for statsd and no lines: `gauge NAME NUMBER`, with the words of [`Metric`].
pub const METRIC_TARGET: &str = "metric";

/// Writes what Python's logger `gunicorn.error` lets through: it has judged the level itself.
pub fn write_judged(level: LogLevel, text: &str) {
    BACKEND.sink().write(level, &format_args!("{text}"));
}

/// Writes text to the error log as it is.
pub fn write_raw(text: &str) {
    BACKEND.sink().write_raw(&format_args!("{text}"));
}

/// Takes the log over: gets every record that the level lets through, and whether it is raw text. False: it could not,
/// and the record is written here.
pub type Relay = Arc<dyn Fn(LogLevel, &std::fmt::Arguments<'_>, bool) -> bool + Send + Sync>;

static RELAY: RwLock<Option<Relay>> = RwLock::new(None);

/// Hands the error log to a logger of the operator's, or takes it back. The relay may be called on any thread.
pub fn set_relay(relay: Option<Relay>) {
    *RELAY.write().unwrap_or_else(PoisonError::into_inner) = relay;
}

/// Whether the relay has taken the record. No lock is held while it works.
fn is_relayed(level: LogLevel, text: &std::fmt::Arguments<'_>, is_raw: bool) -> bool {
    let relay = RELAY.read().unwrap_or_else(PoisonError::into_inner).clone();
    relay.is_some_and(|relay| relay(level, text, is_raw))
}

struct Backend(Mutex<Option<Sink>>);

struct Sink {
    destination: Destination,
    level: LogLevel,
    time: LocalTime,
    statsd: Option<Statsd>,
    line: Vec<u8>,
}

static BACKEND: Backend = Backend(Mutex::new(None));

impl Backend {
    fn sink(&self) -> SinkGuard<'_> {
        // A panic while a line was written leaves nothing that the next line could trip over.
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.get_or_insert_with(Sink::new);
        SinkGuard(guard)
    }
}

impl Log for Backend {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        level_of(metadata) >= self.sink().level
    }

    fn log(&self, record: &Record<'_>) {
        let level = level_of(record.metadata());
        let is_raw = record.target() == RAW_TARGET;
        if record.target() == METRIC_TARGET {
            if let Some(statsd) = &mut self.sink().statsd {
                statsd.add_text(&record.args().to_string());
            }
            return;
        }
        if !is_raw && level < self.sink().level {
            if let Some(statsd) = &mut self.sink().statsd {
                statsd.logged(level, b"");
            }
            return;
        }
        if is_relayed(level, record.args(), is_raw) {
            if let Some(statsd) = self.sink().statsd.as_mut().filter(|_| !is_raw) {
                statsd.logged(level, record.args().to_string().as_bytes());
            }
            return;
        }
        let mut sink = self.sink();
        if is_raw {
            sink.write_raw(record.args());
        } else {
            sink.write(level, record.args());
        }
    }

    fn flush(&self) {}
}

/// Access to the sink, which exists from the first lock on.
struct SinkGuard<'a>(MutexGuard<'a, Option<Sink>>);

impl std::ops::Deref for SinkGuard<'_> {
    type Target = Sink;

    fn deref(&self) -> &Sink {
        self.0.as_ref().expect("sink() filled it")
    }
}

impl std::ops::DerefMut for SinkGuard<'_> {
    fn deref_mut(&mut self) -> &mut Sink {
        self.0.as_mut().expect("sink() filled it")
    }
}

impl Sink {
    fn new() -> Self {
        Self {
            destination: Destination::standard(Standard::Error),
            level: LogLevel::Info,
            time: LocalTime::error_log(),
            statsd: None,
            line: Vec::new(),
        }
    }

    /// Text of the application's own, as it is.
    fn write_raw(&mut self, text: &std::fmt::Arguments<'_>) {
        self.line.clear();
        // As in `format`.
        let _ = write!(self.line, "{text}");
        self.destination.write(&self.line);
    }

    fn write(&mut self, level: LogLevel, message: &std::fmt::Arguments<'_>) {
        if let Err(error) = self.destination.follow() {
            self.format(LogLevel::Error, &format_args!("{error}"));
            self.destination.write(&self.line);
        }
        let start = self.format(level, message);
        self.destination.write(&self.line);
        let text = &self.line[start..self.line.len() - 1];
        if let Some(statsd) = &mut self.statsd {
            statsd.logged(level, text);
        }
        let notice = lock(&SYSLOG)
            .as_mut()
            .and_then(|syslog| syslog.send(Kind::Error, level, text));
        if let Some(notice) = notice {
            self.write_notice(&notice);
        }
    }

    /// What syslog cannot tell itself.
    fn write_notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Lost(errno) => self.format(
                LogLevel::Warning,
                &format_args!(
                    "syslog takes no messages, and they are dropped: {}",
                    errno.desc()
                ),
            ),
            Notice::Back(dropped) => self.format(
                LogLevel::Info,
                &format_args!("syslog takes messages again; {dropped} were dropped."),
            ),
        };
        self.destination.write(&self.line);
    }

    /// Puts a line into `line`. Returns where the message begins.
    fn format(&mut self, level: LogLevel, message: &std::fmt::Arguments<'_>) -> usize {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        let time = self.time.at(i64::try_from(now).unwrap_or(0));
        let (pid, name) = (std::process::id(), level_name(level));
        self.line.clear();
        // Writing to a Vec cannot fail; what can is a Display of the caller's, and then the line is cut.
        let _ = write!(self.line, "{time} [{pid}] [{name}] ");
        let start = self.line.len();
        let _ = write!(self.line, "{message}");
        self.line.push(b'\n');
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_gunicorns_form() {
        let mut sink = Sink::new();
        let start = sink.format(LogLevel::Warning, &format_args!("hello {}", 1));
        let text = String::from_utf8(sink.line).unwrap();
        let pid = std::process::id();
        assert!(
            text.ends_with(&format!("] [{pid}] [WARNING] hello 1\n")),
            "{text}"
        );
        assert_eq!(&text[..3], "[20");
        assert_eq!(text.find(']'), Some(26));
        assert_eq!(&text[start..], "hello 1\n");
    }

    #[test]
    fn critical_is_a_target() {
        let metadata = Metadata::builder()
            .level(log::Level::Error)
            .target("critical")
            .build();
        assert_eq!(level_of(&metadata), LogLevel::Critical);
        assert_eq!(level_name(LogLevel::Critical), "CRITICAL");
    }
}
