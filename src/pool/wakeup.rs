//! The wake-up token: which parked pool thread is woken, and why no wake-up is lost.
//!
//! # The rules
//! 1. *GIL first, then job.* A woken thread takes the GIL (on free-threaded Python: nothing) and only then pops the
//!    queue, so no job is ever held by a thread that waits for the GIL, and a thread that runs can always take the next
//!    job.
//! 2. *At most one thread is waking.* Of the parked threads at most one is awake and on its way to the GIL: it has the
//!    wake-up token. A thread that pushes a job, or pops one and leaves others behind, calls
//!    [`WakeupToken::notify_one`], which gives the token to a parked thread unless it is given already or none is
//!    parked. CPU-bound applications thus run without a fight for the GIL, and waiting ones ramp up thread by thread.
//! 3. *Drain before release.* A thread that has finished a job pops the next one before it thinks of parking.
//! 4. *No idle extra thread.* While jobs are fast, a thread that sees another one awake parks instead
//!    (`policy::is_idle_extra`): two that want the GIL all the time take it from each other by force every 5 ms. It
//!    looks again once it has parked, so of two that do this at once one stays awake. What holds the awake one up is
//!    for the event loop to find (`policy::StallDetector`), which a thread that parks so makes sure is awake.
//!
//! When `notify_one` is called at all is a question of policy (`policy::wake`), not of this protocol.
//!
//! # Why no wake-up is lost
//! Claim: when a job is in the queue, then some thread is awake that will look at the queue again (a thread that runs
//! and has not yet looked, or the waking one), or every thread is running a job. Two races could break it, and both are
//! Dekker's:
//! - *push against park.* The producer pushes, fences, then reads `state`. The thread publishes itself as parked in
//!   `state`, fences, then looks at the queue once more. The two `SeqCst` fences are in one total order: if the
//!   producer's is first, the thread sees the job and cancels; if the thread's is first, the producer sees the parked
//!   thread and notifies it.
//! - *push against a wake-up that is done.* The producer pushes, fences, and notifies no thread because it reads that the
//!   token is given. The waking thread, when it has the GIL, clears the token bit, fences, and pops. By the same
//!   argument either the producer reads the bit cleared (and notifies) or the thread's pop sees the job.
//!
//! Where jobs wait and a thread parks as an idle extra one, the loop must not sleep until it is woken: no reply might come to do that. It
//! announces its sleep, fences, and looks whether a thread is parked; the thread publishes itself as parked, fences, and wakes the loop
//! if it reads the announcement. By Dekker's argument one sees the other.
//!
//! `state` changes only under the lock of `parked` (so bit, count and list agree), except that a waking thread clears
//! the bit when it is done, which no other thread does while it is set. Reads outside the lock are hints that are
//! confirmed under it. `tests/model` checks this file under every interleaving that a model checker finds.

use super::sync::{AtomicUsize, Mutex, Ordering, Parker, fence};

/// Bit 0 of `state`: the token is given, a thread is waking.
const WAKING: usize = 1;
/// The rest of `state` counts parked threads, in units of this.
const PARKED: usize = 2;

/// Which threads are parked, and whether one is waking.
#[derive(Debug)]
pub(crate) struct WakeupToken {
    state: AtomicUsize,
    /// The numbers of the parked threads. The last to park is the first to be woken: its caches are the warmest.
    parked: Mutex<Vec<usize>>,
    /// Where each thread parks.
    parkers: Box<[Parker]>,
}

impl WakeupToken {
    /// For the threads `0..threads`, all awake.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            state: AtomicUsize::new(0),
            parked: Mutex::new(Vec::with_capacity(threads)),
            parkers: (0..threads).map(|_| Parker::new()).collect(),
        }
    }

    /// Wake a parked thread, unless one is waking or none is parked. Called after the caller has put work in the queue
    /// or has seen that work is left there.
    pub(crate) fn notify_one(&self) {
        // Orders the caller's push (or its look at the queue) before the read of `state`: see the module's argument.
        fence(Ordering::SeqCst);
        let state = self.state.load(Ordering::Relaxed);
        if state & WAKING != 0 || state < PARKED {
            return;
        }
        let thread = {
            let mut parked = self.parked.lock();
            if self.state.load(Ordering::Relaxed) & WAKING != 0 {
                return;
            }
            let Some(thread) = parked.pop() else { return };
            // From (none waking, n parked) to (one waking, n - 1 parked).
            self.state.fetch_sub(PARKED - WAKING, Ordering::Relaxed);
            thread
        };
        self.parkers[thread].unpark();
    }

    /// `thread` found no work and announces that it parks. It must look at the queue once more after this, and then
    /// call [`WakeupToken::cancel_park`] (there is work after all) or [`WakeupToken::wait`].
    pub(crate) fn park(&self, thread: usize) {
        let mut parked = self.parked.lock();
        debug_assert!(!parked.contains(&thread), "a thread parks once");
        parked.push(thread);
        self.state.fetch_add(PARKED, Ordering::Relaxed);
        drop(parked);
        // Orders the publication before the caller's second look at the queue: see the module's argument.
        fence(Ordering::SeqCst);
    }

    /// Undo [`WakeupToken::park`]. A thread that was given the token meanwhile takes it and is done waking.
    pub(crate) fn cancel_park(&self, thread: usize) {
        let mut parked = self.parked.lock();
        if let Some(at) = parked.iter().rposition(|&other| other == thread) {
            parked.remove(at);
            self.state.fetch_sub(PARKED, Ordering::Relaxed);
            return;
        }
        drop(parked);
        self.wait(thread);
        self.wakeup_done();
    }

    /// Park until notified. Called without the GIL.
    pub(crate) fn wait(&self, thread: usize) {
        self.parkers[thread].park();
    }

    /// The waking thread has the GIL: it is an ordinary running thread from here on, and the token is free. Called
    /// before the thread pops.
    pub(crate) fn wakeup_done(&self) {
        self.state.fetch_and(!WAKING, Ordering::Relaxed);
        // Orders the cleared bit before the caller's pop: see the module's argument.
        fence(Ordering::SeqCst);
    }

    /// Wake every parked thread, once and for all: the queue is closed, no thread stays parked any more.
    pub(crate) fn notify_all(&self) {
        let mut parked = self.parked.lock();
        for thread in parked.drain(..) {
            self.state.fetch_sub(PARKED, Ordering::Relaxed);
            self.parkers[thread].unpark();
        }
    }

    /// Whether a thread is awake that will look at the queue again soon: not one of the `held_up`. Called after a push: a thread that
    /// this takes for awake and that is about to park looks at the queue once more after it did, and sees the push (the argument of
    /// *push against park*). It does so whether it has just come back from being held up or not, so `held_up` may be a hint of any age:
    /// too high, it wakes a thread for nothing; too low, the loop finds a stall.
    pub(crate) fn is_any_coming(&self, held_up: usize) -> bool {
        fence(Ordering::SeqCst);
        self.awake() > held_up
    }

    /// Whether another thread than the calling one, which is awake, will too (a hint).
    pub(crate) fn is_another_coming(&self, held_up: usize) -> bool {
        self.awake() > 1 + held_up
    }

    /// Whether another thread than the calling one, which is awake, is awake too (a hint).
    pub(crate) fn is_another_awake(&self) -> bool {
        self.awake() > 1
    }

    /// How many threads are awake (a hint).
    fn awake(&self) -> usize {
        self.parkers.len() - self.parked()
    }

    /// How many threads are parked (a hint: it may have changed already).
    pub(crate) fn parked(&self) -> usize {
        self.state.load(Ordering::Relaxed) / PARKED
    }
}
