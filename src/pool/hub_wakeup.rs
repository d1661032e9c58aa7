//! What wakes the one thread that runs its jobs as greenlets: an eventfd in the hub's poll set.
//!
//! Any thread wakes, the hub's thread looks. Wake-ups are coalesced: the descriptor is written once until the hub looks.
//!
//! # Why no wake-up is lost
//! A producer pushes, fences, then swaps `is_pending`; it writes only when that was false. The hub empties the
//! descriptor, clears `is_pending`, fences, then looks at what was pushed. If the clear precedes the swap, the swap reads
//! false and the descriptor becomes readable again. If the swap precedes the clear, its push precedes the hub's look, by
//! the order of the two fences. The hub looks again whenever the descriptor is readable, whatever a look has raised.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crossbeam::queue::SegQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::fork_guard;

/// See the module.
#[derive(Debug)]
pub struct HubWakeup {
    descriptor: EventFd,
    is_pending: AtomicBool,
    /// The numbers of tickets that are due.
    due: SegQueue<u64>,
    last_ticket: AtomicU64,
}

impl HubWakeup {
    /// Nothing is pending.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let descriptor = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        fork_guard::register(&descriptor);
        Ok(Self {
            descriptor,
            is_pending: AtomicBool::new(false),
            due: SegQueue::new(),
            last_ticket: AtomicU64::new(0),
        })
    }

    /// Readable when the hub is to look.
    pub fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Any thread, after it has pushed: the hub will look.
    pub fn wake(&self) {
        // Orders the caller's push before the swap: see the module's argument.
        fence(Ordering::SeqCst);
        if !self.is_pending.swap(true, Ordering::AcqRel) {
            // It fails only when the counter is full, and then the descriptor is readable.
            let _ = self.descriptor.write(1);
        }
    }

    /// The hub, before it looks.
    pub fn begin_look(&self) {
        // It fails when another look has emptied it.
        let _ = self.descriptor.read();
        self.is_pending.store(false, Ordering::Release);
        // Orders the clear before the hub's look: see the module's argument.
        fence(Ordering::SeqCst);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn is_readable(hub: &HubWakeup) -> bool {
        let read = hub.descriptor.read();
        if let Ok(count) = read {
            hub.descriptor.write(count).unwrap();
        }
        read.is_ok()
    }

    #[test]
    fn wake_ups_are_coalesced_until_the_hub_looks() {
        let hub = HubWakeup::new().unwrap();
        assert!(!is_readable(&hub));
        hub.wake();
        hub.wake();
        assert_eq!(hub.descriptor.read(), Ok(1));
        hub.begin_look();
        assert!(!is_readable(&hub));
        hub.wake();
        assert!(is_readable(&hub));
    }

    #[test]
    fn a_ticket_is_called_up_by_its_number() {
        let hub = Arc::new(HubWakeup::new().unwrap());
        let (first, second) = (hub.ticket(), hub.ticket());
        let number = second.number();
        assert_ne!(first.number(), number);
        second.call_up();
        assert!(is_readable(&hub));
        assert_eq!((hub.next_due(), hub.next_due()), (Some(number), None));
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        let hub = Arc::new(HubWakeup::new().unwrap());
        let producer = std::thread::spawn({
            let hub = Arc::clone(&hub);
            move || (0..20_000).for_each(|_| hub.ticket().call_up())
        });
        let mut seen = 0;
        while seen < 20_000 {
            if is_readable(&hub) {
                hub.begin_look();
                seen += std::iter::from_fn(|| hub.next_due()).count();
            }
        }
        producer.join().unwrap();
    }
}
