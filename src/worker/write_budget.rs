//! How much the connections together may write of queued responses in one iteration of the loop, so that many large
//! responses do not keep a small one waiting for more than about a millisecond.

/// Bytes per iteration. Loopback takes about 2 GB/s.
const ITERATION_BYTES: u64 = 2 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct WriteBudget {
    left: u64,
    was_exhausted: bool,
}

impl Default for WriteBudget {
    fn default() -> Self {
        Self {
            left: ITERATION_BYTES,
            was_exhausted: false,
        }
    }
}

impl WriteBudget {
    /// An iteration begins.
    pub(super) fn renew(&mut self) {
        self.was_exhausted = self.is_exhausted();
        self.left = ITERATION_BYTES;
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.left == 0
    }

    /// The last iteration's budget was not enough for all.
    pub(super) fn was_exhausted(&self) -> bool {
        self.was_exhausted
    }

    /// A connection has written `bytes` of its queue. What is over the budget is one connection's share at most.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_budget_is_remembered_for_one_iteration() {
        let mut budget = WriteBudget::default();
        budget.spend(ITERATION_BYTES - 1);
        assert!(!budget.is_exhausted());
        budget.spend(100);
        assert!(budget.is_exhausted() && !budget.was_exhausted());
        budget.renew();
        assert!(!budget.is_exhausted() && budget.was_exhausted());
        budget.renew();
        assert!(!budget.was_exhausted());
    }
}
