//! Running out of descriptors: which connection is closed for another one, and what the log says of it.

use std::io;
use std::time::{Duration, Instant};

use crate::pool::ConnId;

use super::connection_lifecycle::{Patience, Shortage};
use super::connections::Connections;
use super::eviction::sparest;
use super::standstill::{HasRead, Standstill};

/// After this long without another it is logged again.
const QUIET: Duration = Duration::from_secs(60);
/// Rounds of evictions that are no further apart follow each other.
const IN_A_ROW: Duration = Duration::from_secs(5);
/// What clients have acknowledged is not asked for more often.
const LOOK: Duration = Duration::from_millis(20);
/// A client that acknowledges nothing of its response. One that reads through small buffers, 64 KB a second, does each half a
/// second.
const UNREAD: Patience = Patience::new(1000, 500);
/// One that has acknowledged something before.
const READ: Patience = Patience::new(2000, 1000);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Exhaustion {
    /// When it happened last. That was logged.
    last: Option<Instant>,
    rounds: Rounds,
    clients: Standstill,
    /// When those were looked at last.
    looked: Option<Instant>,
}

impl Exhaustion {
    /// A connection could not be received for want of a descriptor. Returns the one that makes room; `None`: none does yet,
    /// and the new one waits.
    pub(super) fn make_room(
        &mut self,
        connections: &Connections,
        error: &io::Error,
        now: Instant,
    ) -> Option<(ConnId, Shortage)> {
        if self.looked.is_none_or(|at| now >= at + LOOK) {
            self.looked = Some(now);
            self.clients.look(connections, now);
        }
        let shortage = self.rounds.shortage();
        let patience = |has_read| match has_read {
            HasRead::Nothing => UNREAD.during(shortage),
            HasRead::Something => READ.during(shortage),
        };
        let spare = sparest(connections, shortage, now, |connection| {
            self.clients.has_stood_still(connection, patience, now)
        });
        if spare.is_none() {
            self.rounds.on_none(now);
            self.note(error, now);
            return None;
        }
        self.rounds.on_eviction(now);
        if self.is_news(now) {
            log::warn!(
                "Closing idle connections to make room for new ones: {error} (see `ulimit -n`)."
            );
        }
        spare.map(|id| (id, shortage))
    }

    /// A connection could not be received for want of a descriptor, and waits.
    pub(super) fn note(&mut self, error: &io::Error, now: Instant) {
        if self.is_news(now) {
            log::error!("Accepting no new connections for a moment: {error} (see `ulimit -n`).");
        }
    }

    fn is_news(&mut self, now: Instant) -> bool {
        self.last.replace(now).is_none()
    }

    /// Called a few times a second.
    pub(super) fn on_heartbeat(&mut self, now: Instant) {
        self.last = self
            .last
            .filter(|at| now.saturating_duration_since(*at) < QUIET);
        if self.last.is_none() {
            self.clients.clear();
        }
    }
}

/// Evictions that follow each other: each time that none was possible any more, one round of them is over.
#[derive(Debug, Default)]
struct Rounds {
    count: u32,
    /// When a connection was closed last, and whether that was in the round that goes on.
    evicted: Option<Instant>,
    goes_on: bool,
}

impl Rounds {
    fn shortage(&self) -> Shortage {
        Shortage::Descriptors { rounds: self.count }
    }

    fn on_eviction(&mut self, now: Instant) {
        self.forget_if_past(now);
        (self.evicted, self.goes_on) = (Some(now), true);
    }

    fn on_none(&mut self, now: Instant) {
        self.forget_if_past(now);
        self.count += u32::from(std::mem::take(&mut self.goes_on));
    }

    fn forget_if_past(&mut self, now: Instant) {
        if self.evicted.is_some_and(|at| now > at + IN_A_ROW) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exhausted() -> io::Error {
        io::ErrorKind::Other.into()
    }

    #[test]
    fn it_is_news_again_after_a_quiet_time() {
        let poll = mio::Poll::new().expect("a poll set");
        let connections = Connections::new(poll.registry().try_clone().expect("its registry"));
        let (mut exhaustion, now) = (Exhaustion::default(), Instant::now());
        assert_eq!(exhaustion.make_room(&connections, &exhausted(), now), None);
        exhaustion.on_heartbeat(now + QUIET / 2);
        assert!(exhaustion.last.is_some());
        exhaustion.on_heartbeat(now + QUIET);
        assert!(exhaustion.last.is_none());
    }

    #[test]
    fn clients_have_half_the_time_with_each_round_that_follows_another() {
        let (mut rounds, start) = (Rounds::default(), Instant::now());
        let step = IN_A_ROW / 10;
        let mut patience = Vec::new();
        rounds.on_none(start);
        for round in 0..4 {
            patience.push(UNREAD.during(rounds.shortage()).as_millis());
            for _ in 0..3 {
                rounds.on_eviction(start + step * round);
            }
            rounds.on_none(start + step * round);
            rounds.on_none(start + step * round);
        }
        assert_eq!(patience, [1000, 500, 500, 500]);
        assert_eq!(rounds.shortage(), Shortage::Descriptors { rounds: 4 });
        rounds.on_none(start + IN_A_ROW * 2);
        assert_eq!(rounds.shortage(), Shortage::Descriptors { rounds: 0 });
    }
}
