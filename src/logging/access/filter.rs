//! Which exchanges get a line: `access_log_exclude`, `access_log_min_status`, `access_log_slow`.
//!
//! An excluded path never has a line. Of the others all have one, unless a status or a time is asked for: then those
//! that reach the status or take the time.

use std::time::Duration;

/// The three settings.
#[derive(Clone, Debug, Default)]
pub struct AccessFilter {
    /// Paths as sent.
    exact: Vec<Vec<u8>>,
    /// Beginnings of paths.
    prefixes: Vec<Vec<u8>>,
    /// 0: any.
    min_status: u16,
    slow: Option<Duration>,
}

impl AccessFilter {
    /// `exclude` has paths, and beginnings of paths with a `*` behind them.
    pub fn new(exclude: &[String], min_status: u16, slow: Option<Duration>) -> Self {
        let mut filter = Self {
            min_status,
            slow,
            ..Self::default()
        };
        for path in exclude {
            match path.strip_suffix('*') {
                Some(prefix) => filter.prefixes.push(prefix.as_bytes().to_vec()),
                None => filter.exact.push(path.as_bytes().to_vec()),
            }
        }
        filter
    }

    /// Whether an exchange gets a line.
    pub fn admits(&self, path: &[u8], status: u16, duration: Duration) -> bool {
        let is_excluded = self.exact.iter().any(|exact| exact == path)
            || self.prefixes.iter().any(|prefix| path.starts_with(prefix));
        let asks = self.min_status > 0 || self.slow.is_some();
        let reaches = self.min_status > 0 && status >= self.min_status
            || self.slow.is_some_and(|slow| duration >= slow);
        !is_excluded && (!asks || reaches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(1);
    const SLOW: Duration = Duration::from_secs(2);

    #[test]
    fn without_settings_all_have_a_line() {
        assert!(AccessFilter::default().admits(b"", 200, FAST));
    }

    #[test]
    fn excluded_paths_are_whole_or_begin_so() {
        let exclude = ["/health".to_owned(), "/static/*".to_owned()];
        let filter = AccessFilter::new(&exclude, 0, None);
        for path in [&b"/health"[..], b"/static/", b"/static/a.css"] {
            assert!(!filter.admits(path, 500, SLOW));
        }
        for path in [&b"/health/"[..], b"/healthy", b"/static", b"/Health"] {
            assert!(filter.admits(path, 200, FAST));
        }
        assert!(!AccessFilter::new(&["*".to_owned()], 0, None).admits(b"/", 200, FAST));
    }

    #[test]
    fn status_and_time_are_either_or() {
        let both = AccessFilter::new(&[], 500, Some(Duration::from_secs(1)));
        assert!(both.admits(b"/", 503, FAST));
        assert!(both.admits(b"/", 200, SLOW));
        assert!(!both.admits(b"/", 499, FAST));
        let slow = AccessFilter::new(&[], 0, Some(Duration::from_secs(1)));
        assert!(!slow.admits(b"/", 503, FAST));
        assert!(slow.admits(b"/", 200, Duration::from_secs(1)));
    }
}
