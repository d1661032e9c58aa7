//! What wakes the one thread that runs its jobs as greenlets: an eventfd in the hub's poll set.
//!
//! Any thread wakes, the hub's thread looks. Wake-ups are coalesced: the descriptor is written once until the hub looks.
//!
//! # Why no wake-up is lost
//! A producer pushes, fences, then swaps `is_pending`; it writes only when that was false. The hub empties the
//! descriptor, clears `is_pending`, fences, then looks at what was pushed. If the clear precedes the swap, the swap reads
//! false and the descriptor becomes readable again. If the swap precedes the clear, its push precedes the hub's look, by
//! the order of the two fences. A look that raises half-way wakes the hub for another one.
//!
//! `tests/model` checks this file under every interleaving that a model checker finds.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::sync::{AtomicBool, AtomicU64, Ordering, Queue, WakeDescriptor, fence};

/// See the module.
#[derive(Debug)]
pub struct HubWakeup {
    descriptor: WakeDescriptor,
    is_pending: AtomicBool,
    /// The numbers of tickets that are due.
    due: Queue<u64>,
    last_ticket: AtomicU64,
}

impl HubWakeup {
    /// Nothing is pending.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            descriptor: WakeDescriptor::new()?,
            is_pending: AtomicBool::new(false),
            due: Queue::new(),
            last_ticket: AtomicU64::new(0),
        })
    }

    /// Readable when the hub is to look.
    pub fn descriptor(&self) -> RawFd {
        self.descriptor.raw()
    }

    /// Whether the application has closed the descriptor: the hub cannot be woken any more.
    pub fn is_lost(&self) -> bool {
        self.descriptor.is_lost()
    }

    /// Check whether it has, without a wake-up.
    pub fn check_descriptor(&self) {
        self.descriptor.look();
    }

    /// Any thread, after it has pushed: the hub will look.
    pub fn wake(&self) {
        // Orders the caller's push before the swap: see the module's argument.
        fence(Ordering::SeqCst);
        if !self.is_pending.swap(true, Ordering::AcqRel) {
            self.descriptor.signal();
        }
    }

    /// The hub, before it looks.
    pub fn begin_look(&self) {
        self.descriptor.drain();
        self.is_pending.store(false, Ordering::Release);
        // Orders the clear before the hub's look: see the module's argument.
        fence(Ordering::SeqCst);
    }

    /// How many wake-ups the hub has not looked at.
    #[cfg(test)]
    pub(super) fn signals(&self) -> u64 {
        let count = self.descriptor.drain();
        (0..count).for_each(|_| self.descriptor.signal());
        count
    }

    /// A greenlet is about to wait.
    pub fn ticket(self: &Arc<Self>) -> Ticket {
        Ticket {
            number: self.last_ticket.fetch_add(1, Ordering::Relaxed) + 1,
            hub: Arc::clone(self),
        }
    }

    /// The hub: the number of a ticket whose greenlet need not wait any more.
    pub fn next_due(&self) -> Option<u64> {
        self.due.pop()
    }
}

/// A greenlet's place in the wait for something: the thread that moves that calls it up.
#[derive(Clone, Debug)]
pub struct Ticket {
    number: u64,
    hub: Arc<HubWakeup>,
}

impl Ticket {
    /// Tells it from all others of the process.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What the greenlet waits for has moved.
    pub fn call_up(self) {
        self.hub.due.push(self.number);
        self.hub.wake();
    }
}
