//! An alarm rings for one thread, its owner, in a time that any thread sets: a timer of the process signals the owner, which waits
//! for the signal (`timer_create(2)`, `SIGEV_THREAD_ID`). There is no descriptor that the application could close or inherit, and
//! a child process has no timers.
//!
//! The application may use the signal too. When it sets another handler the kernel may forget a signal that is pending, and
//! the timer with it: the owner looks by itself after [`PATIENCE`]. A signal that no timer has sent is passed on to the handler.
#![expect(
    unsafe_code,
    reason = "nix does not say that its timer may move to other threads, tells a single one for glibc alone, and has no wait \
              that tells who has sent a signal"
)]

use std::io;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{SigEvent, SigSet, SigmaskHow, Signal, raise};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::{getpid, gettid};

/// See the module.
#[derive(Debug)]
pub(crate) struct Alarm(Timer);

/// How much of an alarm's time has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AlarmAge {
    /// Less than half of it.
    FarOff,
    Near,
    /// All of it.
    Over,
}

// SAFETY: a timer's handle is a number of the process (`timer_settime(2)`), valid on all of its threads, and is used
// behind a lock. nix keeps it as the pointer that glibc has for its type.
unsafe impl Send for Alarm {}

/// What rings: nothing does by default when it comes (`signal(7)`), so a late one is harmless.
const ALARM_SIGNAL: Signal = Signal::SIGURG;
/// The owner waits no longer than this. A worker that has nothing to do wakes up twice a second without it.
const PATIENCE: Duration = Duration::from_secs(10);

impl Alarm {
    /// The calling thread is the owner.
    ///
    /// # Errors
    /// The process has too many timers, or its C library has none for a single thread.
    pub(crate) fn of_this_thread() -> io::Result<Self> {
        // nix has this notice for glibc alone. musl has it since 1.2.0; before, it is an error.
        // SAFETY: a structure of numbers and a pointer, for which all zeros is a value.
        let mut notice: libc::sigevent = unsafe { std::mem::zeroed() };
        notice.sigev_notify = libc::SIGEV_THREAD_ID;
        notice.sigev_signo = ALARM_SIGNAL as libc::c_int;
        notice.sigev_notify_thread_id = gettid().as_raw();
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::from(&notice))?;
        Ok(Self(timer))
    }

    /// Ring in `time`, and not at the time that was set before. Zero is never.
    pub(crate) fn ring_in(&mut self, time: Duration) {
        let time = Expiration::OneShot(time.into());
        // A valid time of a timer that exists.
        let set = self.0.set(time, TimerSetTimeFlags::empty());
        debug_assert!(set.is_ok());
    }

    /// Do not ring, unless it has rung.
    pub(crate) fn silence(&mut self) {
        self.ring_in(Duration::ZERO);
    }

    /// How much has passed, until `now`, of an alarm's `time`.
    pub(crate) fn age(since: Instant, now: Instant, time: Duration) -> AlarmAge {
        let passed = now.saturating_duration_since(since);
        if passed >= time {
            AlarmAge::Over
        } else if passed >= time / 2 {
            AlarmAge::Near
        } else {
            AlarmAge::FarOff
        }
    }

    /// The owner expects it: the signal is kept for [`Expected::wait`] from now on.
    pub(crate) fn expect() -> Expected {
        let mut signals = SigSet::empty();
        signals.add(ALARM_SIGNAL);
        let before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok();
        Expected { signals, before }
    }

    /// What is left of `time` since then.
    pub(crate) fn left(since: Instant, time: Duration) -> Option<Duration> {
        let left = time.checked_sub(since.elapsed())?;
        (!left.is_zero()).then_some(left)
    }
}

/// The owner of an [`Alarm`], as it waits.
#[derive(Debug)]
pub(crate) struct Expected {
    signals: SigSet,
    before: Option<SigSet>,
}

impl Expected {
    /// Wait until it rings, or has rung since the last time, until another signal of its kind comes, or for [`PATIENCE`].
    pub(crate) fn wait(&self) {
        self.wait_for(PATIENCE);
    }

