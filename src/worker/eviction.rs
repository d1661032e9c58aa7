//! Which connections are closed for other clients: when there are as many as there may be, when no descriptors are left, and
//! while all threads wait for clients that do not read.

use std::time::{Duration, Instant};

use crate::pool::{ConnId, Pool};

use super::connection_lifecycle::Shortage;
use super::connections::Connections;
use super::requests::Requests;
use super::shared_io::SharedIo;

/// While threads wait for clients that do not read, some of those are closed this often: 300 of them are gone after 4 s
/// with 4 threads.
const PAUSE: Duration = Duration::from_millis(50);

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

/// Threads that wait for clients that do not read get away from them.
#[derive(Debug, Default)]
pub(super) struct StuckThreads {
    /// When that is looked at next; `None` while no thread waits.
    next: Option<Instant>,
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
        self.next = (pool.unsent().waiting() > 0).then_some(now + PAUSE);
        if !pool.has_stuck_threads() || pool.queue_length() == 0 {
            return;
        }
        for _ in 0..pool.thread_count() {
            let Some(id) = sparest(connections, Shortage::Threads, now) else {
                break;
            };
            connections.evict(id, Shortage::Threads, requests, io);
        }
    }
}
