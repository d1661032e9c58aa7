//! The synchronisation primitives of the three protocols that park and wake threads, named here so that a model checker
//! can stand in for them (`tests/model` compiles `wakeup.rs`, `loop_park.rs` and `hub_wakeup.rs` against its own `sync`).

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
use std::sync::{Mutex as StdMutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

pub(crate) use crossbeam::queue::SegQueue as Queue;
use crossbeam::sync::Parker as CrossbeamParker;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigEvent, SigSet, SigevNotify, SigmaskHow, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;

use crate::fork_guard;

/// A descriptor that is readable from a signal until it is drained.
#[derive(Debug)]
pub(crate) struct WakeDescriptor {
    descriptor: EventFd,
    /// A signal has found it closed.
    is_lost: AtomicBool,
}

impl WakeDescriptor {
    pub(crate) fn new() -> io::Result<Self> {
        let descriptor = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        fork_guard::register(&descriptor);
        Ok(Self {
            descriptor,
            is_lost: AtomicBool::new(false),
        })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    pub(crate) fn signal(&self) {
        // When the counter is full the descriptor is readable.
        if self.descriptor.write(1) == Err(Errno::EBADF) {
            self.is_lost.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it is known to be closed by the application.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// Check whether it is closed.
    pub(crate) fn look(&self) {
        if fcntl(&self.descriptor, FcntlArg::F_GETFD).is_err() {
            self.is_lost.store(true, Ordering::Relaxed);
        }
    }

    /// Returns how many signals there were.
    pub(crate) fn drain(&self) -> u64 {
        // It fails when there was none.
        self.descriptor.read().unwrap_or(0)
    }
}

/// Rings for one thread, its owner, in a time that any thread may set: a timer of the process that signals the owner, who
/// waits for the signal. It needs no descriptor, which the application could close.
pub(crate) struct Alarm(Timer);

// SAFETY: a timer's handle is a number of the process (`timer_settime(2)`), valid on all of its threads, and is used
// behind a lock. nix keeps it as the pointer that glibc has for its type.
#[allow(
    unsafe_code,
    reason = "nix says of its timer neither that it may move to other threads nor that it may not"
)]
unsafe impl Send for Alarm {}

/// What rings: nothing does by default when it comes (`signal(7)`), so a late one is harmless.
const ALARM_SIGNAL: Signal = Signal::SIGURG;

impl Alarm {
    /// The calling thread is the owner.
    ///
    /// # Errors
    /// The process has too many timers.
    pub(crate) fn of_this_thread() -> io::Result<Self> {
        let notify = SigevNotify::SigevThreadId {
            signal: ALARM_SIGNAL,
            thread_id: gettid().as_raw(),
            si_value: 0,
        };
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))?;
        Ok(Self(timer))
    }

    /// Ring in `time`, which is not zero, and not at the time that was set before.
    pub(crate) fn ring_in(&mut self, time: Duration) {
        let time = Expiration::OneShot(TimeSpec::from_duration(time));
        // A valid time of a timer that exists.
        let set = self.0.set(time, TimerSetTimeFlags::empty());
        debug_assert!(set.is_ok());
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

/// The owner of an [`Alarm`] that waits for it.
pub(crate) struct Expected {
    signals: SigSet,
    before: Option<SigSet>,
}

impl Expected {
    /// Sleep until it rings, or has rung since the last time.
    pub(crate) fn wait(&self) {
        // The set is valid, and an interrupted wait is only a short one.
        let _ = self.signals.wait();
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = before.thread_set_mask();
        }
    }
}

/// A mutex whose poison is ignored: the protocol's critical sections cannot panic.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(StdMutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(StdMutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread's place to sleep. `unpark` before `park` is remembered, so no wake-up is lost.
#[derive(Debug)]
pub(crate) struct Parker {
    unparker: crossbeam::sync::Unparker,
    parker: Mutex<CrossbeamParker>,
}

impl Parker {
    pub(crate) fn new() -> Self {
        let parker = CrossbeamParker::new();
        Self {
            unparker: parker.unparker().clone(),
            parker: Mutex::new(parker),
        }
    }

    /// Sleep until unparked. Only the thread that owns this place calls it, so the lock is never contended.
    pub(crate) fn park(&self) {
        self.parker.lock().park();
    }

    pub(crate) fn unpark(&self) {
        self.unparker.unpark();
    }
}

/// A thread that says which one it is before it first parks.
#[derive(Debug, Default)]
pub(crate) struct NamedThread(OnceLock<Thread>);

impl NamedThread {
    /// It is the calling thread.
    pub(crate) fn is_this(&self) {
        self.0.get_or_init(thread::current);
    }

    /// The thread itself parks, for `time` at most.
    pub(crate) fn park(&self, time: Duration) {
        thread::park_timeout(time);
    }

    /// Unpark it, if it is known.
    pub(crate) fn unpark(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}
