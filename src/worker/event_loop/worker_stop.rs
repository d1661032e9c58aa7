//! How the event loop ends: gracefully, at once, or aborted.

use super::EventLoop;
use crate::scoreboard::SlotState;
use crate::worker::deliver;
use crate::worker::shutdown::Next;

impl EventLoop<'_> {
    /// Stop gracefully: take what waits in the accept queue, then no more; close what is idle; finish the rest.
    pub(in crate::worker) fn begin_drain(&mut self) {
        let services = &mut self.services;
        if !services.shutdown.begin(services.clock.now()) {
            return;
        }
        services.arbiter.report(SlotState::Draining);
        for (transport, peer, listener) in self.listeners.waiting() {
            self.connections.open(transport, peer, listener, services);
        }
        self.listeners.close(services.slot().get().ends_listeners());
        services.arbiter.report_closed_listeners();
        if let Some(peers) = &mut self.peers {
            peers.drain(&mut self.connections, services);
        }
        self.connections.begin_drain(services);
    }

    /// Stop at once: whatever is open is closed.
    pub(super) fn stop_now(&mut self, exit_code: i32) {
        let services = &mut self.services;
        services.shutdown.stop_now(exit_code, services.clock.now());
        self.listeners.close(services.slot().get().ends_listeners());
        services.arbiter.report_closed_listeners();
        self.connections.close_all(services);
        self.leave();
    }

    /// The worker is aborted: what no thread has begun is the successor's, or is refused.
    pub(super) fn leave_waiting(&mut self) {
        let (connections, services) = (&mut self.connections, &mut self.services);
        let is_asked_to_stop = !services.shutdown.begin(services.clock.now());
        match &self.takeover {
            // Of a server that stops there may be no other.
            Some(takeover) if is_asked_to_stop => takeover.leave_if_served(connections, services),
            Some(takeover) => takeover.leave_all(connections, services),
            None => {}
        }
        deliver::refuse_waiting(connections, services);
    }

    /// Continue to the next phase of the stop when this one is over.
    pub(super) fn advance_shutdown(&mut self) {
        let services = &mut self.services;
        let now = services.clock.now();
        let open = self.connections.len_with_hijacked();
        match services.shutdown.advance(open, now) {
            Next::Nothing => {}
            Next::Leave => self.leave(),
            Next::Cut => {
                if let Some(takeover) = &self.takeover {
                    takeover.leave_if_served(&mut self.connections, services);
                }
                let cut = self.connections.close_all(services);
                if cut > 0 {
                    services.accounting.slot().add_cut(cut as u64);
                    log::warn!(
                        "graceful_timeout is over: {cut} connection(s) with a request under way were cut."
                    );
                }
                self.leave();
            }
        }
        let services = &mut self.services;
        let threads = services.dispatch.pool().live_threads();
        services.shutdown.end(threads, now);
    }

    /// All connections are closed: let the threads leave.
    fn leave(&mut self) {
        let services = &mut self.services;
        services.dispatch.pool().close();
        services.dispatch.log_shed(services.clock.now(), true);
        deliver::cut_waiting(services);
    }
}
