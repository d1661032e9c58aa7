//! Which thread runs the loop, and what it leaves to the other.

use crate::worker::events::Descriptor;

/// See the module.
#[derive(Debug)]
pub(super) enum Runner {
    /// The loop's own thread, the only one that looks after signals.
    Monitor { may_delegate: bool },
    /// A pool thread. It leaves these to the monitor.
    PoolThread { left: Vec<Descriptor> },
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

    /// A pool thread runs the loop from now on.
    pub(super) fn delegate(&mut self) {
        *self = Self::PoolThread { left: Vec::new() };
    }

    /// The monitor runs the loop again, if a pool thread did. Returns what was left to it.
    pub(super) fn return_to_monitor(&mut self) -> Option<Vec<Descriptor>> {
        let Self::PoolThread { left } = self else {
            return None;
        };
        let left = std::mem::take(left);
        *self = Self::Monitor { may_delegate: true };
        Some(left)
    }

    /// Whether a descriptor that is ready is left to the monitor.
    pub(super) fn leaves(&mut self, descriptor: Descriptor) -> bool {
        match self {
            Self::PoolThread { left }
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
        matches!(self, Self::PoolThread { left } if !left.is_empty())
    }
}
