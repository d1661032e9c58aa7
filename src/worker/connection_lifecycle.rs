//! What a connection waits for, the deadline for it, and what it wants of the loop. Only this file assigns [`State`].

use std::io;
use std::time::{Duration, Instant};

use crate::pool::ConnId;

use super::loop_clock::{Clock, Timeout, Timer};
use super::read_side::Input;
use super::shortage::{Patience, Shortage};

/// A client that has sent nothing for this long after it was accepted may be closed to make room for another: what it sent
/// at once would have arrived.
const SILENCE: Patience = Patience::new(500, 250);
/// So may one whose first handshake or head is not whole after this long: a lost segment of it would have come a second time,
/// a second after the first. Its age counts, not its last byte: a byte now and then must not keep a place.
const UNFINISHED: Patience = Patience::new(2000, 500);
/// Without descriptors, a client that sends nothing of its body.
const PAUSED_BODY: Patience = Patience::new(1000, 300);
/// At the limit of connections, a client that moves nothing of its body or response. Players and proxies rest for seconds
/// between two reads.
const RESTING: Duration = Duration::from_secs(10);

/// Why a connection was closed that another client needed the place of.
pub(super) const MADE_ROOM: &str = "made room for another client";

/// Why a connection may be closed for another client. What costs its own client least comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spare {
    /// No whole request has come of it.
    Unasked,
    /// It is answered, and waits for its next request.
    Idle,
    /// Its request or its response stands still.
    Stalled,
}

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The first byte of the connection's first request.
    AwaitingFirstByte { accepted: Instant },
    /// The rest of a TLS handshake.
    Handshaking { accepted: Instant },
    /// The first byte of the first request after a handshake.
    AwaitingRequest { accepted: Instant },
    /// The rest of a head.
    ReceivingHead { began: Instant },
    /// More of a body, also of one whose request is with the application. This many bytes have come since the deadline was
    /// moved, which was at `moved`.
    ReceivingBody { arrived: u32, moved: Instant },
    /// The application: no deadline.
    Dispatched,
    /// The client, to take more of the response. It has taken some at `moved`.
    Sending { moved: Instant },
    /// The next request.
    KeepAlive { since: Instant },
    /// The client, to close its side after ours is closed.
    LingeringClose,
}

/// What the loop does with a connection after one of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Action {
    /// It waits for its next event.
    Wait,
    /// It waits for its next request, and may be closed to make room for another.
    Idle,
    /// What it has queued is to be flushed at the end of the iteration.
    FlushLater,
    /// It has more to read or write than its share of one iteration.
    Resume,
    /// It is over.
    Close,
}

impl Action {
    /// In a lingering close, after the client's input was discarded.
    pub(super) fn after_discarding(read: io::Result<Input>) -> Self {
        match read {
            Ok(Input::Bytes(_)) => Self::Resume,
            Ok(Input::Blocked) => Self::Wait,
            Ok(Input::End) | Err(_) => Self::Close,
        }
    }
}

/// How fast a client has to take its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// `send_timeout` and `send_min_rate`.
    Ordinary,
    /// The last free thread waits for it.
    Hurried,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lifecycle {
    state: State,
    timer: Timer,
    /// What the client had not acknowledged when that was asked last, if it is hurried.
    unacknowledged: Option<u32>,
}

