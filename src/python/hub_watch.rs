//! When the hub last turned: written by the hub's own timer, read by the thread of the heartbeat.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When the hub last turned, for a thread that watches it.
#[derive(Debug)]
pub struct HubWatch {
    /// `None`: it does not serve, and need not turn.
    last: Mutex<Option<Instant>>,
}

impl Default for HubWatch {
    fn default() -> Self {
        Self {
            last: Mutex::new(None),
        }
    }
}

impl HubWatch {
    /// The hub turns; or, with `None`, it serves no longer.
    pub fn set(&self, now: Option<Instant>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// For how long it has not turned; `None` where it need not.
    pub fn blocked(&self, now: Instant) -> Option<Duration> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|last| now.saturating_duration_since(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_that_does_not_serve_is_not_blocked() {
        let watch = HubWatch::default();
        let now = Instant::now();
        assert_eq!(watch.blocked(now), None);
        watch.set(Some(now));
        let later = now + Duration::from_secs(3);
        assert_eq!(watch.blocked(later), Some(Duration::from_secs(3)));
        watch.set(None);
        assert_eq!(watch.blocked(later), None);
    }
}
