//! A worker's end on its slot: that the server is about to stop, and what the end cost. None of it is on the path of a request that is served.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Slot;

/// See the module. Part of every slot.
#[derive(Debug, Default)]
pub(super) struct StopData {
    server_stops: AtomicU32,
    refused: AtomicU64,
    cut: AtomicU64,
}

impl StopData {
    pub(super) fn wipe(&self) {
        self.server_stops.store(0, Ordering::Relaxed);
        self.refused.store(0, Ordering::Relaxed);
        self.cut.store(0, Ordering::Relaxed);
    }
}

impl Slot<'_> {
    /// Arbiter: TERM has come and `stop_delay` runs. The worker serves, but is not ready for more.
    pub fn announce_stop(self) {
        self.data.stop.server_stops.store(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn server_stops(self) -> bool {
        self.data.stop.server_stops.load(Ordering::Relaxed) != 0
    }

    /// A request that the server answered without the application (400, 408, 413, 503 and the like).
    pub fn add_refused(self, count: u64) {
        self.data.stop.refused.fetch_add(count, Ordering::Relaxed);
    }

    #[must_use]
    pub fn refused(self) -> u64 {
        self.data.stop.refused.load(Ordering::Relaxed)
    }

    /// A request that was under way when its time to end was over.
    pub fn add_cut(self, count: u64) {
        self.data.stop.cut.fetch_add(count, Ordering::Relaxed);
    }

    #[must_use]
    pub fn cut(self) -> u64 {
        self.data.stop.cut.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use crate::scoreboard::Scoreboard;

    #[test]
    fn what_a_worker_leaves_is_wiped_for_the_next() {
        let scoreboard = Scoreboard::new(1, 1).unwrap();
        let slot = scoreboard.slot(0);
        slot.ask_to_go();
        slot.announce_stop();
        slot.ask_to_stop(15, 1234);
        slot.add_cut(2);
        slot.add_refused(3);
        assert!(slot.asks_to_go() && slot.server_stops());
        assert_eq!((slot.cut(), slot.refused()), (2, 3));
        assert_eq!(
            (slot.stop_signal(), slot.stop_asked_ms()),
            (Some(15), Some(1234))
        );
        slot.claim(1);
        assert!(!slot.asks_to_go() && !slot.server_stops());
        assert_eq!((slot.cut(), slot.refused()), (0, 0));
        assert_eq!((slot.stop_signal(), slot.stop_asked_ms()), (None, None));
    }
}
