//! Whether the server can serve a request now, as all its workers together know it.

use super::{Scoreboard, Slot, SlotState};

/// Why it cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// No worker has booted yet, or all are stopping.
    NobodyServes,
    /// TERM has come, and `stop_delay` is not over.
    Stopping,
    /// Every worker has as many waiting requests as it may (`max_queue`).
    QueuesFull,
}

impl Unready {
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NobodyServes => "no worker serves",
            Self::Stopping => "the server is about to stop",
            Self::QueuesFull => "all queues are full",
        }
    }
}

impl Scoreboard {
    /// `max_queue` is the setting's; 0 is no bound.
    ///
    /// # Errors
    /// Why the server is not ready.
    pub fn readiness(&self, max_queue: usize) -> Result<(), Unready> {
        let mut why_not = Unready::NobodyServes;
        for slot in self.iter() {
            match slot.readiness(max_queue) {
                Ok(()) => return Ok(()),
                Err(Unready::NobodyServes) => {}
                Err(other) => why_not = other,
            }
        }
        Err(why_not)
    }
}

impl Slot<'_> {
    /// Whether this worker can take another request.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn readiness(self, max_queue: usize) -> Result<(), Unready> {
        if self.state() != SlotState::Serving {
            return Err(Unready::NobodyServes);
        }
        if self.server_stops() {
            return Err(Unready::Stopping);
        }
        if max_queue > 0 && self.queue_length() as usize >= max_queue {
            return Err(Unready::QueuesFull);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_that_serves_and_has_room_is_enough() {
        let board = Scoreboard::new(3, 1).unwrap();
        assert_eq!(board.readiness(0), Err(Unready::NobodyServes));
        board.slot(0).claim(1);
        assert_eq!(board.readiness(0), Err(Unready::NobodyServes), "it boots");
        board.slot(0).set_state(SlotState::Serving);
        board.slot(0).set_queue_length(5);
        assert_eq!(board.readiness(0), Ok(()));
        assert_eq!(board.readiness(5), Err(Unready::QueuesFull));
        board.slot(2).set_state(SlotState::Serving);
        assert_eq!(board.readiness(5), Ok(()));
        board.slot(2).set_state(SlotState::Draining);
        assert_eq!(board.readiness(5), Err(Unready::QueuesFull));
        board.slot(0).announce_stop();
        assert_eq!(board.readiness(0), Err(Unready::Stopping));
    }
}
