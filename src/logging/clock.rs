//! Local time as log lines show it, formatted at most once a second.

mod zone;

use chrono::{DateTime, FixedOffset, Offset as _, Utc};

/// The text of one moment in one format, kept until the second changes.
#[derive(Debug)]
pub struct LocalTime {
    format: &'static str,
    second: i64,
    text: String,
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
        }
    }

    pub fn at(&mut self, unix_seconds: i64) -> &str {
        if unix_seconds != self.second {
            self.second = unix_seconds;
            let moment = DateTime::from_timestamp(unix_seconds, 0).unwrap_or_default();
            self.text = in_zone(moment, zone::offset_at(unix_seconds), self.format);
        }
        &self.text
    }
}

fn in_zone(moment: DateTime<Utc>, offset: i32, format: &str) -> String {
    let offset = FixedOffset::east_opt(offset).unwrap_or_else(|| Utc.fix());
    moment.with_timezone(&offset).format(format).to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_gunicorn() {
        let moment = DateTime::from_timestamp(1_795_170_148, 0).unwrap();
        let (error, access) = (LocalTime::error_log(), LocalTime::access_log());
        assert_eq!(
            in_zone(moment, 0, error.format),
            "[2026-11-20 10:22:28 +0000]"
        );
        assert_eq!(
            in_zone(moment, -5 * 3600, access.format),
            "[20/Nov/2026:05:22:28 -0500]"
        );
    }

    #[test]
    fn the_text_follows_the_second() {
        let mut time = LocalTime::error_log();
        let first = time.at(1_795_170_148).to_owned();
        assert_eq!(time.at(1_795_170_148), first);
        assert_ne!(time.at(1_795_170_149), first);
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
