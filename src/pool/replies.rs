//! The way back: replies queue up, and the event loop is woken only when it sleeps.
//!
//! # When the loop is woken
//! The loop announces how it parks ([`SleepMode`]), fences, and looks at the queue once more; a pool thread pushes its
//! reply, fences, and reads the announcement. By Dekker's argument either the loop sees the reply or the thread sees
//! the loop parked, and then wakes it.
//!
//! A thread that finds another job waiting is about to produce another reply, so it leaves the loop asleep for up to
//! [`BATCH`] replies. That is allowed only when the loop parked in [`SleepMode::Timed`] or [`SleepMode::Batching`], which it
//! does when it knows that jobs wait: then it wakes by itself within half a millisecond, or within a part of the time
//! that the queue will take. A short park that brought nothing is followed by a long one, so a queue behind a slow
//! request does not make the loop spin.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};
use std::thread::{self, Thread};

use crossbeam::queue::SegQueue;

use super::job::Reply;

/// So many replies may wait for a loop that sleeps shortly.
const BATCH: u32 = 12;

/// How the loop sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SleepMode {
    /// It does not: it will look at the replies before it sleeps.
    Awake = 0,
    /// For at most half a millisecond: threads may leave it asleep while they have more to run.
    Timed = 1,
    /// Until woken.
    UntilWoken = 2,
    /// For a time that it has chosen, as a parked thread: threads may leave it asleep while they have more to run.
    Batching = 3,
}

pub(super) struct Replies {
    queue: SegQueue<Reply>,
    park: AtomicU8,
    /// Replies since the loop parked for which nobody woke it.
    unannounced: AtomicU32,
    wake: Box<dyn Fn() + Send + Sync>,
    /// The loop's thread, once it has parked.
    parked: OnceLock<Thread>,
}

impl std::fmt::Debug for Replies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replies")
            .field("len", &self.queue.len())
            .field("park", &self.park)
            .finish_non_exhaustive()
    }
}

impl Replies {
    pub(super) fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            queue: SegQueue::new(),
            park: AtomicU8::new(0),
            unannounced: AtomicU32::new(0),
            wake,
            parked: OnceLock::new(),
        }
    }

    pub(super) fn send(&self, reply: Reply, more_jobs: bool) {
        self.queue.push(reply);
        fence(Ordering::SeqCst);
        let park = self.park.load(Ordering::Relaxed);
        let is_left_asleep = park == SleepMode::Awake as u8
            || more_jobs
                && (park == SleepMode::Batching as u8
                    || park == SleepMode::Timed as u8
                        && self.unannounced.fetch_add(1, Ordering::Relaxed) < BATCH);
        if !is_left_asleep {
            self.wake();
        }
    }

    /// Wake the loop if it sleeps and nobody has woken it yet.
    pub(super) fn wake(&self) {
        // Acquire: whoever sees the loop parked as a thread knows which one.
        let park = self.park.swap(SleepMode::Awake as u8, Ordering::Acquire);
        if park == SleepMode::Batching as u8 {
            self.parked.get().inspect(|thread| thread.unpark());
        } else if park != SleepMode::Awake as u8 {
            (self.wake)();
        }
    }

    pub(super) fn receive(&self) -> Option<Reply> {
        self.queue.pop()
    }

    pub(super) fn has_replies(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The loop is about to sleep. Returns false, and changes nothing, when replies are waiting.
    pub(super) fn park(&self, mode: SleepMode) -> bool {
        self.unannounced.store(0, Ordering::Relaxed);
        if mode == SleepMode::Batching {
            self.parked.get_or_init(thread::current);
        }
        self.park.store(mode as u8, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() {
            return true;
        }
        self.unpark();
        false
    }

    pub(super) fn unpark(&self) {
        self.park.store(SleepMode::Awake as u8, Ordering::Relaxed);
    }
}
