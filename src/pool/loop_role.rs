//! The event loop as a role: it is run by the thread that has it, and by one thread at a time.
//!
//! While requests come a few at a time and are over in a moment, the switch from the loop's thread to a pool thread and back
//! costs more than they do. Then the loop's own thread, the **monitor**, delegates the loop to the pool: a thread that has no job
//! runs the loop, and what it finds there it runs itself. When that is, `delegation.rs` decides.
//!
//! # The rules
//! 1. *One at a time.* The loop is with the monitor, with the pool thread that runs it, or aside, in this file. It is moved
//!    under one lock.
//! 2. *Aside while Python runs.* A pool thread that finds jobs puts the loop aside and takes the GIL; when it has no more
//!    jobs it takes the loop again. So does any other thread that has none.
//! 3. *Never aside for longer than* [`INLINE_MAX`]. An alarm then wakes the monitor, which takes the loop and serves as if it
//!    had never delegated it. The alarm is set by who puts the loop aside, unless one is set already that is still far off:
//!    it is looked at when it rings. Requests that follow one another closely thus put it off every now and then, and it never
//!    rings. Where they do not follow closely it is switched off by who takes the loop: a ring costs five times as much.
//! 4. *What is the monitor's goes to it at once*: a signal, a drain, an error, many jobs.
//!
//! # Why no wake-up is lost
//! The thread that runs the loop announces its sleep as the monitor does (`loop_park.rs`), so a reply of another thread wakes
//! it. While the loop is aside no thread sleeps on its behalf: the thread that put it aside comes back or the alarm rings. The monitor that
//! offers the loop puts it aside, fences, and looks whether a thread is awake; a thread that parks publishes that, fences,
//! and looks whether the loop is aside. By Dekker's argument one sees the other. `tests/model` checks this file.

use std::io;
use std::time::{Duration, Instant};

use super::delegation::INLINE_MAX;
use super::sync::{Alarm, AlarmAge, AtomicBool, Mutex, Ordering, fence};

/// The shortest time that an alarm has: none at all switches it off.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// An event loop that may be delegated.
pub trait DelegableLoop: Send {
    /// Serve, on the monitor, until the worker is over or the loop may be delegated.
    ///
    /// # Errors
    /// The loop cannot go on.
    fn serve(&mut self) -> io::Result<Served>;

    /// Sleep once and iterate once, on a pool thread.
    ///
    /// # Errors
    /// The loop cannot go on.
    fn run_once(&mut self) -> io::Result<NextHolder>;
}

/// Why the monitor does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The worker is stopped, with this exit code.
    Over(i32),
    /// The loop may be delegated.
    Calm,
}

/// Who is to run the loop after an iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHolder {
    /// The thread that runs it, once it has no jobs.
    Same,
    /// The monitor.
    Monitor,
}

/// The loop is with the monitor again, or cannot go on.
type Back = (Box<dyn DelegableLoop>, io::Result<()>);

enum Place {
    /// Its thread has it.
    Away,
    Aside(Box<dyn DelegableLoop>, Instant),
    Back(Back),
}

struct Role {
    place: Place,
    alarm: Option<Alarm>,
    /// The alarm will ring, or has rung and the monitor has not looked.
    is_alarm_set: bool,
    /// When the loop was put aside for which it was last set.
    alarm_since: Option<Instant>,
    /// It was over when the loop was last put aside: requests do not follow one another closely.
    has_pauses: bool,
}

/// See the module.
pub(crate) struct LoopRole {
    role: Mutex<Role>,
    /// The monitor waits for its loop.
    is_delegated: AtomicBool,
    /// A hint, confirmed under the lock.
    is_aside: AtomicBool,
    /// The thread that runs the loop has something else to do first.
    is_recalled: AtomicBool,
}

impl std::fmt::Debug for LoopRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoopRole")
            .field("is_delegated", &self.is_delegated)
            .field("is_aside", &self.is_aside)
            .finish_non_exhaustive()
    }
}

impl LoopRole {
    pub(crate) fn new() -> Self {
        Self {
            role: Mutex::new(Role {
                place: Place::Away,
                alarm: None,
                is_alarm_set: false,
                alarm_since: None,
                has_pauses: false,
            }),
            is_delegated: AtomicBool::new(false),
            is_aside: AtomicBool::new(false),
            is_recalled: AtomicBool::new(false),
        }
    }

    /// The loop is delegated: the monitor does not run it.
    pub(crate) fn is_delegated(&self) -> bool {
        self.is_delegated.load(Ordering::Relaxed)
    }

    /// A thread without a job may take the loop. Called by a thread that has published that it parks, too.
    pub(crate) fn is_aside(&self) -> bool {
        self.is_aside.load(Ordering::Relaxed)
    }

    /// The thread that runs the loop is to come back to what it does between jobs. It is to be woken then.
    pub(crate) fn recall(&self) {
        self.is_recalled.store(true, Ordering::SeqCst);
    }

    /// The thread that runs the loop is called, and must not sleep.
    pub(crate) fn is_recalled(&self) -> bool {
        self.is_delegated() && self.is_recalled.load(Ordering::SeqCst)
    }

    /// The calling thread will be the monitor. Returns whether it may delegate its loop: the system has an alarm for it.
    pub(crate) fn prepare(&self) -> bool {
        let alarm = Alarm::of_this_thread().ok();
        let mut role = self.role.lock();
        role.alarm = alarm;
        role.alarm.is_some()
    }

