//! Running out of descriptors: how long clients may keep theirs, and what the log says of it.

use std::io;
use std::time::{Duration, Instant};

use crate::pool::ConnId;

use super::shortage::{Rest, Shortage};
use super::standstill::Standstill;

/// After this long without another it is logged again.
const QUIET: Duration = Duration::from_secs(60);
/// Rounds of evictions that are no further apart follow each other.
const IN_A_ROW: Duration = Duration::from_secs(5);
/// What clients have acknowledged is not asked for more often.
const LOOK: Duration = Duration::from_millis(20);
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
    /// What is short now.
    pub(super) fn shortage(&self) -> Shortage {
        self.rounds.shortage()
    }

    /// What clients of responses have acknowledged, if that is to be asked for again.
    pub(super) fn clients_to_look_at(&mut self, now: Instant) -> Option<&mut Standstill> {
        let is_due = self.looked.is_none_or(|at| now >= at + LOOK);
        is_due.then(|| {
            self.looked = Some(now);
            &mut self.clients
        })
    }

    /// Whether the client of a response has been seen to acknowledge nothing for longer than it may.
    pub(super) fn is_unread(&self, id: ConnId, now: Instant) -> bool {
        let rest = Rest::in_shortage(self.shortage());
        self.clients.has_been_still(id, rest, now)
    }

    /// A connection is closed for one that could not be received for want of a descriptor.
    pub(super) fn note_eviction(&mut self, error: &io::Error, now: Instant) {
        self.rounds.on_eviction(now);
        if self.is_news(now) {
            log::warn!(
                "Closing idle connections to make room for new ones: {error} (see `ulimit -n`)."
            );
        }
    }

    /// A connection could not be received for want of a descriptor, and waits.
    pub(super) fn note(&mut self, error: &io::Error, now: Instant) {
        self.rounds.on_none(now);
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
    /// When a connection was closed last.
    evicted: Option<Instant>,
    /// That was in the round that is not over.
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
    use crate::worker::shortage::HasRead;

    #[test]
    fn it_is_news_again_after_a_quiet_time() {
        let (mut exhaustion, now) = (Exhaustion::default(), Instant::now());
        exhaustion.note(&io::ErrorKind::Other.into(), now);
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
            let rest = Rest::in_shortage(rounds.shortage());
            patience.push(rest.of(HasRead::Nothing).as_millis());
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
