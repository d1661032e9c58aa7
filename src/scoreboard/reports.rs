//! What a worker reports on its slot and the arbiter reads: vitals, and how it ends.

use super::Slot;
use super::slot_state::SlotState;

impl Slot<'_> {
    /// Arbiter: the state that the slot's own worker has set.
    #[must_use]
    pub fn reported_state(self) -> SlotState {
        self.vitals.reported_state()
    }

    /// Worker: how many requests wait for a thread, as of the last heartbeat, for the arbiter and for peers.
    pub fn report_queue_length(self, requests: u32) {
        self.vitals.set_queue_length(requests);
        self.set_queue_length(requests);
    }

    /// Arbiter: the last heartbeat of the slot's own worker's loop.
    #[must_use]
    pub fn reported_loop_heartbeat(self) -> u64 {
        self.vitals.reported_loop_heartbeat()
    }

    /// Some thread held the GIL just now. A worker that never calls this is not killed for its absence.
    pub fn python_heartbeat(self, now_ms: u64) {
        self.vitals.python_heartbeat(now_ms);
    }

    #[must_use]
    pub fn python_heartbeat_at(self) -> u64 {
        self.vitals.python_heartbeat_at()
    }

    pub fn thread_busy(self) {
        self.vitals.thread_busy();
    }

    pub fn thread_idle(self) {
        self.vitals.thread_idle();
    }

    #[must_use]
    pub fn threads_busy(self) -> u32 {
        self.vitals.threads_busy()
    }

    /// Worker: it has served as many requests as it may. It keeps serving until the arbiter sends TERM.
    pub fn ask_to_go(self) {
        self.vitals.ask_to_go();
    }

    #[must_use]
    pub fn asks_to_go(self) -> bool {
        self.vitals.asks_to_go()
    }

    /// The worker stops and has closed its listeners: it takes no connection from them any more.
    pub fn set_accepts_no_more(self) {
        self.vitals.set_accepts_no_more();
    }

    #[must_use]
    pub fn accepts_no_more(self) -> bool {
        self.vitals.accepts_no_more()
    }

    /// Arbiter: the server ends. A worker that stops from now on ends the listeners for all, so that there is no moment in
    /// which connections are still taken and no worker is there for them.
    pub fn set_ends_listeners(self) {
        self.vitals.set_ends_listeners();
    }

    #[must_use]
    pub fn ends_listeners(self) -> bool {
        self.vitals.ends_listeners()
    }

    /// The worker has lost a thread for good: it would like to be replaced, and asked to stop once that is done.
    pub fn set_wants_replacement(self) {
        self.vitals.set_wants_replacement();
    }

    #[must_use]
    pub fn wants_replacement(self) -> bool {
        self.vitals.wants_replacement()
    }

    /// Arbiter: TERM has come and `stop_delay` runs. The worker serves, but is not ready for more.
    pub fn announce_stop(self) {
        self.vitals.announce_stop();
        self.data.retirement.announce_stop();
    }

    #[must_use]
    pub fn server_stops(self) -> bool {
        self.data.retirement.server_stops()
    }

    /// Arbiter: the worker has been sent this signal and is to stop, also when its application keeps the signal to itself.
    pub fn ask_to_stop(self, signal: i32, now_ms: u64) {
        self.vitals.ask_to_stop(signal, now_ms);
    }

    /// Which signal that was.
    #[must_use]
    pub fn stop_signal(self) -> Option<i32> {
        self.vitals.stop_signal()
    }

    /// When that was, by the scoreboard's clock.
    #[must_use]
    pub fn stop_asked_ms(self) -> Option<u64> {
        self.vitals.stop_asked_ms()
    }

    /// A request that the server answered without the application (400, 408, 413, 503 and the like).
    pub fn add_refused(self, count: u64) {
        self.data.retirement.add_refused(count);
    }

    #[must_use]
    pub fn refused(self) -> u64 {
        self.data.retirement.refused()
    }

    /// A request that was under way when its time to end was over.
    pub fn add_cut(self, count: u64) {
        self.data.retirement.add_cut(count);
    }

    #[must_use]
    pub fn cut(self) -> u64 {
        self.data.retirement.cut()
    }
}