    fn wait_for(&self, patience: Duration) {
        if !self.wait_for_signal(patience) {
            // The alarm's own signal may come to the handler with it: this is a look too.
            self.pass_on();
        }
    }

    /// Wait until the signal comes. Returns false when no timer has sent it.
    fn wait_for_signal(&self, patience: Duration) -> bool {
        // SAFETY: a structure of numbers and pointers, for which all zeros is a value. The system writes it.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let time = TimeSpec::from(patience);
        // SAFETY: the three are valid for the call.
        let signal = unsafe { libc::sigtimedwait(self.signals.as_ref(), &mut info, time.as_ref()) };
        // A wait that is over, or was interrupted, is only a look.
        signal == -1 || info.si_code == libc::SI_TIMER
    }

    /// The application's handler gets the signal: on this thread, or where this one had blocked it before, on the main one.
    fn pass_on(&self) {
        let is_blocked = self
            .before
            .is_none_or(|before| before.contains(ALARM_SIGNAL));
        if let (false, Some(before)) = (is_blocked, self.before) {
            // It is pending until the mask lets it come.
            let _ = raise(ALARM_SIGNAL);
            let _ = before.thread_set_mask();
            let _ = self.signals.thread_block();
        } else if gettid() != getpid() {
            let main = getpid().as_raw();
            // SAFETY: three numbers. The main thread lives as long as its process.
            unsafe { libc::syscall(libc::SYS_tgkill, main, main, ALARM_SIGNAL as i32) };
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = before.thread_set_mask();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::thread;

    use super::*;

    #[test]
    fn an_alarm_that_another_thread_sets_rings_for_its_owner_and_not_before() {
        let mut alarm = Alarm::of_this_thread().unwrap();
        let expected = Alarm::expect();
        let begun = Instant::now();
        let time = Duration::from_millis(5);
        thread::spawn(move || {
            alarm.ring_in(Duration::from_secs(3600));
            alarm.ring_in(time);
            // It ends with its timer.
            thread::park_timeout(Duration::from_secs(60));
            drop(alarm);
        });
        expected.wait();
        assert!(begun.elapsed() >= time);
    }

    #[test]
    fn a_ring_before_the_wait_is_kept() {
        let mut alarm = Alarm::of_this_thread().unwrap();
        let expected = Alarm::expect();
        alarm.ring_in(Duration::from_nanos(1));
        expected.wait();
    }

    #[test]
    fn the_owner_looks_by_itself_when_nothing_rings() {
        let expected = Alarm::expect();
        let begun = Instant::now();
        let patience = Duration::from_millis(5);
        expected.wait_for(patience);
        assert!(begun.elapsed() >= patience);
    }

    #[test]
    fn the_mask_of_signals_is_as_before_once_no_alarm_is_expected() {
        let blocked = || SigSet::thread_get_mask().unwrap().contains(ALARM_SIGNAL);
        assert!(!blocked());
        let expected = Alarm::expect();
        assert!(blocked());
        drop(expected);
        assert!(!blocked());
    }

    #[test]
    fn a_silenced_alarm_does_not_ring() {
        let mut alarm = Alarm::of_this_thread().unwrap();
        let expected = Alarm::expect();
        let begun = Instant::now();
        let (time, patience) = (Duration::from_millis(20), Duration::from_millis(60));
        alarm.ring_in(time);
        alarm.silence();
        expected.wait_for(patience);
        assert!(begun.elapsed() >= patience);
    }

    #[test]
    fn an_alarm_is_far_off_for_the_first_half_of_its_time() {
        let since = Instant::now();
        let time = Duration::from_micros(100);
        for (passed, age) in [
            (0, AlarmAge::FarOff),
            (49, AlarmAge::FarOff),
            (50, AlarmAge::Near),
            (99, AlarmAge::Near),
            (100, AlarmAge::Over),
        ] {
            let now = since + Duration::from_micros(passed);
            assert_eq!(Alarm::age(since, now, time), age, "{passed} us");
        }
    }

    #[test]
    fn what_is_left_of_a_time_ends_with_it() {
        assert!(Alarm::left(Instant::now(), Duration::from_secs(3600)).is_some());
        assert_eq!(Alarm::left(Instant::now(), Duration::ZERO), None);
    }
}
