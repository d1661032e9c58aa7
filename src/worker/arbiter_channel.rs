//! What a worker reports to its arbiter: its state on the scoreboard, then a byte on a pipe that means "read my slot".
//!
//! Five reports in a worker's life at most: it serves, it has served `max_requests`, it lost a thread, it drains, it accepts
//! no more. A byte that cannot be written changes nothing: the arbiter reads the slots once a second anyway, and a worker
//! that is gone is noticed by its heartbeat.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use crate::scoreboard::SlotState;

use super::worker_slot::WorkerSlot;

/// See the module.
#[derive(Debug)]
pub(super) struct ArbiterChannel {
    slot: WorkerSlot,
    /// `None` where the worker has no arbiter.
    pipe: Option<File>,
}

impl ArbiterChannel {
    pub(super) fn new(slot: WorkerSlot, pipe: Option<OwnedFd>) -> Self {
        Self {
            slot,
            pipe: pipe.map(File::from),
        }
    }

    /// The worker is ready to serve, or has begun to drain.
    pub(super) fn report(&mut self, state: SlotState) {
        self.slot.get().set_state(state);
        self.notify();
    }

    /// The listeners are closed here: once no worker has them, the arbiter may end them for whatever else holds them.
    pub(super) fn report_closed_listeners(&mut self) {
        self.slot.get().set_accepts_no_more();
        self.notify();
    }

    /// `max_requests` is reached: the arbiter is asked for a successor. The worker serves as before until that one does and
    /// TERM comes, so that no capacity is ever missing.
    pub(super) fn report_worn_out(&mut self) {
        log::info!("Autorestarting worker after current request.");
        self.slot.get().ask_to_go();
        self.notify();
    }

    /// A thread is lost to a request. Returns whether there is an arbiter to replace the worker.
    pub(super) fn ask_for_replacement(&mut self) -> bool {
        self.slot.get().set_wants_replacement();
        self.notify();
        self.pipe.is_some()
    }

    fn notify(&mut self) {
        if let Some(pipe) = &mut self.pipe {
            let _ = pipe.write(b"!");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read as _;
    use std::sync::Arc;

    use super::*;
    use crate::scoreboard::Scoreboard;

    #[test]
    fn each_report_is_on_the_scoreboard_and_announced_by_a_byte() {
        let slot = WorkerSlot::new(Arc::new(Scoreboard::new(1, 1).unwrap()), 0);
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut channel = ArbiterChannel::new(slot.clone(), Some(ours.into()));
        channel.report(SlotState::Serving);
        assert_eq!(slot.get().state(), SlotState::Serving);
        channel.report_worn_out();
        assert!(slot.get().asks_to_go());
        assert!(channel.ask_for_replacement());
        channel.report_closed_listeners();
        assert!(slot.get().accepts_no_more());
        drop(channel);
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"!!!!");
    }
}
