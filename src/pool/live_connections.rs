//! Which connections are live: one word per slot, written by the event loop, read by any thread.
//!
//! The loop notes a connection when it opens and when it closes. A holder of a [`ConnId`] can then ask with one load:
//! the pool before it runs a queued job, the application while it runs one. A word that names another generation means
//! that the connection is gone, so a late question about a slot that has a new connection is answered correctly too.

use std::sync::atomic::{AtomicU64, Ordering};

use super::conn_id::ConnId;

/// The word of a slot without a connection: generations have 32 bits.
const NONE: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct LiveConnections {
    generations: Box<[AtomicU64]>,
}

impl LiveConnections {
    /// Room for `slots` connections at a time. A slot beyond counts as live.
    pub(super) fn new(slots: usize) -> Self {
        Self {
            generations: (0..slots).map(|_| AtomicU64::new(NONE)).collect(),
        }
    }

    pub(super) fn insert(&self, conn: ConnId) {
        self.store(conn, u64::from(conn.generation));
    }

    pub(super) fn remove(&self, conn: ConnId) {
        self.store(conn, NONE);
    }

    fn store(&self, conn: ConnId, generation: u64) {
        if let Some(word) = self.generations.get(conn.slot as usize) {
            word.store(generation, Ordering::Relaxed);
        }
    }

    /// Nothing else is read on the strength of this word, so it needs no order.
    #[inline]
    pub(super) fn is_gone(&self, conn: ConnId) -> bool {
        self.generations
            .get(conn.slot as usize)
            .is_some_and(|word| word.load(Ordering::Relaxed) != u64::from(conn.generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_gone_when_it_was_removed_or_its_slot_has_another() {
        let live = LiveConnections::new(2);
        let conn = |slot, generation| ConnId::new(slot, generation);
        live.insert(conn(1, 7));
        assert!(!live.is_gone(conn(1, 7)));
        live.remove(conn(1, 7));
        assert!(live.is_gone(conn(1, 7)));
        live.insert(conn(1, 8));
        assert!(live.is_gone(conn(1, 7)) && !live.is_gone(conn(1, 8)));
        assert!(!live.is_gone(conn(99, 0)), "beyond the table");
    }
}
