//! Which thread runs the loop, and what it leaves to the other.

use crate::worker::events::Descriptor;

/// See the module.
#[derive(Debug)]
pub(super) enum Runner {
    /// The loop's own thread, the only one that looks after signals.
    Monitor { may_delegate: bool },
    /// A pool thread, since so many requests were dispatched. It leaves these to the monitor.
    PoolThread {
        dispatched: u64,
        left: Vec<Descriptor>,
    },
}

impl Default for Runner {
    fn default() -> Self {
        Self::Monitor {
            may_delegate: false,
        }
    }
}

impl Runner {
    /// The calling thread is the monitor, and may delegate the loop or not.
    pub(super) fn start(&mut self, may_delegate: bool) {
        *self = Self::Monitor { may_delegate };
    }

    pub(super) fn may_delegate(&self) -> bool {
        matches!(self, Self::Monitor { may_delegate: true })
    }

    /// A pool thread runs the loop from now on, when so many requests were dispatched.
    pub(super) fn delegate(&mut self, dispatched: u64) {
        *self = Self::PoolThread {
            dispatched,
            left: Vec::new(),
        };
    }

    /// The monitor runs the loop again, if a pool thread did. Returns how many requests had been dispatched when it was delegated,
    /// and what was left to the monitor.
    pub(super) fn return_to_monitor(&mut self) -> Option<(u64, Vec<Descriptor>)> {
        let Self::PoolThread { dispatched, left } = self else {
            return None;
        };
        let (dispatched, left) = (*dispatched, std::mem::take(left));
        *self = Self::Monitor { may_delegate: true };
        Some((dispatched, left))
    }

    /// Whether a descriptor that is ready is left to the monitor.
    pub(super) fn leaves(&mut self, descriptor: Descriptor) -> bool {
        match self {
            Self::PoolThread { left, .. }
                if matches!(descriptor, Descriptor::Interrupts | Descriptor::Signals) =>
            {
                left.push(descriptor);
                true
            }
            _ => false,
        }
    }

    /// Whether something waits for the monitor.
    pub(super) fn has_left(&self) -> bool {
        matches!(self, Self::PoolThread { left, .. } if !left.is_empty())
    }
}
