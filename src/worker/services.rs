//! The owners that the connections of one worker share. Each guards its own fields; this struct only names them, so that
//! a connection is given them together and borrows them one by one.

use std::sync::Arc;

use crate::config::Config;
use crate::logging::statsd::Statsd;
use crate::pool::{Job, Pool};
use crate::tls::CurrentServer;

use super::access_lines::AccessLog;
use super::accounting::Accounting;
use super::arbiter_channel::ArbiterChannel;
use super::deferred_drop::DeferredDrops;
use super::dispatch::Dispatch;
use super::exhaustion::ExhaustionLog;
use super::handshakes::Handshakes;
use super::loop_clock::Clock;
use super::request_policy::RequestPolicy;
use super::shutdown::Shutdown;
use super::spool::BodyBudget;
use super::worker_slot::WorkerSlot;
use super::write_side::WriteBudget;

/// The loop reads into a buffer of this many bytes.
const INPUT_BYTES: usize = 64 * 1024;
/// What the buffer of encoded bytes begins with: the head of most responses.
const ENCODED_BYTES: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Services {
    pub(super) clock: Clock,
    pub(super) policy: RequestPolicy,
    pub(super) handshakes: Handshakes,
    pub(super) bodies: BodyBudget,
    pub(super) writes: WriteBudget,
    pub(super) dispatch: Dispatch,
    pub(super) accounting: Accounting,
    pub(super) arbiter: ArbiterChannel,
    pub(super) drops: DeferredDrops,
    pub(super) shutdown: Shutdown,
    pub(super) exhaustion: ExhaustionLog,
    /// What one read has brought.
    pub(super) input: Vec<u8>,
    /// What the protocol has just encoded. Empty between two steps of a connection.
    pub(super) encoded: Vec<u8>,
    slot: WorkerSlot,
}

/// What they are made from.
pub(super) struct ServicesSetup<'a> {
    pub(super) config: &'a Config,
    pub(super) pool: Arc<Pool>,
    pub(super) server: Vec<u8>,
    pub(super) script_name: Vec<u8>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) metrics: Option<Statsd>,
    pub(super) requests_max: Option<u64>,
    pub(super) tls: Option<CurrentServer>,
    pub(super) slot: WorkerSlot,
    pub(super) arbiter: ArbiterChannel,
}

impl Services {
    pub(super) fn new(setup: ServicesSetup<'_>) -> Self {
        let (config, slot) = (setup.config, setup.slot);
        Self {
            clock: Clock::new(config, setup.server),
            policy: RequestPolicy::new(config, &setup.script_name),
            handshakes: Handshakes::new(setup.tls, slot.clone()),
            bodies: BodyBudget::new(config),
            writes: WriteBudget::default(),
            dispatch: Dispatch::new(config, setup.pool, slot.clone(), setup.requests_max),
            accounting: Accounting::new(slot.clone(), setup.access_log, setup.metrics),
            arbiter: setup.arbiter,
            drops: DeferredDrops::default(),
            shutdown: Shutdown::new(config.workers.graceful_timeout),
            exhaustion: ExhaustionLog::default(),
            input: vec![0; INPUT_BYTES],
            encoded: Vec::with_capacity(ENCODED_BYTES),
            slot,
        }
    }

    /// This worker's slot on the scoreboard.
    pub(super) fn slot(&self) -> &WorkerSlot {
        &self.slot
    }
}

/// An iteration begins.
pub(super) fn renew_budgets(services: &mut Services) {
    services.writes.renew();
    services.handshakes.renew();
}

/// A job is done with.
pub(super) fn recycle(job: Box<Job>, services: &mut Services) {
    services
        .dispatch
        .recycle(job, &mut services.bodies, &mut services.drops)
}

#[cfg(test)]
mod tests;
