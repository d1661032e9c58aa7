//! Which connections are closed for other clients: when there are as many as there may be, when no descriptors are left, and
//! while all threads wait for clients that do not read.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::pool::{ConnId, Pool};

use super::connection_lifecycle::Shortage;
use super::connections::Connections;
use super::requests::Requests;
use super::shared_io::SharedIo;

/// While threads wait for clients that do not read, those are looked at this often.
const PAUSE: Duration = Duration::from_millis(50);
/// Who reads acknowledges something in each round trip, or when a lost segment has come again (200 ms).
const STANDSTILL: Duration = Duration::from_millis(300);
/// The client of a stream may rest for this long: a radio link that is lost for three seconds is not rare, and threads wait for
/// clients also on a healthy server.
const STREAM_STANDSTILL: Duration = Duration::from_secs(5);

/// The connection that makes room for another client.
pub(super) fn sparest(
    connections: &Connections,
    shortage: Shortage,
    now: Instant,
) -> Option<ConnId> {
    connections
        .iter()
        .filter_map(|connection| Some((connection.spare(shortage, now)?, connection.id())))
        .min_by_key(|(spare, _)| *spare)
        .map(|(_, id)| id)
}

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
}

/// Threads that wait for clients that do not read get away from them.
#[derive(Debug, Default)]
pub(super) struct StuckThreads {
    /// When that is looked at next; `None` while no thread waits.
    next: Option<Instant>,
    /// The clients that take a response.
    watched: HashMap<ConnId, Progress>,
    /// When some were closed last, and how long those had to have stood still.
    evicted: Option<(Instant, Duration)>,
}

impl StuckThreads {
    /// Called a few times a second.
    pub(super) fn on_heartbeat(&mut self, pool: &Pool, now: Instant) {
        if self.next.is_none() && pool.has_stuck_threads() {
            self.next = Some(now);
        }
    }

    pub(super) fn next_check(&self) -> Option<Instant> {
        self.next
    }

    /// When all threads wait, and a request waits for one: of the clients that have stood still for longest as many are
    /// closed as there are threads.
    pub(super) fn check(
        &mut self,
        connections: &mut Connections,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        let now = requests.clock.now();
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        let pool = requests.dispatch.pool();
        let unsent = pool.unsent();
        if unsent.waiting() + unsent.waiting_streams() == 0 {
            (self.next, self.watched) = (None, HashMap::new());
            return;
        }
        self.next = Some(now + PAUSE);
        if !pool.has_stuck_threads() {
            return;
        }
        let taking = connections.iter().filter_map(|connection| {
            let (_, moved) = connection.spare(Shortage::Threads, now)?;
            Some((connection.id(), connection.unacknowledged_bytes(), moved))
        });
        self.watch(taking, now);
        if pool.queue_length() == 0 {
            return;
        }
        let patience = self.patience(unsent.waiting() > 0, now);
        let still = self.stood_still(patience, now);
        if still.is_empty() {
            return;
        }
        let count = pool.thread_count();
        for id in still.into_iter().take(count) {
            connections.evict(id, Shortage::Threads, requests, io);
        }
        self.evicted = Some((now, patience));
    }

    /// Note what the clients have acknowledged. Those that are not named are forgotten.
    fn watch(
        &mut self,
        taking: impl Iterator<Item = (ConnId, Option<u32>, Instant)>,
        now: Instant,
    ) {
        let before = std::mem::take(&mut self.watched);
        self.watched = taking
            .map(|(id, unacknowledged, moved)| {
                let held = before.get(&id);
                let same = held
                    .filter(|held| held.unacknowledged == unacknowledged && held.moved == moved);
                let progress = Progress {
                    unacknowledged,
                    moved,
                    since: now,
                };
                (id, same.copied().unwrap_or(progress))
            })
            .collect();
    }

    /// Those that have acknowledged nothing for `patience`, the longest first.
    fn stood_still(&self, patience: Duration, now: Instant) -> Vec<ConnId> {
        let is_still =
            |progress: &Progress| now.saturating_duration_since(progress.since) >= patience;
        let watched = self.watched.iter();
        let mut still: Vec<_> = watched
            .filter(|(_, progress)| is_still(progress))
            .map(|(id, progress)| (progress.since, *id))
            .collect();
        still.sort_unstable_by_key(|(since, id)| (*since, id.generation));
        still.into_iter().map(|(_, id)| id).collect()
    }

    /// How long a client must have stood still. Streams have more time, unless there are so many of them that each round of
    /// evictions is followed by another: then half of it, and half again.
    fn patience(&self, has_overdrafts: bool, now: Instant) -> Duration {
        if has_overdrafts {
            return STANDSTILL;
        }
        match self.evicted {
            Some((at, patience)) if now.saturating_duration_since(at) <= STREAM_STANDSTILL => {
                (patience / 2).max(STANDSTILL)
            }
            _ => STREAM_STANDSTILL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(slot: u32) -> ConnId {
        ConnId {
            slot,
            generation: slot,
            stream: 0,
        }
    }

    #[test]
    fn who_acknowledges_anything_does_not_stand_still() {
        let (mut threads, start) = (StuckThreads::default(), Instant::now());
        for step in 0..6u32 {
            let clients = [
                (client(0), Some(1000), start),
                (client(1), Some(1000 - step), start),
                (client(2), None, start),
                (client(3), Some(0), start + PAUSE * step),
            ];
            let now = start + PAUSE * step;
            assert_eq!(threads.stood_still(STANDSTILL, now), []);
            threads.watch(clients.into_iter(), now);
        }
        let still = threads.stood_still(STANDSTILL, start + STANDSTILL);
        assert_eq!(still, [client(0), client(2)]);
        let one = (client(1), Some(1), start);
        threads.watch([one].into_iter(), start + STANDSTILL);
        assert_eq!(threads.stood_still(STANDSTILL, start + STANDSTILL), []);
    }

    #[test]
    fn streams_have_time_until_one_eviction_follows_another() {
        let (mut threads, now) = (StuckThreads::default(), Instant::now());
        assert_eq!(threads.patience(true, now), STANDSTILL);
        assert_eq!(threads.patience(false, now), STREAM_STANDSTILL);
        threads.evicted = Some((now, STREAM_STANDSTILL));
        assert_eq!(threads.patience(false, now), STREAM_STANDSTILL / 2);
        threads.evicted = Some((now, STANDSTILL));
        assert_eq!(threads.patience(false, now), STANDSTILL);
        let later = now + STREAM_STANDSTILL + PAUSE;
        assert_eq!(threads.patience(false, later), STREAM_STANDSTILL);
    }
}
