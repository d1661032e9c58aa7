//! The requests in flight: which one each thread runs and since when, for a loop that times them (`request_timeout`).
//!
//! Each entry has one writer, its thread, and one reader, the event loop. A request is told apart from the next one of
//! the same thread by the moment when it began.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::conn_id::ConnId;

/// A request that a thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlightRequest {
    /// The number of the thread.
    pub thread: usize,
    /// The connection that waits for the response.
    pub conn: ConnId,
    /// When the thread took the request.
    pub since: Instant,
    /// Tells it from the other requests of the thread.
    pub token: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct InFlight {
    start: Instant,
    entries: Box<[Entry]>,
}

/// Each has a cache line of its own: the threads write theirs all the time.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Entry {
    /// Microseconds since `start`, plus one; 0 is no request.
    token: AtomicU64,
    conn: AtomicU64,
    stream: AtomicU32,
}

impl InFlight {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            start: Instant::now(),
            entries: (0..threads).map(|_| Entry::default()).collect(),
        }
    }

    /// The thread begins a request.
    pub(super) fn begin(&self, thread: usize, conn: ConnId, since: Instant) {
        let micros = since.saturating_duration_since(self.start).as_micros();
        let entry = &self.entries[thread];
        entry.conn.store(conn.pack(), Ordering::Relaxed);
        entry.stream.store(conn.stream, Ordering::Relaxed);
        // Publishes the connection with it.
        let token = u64::try_from(micros).unwrap_or(u64::MAX - 1) + 1;
        entry.token.store(token, Ordering::Release);
    }

    /// The thread runs none.
    pub(super) fn end(&self, thread: usize) {
        self.entries[thread].token.store(0, Ordering::Release);
    }

    pub(super) fn token(&self, thread: usize) -> u64 {
        self.entries[thread].token.load(Ordering::Relaxed)
    }

    /// What the threads run. A thread that changes its request meanwhile is left out: it is not stuck.
    pub(super) fn iter(&self) -> impl Iterator<Item = InFlightRequest> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(thread, entry)| {
                let token = entry.token.load(Ordering::Acquire);
                let conn = entry.conn.load(Ordering::Relaxed);
                let stream = entry.stream.load(Ordering::Relaxed);
                if token == 0 || entry.token.load(Ordering::Relaxed) != token {
                    return None;
                }
                Some(InFlightRequest {
                    thread,
                    conn: ConnId::unpack(conn).with_stream(stream),
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
    fn tells_what_each_thread_runs() {
        let in_flight = InFlight::new(2);
        assert_eq!(in_flight.iter().count(), 0);
        let conn = ConnId::new(7, u32::MAX).with_stream(5);
        let since = in_flight.start + Duration::from_micros(1500);
        in_flight.begin(1, conn, since);
        let expected = InFlightRequest {
            thread: 1,
            conn,
            since,
            token: in_flight.token(1),
        };
        assert_eq!(in_flight.iter().collect::<Vec<_>>(), [expected]);
        in_flight.end(1);
        assert_eq!((in_flight.iter().count(), in_flight.token(1)), (0, 0));
    }
}
