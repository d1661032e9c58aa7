//! Which job each thread has in hand and since when, for a loop that times them (`request_timeout`).
//!
//! One writer per thread (its thread), one reader (the event loop). A job is told apart from the next one of the same
//! thread by the moment when it began.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::job::ConnId;

/// A job in a thread's hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlightRequest {
    /// The thread's thread.
    pub thread: usize,
    /// The connection that waits.
    pub conn: ConnId,
    /// When the thread took it.
    pub since: Instant,
    /// Tells it from the others that the thread has had.
    pub token: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct InFlight {
    start: Instant,
    threads: Box<[Entry]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Entry {
    /// Microseconds since `start`, plus one; 0 is nothing in hand.
    token: AtomicU64,
    conn: AtomicU64,
}

impl InFlight {
    pub(super) fn new(count: usize) -> Self {
        Self {
            start: Instant::now(),
            threads: (0..count).map(|_| Entry::default()).collect(),
        }
    }

    /// The thread takes a job.
    pub(super) fn begin(&self, thread: usize, conn: ConnId, since: Instant) {
        let micros = since.saturating_duration_since(self.start).as_micros();
        let watch = &self.threads[thread];
        let packed = u64::from(conn.slot) << 32 | u64::from(conn.generation);
        watch.conn.store(packed, Ordering::Relaxed);
        // Publishes the connection with it.
        let token = u64::try_from(micros).unwrap_or(u64::MAX - 1) + 1;
        watch.token.store(token, Ordering::Release);
    }

    pub(super) fn end(&self, thread: usize) {
        self.threads[thread].token.store(0, Ordering::Release);
    }

    pub(super) fn token(&self, thread: usize) -> u64 {
        self.threads[thread].token.load(Ordering::Relaxed)
    }

    /// What the threads have in hand. One that changes its job meanwhile is left out: it is not stuck.
    pub(super) fn iter(&self) -> impl Iterator<Item = InFlightRequest> {
        self.threads
            .iter()
            .enumerate()
            .filter_map(|(thread, watch)| {
                let token = watch.token.load(Ordering::Acquire);
                let packed = watch.conn.load(Ordering::Relaxed);
                if token == 0 || watch.token.load(Ordering::Relaxed) != token {
                    return None;
                }
                Some(InFlightRequest {
                    thread,
                    conn: ConnId {
                        slot: (packed >> 32) as u32,
                        generation: packed as u32,
                    },
                    since: self.start + Duration::from_micros(token - 1),
                    token,
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_each_thread_has_in_hand() {
        let in_flight = InFlight::new(2);
        assert_eq!(in_flight.iter().count(), 0);
        let conn = ConnId {
            slot: 7,
            generation: u32::MAX,
        };
        let since = in_flight.start + Duration::from_micros(1500);
        in_flight.begin(1, conn, since);
        let seen: Vec<_> = in_flight.iter().collect();
        assert_eq!(seen.len(), 1);
        assert_eq!(
            (seen[0].thread, seen[0].conn, seen[0].since),
            (1, conn, since)
        );
        in_flight.end(1);
        assert_eq!(in_flight.iter().count(), 0);
    }
}
