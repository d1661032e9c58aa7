//! When connections are due: header, body, keep-alive, send and lingering-close deadlines in one ordered set, and how long
//! each of them is.
//!
//! A connection's deadline moves with every request, so the set is lazy. It holds for each connection the tick it is
//! looked at next; a deadline that moves later costs nothing (the entry finds out when it comes up and is put back),
//! only one that moves earlier adds an entry. The clock is the caller's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::pool::ConnId;

/// At a stop, a connection that may have sent its next request has this long for it to arrive.
const LAST_REQUEST: Duration = Duration::from_millis(500);
/// From the end of a last response to the client's own close.
const LINGERING_CLOSE: Duration = Duration::from_secs(2);

/// Deadlines are kept to this resolution. They are never early.
const TICK: Duration = Duration::from_millis(100);

/// What a deadline bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeout {
    /// From the first byte of a head (or from accept) to its end (`client_header_timeout`).
    Header,
    /// Between two arrivals of body bytes (`client_body_timeout`).
    Body,
    /// Between two requests (`keepalive`).
    KeepAlive,
    /// Between two acceptances of response bytes by the client (`send_timeout`).
    Send,
    /// The arrival of a last request when the worker stops.
    LastRequest,
    /// The client's own close after the last response.
    LingeringClose,
}

/// The timeouts that are settings; `None` is no deadline.
#[derive(Clone, Copy, Debug)]
struct Timeouts {
    header: Option<Duration>,
    body: Option<Duration>,
    keep_alive: Option<Duration>,
    send: Option<Duration>,
}

/// One connection's deadline and where the set will look at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    conn: ConnId,
    due: Option<Instant>,
    /// The tick at which an entry for this connection comes up, if there is one.
    listed: Option<u64>,
}

impl Timer {
    /// No deadline yet.
    pub(super) fn new(conn: ConnId) -> Self {
        Self {
            conn,
            due: None,
            listed: None,
        }
    }

