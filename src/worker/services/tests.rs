//! Owners for tests, of a worker with one thread that never runs.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::scoreboard::Scoreboard;

impl Services {
    pub(in crate::worker) fn for_tests() -> Self {
        Self::with_config(&Config::default())
    }

    pub(in crate::worker) fn with_config(config: &Config) -> Self {
        let slot = WorkerSlot::new(Arc::new(Scoreboard::new(1, 1).unwrap()), 0);
        Self::new(ServicesSetup {
            config,
            pool: Arc::new(Pool::new(1, 8, Box::new(|| {})).with_take_back(true)),
            server: Vec::new(),
            script_name: Vec::new(),
            access_log: None,
            metrics: None,
            arbiter: ArbiterChannel::new(slot.clone(), None, None),
            slot,
        })
    }
}

#[test]
fn a_new_iteration_renews_the_write_budget() {
    let mut services = Services::for_tests();
    services.writes.spend(u64::MAX);
    services.begin_iteration();
    assert!(services.writes.was_exhausted() && !services.writes.is_exhausted());
}
