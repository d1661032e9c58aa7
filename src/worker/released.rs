//! Objects of the application's that are written and go back to it: no thread is woken for each.
//!
//! Under load a thread looks for a job, and drops them, before they are missed. Only when none has come for a while, or
//! when they hold much memory, is one summoned.

use std::time::{Duration, Instant};

use crate::pool::{BorrowedBuffer, Pool, Reason};

/// They may wait for so long,
const PATIENCE: Duration = Duration::from_millis(20);
/// and for less when they are this many bytes together.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What waits to be dropped.
#[derive(Debug, Default)]
pub(super) struct Released {
    bytes: usize,
    since: Option<Instant>,
}

impl Released {
    /// Give back what is `finished`.
    pub(super) fn take(&mut self, finished: &mut Vec<Box<dyn BorrowedBuffer>>, pool: &Pool) {
        for shared in finished.drain(..) {
            self.bytes += shared.bytes().len();
            pool.defer_drop(shared);
        }
    }

    /// See that a thread drops what waits.
    pub(super) fn look(&mut self, pool: &Pool, now: Instant) {
        if !pool.has_deferred_drops() {
            *self = Self::default();
            return;
        }
        let since = *self.since.get_or_insert(now);
        let waited = now.saturating_duration_since(since);
        if self.bytes >= WAITING_BYTES_MAX || waited >= PATIENCE {
            pool.notify_one(Reason::DeferredDrops);
            *self = Self::default();
        }
    }

    /// When to look again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
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
    fn a_few_are_looked_after_when_their_time_is_over() {
        let (pool, now) = (pool(), Instant::now());
        let mut released = Released::default();
        released.look(&pool, now);
        assert_eq!(released.next_look(), None);
        released.take(
            &mut vec![Box::new(Zeros(5)) as Box<dyn BorrowedBuffer>],
            &pool,
        );
        released.look(&pool, now);
        assert_eq!(released.next_look(), Some(now + PATIENCE));
        released.look(&pool, now + PATIENCE);
        assert_eq!(released.next_look(), None, "a thread was summoned");
    }

    #[test]
    fn many_bytes_are_looked_after_at_once() {
        let (pool, now) = (pool(), Instant::now());
        let mut released = Released::default();
        let zeros = Box::new(Zeros(WAITING_BYTES_MAX)) as Box<dyn BorrowedBuffer>;
        released.take(&mut vec![zeros], &pool);
        released.look(&pool, now);
        assert_eq!(released.next_look(), None, "a thread was summoned");
    }
}
