//! Which job each thread has in hand and since when, for a loop that times them (`request_timeout`).
//!
//! One writer per seat (its thread), one reader (the event loop). A job is told apart from the next one of the same
//! thread by the moment when it began.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::job::ConnId;

/// A job in a thread's hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InHand {
    /// The thread's seat.
    pub seat: usize,
    /// The connection that waits.
    pub conn: ConnId,
    /// When the thread took it.
    pub since: Instant,
    /// Tells it from the others that the thread has had.
    pub token: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watches {
    start: Instant,
    seats: Box<[Watch]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Watch {
    /// Microseconds since `start`, plus one; 0 is nothing in hand.
    token: AtomicU64,
    conn: AtomicU64,
}

impl Watches {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            start: Instant::now(),
            seats: (0..threads).map(|_| Watch::default()).collect(),
        }
    }

    /// The thread takes a job.
    pub(super) fn begin(&self, seat: usize, conn: ConnId, since: Instant) {
        let micros = since.saturating_duration_since(self.start).as_micros();
        let watch = &self.seats[seat];
        let packed = u64::from(conn.slot) << 32 | u64::from(conn.generation);
        watch.conn.store(packed, Ordering::Relaxed);
        // Publishes the connection with it.
        let token = u64::try_from(micros).unwrap_or(u64::MAX - 1) + 1;
        watch.token.store(token, Ordering::Release);
    }

    pub(super) fn end(&self, seat: usize) {
        self.seats[seat].token.store(0, Ordering::Release);
    }

    pub(super) fn token(&self, seat: usize) -> u64 {
        self.seats[seat].token.load(Ordering::Relaxed)
    }

    /// What the threads have in hand. One that changes its job meanwhile is left out: it is not stuck.
    pub(super) fn in_hand(&self) -> impl Iterator<Item = InHand> {
        self.seats.iter().enumerate().filter_map(|(seat, watch)| {
            let token = watch.token.load(Ordering::Acquire);
            let packed = watch.conn.load(Ordering::Relaxed);
            if token == 0 || watch.token.load(Ordering::Relaxed) != token {
                return None;
            }
            Some(InHand {
                seat,
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
        let watches = Watches::new(2);
        assert_eq!(watches.in_hand().count(), 0);
        let conn = ConnId {
            slot: 7,
            generation: u32::MAX,
        };
        let since = watches.start + Duration::from_micros(1500);
        watches.begin(1, conn, since);
        let seen: Vec<_> = watches.in_hand().collect();
        assert_eq!(seen.len(), 1);
        assert_eq!(
            (seen[0].seat, seen[0].conn, seen[0].since),
            (1, conn, since)
        );
        watches.end(1);
        assert_eq!(watches.in_hand().count(), 0);
    }
}
