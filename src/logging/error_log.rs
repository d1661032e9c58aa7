//! The error log: lines in gunicorn's format, raw text, and the count of both for statsd.
//!
//! `[2026-11-20 10:22:28 +0000] [30869] [INFO] message`

use std::fmt::Arguments;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::clock::LocalTime;
use super::destination::{Destination, Standard};
use super::statsd::Statsd;
use super::syslog::Notice;
use crate::config::LogLevel;

/// See the module.
#[derive(Debug)]
pub(super) struct ErrorLog {
    destination: Destination,
    level: LogLevel,
    time: LocalTime,
    statsd: Option<Statsd>,
    /// The line that is being written.
    line: Vec<u8>,
}

impl ErrorLog {
    /// To standard error, as long as no settings are known.
    pub(super) fn new() -> Self {
        Self {
            destination: Destination::standard(Standard::Error),
            level: LogLevel::Info,
            time: LocalTime::error_log(),
            statsd: None,
            line: Vec::new(),
        }
    }

    pub(super) fn apply(
        &mut self,
        destination: Destination,
        level: LogLevel,
        statsd: Option<Statsd>,
    ) {
        let before = std::mem::replace(&mut self.destination, destination);
        self.destination.succeed(before);
        self.level = level;
        self.statsd = statsd;
    }

    pub(super) fn set_level(&mut self, level: LogLevel) {
        self.level = level;
    }

    pub(super) fn shows(&self, level: LogLevel) -> bool {
        level >= self.level
    }

    pub(super) fn destination(&mut self) -> &mut Destination {
        &mut self.destination
    }

    pub(super) fn statsd(&mut self) -> Option<&mut Statsd> {
        self.statsd.as_mut()
    }

    /// This process will not fork.
    pub(super) fn allow_thread(&mut self) {
        self.destination.allow_thread();
        self.statsd.iter_mut().for_each(Statsd::await_name);
    }

    /// Writes the application's own text, as it is.
    pub(super) fn write_raw(&mut self, text: &Arguments<'_>) {
        self.line.clear();
        // As in `format`.
        let _ = write!(self.line, "{text}");
        self.destination.write(&self.line);
    }

    /// Looks after what waits for no line.
    pub(super) fn tick(&mut self) {
        if let Err(error) = self.destination.follow() {
            self.write_own(LogLevel::Error, &format_args!("{error}"));
        }
        self.destination.flush();
        if let Some(lines) = self.destination.take_dropped() {
            self.write_dropped("error log", lines);
        }
    }

    /// Reports lines that a log did not take.
    pub(super) fn write_dropped(&mut self, log: &str, lines: u64) {
        let message = format_args!("{lines} log lines were dropped: the {log} did not take them.");
        self.write_own(LogLevel::Warning, &message);
    }

    /// Writes and counts a line. Returns the message in it.
    pub(super) fn write(&mut self, level: LogLevel, message: &Arguments<'_>) -> &[u8] {
        self.tick();
        let start = self.format(level, message);
        self.destination.write(&self.line);
        let text = &self.line[start..self.line.len() - 1];
        if let Some(statsd) = &mut self.statsd {
            statsd.logged(level, text);
        }
        text
    }

    /// Writes what syslog cannot report itself.
    pub(super) fn write_notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Lost(errno) => self.write_own(
                LogLevel::Warning,
                &format_args!(
                    "syslog takes no messages, and they are dropped: {}",
                    errno.desc()
                ),
            ),
            Notice::Back(dropped) => self.write_own(
                LogLevel::Info,
                &format_args!("syslog takes messages again; {dropped} were dropped."),
            ),
        }
    }

    /// A line about the log itself, which is not counted.
    fn write_own(&mut self, level: LogLevel, message: &Arguments<'_>) {
        self.format(level, message);
        self.destination.write(&self.line);
    }

    /// Puts a line into `line`. Returns where the message begins.
    fn format(&mut self, level: LogLevel, message: &Arguments<'_>) -> usize {
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

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "DEBUG",
        LogLevel::Info => "INFO",
        LogLevel::Warning => "WARNING",
        LogLevel::Error => "ERROR",
        LogLevel::Critical => "CRITICAL",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_has_gunicorns_form() {
        let mut log = ErrorLog::new();
        let start = log.format(LogLevel::Warning, &format_args!("hello {}", 1));
        let text = String::from_utf8(log.line).unwrap();
        let pid = std::process::id();
        assert!(
            text.ends_with(&format!("] [{pid}] [WARNING] hello 1\n")),
            "{text}"
        );
        assert_eq!(&text[..3], "[20");
        assert_eq!(text.find(']'), Some(26));
        assert_eq!(&text[start..], "hello 1\n");
    }
}
