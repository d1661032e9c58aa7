//! The event loop's clock: one instant per iteration, the wall clock and the `Date` field at most once a second, and what is
//! due when.
//!
//! A deadline is over when it has passed and the poll set was looked at after that. A process that had no processor for a while
//! finds all its deadlines passed, and what has come meanwhile, in time or not, is only known when its sockets were looked at.
//!
//! The deadlines of all connections are in one ordered set. A connection's deadline moves with every request, so the set is
//! lazy. It holds for each connection the tick at which it is looked at next; a deadline that moves later costs nothing (the
//! entry finds out when it comes up and is put back), only one that moves earlier adds an entry.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::Config;
use crate::http::{HttpDate, ResponseDefaults};
use crate::pool::ConnId;

/// At a stop, a connection that may have sent its next request has this long for it to arrive.
const LAST_REQUEST: Duration = Duration::from_millis(500);
/// From the end of a last response to the client's own close.
const LINGERING_CLOSE: Duration = Duration::from_secs(2);
/// A client that the last free thread waits for, because there is no room for its response, has this long to take something.
const HURRIED_SEND: Duration = Duration::from_secs(1);
/// One that has taken something may rest for that long at most: small buffers are acknowledged twice in a second.
const HURRIED_REST: Duration = Duration::from_secs(2);
/// What a byte gives back of it: 64 KiB per second is the least.
const HURRIED_PER_BYTE: Duration = Duration::from_nanos(1_000_000_000 / (64 * 1024));

/// Deadlines are kept to this resolution. They are never early.
const TICK: Duration = Duration::from_millis(100);

/// What a deadline bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeout {
    /// From the first byte of a head (or from accept) to its end (`client_header_timeout`).
    Header,
    /// The arrival of a body (`client_body_timeout`): used up while nothing comes, and given back by the bytes that come.
    Body,
    /// Between two requests (`keepalive`).
    KeepAlive,
    /// Between two acceptances of response bytes by the client (`send_timeout`).
    Send,
    /// As `Send`, of a client that the last free thread waits for.
    HurriedSend,
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
    /// What a byte of a body gives back of it (`client_body_min_rate`); `None`: everything.
    body_per_byte: Option<Duration>,
    keep_alive: Option<Duration>,
    send: Option<Duration>,
    /// What a byte of a response gives back of it (`send_min_rate`); `None`: everything.
    send_per_byte: Option<Duration>,
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

    /// The deadline, if any, is later by a pause of the loop. The entry finds out when it comes up.
    pub(super) fn excuse(&mut self, pause: Duration) {
        if let Some(due) = &mut self.due {
            *due += pause;
        }
    }

    #[cfg(test)]
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Clock {
    now: Instant,
    /// All that had happened to the sockets by then is known: deadlines up to here may be over.
    known_until: Instant,
    date: HttpDate,
    unix_seconds: i64,
    /// Until when `unix_seconds` holds.
    valid_until: Instant,
    /// The `Server` field's value; empty for none.
    server: Vec<u8>,
    timeouts: Timeouts,
    start: Instant,
    /// The ordered set of deadlines.
    ticks: BTreeMap<u64, Vec<ConnId>>,
}

impl Clock {
    /// `server` is the value of the `Server` field, which goes with the date into every response.
    pub(super) fn new(config: &Config, server: Vec<u8>) -> Self {
        let now = Instant::now();
        let mut clock = Self {
            now,
            known_until: now,
            date: HttpDate::new(),
            unix_seconds: 0,
            valid_until: now,
            server,
            timeouts: Timeouts {
                header: config.http.client_header_timeout,
                body: config.http.client_body_timeout,
                body_per_byte: Duration::from_secs(1).checked_div(config.http.client_body_min_rate),
                keep_alive: config.http.keepalive,
                send: config.http.send_timeout,
                send_per_byte: Duration::from_secs(1).checked_div(config.http.send_min_rate),
            },
            start: now,
            ticks: BTreeMap::new(),
        };
        clock.read_wall_clock();
        clock
    }

    /// The start of this iteration.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// What had happened to the sockets by this instant is known once the events of this iteration are handled.
    pub(super) fn known_until(&self) -> Instant {
        self.known_until
    }

    /// Begin an iteration at `now`. Its events are all that had happened to the sockets by `known_until`.
    pub(super) fn tick(&mut self, now: Instant, known_until: Instant) {
        debug_assert!(self.known_until <= known_until && known_until <= now);
        self.now = now;
        self.known_until = known_until;
        if self.now >= self.valid_until {
            self.read_wall_clock();
        }
    }

