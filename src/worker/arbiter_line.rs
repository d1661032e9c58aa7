//! The worker's line to the arbiter: a pipe on which a byte means "look at my slot of the scoreboard".
//!
//! Three times in a worker's life: it serves, it wants a successor, it drains. A byte that cannot be written changes
//! nothing: the arbiter looks at the slots once a second anyway, and one that is gone is noticed by the heartbeat.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use super::core::Core;

/// See the module. Empty where no arbiter is.
#[derive(Debug, Default)]
pub(super) struct ArbiterLine(Option<File>);

impl ArbiterLine {
    pub(super) fn new(pipe: Option<OwnedFd>) -> Self {
        Self(pipe.map(File::from))
    }

    /// Returns whether there is an arbiter.
    pub(super) fn nudge(&mut self) -> bool {
        if let Some(pipe) = &mut self.0 {
            let _ = pipe.write(b"!");
        }
        self.0.is_some()
    }
}

impl Core {
    /// A request is dispatched. At `max_requests` the arbiter is asked for a successor; the worker goes on serving as
    /// before until that one serves and TERM comes, so that no capacity is ever missing.
    pub(super) fn count_request(&mut self) {
        self.requests += 1;
        if self.requests_max == Some(self.requests) {
            log::info!("Autorestarting worker after current request.");
            self.slot().ask_to_go();
            self.arbiter.nudge();
        }
    }
}
