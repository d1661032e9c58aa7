//! What a worker reports to its arbiter: its state on the scoreboard, then a byte on a pipe that means "read my slot".
//!
//! Four reports in a worker's life at most: it serves, it has served `max_requests`, it lost a thread, it drains. A byte
//! that cannot be written changes nothing: the arbiter reads the slots once a second anyway, and a worker that is gone is
//! noticed by its heartbeat.

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
    /// Requests dispatched, and after how many the worker asks for a successor (`max_requests`).
    requests: u64,
    requests_max: Option<u64>,
}

impl ArbiterChannel {
    pub(super) fn new(slot: WorkerSlot, pipe: Option<OwnedFd>, requests_max: Option<u64>) -> Self {
        Self {
            slot,
            pipe: pipe.map(File::from),
            requests: 0,
            requests_max,
        }
    }

    /// The worker is ready to serve, or has begun to drain.
    pub(super) fn report(&mut self, state: SlotState) {
        self.slot.get().set_state(state);
        self.notify();
    }

    /// A request is dispatched. At `max_requests` the arbiter is asked for a successor; the worker serves as before until
    /// that one does and TERM comes, so that no capacity is ever missing.
    pub(super) fn count_request(&mut self) {
        self.requests += 1;
        if self.requests_max == Some(self.requests) {
            log::info!("Autorestarting worker after current request.");
            self.slot.get().ask_to_go();
            self.notify();
        }
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
    fn a_successor_is_asked_for_once_at_the_limit_of_requests() {
        let slot = WorkerSlot::new(Arc::new(Scoreboard::new(1, 1).unwrap()), 0);
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut channel = ArbiterChannel::new(slot.clone(), Some(ours.into()), Some(2));
        channel.count_request();
        assert!(!slot.get().asks_to_go());
        channel.count_request();
        channel.count_request();
        assert!(slot.get().asks_to_go());
        drop(channel);
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"!");
    }
}
