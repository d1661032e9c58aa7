//! Whether the server can serve a request now, from the state of all its workers.

use super::{Scoreboard, Slot, SlotState};

/// Why it cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// No worker has booted yet, or all are stopping.
    NoneServes,
    /// TERM has come, and `stop_delay` is not over.
    Stopping,
    /// Every worker has as many waiting requests as it may (`max_queue`).
    QueuesFull,
}

impl Unready {
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoneServes => "no worker serves",
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
        let mut why_not = Unready::NoneServes;
        for slot in self.iter() {
            match slot.readiness(max_queue) {
                Ok(()) => return Ok(()),
                Err(Unready::NoneServes) => {}
                Err(other) => why_not = other,
            }
        }
        Err(why_not)
    }
}

impl Slot<'_> {
    /// Whether this worker can take another request, by what all workers can read.
    fn readiness(self, max_queue: usize) -> Result<(), Unready> {
        readiness_of(
            self.state(),
            self.server_stops(),
            self.queue_length(),
            max_queue,
        )
    }

    /// Arbiter: whether this worker can take another request, by what no other worker can write.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn reported_readiness(self, max_queue: usize) -> Result<(), Unready> {
        let vitals = self.vitals;
        readiness_of(
            self.reported_state(),
            vitals.server_stops(),
            vitals.queue_length(),
            max_queue,
        )
    }
}

fn readiness_of(
    state: SlotState,
    server_stops: bool,
    queue_length: u32,
    max_queue: usize,
) -> Result<(), Unready> {
    if state != SlotState::Serving {
        return Err(Unready::NoneServes);
    }
    if server_stops {
        return Err(Unready::Stopping);
    }
    if max_queue > 0 && queue_length as usize >= max_queue {
        return Err(Unready::QueuesFull);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_that_serves_and_has_room_is_enough() {
        let scoreboard = Scoreboard::new(3, 1).unwrap();
        assert_eq!(scoreboard.readiness(0), Err(Unready::NoneServes));
        scoreboard.slot(0).claim(1);
        assert_eq!(
            scoreboard.readiness(0),
            Err(Unready::NoneServes),
            "it boots"
        );
        scoreboard.slot(0).set_state(SlotState::Serving);
        scoreboard.slot(0).set_queue_length(5);
        assert_eq!(scoreboard.readiness(0), Ok(()));
        assert_eq!(scoreboard.readiness(5), Err(Unready::QueuesFull));
        scoreboard.slot(2).set_state(SlotState::Serving);
        assert_eq!(scoreboard.readiness(5), Ok(()));
        scoreboard.slot(2).set_state(SlotState::Draining);
        assert_eq!(scoreboard.readiness(5), Err(Unready::QueuesFull));
        scoreboard.slot(0).announce_stop();
        assert_eq!(scoreboard.readiness(0), Err(Unready::Stopping));
    }

    #[test]
    fn what_others_can_write_is_nothing_to_the_arbiter() {
        let scoreboard = Scoreboard::new(1, 1).unwrap();
        let slot = scoreboard.slot(0);
        slot.claim(1);
        slot.set_state(SlotState::Serving);
        slot.data.retirement.announce_stop();
        slot.set_queue_length(5);
        assert_eq!(slot.reported_readiness(5), Ok(()));
        slot.report_queue_length(5);
        assert_eq!(slot.reported_readiness(5), Err(Unready::QueuesFull));
        slot.announce_stop();
        assert_eq!(slot.reported_readiness(5), Err(Unready::Stopping));
        slot.claim(2);
        assert_eq!(slot.reported_readiness(5), Err(Unready::NoneServes));
    }
}
