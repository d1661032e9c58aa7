//! A reload that waits until the addresses of host names are known, while the loop goes on.
//!
//! Names that are in use are looked up anew at each reload, and it waits a moment for that. One that a new `bind` has is
//! waited for until there is an answer; the reload has come to nothing so far and begins again then.

use crate::net::host_names;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum DeferredReload {
    #[default]
    None,
    /// What is known will do.
    Refresh { until: u64 },
    /// Without the names there is no reload.
    Names { until: u64 },
}

/// A reload that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    First,
    /// It has waited for names already.
    Again,
}

impl DeferredReload {
    /// HUP has come. Returns the reload, when it has nothing to wait for.
    pub(super) fn begin(&mut self, now: u64) -> Option<Due> {
        if host_names::refresh() {
            let until = now.saturating_add(REFRESH_MS);
            *self = Self::Refresh { until };
            return self.due(now);
        }
        *self = Self::None;
        Some(Due::First)
    }

    /// The reload needs a name that is being looked up.
    pub(super) fn wait_for_names(&mut self, now: u64) {
        let until = now.saturating_add(NAMES_MS);
        *self = Self::Names { until };
    }

    /// Returns the reload once, when its wait is over.
    pub(super) fn due(&mut self, now: u64) -> Option<Due> {
        let (until, due) = match *self {
            Self::None => return None,
            Self::Refresh { until } => (until, Due::First),
            Self::Names { until } => (until, Due::Again),
        };
        if now < until && !host_names::await_answers(0) {
            return None;
        }
        *self = Self::None;
        Some(due)
    }

    /// Milliseconds that the loop may sleep.
    pub(super) fn patience(self) -> Option<u64> {
        (self != Self::None).then_some(LOOK_MS)
    }
}

/// Name servers at work need some milliseconds.
const REFRESH_MS: u64 = 1000;
/// A look-up ends by itself before.
const NAMES_MS: u64 = 25_000;
/// Between two looks whether there is an answer.
const LOOK_MS: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_once_when_the_names_are_known_or_the_time_is_over() {
        let mut deferred = DeferredReload::default();
        assert_eq!((deferred.due(5), deferred.patience()), (None, None));
        deferred.wait_for_names(1000);
        assert_eq!(deferred.patience(), Some(LOOK_MS));
        assert_eq!(deferred.due(1000 + NAMES_MS), Some(Due::Again));
        assert_eq!(deferred.due(1000 + NAMES_MS), None);
        deferred = DeferredReload::Refresh { until: 7 };
        assert_eq!(deferred.due(7), Some(Due::First));
        assert_eq!(deferred, DeferredReload::None);
    }
}
