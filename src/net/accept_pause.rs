//! A listener that cannot accept for want of a descriptor or of memory rests for a moment: the connection still waits, so
//! a poll would report it again at once, without end.
//!
//! Times are milliseconds of the caller's clock.

use std::io;

use nix::errno::Errno;

/// See the module.
#[derive(Debug, Default)]
pub struct AcceptPause {
    until: Option<u64>,
    /// When it was logged, or would have been had it not been logged shortly before.
    noted: Option<u64>,
}

impl AcceptPause {
    /// Whether the listener is to be polled. Not before [`Self::resume`] finds that the pause is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.until.is_none()
    }

    /// Whether the listener may accept at `now`. From then on it is polled again.
    pub fn resume(&mut self, now: u64) -> bool {
        self.until = self.until.filter(|until| now < *until);
        self.is_over()
    }

    /// Milliseconds until the pause is over.
    #[must_use]
    pub fn patience(&self, now: u64) -> Option<u64> {
        self.until.map(|until| until.saturating_sub(now))
    }

    /// Begins a pause of `length_ms`.
    pub fn begin(&mut self, now: u64, length_ms: u64) {
        self.until = Some(now.saturating_add(length_ms));
    }

    /// `accept` has failed with `error`. A pause begins if it would fail again at once. That is logged in the name of
    /// `who`, and not again before a minute without it.
    pub fn failed(&mut self, error: &io::Error, who: &str, now: u64) {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        let lasts = matches!(
            errno,
            Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM
        );
        if !lasts {
            return;
        }
        self.begin(now, EXHAUSTED_MS);
        let noted = self.noted.replace(now);
        if noted.is_none_or(|noted| now.saturating_sub(noted) > QUIET_MS) {
            log::error!(
                "{who}: accepting no new connections for a moment: {error} (see `ulimit -n`)."
            );
        }
    }
}

/// As long as a worker's listeners rest then.
const EXHAUSTED_MS: u64 = 250;
const QUIET_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_fail_again_makes_a_pause() {
        let mut pause = AcceptPause::default();
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionAborted] {
            pause.failed(&kind.into(), "test", 1000);
        }
        pause.failed(&Errno::EAGAIN.into(), "test", 1000);
        assert!(pause.is_over() && pause.patience(1000).is_none());
        pause.failed(&Errno::EMFILE.into(), "test", 1000);
        assert!(!pause.is_over());
        assert_eq!(pause.patience(1100), Some(150));
        assert!(!pause.resume(1249) && !pause.is_over());
        assert!(pause.resume(1250) && pause.is_over());
        assert_eq!(pause.noted, Some(1000));
    }
}
