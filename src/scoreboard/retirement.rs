//! What the end of a worker costs, and that the server is about to stop. None of it is on the path of a request that is
//! served.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// See the module. Part of every slot.
#[derive(Debug, Default)]
pub(super) struct RetirementData {
    server_stops: AtomicU32,
    refused: AtomicU64,
    cut: AtomicU64,
}

impl RetirementData {
    pub(super) fn wipe(&self) {
        self.server_stops.store(0, Ordering::Relaxed);
        self.refused.store(0, Ordering::Relaxed);
        self.cut.store(0, Ordering::Relaxed);
    }

    pub(super) fn announce_stop(&self) {
        self.server_stops.store(1, Ordering::Relaxed);
    }

    pub(super) fn server_stops(&self) -> bool {
        self.server_stops.load(Ordering::Relaxed) != 0
    }

    pub(super) fn add_refused(&self, count: u64) {
        self.refused.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn add_cut(&self, count: u64) {
        self.cut.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
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
