//! How the event loop ends: gracefully, at once, or aborted.

use std::time::Instant;

use super::EventLoop;
use crate::scoreboard::SlotState;
use crate::worker::deliver;
use crate::worker::shutdown::Next;

impl EventLoop {
    /// Stop gracefully: take what waits in the accept queue, then no more; close what is idle; finish the rest.
    pub(in crate::worker) fn begin_drain(&mut self) {
        let (requests, io) = (&mut self.requests, &mut self.io);
        if !requests.shutdown.begin(requests.clock.now()) {
            return;
        }
        requests.arbiter.report(SlotState::Draining);
        for (transport, peer, listener) in self.listeners.waiting() {
            self.connections
                .open(transport, peer, listener, requests, io);
        }
        self.listeners
            .close(requests.accounting.slot().ends_listeners());
        requests.arbiter.report_closed_listeners();
        if let Some(peers) = &mut self.peers {
            peers.take_all(&mut self.connections, requests, io);
        }
        self.connections.begin_drain(requests, io);
    }

    /// Stop at once: whatever is open is closed.
    pub(super) fn stop_now(&mut self, exit_code: i32) {
        let requests = &mut self.requests;
        requests.shutdown.stop_now(exit_code, requests.clock.now());
        self.listeners
            .close(requests.accounting.slot().ends_listeners());
        requests.arbiter.report_closed_listeners();
        self.connections.close_all(requests);
        self.leave();
    }

    /// The worker is aborted: what no thread has begun is the successor's, or is refused.
    pub(super) fn leave_waiting(&mut self) {
        let connections = &mut self.connections;
        let (requests, io) = (&mut self.requests, &mut self.io);
        let is_asked_to_stop = !requests.shutdown.begin(requests.clock.now());
        match &self.takeover {
            // Of a server that stops there may be no other.
            Some(takeover) if is_asked_to_stop => {
                takeover.leave_if_served(connections, requests, io)
            }
            Some(takeover) => takeover.leave_all(connections, requests),
            None => {}
        }
        deliver::refuse_waiting(connections, requests, io);
    }

    /// Continue to the next phase of the stop when this one is over.
    pub(super) fn advance_shutdown(&mut self) {
        let (requests, io) = (&mut self.requests, &mut self.io);
        let now = requests.clock.now();
        let open = self.connections.len_with_hijacked();
        let known_until = requests.clock.known_until();
        match requests.shutdown.advance(open, now, known_until) {
            Next::Nothing => {}
            Next::Leave => self.leave(),
            Next::Cut => {
                if let Some(takeover) = &self.takeover {
                    takeover.leave_if_served(&mut self.connections, requests, io);
                }
                let cut = self.connections.close_all(requests);
                if cut > 0 {
                    requests.accounting.slot().add_cut(cut as u64);
                    log::warn!(
                        "graceful_timeout has expired: {cut} connection(s) with a request in progress were cut."
                    );
                }
                self.leave();
            }
        }
        let threads = self.requests.dispatch.pool().live_threads();
        // What they replied before they left is logged.
        self.handle_replies();
        self.requests.shutdown.end(threads, now);
    }

    /// All connections are closed: let the threads leave.
    fn leave(&mut self) {
        self.requests.dispatch.pool().close();
        self.end_series(self.requests.clock.now(), true);
        deliver::cut_waiting(&mut self.requests);
    }

    /// Log what was coalesced of a series that is over; when the worker stops, of each.
    pub(super) fn end_series(&mut self, now: Instant, worker_stops: bool) {
        let requests = &mut self.requests;
        requests.dispatch.log_shed(now, worker_stops);
        requests.stream_errors.end_series(now, worker_stops);
        requests.unstored_bodies.end_series(now, worker_stops);
        self.io.handshakes.end_series(now, worker_stops);
        if worker_stops {
            requests.dispatch.pool().unsent().log_more_failures();
        }
    }
}
