//! The synchronisation primitives of the protocols that park and wake threads, named here so that a model checker
//! can stand in for them (`tests/model` compiles `wakeup.rs`, `loop_park.rs`, `loop_role.rs`, `hub_wakeup.rs` and `busy_threads.rs` against its own `sync`).

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
use std::sync::{Mutex as StdMutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

pub(crate) use crossbeam::queue::SegQueue as Queue;
use crossbeam::sync::Parker as CrossbeamParker;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};

pub(crate) use super::alarm::{Alarm, AlarmAge};
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

/// Where one thread parks. `unpark` before `park` is remembered, so no wake-up is lost.
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

    /// Park until unparked. Only the thread that owns this place calls it, so the lock is never contended.
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
