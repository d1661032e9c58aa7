//! Which clients take nothing of their responses. What they have acknowledged decides that, not what the socket takes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::pool::ConnId;

use super::shortage::{HasRead, Rest};

/// Who reads acknowledges something in each round trip, or when a lost segment has come again (200 ms).
pub(super) const STANDSTILL: Duration = Duration::from_millis(500);

/// A client that takes a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    /// Bytes that it has not acknowledged. The socket itself is writable again only after some 100 KiB, which a slow client
    /// takes seconds for.
    unacknowledged: Option<u32>,
    /// When the socket took bytes last, or a stream of HTTP/2 got window.
    moved: Instant,
    /// Since when neither has changed.
    since: Instant,
    /// How often either has been seen to change.
    changes: u32,
}

impl Progress {
    /// What has been seen of a client before, and what is seen of it now.
    fn updated(
        held: Option<&Self>,
        unacknowledged: Option<u32>,
        moved: Instant,
        now: Instant,
    ) -> Self {
        match held {
            Some(held) if (held.unacknowledged, held.moved) == (unacknowledged, moved) => *held,
            _ => Self {
                unacknowledged,
                moved,
                since: now,
                changes: held.map_or(0, |held| held.changes.saturating_add(1)),
            },
        }
    }

    /// The first change may be that of the client's system, whose buffer became full.
    fn has_read(&self) -> HasRead {
        match self.changes {
            0 | 1 => HasRead::Nothing,
            _ => HasRead::Something,
        }
    }

    fn is_still(&self, rest: Rest, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= rest.of(self.has_read())
    }
}

/// The clients that take a response, as they were when they were looked at last.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    clients: HashMap<ConnId, Progress>,
}

impl Standstill {
    /// Note what the clients have acknowledged. Those that are not named are forgotten.
    pub(super) fn note(
        &mut self,
        taking: impl Iterator<Item = (ConnId, Option<u32>, Instant)>,
        now: Instant,
    ) {
        let before = std::mem::take(&mut self.clients);
        self.clients = taking
            .map(|(id, unacknowledged, moved)| {
                let held = before.get(&id);
                (id, Progress::updated(held, unacknowledged, moved, now))
            })
            .collect();
    }

    pub(super) fn clear(&mut self) {
        self.clients = HashMap::new();
    }

    /// Whether a client has been seen to acknowledge nothing for longer than it may.
    pub(super) fn has_been_still(&self, id: ConnId, rest: Rest, now: Instant) -> bool {
        let progress = self.clients.get(&id);
        progress.is_some_and(|progress| progress.is_still(rest, now))
    }

    /// Those that have acknowledged nothing for longer than they may, the longest first.
    pub(super) fn those_still(&self, rest: Rest, now: Instant) -> Vec<ConnId> {
        let clients = self.clients.iter();
        let mut still: Vec<_> = clients
            .filter(|(_, progress)| progress.is_still(rest, now))
            .map(|(id, progress)| (progress.since, *id))
            .collect();
        still.sort_unstable_by_key(|(since, id)| (*since, id.generation));
        still.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(50);

    fn client(slot: u32) -> ConnId {
        ConnId {
            slot,
            generation: slot,
            stream: 0,
        }
    }

    #[test]
    fn who_acknowledges_anything_does_not_stand_still() {
        let (mut clients, start) = (Standstill::default(), Instant::now());
        // Who has read something before may rest for twice as long.
        let rest = Rest::while_threads_wait(STANDSTILL);
        for step in 0..6u32 {
            let taking = [
                (client(0), Some(1000), start),
                (client(1), Some(1000 - step), start),
                (client(2), None, start),
                (client(3), Some(0), start + STEP * step),
            ];
            let now = start + STEP * step;
            assert_eq!(clients.those_still(rest, now), []);
            clients.note(taking.into_iter(), now);
        }
        let still = clients.those_still(rest, start + STANDSTILL);
        assert_eq!(still, [client(0), client(2)]);
        let is_still = |clients: &Standstill, slot, after| {
            clients.has_been_still(client(slot), rest, start + STEP * 5 + after)
        };
        assert!(is_still(&clients, 0, STANDSTILL) && !is_still(&clients, 1, STANDSTILL));
        assert!(is_still(&clients, 1, STANDSTILL * 2), "it has read before");
        let one = (client(1), Some(1), start);
        clients.note([one].into_iter(), start + STANDSTILL);
        assert_eq!(clients.those_still(rest, start + STANDSTILL), []);
        assert!(
            !is_still(&clients, 0, STANDSTILL * 2),
            "it takes no response"
        );
    }
}
