//! The shared owners for tests, of a worker with one thread that never runs.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::scoreboard::Scoreboard;
use crate::worker::requests::{Requests, recycle};
use crate::worker::shared_io::SharedIo;

pub(in crate::worker) fn for_tests() -> (Requests, SharedIo) {
    with_config(&Config::default())
}

pub(in crate::worker) fn with_config(config: &Config) -> (Requests, SharedIo) {
    let slot = WorkerSlot::new(Arc::new(Scoreboard::new(1, 1).unwrap()), 0);
    let requests = Requests::new(RequestsSetup {
        config,
        pool: Arc::new(Pool::new(1, 8, Box::new(|| {})).with_take_back(true)),
        server: Vec::new(),
        script_name: Vec::new(),
        access_log: None,
        metrics: None,
        requests_max: None,
        arbiter: ArbiterChannel::new(slot.clone(), None),
        slot: slot.clone(),
    });
    (requests, SharedIo::new(None, slot))
}

#[test]
fn a_recycled_job_gives_its_memory_back_and_is_used_again() {
    let (mut requests, _) = for_tests();
    let mut spool = crate::worker::spool::Spool::default();
    spool.write(b"body", &mut requests.bodies).unwrap();
    let mut job = requests.dispatch.new_job(requests.clock.now());
    job.body_held_bytes = spool.held_bytes();
    let address = &raw const *job;
    recycle(job, &mut requests);
    assert_eq!(requests.bodies.held_bytes(), 0);
    let again = requests.dispatch.new_job(requests.clock.now());
    assert_eq!((&raw const *again, again.serial), (address, 2));
}
