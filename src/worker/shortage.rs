//! What a worker may have too little of, and how long a client may keep what another one wants.

use std::time::Duration;

/// How long a client may keep a place that another one wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) first: Duration,
    /// When evictions follow each other. A client far away still gets a segment there and back.
    pub(super) least: Duration,
}

impl Patience {
    /// In milliseconds.
    pub(super) const fn new(first: u64, least: u64) -> Self {
        Self {
            first: Duration::from_millis(first),
            least: Duration::from_millis(least),
        }
    }

    pub(super) fn during(self, shortage: Shortage) -> Duration {
        match shortage {
            Shortage::Descriptors { rounds } => {
                (self.first / 2_u32.saturating_pow(rounds)).max(self.least)
            }
            Shortage::Connections | Shortage::Threads => self.first,
        }
    }
}

/// What a worker has too little of for another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// It has `worker_connections` connections.
    Connections,
    /// The process has no descriptors left, also after so many rounds of evictions, one after another: with each of them
    /// clients have half the time.
    Descriptors { rounds: u32 },
    /// All threads wait for clients that do not read.
    Threads,
}
