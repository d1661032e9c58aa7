//! The log: the backend of the `log` facade, writing gunicorn's line format. It never takes the GIL.
//!
//! `[2026-11-20 10:22:28 +0000] [30869] [INFO] message`
//!
//! Invariants:
//! - A line is one `write` to a descriptor opened for appending, so lines of several processes never mix.
//! - The lock is held for formatting and that one write only. The arbiter has no second thread, so no child
//!   can be forked while it is held.
//! - A log that cannot be written is lost in silence: there is nowhere to complain.
//!
//! `log` knows no "critical": a message with the target `"critical"` is shown as such.

pub mod access;
pub mod clock;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Log, Metadata, Record};

use self::clock::LocalTime;
use crate::config::LogLevel;

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

/// A log's destination could not be opened; worded as gunicorn words it.
#[derive(Debug, thiserror::Error)]
#[error("Error: '{path}' isn't writable [{reason}]")]
pub struct LogError {
    path: String,
    reason: io::Error,
}

/// Sends the log to `errorlog` (`-` is stderr) at `level`. May be called again, after a reload: when the new
/// file cannot be opened the log stays as it was.
///
/// # Errors
/// When the file cannot be opened for writing.
pub fn init(errorlog: &str, level: LogLevel) -> Result<(), LogError> {
    let destination = Destination::open(errorlog, Standard::Error)?;
    let mut sink = BACKEND.sink();
    sink.destination = destination;
    sink.level = level;
    drop(sink);
    // Fails from the second call on, when the backend is already ours.
    let _ = log::set_logger(&BACKEND);
    log::set_max_level(level.filter());
    Ok(())
}

/// Sends what `write_access` gets to `accesslog` (`-` is stdout) from now on.
///
/// # Errors
/// When the file cannot be opened for writing.
pub fn init_access(accesslog: &str) -> Result<(), LogError> {
    let destination = Destination::open(accesslog, Standard::Output)?;
    *access_destination() = Some(destination);
    Ok(())
}

/// Appends finished lines to the access log, if there is one.
pub fn write_access(lines: &[u8]) {
    if let Some(destination) = access_destination().as_mut() {
        destination.write(lines);
    }
}

/// Opens the files of both logs anew, after they were rotated. Standard streams stay as they are.
///
/// # Errors
/// When a file cannot be opened: then the old one stays in use.
pub fn reopen() -> Result<(), LogError> {
    let error_log = BACKEND.sink().destination.reopen();
    let access_log = access_destination().as_mut().map(Destination::reopen);
    error_log.and(access_log.unwrap_or(Ok(())))
}

static ACCESS: Mutex<Option<Destination>> = Mutex::new(None);

fn access_destination() -> MutexGuard<'static, Option<Destination>> {
    ACCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records with this target are the application's text (`wsgi.errors`): written without a prefix, at any level.
pub const RAW_TARGET: &str = "wsgi.errors";

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
    line: Vec<u8>,
}

static BACKEND: Backend = Backend(Mutex::new(None));

impl Backend {
    fn sink(&self) -> SinkGuard<'_> {
        // A panic while a line was written leaves nothing that the next line could trip over.
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.get_or_insert_with(|| Sink {
            destination: Destination::Standard(Standard::Error),
            level: LogLevel::Info,
            time: LocalTime::error_log(),
            line: Vec::new(),
        });
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
        let is_silent = !is_raw && level < self.sink().level;
        if is_silent || is_relayed(level, record.args(), is_raw) {
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
    /// Text of the application's own, as it is.
    fn write_raw(&mut self, text: &std::fmt::Arguments<'_>) {
        self.line.clear();
        // As in `write`.
        let _ = write!(self.line, "{text}");
        self.destination.write(&self.line);
    }

    fn write(&mut self, level: LogLevel, message: &std::fmt::Arguments<'_>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        let time = self.time.at(i64::try_from(now).unwrap_or(0));
        self.line.clear();
        // Writing to a Vec cannot fail; what can is a Display of the caller's, and then the line is cut.
        let _ = writeln!(
            self.line,
            "{time} [{}] [{}] {message}",
            std::process::id(),
            level_name(level)
        );
        self.destination.write(&self.line);
    }
}

/// Where lines go: a file opened for appending, or one of our own standard streams.
#[derive(Debug)]
pub enum Destination {
    Standard(Standard),
    File { path: PathBuf, file: File },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    Output,
    Error,
}

impl Destination {
    /// `-` means `standard`; everything else is a path.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn open(name: &str, standard: Standard) -> Result<Self, LogError> {
        if name == "-" {
            return Ok(Self::Standard(standard));
        }
        let path = PathBuf::from(name);
        let file = open_for_appending(&path)?;
        Ok(Self::File { path, file })
    }

    /// Writes finished lines, with one system call when the descriptor takes them at once.
    pub fn write(&mut self, lines: &[u8]) {
        // A full disk or a closed pipe must not stop the server.
        let _ = match self {
            Self::Standard(Standard::Output) => unbuffered(&io::stdout(), lines),
            Self::Standard(Standard::Error) => unbuffered(&io::stderr(), lines),
            Self::File { file, .. } => file.write_all(lines),
        };
    }

    /// Opens the path anew.
    ///
    /// # Errors
    /// When that fails: then the open file stays in use.
    pub fn reopen(&mut self) -> Result<(), LogError> {
        if let Self::File { path, file } = self {
            *file = open_for_appending(path)?;
        }
        Ok(())
    }
}

/// The standard library's streams buffer or split at newlines; a plain write to their descriptor does not.
fn unbuffered(stream: &impl std::os::fd::AsFd, lines: &[u8]) -> io::Result<()> {
    let mut rest = lines;
    while !rest.is_empty() {
        match nix::unistd::write(stream, rest) {
            Ok(0) => break,
            Ok(written) => rest = &rest[written..],
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn open_for_appending(path: &std::path::Path) -> Result<File, LogError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o666)
        .open(path)
        .map_err(|reason| LogError {
            path: path.display().to_string(),
            reason,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_path(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("ferricorn-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory.join(name)
    }

    #[test]
    fn a_line_has_gunicorns_form() {
        let path = log_path("form");
        let mut sink = Sink {
            destination: Destination::open(path.to_str().unwrap(), Standard::Error).unwrap(),
            level: LogLevel::Info,
            time: LocalTime::error_log(),
            line: Vec::new(),
        };
        sink.write(LogLevel::Warning, &format_args!("hello {}", 1));
        let text = std::fs::read_to_string(&path).unwrap();
        let pid = std::process::id();
        assert!(
            text.ends_with(&format!("] [{pid}] [WARNING] hello 1\n")),
            "{text}"
        );
        assert_eq!(&text[..3], "[20");
        assert_eq!(text.find(']'), Some(26));
    }

    #[test]
    fn reopen_follows_the_name_and_survives_failure() {
        let path = log_path("rotate");
        let mut destination = Destination::open(path.to_str().unwrap(), Standard::Error).unwrap();
        destination.write(b"one\n");
        std::fs::rename(&path, log_path("rotate.1")).unwrap();
        destination.write(b"two\n");
        destination.reopen().unwrap();
        destination.write(b"three\n");
        assert_eq!(std::fs::read(log_path("rotate.1")).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");

        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(destination.reopen().is_err());
        destination.write(b"still open\n");
    }

    #[test]
    fn an_unwritable_file_is_one_line() {
        let error = Destination::open("/nonexistent/log", Standard::Error).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("Error: '/nonexistent/log' isn't writable [")
        );
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
