//! What requests need of the worker, from their first byte to their line in the access log: the owners that the connections
//! of one worker share for it. Each guards its own fields; this struct only names them, so that they are given together and
//! borrowed one by one. What bytes need on their way is in `shared_io.rs`.

use std::sync::Arc;

use crate::config::Config;
use crate::logging::statsd::Statsd;
use crate::pool::{Job, Pool};

use super::access_lines::AccessLog;
use super::accounting::Accounting;
use super::arbiter_channel::ArbiterChannel;
use super::deferred_drop::DeferredDrops;
use super::dispatch::Dispatch;
use super::loop_clock::Clock;
use super::request_policy::RequestPolicy;
use super::shutdown::Shutdown;
use super::spool::BodyBudget;
use super::stream_errors::StreamErrors;
use super::unstored_bodies::UnstoredBodies;
use super::worker_slot::WorkerSlot;

/// See the module.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) clock: Clock,
    pub(super) policy: RequestPolicy,
    pub(super) bodies: BodyBudget,
    pub(super) dispatch: Dispatch,
    pub(super) accounting: Accounting,
    pub(super) arbiter: ArbiterChannel,
    pub(super) drops: DeferredDrops,
    pub(super) shutdown: Shutdown,
    /// Streams of HTTP/2 that were reset for errors of their clients.
    pub(super) stream_errors: StreamErrors,
    pub(super) unstored_bodies: UnstoredBodies,
}

/// What they are made from.
pub(super) struct RequestsSetup<'a> {
    pub(super) config: &'a Config,
    pub(super) pool: Arc<Pool>,
    pub(super) server: Vec<u8>,
    pub(super) script_name: Vec<u8>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) metrics: Option<Statsd>,
    pub(super) requests_max: Option<u64>,
    pub(super) slot: WorkerSlot,
    pub(super) arbiter: ArbiterChannel,
}

impl Requests {
    pub(super) fn new(setup: RequestsSetup<'_>) -> Self {
        let (config, slot) = (setup.config, setup.slot);
        Self {
            clock: Clock::new(config, setup.server),
            policy: RequestPolicy::new(config, &setup.script_name),
            bodies: BodyBudget::new(config),
            dispatch: Dispatch::new(config, setup.pool, slot.clone(), setup.requests_max),
            accounting: Accounting::new(slot, setup.access_log, setup.metrics),
            arbiter: setup.arbiter,
            drops: DeferredDrops::default(),
            shutdown: Shutdown::new(config.workers.graceful_timeout),
            stream_errors: StreamErrors::default(),
            unstored_bodies: UnstoredBodies::default(),
        }
    }
}

/// A job is done with.
pub(super) fn recycle(job: Box<Job>, requests: &mut Requests) {
    requests
        .dispatch
        .recycle(job, &mut requests.bodies, &mut requests.drops)
}

#[cfg(test)]
pub(super) mod tests;
