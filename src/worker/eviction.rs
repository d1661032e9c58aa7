//! Which connections are closed for other clients: when there are as many as there may be, when no descriptors are left, and
//! while all threads wait for clients that do not read.

use std::io;
use std::time::{Duration, Instant};

use crate::pool::ConnId;

use super::connection::Connection;
use super::connections::Connections;
use super::exhaustion::Exhaustion;
use super::requests::Requests;
use super::shared_io::SharedIo;
use super::shortage::{Rest, Shortage};
use super::standstill::{STANDSTILL, Standstill};

/// While threads wait for clients that do not read, those are looked at this often.
const PAUSE: Duration = Duration::from_millis(50);
/// The client of a stream may rest for this long: a radio link that is lost for three seconds is not rare, and threads wait for
/// clients also on a healthy server.
const STREAM_STANDSTILL: Duration = Duration::from_secs(5);

/// The connection that makes room for another client.
pub(super) fn sparest(
    connections: &Connections,
    shortage: Shortage,
    now: Instant,
) -> Option<ConnId> {
    sparest_of(connections, shortage, now, |_| true)
}

/// The connection that makes room for one that could not be received for want of a descriptor, which is `error`. `None`:
/// none does yet, and the new one waits.
pub(super) fn make_room(
    connections: &Connections,
    exhaustion: &mut Exhaustion,
    error: &io::Error,
    now: Instant,
) -> Option<(ConnId, Shortage)> {
    if let Some(clients) = exhaustion.clients_to_look_at(now) {
        look(clients, connections, now);
    }
    let shortage = exhaustion.shortage();
    let spare = sparest_of(connections, shortage, now, |connection| {
        !takes_response(connection, now) || exhaustion.is_unread(connection.id(), now)
    });
    match spare {
        Some(_) => exhaustion.note_eviction(error, now),
        None => exhaustion.note(error, now),
    }
    spare.map(|id| (id, shortage))
}

fn takes_response(connection: &Connection, now: Instant) -> bool {
    connection.spare(Shortage::Threads, now).is_some()
}

/// See what the clients that take a response have acknowledged.
fn look(clients: &mut Standstill, connections: &Connections, now: Instant) {
    let taking = connections.iter().filter_map(|connection| {
        let (_, moved) = connection.spare(Shortage::Threads, now)?;
        Some((connection.id(), connection.unacknowledged_bytes(), moved))
    });
    clients.note(taking, now);
}

fn sparest_of(
    connections: &Connections,
    shortage: Shortage,
    now: Instant,
    may: impl Fn(&Connection) -> bool,
) -> Option<ConnId> {
    connections
        .iter()
        .filter_map(|connection| Some((connection.spare(shortage, now)?, connection)))
        .filter(|(_, connection)| may(connection))
        .min_by_key(|(spare, _)| *spare)
        .map(|(_, connection)| connection.id())
}

/// Threads that wait for clients that do not read get away from them.
#[derive(Debug, Default)]
pub(super) struct StuckThreads {
    /// When that is looked at next; `None` while no thread waits.
    next: Option<Instant>,
    clients: Standstill,
    /// When some were closed last, and how long those had to have stood still.
    evicted: Option<(Instant, Duration)>,
}

impl StuckThreads {
    pub(super) fn next_check(&self) -> Option<Instant> {
        self.next
    }

    /// Called in each iteration. When all threads wait, and a request waits for one, streams go on into files. Where none can, of the clients that have
    /// stood still for longest as many are closed as there are threads, or requests that wait where responses found no room.
    pub(super) fn check(
        &mut self,
        connections: &mut Connections,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        let now = requests.clock.now();
        let pool = requests.dispatch.pool();
        if self.next.is_none() && pool.has_stuck_threads() {
            self.next = Some(now);
        }
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        let unsent = pool.unsent();
        if unsent.waiting() + unsent.waiting_streams() == 0 {
            self.next = None;
            self.clients.clear();
            return;
        }
        self.next = Some(now + PAUSE);
        if !pool.has_stuck_threads() {
            return;
        }
        look(&mut self.clients, connections, now);
        if pool.queue_length() == 0 || unsent.hurry_streams(now) {
            return;
        }
        let patience = self.patience(unsent.waiting() > 0, now);
        let rest = Rest::while_threads_wait(patience);
        let still = self.clients.those_still(rest, now);
        if still.is_empty() {
            return;
        }
        // A response without room waits for anybody's place, a stream for its own client.
        let count = match unsent.waiting() {
            0 => pool.thread_count(),
            _ => pool.thread_count().max(pool.queue_length()),
        };
        for id in still.into_iter().take(count) {
            connections.evict(id, Shortage::Threads, requests, io);
        }
        self.evicted = Some((now, patience));
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