    /// Delegate `event_loop` until it is back. Called by the monitor, which is prepared; `announce` wakes a thread if all are parked.
    pub(crate) fn delegate(
        &self,
        event_loop: Box<dyn DelegableLoop>,
        announce: impl FnOnce(),
    ) -> Back {
        debug_assert!(
            self.role.lock().alarm.is_some(),
            "else it would never be back"
        );
        let waiting = Alarm::expect();
        self.is_recalled.store(false, Ordering::SeqCst);
        self.is_delegated.store(true, Ordering::SeqCst);
        self.put_aside(event_loop, Instant::now());
        // Orders the offer before the look at who is parked: see the module's argument.
        fence(Ordering::SeqCst);
        announce();
        loop {
            waiting.wait();
            if let Some(back) = self.take_back() {
                self.is_delegated.store(false, Ordering::SeqCst);
                return back;
            }
        }
    }

    /// The alarm has rung: the loop, if it is the monitor's again.
    fn take_back(&self) -> Option<Back> {
        let mut role = self.role.lock();
        role.is_alarm_set = false;
        match std::mem::replace(&mut role.place, Place::Away) {
            Place::Away => None,
            Place::Back(back) => Some(back),
            Place::Aside(event_loop, since) => match Alarm::left(since, INLINE_MAX) {
                None => {
                    self.is_aside.store(false, Ordering::Relaxed);
                    Some((event_loop, Ok(())))
                }
                Some(left) => {
                    role.place = Place::Aside(event_loop, since);
                    role.set_alarm(left, since);
                    None
                }
            },
        }
    }

    fn put_aside(&self, event_loop: Box<dyn DelegableLoop>, now: Instant) {
        let mut role = self.role.lock();
        role.place = Place::Aside(event_loop, now);
        self.is_aside.store(true, Ordering::Relaxed);
        let age = role.alarm_age(now);
        role.has_pauses = age == AlarmAge::Over;
        if !role.is_alarm_set || age != AlarmAge::FarOff {
            role.set_alarm(INLINE_MAX, now);
        }
    }

    fn give_back(&self, back: Back) {
        let mut role = self.role.lock();
        role.place = Place::Back(back);
        role.set_alarm(AT_ONCE, Instant::now());
    }

    fn take(&self) -> Option<Box<dyn DelegableLoop>> {
        let mut role = self.role.lock();
        match std::mem::replace(&mut role.place, Place::Away) {
            Place::Aside(event_loop, _) => {
                self.is_aside.store(false, Ordering::Relaxed);
                role.silence_alarm_before_pause();
                Some(event_loop)
            }
            other => {
                role.place = other;
                None
            }
        }
    }

    /// Run the loop, if it is aside, until there is something else for the calling thread, which is not attached. Returns
    /// when that was.
    pub(crate) fn run(&self, has_work: impl Fn() -> bool) -> Option<Instant> {
        let mut held = Held {
            role: self,
            event_loop: Some(self.take()?),
        };
        loop {
            if has_work() || self.is_recalled.swap(false, Ordering::SeqCst) {
                return Some(held.put_aside());
            }
            match held.run_once() {
                Ok(NextHolder::Same) => {}
                Ok(NextHolder::Monitor) => return Some(held.give_back(Ok(()))),
                Err(error) => return Some(held.give_back(Err(error))),
            }
        }
    }
}

/// The loop, with the thread that runs it.
struct Held<'a> {
    role: &'a LoopRole,
    event_loop: Option<Box<dyn DelegableLoop>>,
}

impl Held<'_> {
    fn run_once(&mut self) -> io::Result<NextHolder> {
        self.event_loop
            .as_mut()
            .map_or(Ok(NextHolder::Monitor), |event_loop| event_loop.run_once())
    }

    fn put_aside(&mut self) -> Instant {
        let now = Instant::now();
        if let Some(event_loop) = self.event_loop.take() {
            self.role.put_aside(event_loop, now);
        }
        now
    }

    fn give_back(&mut self, end: io::Result<()>) -> Instant {
        if let Some(event_loop) = self.event_loop.take() {
            self.role.give_back((event_loop, end));
        }
        Instant::now()
    }
}

impl Drop for Held<'_> {
    /// A panic in the loop ends the worker, as it does on the monitor's own thread.
    fn drop(&mut self) {
        if self.event_loop.is_some() {
            self.give_back(Err(io::Error::other(LoopPanicked)));
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the event loop panicked")]
struct LoopPanicked;

impl Role {
    fn set_alarm(&mut self, time: Duration, since: Instant) {
        self.is_alarm_set = true;
        self.alarm_since = Some(since);
        if let Some(alarm) = &mut self.alarm {
            alarm.ring_in(time);
        }
    }

    fn alarm_age(&self, now: Instant) -> AlarmAge {
        self.alarm_since
            .map_or(AlarmAge::Over, |since| Alarm::age(since, now, INLINE_MAX))
    }

    /// The loop is taken. An alarm that would ring in a pause, for nothing, does not.
    fn silence_alarm_before_pause(&mut self) {
        if self.has_pauses && std::mem::take(&mut self.is_alarm_set) {
            if let Some(alarm) = &mut self.alarm {
                alarm.silence();
            }
        }
    }
}