impl Lifecycle {
    /// A connection that was accepted now: its first request has `client_header_timeout` to arrive.
    pub(super) fn new(conn: ConnId, clock: &mut Clock) -> Self {
        let mut lifecycle = Self {
            state: State::AwaitingFirstByte {
                accepted: clock.now(),
            },
            timer: Timer::new(conn),
            unacknowledged: None,
        };
        lifecycle.arm(Timeout::Header, clock);
        lifecycle
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn is_lingering_close(&self) -> bool {
        self.state == State::LingeringClose
    }

    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Handshaking { .. })
    }

    /// Whether the transport may have something of its own to send. What it has between requests goes with the next bytes.
    pub(super) fn may_have_unsent(&self) -> bool {
        matches!(
            self.state,
            State::Handshaking { .. } | State::LingeringClose
        )
    }

    /// When an idle connection was last used.
    pub(super) fn used_at(&self) -> Option<Instant> {
        match self.state {
            State::AwaitingFirstByte { accepted: at }
            | State::Handshaking { accepted: at }
            | State::AwaitingRequest { accepted: at }
            | State::KeepAlive { since: at } => Some(at),
            _ => None,
        }
    }

    pub(super) fn is_sending(&self) -> bool {
        matches!(self.state, State::Sending { .. })
    }

    /// Whether it may be closed for another client, and since when it waits. `stalled_since`: its streams stand still.
    pub(super) fn spare(
        &self,
        is_idle: bool,
        stalled_since: Option<Instant>,
        shortage: Shortage,
        now: Instant,
    ) -> Option<(Spare, Instant)> {
        // What a client has acknowledged of its response is watched where that is zero (`standstill.rs`).
        let resting = match shortage {
            Shortage::Connections => RESTING,
            Shortage::Descriptors { .. } | Shortage::Threads => Duration::ZERO,
        };
        let (spare, since, patience) = match self.state {
            State::AwaitingFirstByte { accepted } | State::AwaitingRequest { accepted }
                if is_idle =>
            {
                (Spare::Unasked, accepted, SILENCE.during(shortage))
            }
            State::Handshaking { accepted: since } | State::ReceivingHead { began: since } => {
                (Spare::Unasked, since, UNFINISHED.during(shortage))
            }
            State::KeepAlive { since } if is_idle => (Spare::Idle, since, Duration::ZERO),
            State::ReceivingBody { moved, .. } if shortage != Shortage::Threads => {
                let paused = PAUSED_BODY.during(shortage);
                (Spare::Stalled, moved, paused.max(resting))
            }
            State::Sending { moved } => (Spare::Stalled, moved, resting),
            State::Dispatched => (Spare::Stalled, stalled_since?, resting),
            _ => return None,
        };
        let has_waited = now.saturating_duration_since(since) >= patience;
        let helps = shortage != Shortage::Threads || spare == Spare::Stalled;
        (has_waited && helps).then_some((spare, since))
    }

    /// When its deadline is over.
    #[cfg(test)]
    pub(super) fn due(&self) -> Option<Instant> {
        self.timer.due()
    }

    /// Whether its deadline is over; the set has found an entry for it.
    pub(super) fn has_expired(&mut self, clock: &mut Clock) -> bool {
        clock.expired(&mut self.timer)
    }

    /// The deadline is later by a pause of the loop.
    pub(super) fn excuse(&mut self, pause: Duration) {
        self.timer.excuse(pause);
    }

    /// A TLS handshake begins. It and the first head have the deadline that the accept has set.
    pub(super) fn begin_handshake(&mut self, clock: &Clock) {
        let accepted = self.used_at().unwrap_or(clock.now());
        self.state = State::Handshaking { accepted };
    }

    /// The handshake is done.
    pub(super) fn end_handshake(&mut self) {
        if let State::Handshaking { accepted } = self.state {
            self.state = State::AwaitingRequest { accepted };
        }
    }

    /// A part of a head has arrived. A head has one deadline from its first byte on: a byte now and then must not extend
    /// it.
    pub(super) fn await_head(&mut self, clock: &mut Clock) {
        let began = match self.state {
            State::ReceivingHead { .. } => return,
            State::AwaitingRequest { accepted } => accepted,
            _ => {
                self.arm(Timeout::Header, clock);
                clock.now()
            }
        };
        self.state = State::ReceivingHead { began };
    }

    /// Bytes have arrived.
    pub(super) fn received(&mut self, bytes: usize) {
        if let State::ReceivingBody { arrived, .. } = &mut self.state {
            *arrived = arrived.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// More of a body is to come.
    pub(super) fn await_body(&mut self, clock: &mut Clock) {
        let mut moved = clock.now();
        match self.state {
            State::ReceivingBody {
                arrived: 0,
                moved: before,
            } => moved = before,
            State::ReceivingBody { arrived, .. } => clock.extend_body(&mut self.timer, arrived),
            _ => self.arm(Timeout::Body, clock),
        }
        self.state = State::ReceivingBody { arrived: 0, moved };
    }

    /// A streaming body is whole, or the window for it is full: the next move is the application's.
    pub(super) fn end_body(&mut self) {
        if matches!(self.state, State::ReceivingBody { .. }) {
            self.dispatched();
        }
    }

    /// The request is with the application.
    pub(super) fn dispatched(&mut self) {
        self.state = State::Dispatched;
        self.timer.clear();
    }

    /// A response waits for the client to take more of it, of which its socket has taken `bytes` just now.
    pub(super) fn await_client(&mut self, bytes: u64, clock: &mut Clock) {
        self.unacknowledged = None;
        match self.note_taken(bytes, clock) {
            true => self.arm(Timeout::Send, clock),
            false if bytes == 0 => {}
            false => clock.extend_send(&mut self.timer, saturated(bytes)),
        }
    }

    /// So does one for which the last free thread waits. The socket takes nothing for seconds of one that reads slowly and
    /// then a megabyte, so what counts is what the client has acknowledged; `None`: the kernel does not say.
    pub(super) fn await_hurried_client(
        &mut self,
        bytes: u64,
        unacknowledged: Option<u32>,
        clock: &mut Clock,
    ) {
        let began = self.note_taken(bytes, clock);
        let before = std::mem::replace(&mut self.unacknowledged, unacknowledged);
        let acknowledged = match (before, unacknowledged) {
            (Some(before), Some(left)) => (u64::from(before) + bytes).saturating_sub(left.into()),
            _ => bytes,
        };
        match began {
            true => self.arm(Timeout::HurriedSend, clock),
            false if acknowledged == 0 => {}
            false => clock.extend_hurried_send(&mut self.timer, saturated(acknowledged)),
        }
    }

    /// Whether its client is one of those.
    pub(super) fn is_hurried(&self) -> bool {
        self.is_sending() && self.unacknowledged.is_some()
    }

    /// Whether a response begins to wait.
    fn note_taken(&mut self, bytes: u64, clock: &Clock) -> bool {
        let (began, moved) = match self.state {
            State::Sending { moved } if bytes == 0 => (false, moved),
            State::Sending { .. } => (false, clock.now()),
            _ => (true, clock.now()),
        };
        self.state = State::Sending { moved };
        began
    }

    /// Everything is written of a response that goes on.
    pub(super) fn caught_up(&mut self) {
        if self.is_sending() {
            self.dispatched();
        }
    }

    /// A response is written, and the connection stays.
    pub(super) fn keep_alive(&mut self, clock: &Clock) {
        self.state = State::KeepAlive { since: clock.now() };
    }

    /// Nothing of the next request has arrived.
    pub(super) fn await_request(&mut self, clock: &mut Clock) {
        match self.state {
            State::AwaitingFirstByte { .. }
            | State::Handshaking { .. }
            | State::AwaitingRequest { .. } => return,
            State::KeepAlive { .. } => {}
            _ => self.state = State::KeepAlive { since: clock.now() },
        }
        self.arm(Timeout::KeepAlive, clock);
    }

    /// No request has come since then, and none before: what came was something else.
    pub(super) fn await_first_request(&mut self, since: Instant, clock: &mut Clock) {
        self.state = State::AwaitingRequest { accepted: since };
        clock.arm_since(&mut self.timer, Timeout::Header, since);
    }

    /// No request has been under way since then. Nothing else that came extends that.
    pub(super) fn rest_since(&mut self, since: Instant, clock: &mut Clock) {
        self.state = State::KeepAlive { since };
        clock.arm_since(&mut self.timer, Timeout::KeepAlive, since);
    }

    /// The worker stops, and the client does not know it yet: it has a moment for a last request.
    pub(super) fn await_last_request(&mut self, clock: &mut Clock) {
        let since = self.used_at().unwrap_or(clock.now());
        if !self.is_handshaking() {
            self.state = State::KeepAlive { since };
        }
        self.arm(Timeout::LastRequest, clock);
    }

    /// The end of the stream is sent, and the client may still be sending.
    pub(super) fn begin_lingering_close(&mut self, clock: &mut Clock) {
        self.state = State::LingeringClose;
        self.arm(Timeout::LingeringClose, clock);
    }

    fn arm(&mut self, timeout: Timeout, clock: &mut Clock) {
        clock.arm(&mut self.timer, timeout);
    }
}

fn saturated(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;

    fn lifecycle() -> (Lifecycle, Clock) {
        let mut clock = Clock::new(&Config::default(), Vec::new());
        let conn = ConnId::new(0, 0);
        let lifecycle = Lifecycle::new(conn, &mut clock);
        (lifecycle, clock)
    }

    const MOMENT: Duration = Duration::from_secs(1);

    #[test]
    fn bytes_of_a_head_do_not_extend_its_deadline_and_those_of_a_body_do() {
        let (mut lifecycle, mut clock) = lifecycle();
        lifecycle.await_head(&mut clock);
        let due = lifecycle.due();
        clock.advance(MOMENT);
        lifecycle.await_head(&mut clock);
        assert_eq!(lifecycle.due(), due);
        lifecycle.await_body(&mut clock);
        let due = lifecycle.due();
        clock.advance(MOMENT);
        lifecycle.received(500);
        lifecycle.await_body(&mut clock);
        assert_eq!(lifecycle.due(), due.map(|due| due + MOMENT));
    }

    #[test]
    fn a_slow_body_uses_its_time_up_and_a_fast_one_never_has_more_than_the_timeout() {
        let (mut lifecycle, mut clock) = lifecycle();
        lifecycle.await_body(&mut clock);
        let due = lifecycle.due();
        for _ in 0..59 {
            clock.advance(MOMENT);
            lifecycle.received(1);
            lifecycle.await_body(&mut clock);
        }
        assert!(lifecycle.due() < due.map(|due| due + MOMENT));
        lifecycle.received(10_000_000);
        lifecycle.await_body(&mut clock);
        assert_eq!(lifecycle.due(), Some(clock.now() + MOMENT * 60));
    }

    #[test]
    fn a_dispatched_request_has_no_deadline() {
        let (mut lifecycle, mut clock) = lifecycle();
        lifecycle.dispatched();
        assert_eq!(lifecycle.due(), None);
        lifecycle.await_client(0, &mut clock);
        let due = lifecycle.due();
        clock.advance(MOMENT);
        lifecycle.await_client(0, &mut clock);
        assert_eq!(lifecycle.due(), due, "the client has taken nothing");
        lifecycle.caught_up();
        assert_eq!(
            (lifecycle.state(), lifecycle.due()),
            (State::Dispatched, None)
        );
    }

    #[test]
    fn a_client_that_trickles_uses_its_time_up_and_one_that_has_caught_up_begins_anew() {
        let (mut lifecycle, mut clock) = lifecycle();
        lifecycle.dispatched();
        lifecycle.await_client(1_000_000, &mut clock);
        let due = lifecycle.due();
        for _ in 0..59 {
            clock.advance(MOMENT);
            lifecycle.await_client(1, &mut clock);
        }
        assert!(lifecycle.due() < due.map(|due| due + MOMENT));
        lifecycle.await_client(240 * 60, &mut clock);
        assert_eq!(lifecycle.due(), Some(clock.now() + MOMENT * 60));
        clock.advance(MOMENT * 59);
        lifecycle.caught_up();
        lifecycle.await_client(0, &mut clock);
        assert_eq!(lifecycle.due(), Some(clock.now() + MOMENT * 60));
    }

    #[test]
    fn who_makes_room_first_is_who_has_asked_for_nothing() {
        let (mut lifecycle, mut clock) = lifecycle();
        let spare = |lifecycle: &Lifecycle, clock: &Clock, shortage| {
            lifecycle
                .spare(true, None, shortage, clock.now())
                .map(|(spare, _)| spare)
        };
        use Shortage::{Connections, Threads};
        const DESCRIPTORS: Shortage = Shortage::Descriptors { rounds: 0 };
        assert_eq!(spare(&lifecycle, &clock, Connections), None, "it is new");
        clock.advance(SILENCE.first);
        assert_eq!(spare(&lifecycle, &clock, Connections), Some(Spare::Unasked));
        assert_eq!(
            spare(&lifecycle, &clock, Threads),
            None,
            "no thread waits for it"
        );
        lifecycle.await_head(&mut clock);
        for _ in 0..4 {
            assert_eq!(spare(&lifecycle, &clock, Connections), None, "it may come");
            clock.advance(UNFINISHED.first / 4);
            lifecycle.await_head(&mut clock);
        }
        assert_eq!(spare(&lifecycle, &clock, Connections), Some(Spare::Unasked));
        lifecycle.dispatched();
        clock.advance(MOMENT * 60);
        assert_eq!(
            spare(&lifecycle, &clock, DESCRIPTORS),
            None,
            "it is the application's"
        );
        lifecycle.await_client(1, &mut clock);
        clock.advance(MOMENT);
        assert_eq!(spare(&lifecycle, &clock, Connections), None);
        assert_eq!(spare(&lifecycle, &clock, DESCRIPTORS), Some(Spare::Stalled));
        lifecycle.await_client(1, &mut clock);
        assert_eq!(spare(&lifecycle, &clock, Threads), Some(Spare::Stalled));
        assert_eq!(spare(&lifecycle, &clock, Connections), None, "it reads");
        lifecycle.await_body(&mut clock);
        assert_eq!(spare(&lifecycle, &clock, DESCRIPTORS), None);
        clock.advance(PAUSED_BODY.least);
        let later = Shortage::Descriptors { rounds: 40 };
        assert_eq!(spare(&lifecycle, &clock, later), Some(Spare::Stalled));
        assert_eq!(spare(&lifecycle, &clock, DESCRIPTORS), None);
        assert_eq!(spare(&lifecycle, &clock, Connections), None);
        lifecycle.keep_alive(&clock);
        assert_eq!(spare(&lifecycle, &clock, Connections), Some(Spare::Idle));
        assert!(Spare::Unasked < Spare::Idle && Spare::Idle < Spare::Stalled);
    }

    #[test]
    fn a_client_in_a_hurry_has_a_second() {
        let (mut lifecycle, mut clock) = lifecycle();
        lifecycle.await_hurried_client(300_000, Some(200_000), &mut clock);
        assert_eq!(lifecycle.due(), Some(clock.now() + MOMENT));
        clock.advance(MOMENT / 2);
        lifecycle.await_hurried_client(0, Some(200_000), &mut clock);
        assert_eq!(lifecycle.due(), Some(clock.now() + MOMENT / 2));
        lifecycle.await_hurried_client(0, Some(200_000 - 1024), &mut clock);
        assert!(lifecycle.due() < Some(clock.now() + MOMENT * 3 / 5));
    }

    #[test]
    fn what_a_client_in_a_hurry_acknowledges_counts() {
        let (mut lifecycle, mut clock) = lifecycle();
        lifecycle.await_hurried_client(3_000_000, Some(3_000_000), &mut clock);
        assert!(lifecycle.is_hurried());
        let mut left = 3_000_000;
        for _ in 0..20 {
            clock.advance(MOMENT);
            left -= 100_000;
            lifecycle.await_hurried_client(0, Some(left), &mut clock);
            assert!(!lifecycle.has_expired(&mut clock), "{left} left");
        }
        lifecycle.await_hurried_client(1_000_000, Some(left + 1_000_000), &mut clock);
        clock.advance(MOMENT * 2);
        lifecycle.await_hurried_client(0, Some(left + 1_000_000), &mut clock);
        assert!(
            lifecycle.has_expired(&mut clock),
            "its socket took bytes, it did not"
        );
    }

    #[test]
    fn a_first_request_has_the_deadline_of_the_accept_and_the_next_one_keepalive() {
        let (mut lifecycle, mut clock) = lifecycle();
        let (due, accepted) = (lifecycle.due(), clock.now());
        clock.advance(MOMENT);
        lifecycle.await_request(&mut clock);
        assert_eq!(
            (lifecycle.due(), lifecycle.used_at()),
            (due, Some(accepted))
        );
        lifecycle.keep_alive(&clock);
        lifecycle.await_request(&mut clock);
        assert!(matches!(lifecycle.state(), State::KeepAlive { .. }) && lifecycle.due() > due);
        lifecycle.await_last_request(&mut clock);
        assert!(lifecycle.due() < due);
        assert_eq!(lifecycle.used_at(), Some(clock.now()));
    }
}
