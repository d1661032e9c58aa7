//! The loop's sign of life, and what else is done a few times a second: figures, endings of stories in the log, a look
//! at who else is alive.

use std::time::Duration;

use crate::scoreboard::monotonic_ms;

use super::event_loop::{EventLoop, saturating_u32};
use super::shutdown::Phase;

/// Between two beats, at least.
const BEAT_PAUSE: Duration = Duration::from_millis(200);
/// After so long without another, running out of descriptors is news again.
const EXHAUSTION_QUIET: Duration = Duration::from_secs(60);

impl EventLoop<'_> {
    /// Tell the arbiter that the loop is alive, and see whether the arbiter is.
    pub(super) fn beat(&mut self) {
        let now = self.core.now;
        if self
            .last_beat
            .is_some_and(|last| now.saturating_duration_since(last) < BEAT_PAUSE)
        {
            return;
        }
        self.last_beat = Some(now);
        self.core.end_burst(false);
        crate::logging::Log::of_process().tick();
        let idle = self
            .connections
            .iter()
            .filter(|connection| connection.is_idle())
            .count();
        let slot = self.core.slot();
        slot.loop_beat(monotonic_ms());
        let open = self.connections.len() + self.handed_over.len();
        slot.set_connections(saturating_u32(open), saturating_u32(idle));
        slot.set_queue_length(saturating_u32(self.core.pool.queue_length()));
        self.more_messages |= std::mem::take(&mut self.messages_wait);
        self.visit_the_dead();
        if self
            .exhausted_at
            .is_some_and(|at| now.saturating_duration_since(at) >= EXHAUSTION_QUIET)
        {
            self.exhausted_at = None;
        }
        if let Some(parent) = self.parent
            && nix::unistd::getppid().as_raw() != parent
            && matches!(self.phase, Phase::Serving)
        {
            log::info!(
                "Parent changed, shutting down: <Worker {}>",
                std::process::id()
            );
            self.begin_drain();
        }
    }
}
