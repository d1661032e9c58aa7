//! Buffers borrowed from the application: the loop has written them and gives them back to a pool thread, which drops them
//! while it holds the GIL. No thread is woken for each.
//!
//! Under load a thread looks for a job, and drops them, before they are missed. Only when none has come for a while, or
//! when they hold much memory, is one woken.

use std::time::{Duration, Instant};

use crate::pool::{BorrowedBuffer, Pool, Reason};

/// They may wait this long,
const PATIENCE: Duration = Duration::from_millis(20);
/// and less when they are this many bytes together.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What waits to be dropped.
#[derive(Debug, Default)]
pub(super) struct DeferredDrops {
    /// Written in this iteration, and still with the loop.
    written: Vec<Box<dyn BorrowedBuffer>>,
    /// With the pool: how many, of how many bytes, and since when.
    count: usize,
    bytes: usize,
    since: Option<Instant>,
}

impl DeferredDrops {
    /// What a piece has borrowed is done with.
    pub(super) fn push(&mut self, buffer: Option<Box<dyn BorrowedBuffer>>) {
        self.written.extend(buffer);
    }

    /// Whether there is something to give back, or to check on.
    pub(super) fn has_some(&self) -> bool {
        !self.written.is_empty() || self.count > 0
    }

    /// Give what is done with to the pool.
    pub(super) fn give_back(&mut self, pool: &Pool) {
        for buffer in self.written.drain(..) {
            self.count += 1;
            self.bytes += buffer.bytes().len();
            pool.defer_drop(buffer);
        }
    }

    /// See that a thread drops what waits.
    pub(super) fn check(&mut self, pool: &Pool, now: Instant) {
        if !pool.has_deferred_drops() {
            self.forget();
            return;
        }
        let since = *self.since.get_or_insert(now);
        let waited = now.saturating_duration_since(since);
        if self.bytes >= WAITING_BYTES_MAX || waited >= PATIENCE {
            pool.notify_one(Reason::DeferredDrops);
            self.forget();
        }
    }

    fn forget(&mut self) {
        (self.count, self.bytes, self.since) = (0, 0, None);
    }

    /// When to check again.
    pub(super) fn next_check(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.written.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Zeros(usize);

    impl BorrowedBuffer for Zeros {
        fn bytes(&self) -> &[u8] {
            &[0; WAITING_BYTES_MAX][..self.0]
        }
    }

    fn pool() -> Pool {
        Pool::new(1, 1, Box::new(|| {}))
    }

    #[test]
    fn a_few_are_dropped_when_their_time_is_over() {
        let (pool, now) = (pool(), Instant::now());
        let mut drops = DeferredDrops::default();
        drops.check(&pool, now);
        assert_eq!(drops.next_check(), None);
        drops.push(Some(Box::new(Zeros(5))));
        drops.give_back(&pool);
        drops.check(&pool, now);
        assert_eq!(drops.next_check(), Some(now + PATIENCE));
        drops.check(&pool, now + PATIENCE);
        assert_eq!(drops.next_check(), None, "a thread was woken");
    }

    #[test]
    fn many_bytes_are_dropped_at_once() {
        let (pool, now) = (pool(), Instant::now());
        let mut drops = DeferredDrops::default();
        drops.push(Some(Box::new(Zeros(WAITING_BYTES_MAX))));
        drops.give_back(&pool);
        drops.check(&pool, now);
        assert_eq!(drops.next_check(), None, "a thread was woken");
    }
}
