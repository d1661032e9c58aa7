//! Local time as log lines show it, formatted at most once a second.

use chrono::{DateTime, FixedOffset, Local, Offset as _, Utc};

/// The text of one moment in one format, kept until the second changes.
#[derive(Debug)]
pub struct LocalTime {
    format: &'static str,
    second: i64,
    text: String,
    /// The zone's rules are asked once per quarter of an hour: no zone changes its offset in between, and
    /// each question may read the environment, which Python threads may be writing to.
    quarter: i64,
    offset: FixedOffset,
}

impl LocalTime {
    /// `[2026-11-20 10:22:28 +0000]`, of error log lines.
    #[must_use]
    pub fn error_log() -> Self {
        Self::new("[%Y-%m-%d %H:%M:%S %z]")
    }

    /// `[20/Nov/2026:10:22:28 +0000]`, of access log lines.
    #[must_use]
    pub fn access_log() -> Self {
        Self::new("[%d/%b/%Y:%H:%M:%S %z]")
    }

    fn new(format: &'static str) -> Self {
        Self {
            format,
            second: i64::MIN,
            text: String::new(),
            quarter: i64::MIN,
            offset: Utc.fix(),
        }
    }

    pub fn at(&mut self, unix_seconds: i64) -> &str {
        if unix_seconds != self.second {
            self.second = unix_seconds;
            let moment = DateTime::from_timestamp(unix_seconds, 0).unwrap_or_default();
            let quarter = unix_seconds.div_euclid(QUARTER_HOUR_S);
            if quarter != self.quarter {
                self.quarter = quarter;
                self.offset = moment.with_timezone(&Local).offset().fix();
            }
            let local = moment.with_timezone(&self.offset);
            self.text = local.format(self.format).to_string();
        }
        &self.text
    }
}

/// Moments as RFC 3339 writes them, in UTC with milliseconds; the date's text is kept until the second changes.
#[derive(Debug, Default)]
pub struct UtcTime {
    second: i64,
    text: String,
}

impl UtcTime {
    /// `2026-11-20T10:22:28.123Z`
    pub fn write(&mut self, unix_seconds: i64, nanos: u32, out: &mut Vec<u8>) {
        if unix_seconds != self.second || self.text.is_empty() {
            self.second = unix_seconds;
            let moment = DateTime::from_timestamp(unix_seconds, 0).unwrap_or_default();
            self.text = moment.format("%Y-%m-%dT%H:%M:%S").to_string();
        }
        let millis = nanos / 1_000_000;
        let digit = |tens: u32| b'0' + (millis / tens % 10) as u8;
        out.extend_from_slice(self.text.as_bytes());
        out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1), b'Z']);
    }
}

const QUARTER_HOUR_S: i64 = 15 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_gunicorn() {
        let mut error = LocalTime::error_log();
        error.quarter = 1_795_170_148_i64.div_euclid(QUARTER_HOUR_S);
        assert_eq!(error.at(1_795_170_148), "[2026-11-20 10:22:28 +0000]");
        assert_eq!(error.at(1_795_170_148), "[2026-11-20 10:22:28 +0000]");
        assert_eq!(error.at(1_795_170_149), "[2026-11-20 10:22:29 +0000]");
        let mut access = LocalTime::access_log();
        access.quarter = error.quarter;
        access.offset = FixedOffset::west_opt(5 * 3600).unwrap();
        assert_eq!(access.at(1_795_170_148), "[20/Nov/2026:05:22:28 -0500]");
    }

    #[test]
    fn utc_has_milliseconds() {
        let mut utc = UtcTime::default();
        let mut out = Vec::new();
        utc.write(1_795_170_148, 7_999_999, &mut out);
        utc.write(1_795_170_148, 999_999_999, &mut out);
        assert_eq!(out, b"2026-11-20T10:22:28.007Z2026-11-20T10:22:28.999Z");
    }
}