    /// No deadline. The entry, if any, stays and will find nothing due.
    pub(super) fn clear(&mut self) {
        self.due = None;
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

/// The ordered set.
#[derive(Debug)]
pub(super) struct Deadlines {
    timeouts: Timeouts,
    start: Instant,
    ticks: BTreeMap<u64, Vec<ConnId>>,
}

impl Deadlines {
    pub(super) fn new(config: &Config, start: Instant) -> Self {
        Self {
            timeouts: Timeouts {
                header: config.http.client_header_timeout,
                body: config.http.client_body_timeout,
                keep_alive: config.http.keepalive,
                send: config.http.send_timeout,
            },
            start,
            ticks: BTreeMap::new(),
        }
    }

    /// Whether connections stay open between requests.
    pub(super) fn has_keep_alive(&self) -> bool {
        self.timeouts.keep_alive.is_some()
    }

    /// Let the connection be due when `timeout` has passed, or never.
    pub(super) fn arm(&mut self, timer: &mut Timer, timeout: Timeout, now: Instant) {
        let timeout = match timeout {
            Timeout::Header => self.timeouts.header,
            Timeout::Body => self.timeouts.body,
            Timeout::KeepAlive => self.timeouts.keep_alive,
            Timeout::Send => self.timeouts.send,
            Timeout::LastRequest => Some(LAST_REQUEST),
            Timeout::LingeringClose => Some(LINGERING_CLOSE),
        };
        match timeout {
            Some(timeout) => self.set(timer, now + timeout),
            None => timer.clear(),
        }
    }

    fn set(&mut self, timer: &mut Timer, due: Instant) {
        timer.due = Some(due);
        let tick = self.tick_at_or_after(due);
        if timer.listed.is_none_or(|listed| tick < listed) {
            timer.listed = Some(tick);
            self.ticks.entry(tick).or_default().push(timer.conn);
        }
    }

    /// How long until an entry comes up.
    pub(super) fn next_in(&self, now: Instant) -> Option<Duration> {
        let (tick, _) = self.ticks.first_key_value()?;
        Some(self.instant_of(*tick).saturating_duration_since(now))
    }

    /// Take the entries that have come up. The caller looks each connection up and asks [`Deadlines::expired`].
    pub(super) fn take_up(&mut self, now: Instant, up: &mut Vec<ConnId>) {
        while let Some((&tick, _)) = self.ticks.first_key_value() {
            if self.instant_of(tick) > now {
                return;
            }
            up.append(&mut self.ticks.remove(&tick).unwrap_or_default());
        }
    }

    /// Whether the connection whose entry came up is due. If it is due later, it is listed again.
    pub(super) fn expired(&mut self, timer: &mut Timer, now: Instant) -> bool {
        // An entry that was overtaken by an earlier one is not the listed one any more.
        timer.listed = None;
        match timer.due {
            None => false,
            Some(due) if due <= now => true,
            Some(due) => {
                self.set(timer, due);
                false
            }
        }
    }

    fn tick_at_or_after(&self, due: Instant) -> u64 {
        let since = due.saturating_duration_since(self.start);
        // Ten ticks a second; no wide division on the way of every request.
        since.as_secs() * 10 + u64::from(since.subsec_nanos().div_ceil(TICK.subsec_nanos()))
    }

    fn instant_of(&self, tick: u64) -> Instant {
        self.start + TICK * u32::try_from(tick).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId {
        slot: 1,
        generation: 0,
    };

    #[test]
    fn a_timeout_that_is_off_clears_the_deadline() {
        let start = Instant::now();
        let mut config = Config::default();
        config.http.keepalive = None;
        let (mut set, mut timer) = (Deadlines::new(&config, start), Timer::new(A));
        set.arm(&mut timer, Timeout::LastRequest, start);
        assert_eq!(timer.due(), Some(start + LAST_REQUEST));
        set.arm(&mut timer, Timeout::KeepAlive, start);
        assert_eq!(timer.due(), None);
    }

    fn up_at(set: &mut Deadlines, now: Instant) -> Vec<ConnId> {
        let mut up = Vec::new();
        set.take_up(now, &mut up);
        up
    }

    #[test]
    fn a_deadline_that_moves_later_is_found_not_due_and_listed_again() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (mut set, mut timer) = (Deadlines::new(&Config::default(), start), Timer::new(A));
        set.set(&mut timer, at(200));
        set.set(&mut timer, at(1000));
        assert_eq!(up_at(&mut set, at(250)), [A]);
        assert!(!set.expired(&mut timer, at(250)));
        assert!(up_at(&mut set, at(999)).is_empty());
        assert_eq!(up_at(&mut set, at(1000)), [A]);
        assert!(set.expired(&mut timer, at(1000)));
        assert_eq!(set.next_in(at(1000)), None);
    }

    #[test]
    fn a_deadline_that_moves_earlier_comes_up_at_its_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (mut set, mut timer) = (Deadlines::new(&Config::default(), start), Timer::new(A));
        set.set(&mut timer, at(65_000));
        set.set(&mut timer, at(300));
        assert_eq!(up_at(&mut set, at(300)), [A]);
        assert!(set.expired(&mut timer, at(300)));
    }

    #[test]
    fn a_cleared_deadline_never_expires() {
        let start = Instant::now();
        let (mut set, mut timer) = (Deadlines::new(&Config::default(), start), Timer::new(A));
        set.set(&mut timer, start + TICK);
        timer.clear();
        assert_eq!(up_at(&mut set, start + TICK), [A]);
        assert!(!set.expired(&mut timer, start + TICK));
    }

    #[test]
    fn entries_are_never_early() {
        let start = Instant::now();
        let (mut set, mut timer) = (Deadlines::new(&Config::default(), start), Timer::new(A));
        set.set(&mut timer, start + Duration::from_millis(101));
        assert!(up_at(&mut set, start + Duration::from_millis(150)).is_empty());
        assert_eq!(set.next_in(start), Some(Duration::from_millis(200)));
    }
}
