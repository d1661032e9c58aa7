//! What an HTTP/2 connection waits for when all is written, and how it ends.
//!
//! A connection that is to end says so twice (RFC 9113 section 6.8): first that no more requests are taken, with a PING; when
//! that is answered, every request that was on its way has come, and the second GOAWAY names the last one.

use crate::worker::write_side::WriteBudget;
use h2::Reason;
use std::time::{Duration, Instant};

use super::Http2;
use super::engine::Polled;
use super::goodbye_stage::Goodbye;
use crate::pool::ConnId;
use crate::worker::connection_lifecycle::{Action, MADE_ROOM, State};
use crate::worker::link::{Link, begin_close, is_quiet};
use crate::worker::loop_clock::Clock;
use crate::worker::requests::Requests;

/// A connection that has served this many requests says goodbye: stream numbers end at 2^31.
const REQUESTS_MAX: u64 = 100_000;

impl Http2 {
    /// Everything is written: what the connection waits for now.
    pub(super) fn await_next(&mut self, link: &mut Link, requests: &mut Requests) -> Action {
        if !link.write.is_empty() {
            return Action::Wait;
        }
        if self.engine.is_over() {
            return self.begin_close(link, requests);
        }
        if link.read.has_ended() && self.mux.reset_stalled(requests) {
            return Action::Resume;
        }
        if !self.mux.is_idle() {
            link.lifecycle.dispatched();
            self.goodbye.on_request();
            return Action::Wait;
        }
        if link.read.has_ended() && self.goodbye != Goodbye::Over {
            // It had answers to come, and has them all.
            let why = requests.shutdown.reason_of_gone();
            self.end(Reason::NO_ERROR, why, requests);
            return Action::Resume;
        }
        if self.part_if_due(requests) {
            return Action::Resume;
        }
        let (lifecycle, clock) = (&mut link.lifecycle, &mut requests.clock);
        let since = self.mux.idle_since(clock.now());
        match (self.goodbye, lifecycle.state()) {
            (Goodbye::Said, _) => {
                lifecycle.await_last_request(clock);
                self.goodbye.await_last();
                Action::Wait
            }
            (Goodbye::LastWait | Goodbye::Over, _) => Action::Wait,
            _ if self.inspection.is_mid_frame() => {
                lifecycle.await_head(clock);
                Action::Wait
            }
            (Goodbye::Unsaid, State::AwaitingFirstByte { .. } | State::AwaitingRequest { .. }) => {
                Action::Idle
            }
            (Goodbye::Unsaid, State::KeepAlive { since: known }) if known == since => Action::Idle,
            (Goodbye::Unsaid, _) => {
                match self.mux.requests() {
                    0 => lifecycle.await_first_request(since, clock),
                    _ => lifecycle.rest_since(since, clock),
                }
                Action::Idle
            }
        }
    }

    /// The client has ended its side. What it has asked for is answered: it may still read. One that is gone refuses the PING
    /// that it is sent, which ends the connection.
    pub(super) fn on_end_of_input(
        &mut self,
        link: &mut Link,
        requests: &mut Requests,
        writes: &mut WriteBudget,
    ) -> Action {
        self.mux
            .end_input(|id| self.inspection.is_unfinished(id), requests);
        if self.mux.is_idle() && link.write.is_empty() {
            return Action::Close;
        }
        self.engine.probe();
        self.advance(link, requests, writes)
    }

    /// Say goodbye when the connection is to take no more requests. Returns whether that was now.
    pub(super) fn part_if_due(&mut self, requests: &Requests) -> bool {
        let parts = self.is_to_part(requests) && self.engine.drain();
        if parts {
            self.goodbye.say();
        }
        parts
    }

    fn is_to_part(&self, requests: &Requests) -> bool {
        let count = self.mux.requests();
        let is_kept = requests.clock.has_keep_alive() || count == 0 || !self.mux.is_idle();
        self.goodbye == Goodbye::Unsaid
            && (requests.shutdown.is_draining() || !is_kept || count >= REQUESTS_MAX)
    }

    /// Whether the deadline of a stream is over.
    pub(in crate::worker) fn has_expired(&mut self, id: ConnId, clock: &mut Clock) -> bool {
        self.mux.has_expired(id.stream, clock)
    }

    /// The deadlines of the streams are later by a pause of the loop.
    pub(in crate::worker) fn excuse(&mut self, pause: Duration) {
        self.mux.excuse(pause);
    }

    /// The deadline of a stream, or of the connection, is over.
    pub(in crate::worker) fn on_deadline(
        &mut self,
        id: ConnId,
        link: &mut Link,
        requests: &mut Requests,
        writes: &mut WriteBudget,
    ) -> Action {
        if id.stream != 0 {
            self.mux.on_deadline(id.stream, &link.client, requests);
            return self.advance(link, requests, writes);
        }
        match link.lifecycle.state() {
            State::Sending { .. } => {
                log::debug!("Closing a connection whose client reads nothing (send_timeout).");
                self.mux.close("send_timeout", requests);
                Action::Close
            }
            State::LingeringClose => Action::Close,
            State::Dispatched | State::ReceivingBody { .. } | State::Handshaking { .. } => {
                Action::Wait
            }
            State::AwaitingFirstByte { .. }
            | State::AwaitingRequest { .. }
            | State::KeepAlive { .. }
            | State::ReceivingHead { .. } => {
                let why = requests.shutdown.reason_of_gone();
                self.end(Reason::NO_ERROR, why, requests);
                self.advance(link, requests, writes)
            }
        }
    }

    /// The worker stops.
    pub(in crate::worker) fn begin_drain(
        &mut self,
        link: &mut Link,
        requests: &mut Requests,
        writes: &mut WriteBudget,
    ) -> Action {
        self.advance(link, requests, writes)
    }

    /// Close for another client: between requests in good order, else with what is under way.
    pub(in crate::worker) fn evict(
        &mut self,
        link: &mut Link,
        requests: &mut Requests,
        writes: &mut WriteBudget,
    ) -> Action {
        let reason = match self.is_idle() && is_quiet(link) {
            true => Reason::NO_ERROR,
            false => Reason::ENHANCE_YOUR_CALM,
        };
        self.end(reason, MADE_ROOM, requests);
        // What does not go out at once is not waited for.
        let _ = self.advance(link, requests, writes);
        Action::Close
    }

    /// Since when its client takes nothing of the responses that it could take.
    pub(in crate::worker) fn stalled_since(&self) -> Option<Instant> {
        self.mux.stalled_since()
    }

    /// The worker does not wait for anything more. Requests behind the last that was taken may be sent elsewhere.
    pub(in crate::worker) fn part_at_once(&mut self, link: &mut Link) {
        if self.engine.is_over() || !link.write.is_empty() {
            return;
        }
        self.engine.go_away(Reason::NO_ERROR);
        while let Polled::Request(..) = self.engine.poll() {}
        link.write
            .send(&mut self.engine.take_output(), &mut link.transport);
    }

    /// Say goodbye for good.
    pub(super) fn end(&mut self, code: Reason, why: &'static str, requests: &mut Requests) {
        self.goodbye.end();
        self.engine.go_away(code);
        self.mux.close(why, requests);
    }

    /// The last GOAWAY is written. The client may still be sending: a reset could destroy what it has not read yet.
    fn begin_close(&mut self, link: &mut Link, requests: &mut Requests) -> Action {
        self.close(requests);
        link.read.give_up();
        begin_close(link, &mut requests.clock)
    }
}
