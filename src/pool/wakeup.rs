//! The one-heir protocol: which sleeping pool thread is woken, by whom, and why no wake-up is lost.
//!
//! # The rules
//! 1. *GIL first, then job.* A woken thread takes the GIL (on free-threaded Python: nothing) and only then pops the
//!    queue, so no job is ever held by a thread that waits for the GIL.
//! 2. *At most one heir.* Of the sleeping threads at most one is awake and on its way to the GIL: the heir. Whoever
//!    pushes a job, or pops one and leaves others behind, calls [`WakeupToken::notify_one`], which makes the next heir unless
//!    there is one already or nobody sleeps.
//! 3. *Drain before release.* A thread that has finished a job pops the next one before it thinks of sleeping.
//! 4. *No surplus.* While jobs are fast, a thread that sees another one awake lies down instead (`Pool::is_idle_extra`):
//!    two that want the GIL all the time force it from each other every few milliseconds. It looks again once it lies,
//!    so of two that do this at once one stays. What the awake one is held up by is for the loop to find
//!    (`worker/sleep.rs`).
//!
//! # Why no wake-up is lost
//! Claim: when a job is in the queue, then some thread is awake that will look at the queue again (a runner that has
//! not yet looked, or the heir), or every thread is running a job. Two races could break it, and both are Dekker's:
//! - *push against lie-down.* The producer pushes, fences, then reads `state`. The thread publishes itself as a
//!   sleeper in `state`, fences, then looks at the queue once more. The two `SeqCst` fences are in one total order:
//!   if the producer's is first, the thread sees the job and gets up again; if the thread's is first, the producer
//!   sees the sleeper and summons.
//! - *push against arrival.* The producer pushes, fences, and skips the summons because it reads that an heir exists.
//!   The heir, when it has the GIL, clears the heir bit, fences, and pops. By the same argument either the producer
//!   reads the bit cleared (and summons) or the heir's pop sees the job.
//!
//! `state` changes only under the lock of `sleepers` (so bit, count and list agree), except that an heir clears its
//! own bit on arrival, which no one else does while it is set. Reads outside the lock are hints that are confirmed
//! under it. `tests/model` checks this file under every interleaving that a model checker finds.

use super::sync::{AtomicUsize, Mutex, Ordering, Parker, fence};

/// Bit 0 of `state`: an heir is awake and has not yet arrived.
const HEIR: usize = 1;
/// The rest of `state` counts sleepers, in units of this.
const SLEEPER: usize = 2;

/// Who sleeps, and whether an heir is on its way.
#[derive(Debug)]
pub(crate) struct WakeupToken {
    state: AtomicUsize,
    /// Seats of the sleeping threads. The last to lie down is the first to be woken: its caches are the warmest.
    sleepers: Mutex<Vec<usize>>,
    /// One place to sleep per seat.
    parkers: Box<[Parker]>,
}

impl WakeupToken {
    /// A protocol for the seats `0..threads`, all awake.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            state: AtomicUsize::new(0),
            sleepers: Mutex::new(Vec::with_capacity(threads)),
            parkers: (0..threads).map(|_| Parker::new()).collect(),
        }
    }

    /// Make an heir, unless there is one or nobody sleeps. Called by whoever has put work in the queue or has seen
    /// that work is left there.
    pub(crate) fn notify_one(&self) {
        // Orders the caller's push (or its look at the queue) before the read of `state`: see the module's argument.
        fence(Ordering::SeqCst);
        let state = self.state.load(Ordering::Relaxed);
        if state & HEIR != 0 || state < SLEEPER {
            return;
        }
        let seat = {
            let mut sleepers = self.sleepers.lock();
            if self.state.load(Ordering::Relaxed) & HEIR != 0 {
                return;
            }
            let Some(seat) = sleepers.pop() else { return };
            // From (no heir, n sleepers) to (heir, n - 1 sleepers).
            self.state.fetch_sub(SLEEPER - HEIR, Ordering::Relaxed);
            seat
        };
        self.parkers[seat].unpark();
    }

    /// The thread at `seat` found no work and will sleep. It must look at the queue once more after this, and then
    /// call [`WakeupToken::cancel_park`] (there is work after all) or [`WakeupToken::wait`].
    pub(crate) fn park(&self, seat: usize) {
        let mut sleepers = self.sleepers.lock();
        debug_assert!(!sleepers.contains(&seat), "a seat lies down once");
        sleepers.push(seat);
        self.state.fetch_add(SLEEPER, Ordering::Relaxed);
        drop(sleepers);
        // Orders the publication before the caller's second look at the queue: see the module's argument.
        fence(Ordering::SeqCst);
    }

    /// Undo [`WakeupToken::park`]. When somebody has made this thread the heir meanwhile, it arrives as such.
    pub(crate) fn cancel_park(&self, seat: usize) {
        let mut sleepers = self.sleepers.lock();
        if let Some(at) = sleepers.iter().rposition(|&sleeper| sleeper == seat) {
            sleepers.remove(at);
            self.state.fetch_sub(SLEEPER, Ordering::Relaxed);
            return;
        }
        drop(sleepers);
        self.wait(seat);
        self.wakeup_done();
    }

    /// Sleep until summoned. Called without the GIL.
    pub(crate) fn wait(&self, seat: usize) {
        self.parkers[seat].park();
    }

    /// The heir has the GIL: it is an ordinary running thread from here on. Called before it pops.
    pub(crate) fn wakeup_done(&self) {
        self.state.fetch_and(!HEIR, Ordering::Relaxed);
        // Orders the cleared bit before the caller's pop: see the module's argument.
        fence(Ordering::SeqCst);
    }

    /// Wake every sleeper, once and for all: the queue is closed, nobody lies down to stay any more.
    pub(crate) fn wake_all(&self) {
        let mut sleepers = self.sleepers.lock();
        for seat in sleepers.drain(..) {
            self.state.fetch_sub(SLEEPER, Ordering::Relaxed);
            self.parkers[seat].unpark();
        }
    }

    /// Whether a thread is awake that will look at the queue again. Called after a push: a thread that this takes for
    /// awake and that is about to lie down looks at the queue once more after it did, and sees the push (the argument
    /// of *push against lie-down*).
    pub(crate) fn is_anyone_awake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.state.load(Ordering::Relaxed) / SLEEPER < self.parkers.len()
    }

    /// Whether another thread than the calling one, which is awake, is awake too (a hint).
    pub(crate) fn is_another_awake(&self) -> bool {
        self.sleeping() + 1 < self.parkers.len()
    }

    /// How many threads sleep (a hint: it may have changed already).
    pub(crate) fn sleeping(&self) -> usize {
        self.state.load(Ordering::Relaxed) / SLEEPER
    }
}
