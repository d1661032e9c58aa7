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

/// What the client of a response has been seen to acknowledge of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HasRead {
    Nothing,
    Something,
}

/// Without descriptors: a client that acknowledges nothing of its response. One that reads through small buffers, 64 KB a second,
/// does each half a second.
const UNREAD: Patience = Patience::new(1000, 500);
/// One that has acknowledged something before.
const READ: Patience = Patience::new(2000, 1000);
/// While threads wait for clients: one that has read something may rest for at least this long. Through small buffers 64 KB a
/// second come in two pieces.
const READ_WHILE_THREADS_WAIT: Duration = Duration::from_secs(1);

/// How long clients may acknowledge nothing of their responses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    has_read_nothing: Duration,
    has_read_something: Duration,
}

impl Rest {
    /// While another client's connection cannot be received.
    pub(super) fn in_shortage(shortage: Shortage) -> Self {
        Self {
            has_read_nothing: UNREAD.during(shortage),
            has_read_something: READ.during(shortage),
        }
    }

    /// While all threads wait for clients, of which those that have read nothing may rest for so long.
    pub(super) fn while_threads_wait(has_read_nothing: Duration) -> Self {
        Self {
            has_read_nothing,
            has_read_something: has_read_nothing.max(READ_WHILE_THREADS_WAIT),
        }
    }

    pub(super) fn of(self, has_read: HasRead) -> Duration {
        match has_read {
            HasRead::Nothing => self.has_read_nothing,
            HasRead::Something => self.has_read_something,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_read_something_may_rest_for_longer() {
        let rests = |rest: Rest| {
            [HasRead::Nothing, HasRead::Something].map(|has_read| rest.of(has_read).as_millis())
        };
        let descriptors = |rounds| Rest::in_shortage(Shortage::Descriptors { rounds });
        assert_eq!(rests(descriptors(0)), [1000, 2000]);
        assert_eq!(rests(descriptors(1)), [500, 1000]);
        assert_eq!(rests(descriptors(9)), [500, 1000]);
        let threads = |millis| Rest::while_threads_wait(Duration::from_millis(millis));
        assert_eq!(rests(threads(500)), [500, 1000]);
        assert_eq!(rests(threads(5000)), [5000, 5000]);
    }
}
