//! How the event loop parks and how a reply wakes it.
//!
//! The loop announces how it sleeps ([`SleepMode`]), fences, and looks at the replies once more; a pool thread pushes
//! its reply, fences, and reads the announcement. By Dekker's argument either the loop sees the reply or the thread
//! sees the loop parked, and then wakes it if the policy says so (`policy::wakes_loop`).
//!
//! A thread that finds another job waiting is about to send another reply, so it may leave the loop asleep. That is
//! allowed only in [`SleepMode::Timed`] and [`SleepMode::Batching`], which the loop uses when it knows that jobs wait:
//! then it wakes by itself within half a millisecond, or within a part of the time that the queue will take. `tests/model`
//! checks this file under every interleaving that a model checker finds.

use std::time::Duration;

use super::policy::{SleepMode, wakes_loop};
use super::sync::{AtomicU8, AtomicU32, NamedThread, Ordering, fence};

/// The loop does not sleep: it will look at the replies before it does.
const AWAKE: u8 = 0;

/// Whether and how the event loop is parked.
pub(crate) struct LoopPark {
    /// [`AWAKE`] or a [`SleepMode`].
    mode: AtomicU8,
    /// Replies since the loop parked that did not wake it.
    unannounced: AtomicU32,
    /// Makes the poll set return.
    wake_poll: Box<dyn Fn() + Send + Sync>,
    /// The loop's thread, once it has parked as a thread.
    thread: NamedThread,
}

impl std::fmt::Debug for LoopPark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoopPark")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl LoopPark {
    pub(crate) fn new(wake_poll: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            mode: AtomicU8::new(AWAKE),
            unannounced: AtomicU32::new(0),
            wake_poll,
            thread: NamedThread::default(),
        }
    }

    /// A reply was pushed: wake the loop if it must be woken. With `more_to_come` the thread will soon push another.
    pub(crate) fn reply_pushed(&self, more_to_come: bool) {
        fence(Ordering::SeqCst);
        let Some(mode) = announced(self.mode.load(Ordering::Relaxed)) else {
            return;
        };
        let unannounced = || self.unannounced.fetch_add(1, Ordering::Relaxed);
        if wakes_loop(mode, more_to_come, unannounced) {
            self.wake();
        }
    }

    /// Wake the loop if it sleeps and was not woken yet.
    pub(crate) fn wake(&self) {
        // Acquire: a caller that sees the loop parked as a thread knows which one.
        match announced(self.mode.swap(AWAKE, Ordering::Acquire)) {
            None => {}
            Some(SleepMode::Batching) => self.thread.unpark(),
            Some(SleepMode::Timed | SleepMode::UntilWoken) => (self.wake_poll)(),
        }
    }

    /// The loop is about to sleep. Returns false, and changes nothing, when replies are waiting.
    pub(crate) fn park(&self, mode: SleepMode, has_replies: impl FnOnce() -> bool) -> bool {
        self.unannounced.store(0, Ordering::Relaxed);
        if mode == SleepMode::Batching {
            self.thread.is_this();
        }
        self.mode.store(mode as u8, Ordering::Release);
        fence(Ordering::SeqCst);
        if has_replies() {
            self.unpark();
            return false;
        }
        true
    }

    /// The loop sleeps as it has announced with [`SleepMode::Batching`], for `time` at most.
    pub(crate) fn sleep_as_thread(&self, time: Duration) {
        self.thread.park(time);
    }

    /// The loop is awake again.
    pub(crate) fn unpark(&self) {
        self.mode.store(AWAKE, Ordering::Relaxed);
    }
}

#[inline]
fn announced(mode: u8) -> Option<SleepMode> {
    const TIMED: u8 = SleepMode::Timed as u8;
    const UNTIL_WOKEN: u8 = SleepMode::UntilWoken as u8;
    const BATCHING: u8 = SleepMode::Batching as u8;
    match mode {
        TIMED => Some(SleepMode::Timed),
        UNTIL_WOKEN => Some(SleepMode::UntilWoken),
        BATCHING => Some(SleepMode::Batching),
        _ => None,
    }
}
