//! This worker's slot on the scoreboard.

use std::sync::Arc;

use crate::scoreboard::{Scoreboard, Slot};

/// A handle of the slot, for each owner that counts or reads there.
#[derive(Clone, Debug)]
pub(super) struct WorkerSlot {
    scoreboard: Arc<Scoreboard>,
    index: usize,
}

impl WorkerSlot {
    pub(super) fn new(scoreboard: Arc<Scoreboard>, index: usize) -> Self {
        Self { scoreboard, index }
    }

    /// This worker's counters.
    pub(super) fn get(&self) -> Slot<'_> {
        self.scoreboard.slot(self.index)
    }

    /// The slot's number.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// What all workers count.
    pub(super) fn scoreboard(&self) -> &Scoreboard {
        &self.scoreboard
    }
}

/// A count as the scoreboard keeps it.
pub(super) fn saturating_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
