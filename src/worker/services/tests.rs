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
            requests_max: None,
            tls: None,
            arbiter: ArbiterChannel::new(slot.clone(), None),
            slot,
        })
    }
}

#[test]
fn a_recycled_job_gives_its_memory_back_and_is_used_again() {
    let mut services = Services::for_tests();
    let mut spool = crate::worker::spool::Spool::default();
    spool.write(b"body", &mut services.bodies).unwrap();
    let mut job = services.dispatch.new_job(services.clock.now());
    job.body_held_bytes = spool.held_bytes();
    let address = &raw const *job;
    recycle(job, &mut services);
    assert_eq!(services.bodies.held_bytes(), 0);
    let again = services.dispatch.new_job(services.clock.now());
    assert_eq!((&raw const *again, again.serial), (address, 2));
}