    /// Let time pass.
    #[cfg(test)]
    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.known_until = self.now;
    }

    fn read_wall_clock(&mut self) {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.unix_seconds = i64::try_from(since.as_secs()).unwrap_or(0);
        self.valid_until =
            self.now + Duration::from_nanos(u64::from(1_000_000_000 - since.subsec_nanos()));
    }

    /// Seconds since the epoch and nanoseconds at `at`, which is in this iteration.
    pub(super) fn unix_time(&self, at: Instant) -> (i64, u32) {
        let left = self.valid_until.saturating_duration_since(at);
        let nanos = 999_999_999_u32.saturating_sub(left.subsec_nanos());
        (self.unix_seconds, nanos)
    }

    /// The fields that every response has.
    pub(super) fn response_defaults(&mut self) -> ResponseDefaults<'_> {
        let date = self.date.at(self.unix_seconds);
        ResponseDefaults {
            server: &self.server,
            date,
        }
    }

    // Deadlines.

    /// Whether connections stay open between requests.
    pub(super) fn has_keep_alive(&self) -> bool {
        self.timeouts.keep_alive.is_some()
    }

    /// Let the connection be due when `timeout` has passed, or never.
    pub(super) fn arm(&mut self, timer: &mut Timer, timeout: Timeout) {
        self.arm_since(timer, timeout, self.now);
    }

    /// Let it be due when `timeout` has passed since then.
    pub(super) fn arm_since(&mut self, timer: &mut Timer, timeout: Timeout, since: Instant) {
        let timeout = match timeout {
            Timeout::Header => self.timeouts.header,
            Timeout::Body => self.timeouts.body,
            Timeout::KeepAlive => self.timeouts.keep_alive,
            Timeout::Send => self.timeouts.send,
            Timeout::HurriedSend => Some(HURRIED_SEND),
            Timeout::LastRequest => Some(LAST_REQUEST),
            Timeout::LingeringClose => Some(LINGERING_CLOSE),
        };
        match timeout {
            Some(timeout) => self.set(timer, since + timeout),
            None => timer.clear(),
        }
    }

    /// More of a body has arrived.
    pub(super) fn extend_body(&mut self, timer: &mut Timer, bytes: u32) {
        let (timeout, per_byte) = (self.timeouts.body, self.timeouts.body_per_byte);
        self.extend(timer, (timeout, per_byte), bytes);
    }

    /// The client has taken more of a response.
    pub(super) fn extend_send(&mut self, timer: &mut Timer, bytes: u32) {
        let (timeout, per_byte) = (self.timeouts.send, self.timeouts.send_per_byte);
        self.extend(timer, (timeout, per_byte), bytes);
    }

    /// So has a client that the last free thread waits for.
    pub(super) fn extend_hurried_send(&mut self, timer: &mut Timer, bytes: u32) {
        self.extend(timer, (Some(HURRIED_REST), Some(HURRIED_PER_BYTE)), bytes);
    }

    /// Each byte moves the deadline by its share of a second at the least rate, but to no later than the whole timeout from
    /// now: a client that moves a byte now and then is over in one timeout, and one that has moved much may not rest on it.
    fn extend(
        &mut self,
        timer: &mut Timer,
        (timeout, per_byte): (Option<Duration>, Option<Duration>),
        bytes: u32,
    ) {
        let Some(timeout) = timeout else {
            return timer.clear();
        };
        let whole = self.now + timeout;
        let due = match (per_byte, timer.due) {
            (Some(per_byte), Some(due)) => {
                whole.min(due + per_byte.saturating_mul(bytes).min(timeout))
            }
            _ => whole,
        };
        self.set(timer, due);
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

    /// Whether an entry has come up.
    pub(super) fn has_due(&self) -> bool {
        self.ticks
            .first_key_value()
            .is_some_and(|(&tick, _)| self.instant_of(tick) <= self.known_until)
    }

    /// Take the entries that have come up. The caller looks each connection up and asks [`Clock::expired`].
    pub(super) fn take_up(&mut self, up: &mut Vec<ConnId>) {
        while let Some((&tick, _)) = self.ticks.first_key_value() {
            if self.instant_of(tick) > self.known_until {
                return;
            }
            up.append(&mut self.ticks.remove(&tick).unwrap_or_default());
        }
    }

    /// Whether the connection whose entry came up is due. If it is due later, it is listed again.
    pub(super) fn expired(&mut self, timer: &mut Timer) -> bool {
        // An entry that was overtaken by an earlier one is not the listed one any more.
        timer.listed = None;
        match timer.due {
            None => false,
            Some(due) if due <= self.known_until => true,
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

    const A: ConnId = ConnId::new(1, 0);

    #[test]
    fn a_timeout_that_is_off_clears_the_deadline() {
        let mut config = Config::default();
        config.http.keepalive = None;
        let (mut set, mut timer) = (Clock::new(&config, Vec::new()), Timer::new(A));
        let start = set.start;
        set.arm(&mut timer, Timeout::LastRequest);
        assert_eq!(timer.due(), Some(start + LAST_REQUEST));
        set.arm(&mut timer, Timeout::KeepAlive);
        assert_eq!(timer.due(), None);
    }

    fn up_at(set: &mut Clock, now: Instant) -> Vec<ConnId> {
        set.tick(now, now);
        let mut up = Vec::new();
        set.take_up(&mut up);
        up
    }

    #[test]
    fn a_deadline_that_moves_later_is_found_not_due_and_listed_again() {
        let mut set = Clock::new(&Config::default(), Vec::new());
        let start = set.start;
        let at = |ms| start + Duration::from_millis(ms);
        let mut timer = Timer::new(A);
        set.set(&mut timer, at(200));
        set.set(&mut timer, at(1000));
        assert_eq!(up_at(&mut set, at(250)), [A]);
        assert!(!set.expired(&mut timer));
        assert!(up_at(&mut set, at(999)).is_empty());
        assert_eq!(up_at(&mut set, at(1000)), [A]);
        assert!(set.expired(&mut timer));
        assert_eq!(set.next_in(at(1000)), None);
    }

    #[test]
    fn a_deadline_that_moves_earlier_comes_up_at_its_time() {
        let mut set = Clock::new(&Config::default(), Vec::new());
        let start = set.start;
        let at = |ms| start + Duration::from_millis(ms);
        let mut timer = Timer::new(A);
        set.set(&mut timer, at(65_000));
        set.set(&mut timer, at(300));
        assert_eq!(up_at(&mut set, at(300)), [A]);
        assert!(set.expired(&mut timer));
    }

    #[test]
    fn a_deadline_is_not_over_before_the_sockets_were_looked_at_after_it() {
        let (mut set, mut timer) = (Clock::new(&Config::default(), Vec::new()), Timer::new(A));
        let at = |ms| set.start + Duration::from_millis(ms);
        let (before, due, after) = (at(250), at(300), at(5000));
        set.set(&mut timer, due);
        set.tick(after, before);
        assert!(!set.has_due() && !set.expired(&mut timer));
        set.tick(after, due);
        assert!(set.has_due() && set.expired(&mut timer));
    }

    #[test]
    fn a_cleared_deadline_never_expires() {
        let (mut set, mut timer) = (Clock::new(&Config::default(), Vec::new()), Timer::new(A));
        let start = set.start;
        set.set(&mut timer, start + TICK);
        timer.clear();
        assert_eq!(up_at(&mut set, start + TICK), [A]);
        assert!(!set.expired(&mut timer));
    }

    #[test]
    fn entries_are_never_early() {
        let (mut set, mut timer) = (Clock::new(&Config::default(), Vec::new()), Timer::new(A));
        let start = set.start;
        set.set(&mut timer, start + Duration::from_millis(101));
        assert!(up_at(&mut set, start + Duration::from_millis(150)).is_empty());
        assert_eq!(set.next_in(start), Some(Duration::from_millis(200)));
    }

    #[test]
    fn the_wall_clock_goes_on_within_its_second() {
        let clock = Clock::new(&Config::default(), Vec::new());
        let (seconds, nanos) = clock.unix_time(clock.now());
        assert!(seconds > 0 && nanos < 1_000_000_000);
        let later = clock.now() + Duration::from_nanos(u64::from(999_999_999 - nanos));
        let (same, last) = clock.unix_time(later);
        assert!(same == seconds && last > 999_999_000, "{last}");
    }

    #[test]
    fn every_response_names_the_server_and_the_date() {
        let mut clock = Clock::new(&Config::default(), b"test".to_vec());
        let defaults = clock.response_defaults();
        assert_eq!(defaults.server, b"test");
        assert!(defaults.date.ends_with(b"GMT"));
    }
}
