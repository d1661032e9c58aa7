//! The worker: listeners, event loop and pool wired together. No Python here.
//!
//! [`run`] is the worker process's main thread from boot to exit. It is given the sockets, the settings and an
//! [`Application`]; a closure in Rust serves as well as a WSGI application (see `tests/integration`).

mod accept;
mod access_log;
mod arbiter_line;
mod beat;
mod connection;
mod connections;
mod core;
mod deadlines;
mod descriptors;
mod event_loop;
mod health;
mod in_place;
mod inflow;
mod outbox;
mod overload;
mod overrun;
mod receive;
mod refuse;
mod released;
mod request_line;
mod respond;
mod shutdown;
mod siblings;
#[cfg(test)]
mod simulation;
mod sleep;
mod spool;
mod stream;
mod trust;
mod upgrade;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use mio::{Poll, Waker};

use crate::config::Config;
use crate::fork_guard;
use crate::logging::statsd::Statsd;
use crate::net::{Channels, Listener};
use crate::pool::policy::StallDetector;
use crate::pool::{Application, Pool};
use crate::scoreboard::{Scoreboard, SlotState};

pub use access_log::{AccessLines, AccessLog, AccessRelay, AccessSink, WorkerFace};

use self::accept::{Accepting, Acceptor, ListenerSet};
use self::arbiter_line::ArbiterLine;
use self::connections::Connections;
use self::core::{Core, CoreSetup};
use self::descriptors::Descriptors;
use self::event_loop::{EventLoop, descriptor_token, turn_events, waker_token};
use self::shutdown::Phase;
use self::siblings::Siblings;
use self::upgrade::HandedOver;

/// What a worker is made of.
#[derive(Debug)]
pub struct Setup {
    /// Bound, listening, non-blocking.
    pub listeners: Vec<Listener>,
    /// The settings.
    pub config: Arc<Config>,
    /// Where the worker counts, and its slot there.
    pub scoreboard: Arc<Scoreboard>,
    /// See `scoreboard`.
    pub slot: usize,
    /// One byte per signal to the worker: its number. Non-blocking.
    pub signals: Option<OwnedFd>,
    /// The interpreter's wake-up descriptor. Non-blocking.
    pub interrupts: Option<OwnedFd>,
    /// Gets a byte when the worker is ready to serve, and at each later change that the arbiter should see.
    pub booted: Option<OwnedFd>,
    /// The worker stops when its parent is another process than this.
    pub parent: Option<i32>,
    /// The worker asks for a successor after so many requests.
    pub max_requests: Option<u64>,
    /// The `Server` field's value; empty for none.
    pub server: Vec<u8>,
    /// `SCRIPT_NAME` of the environment; empty for none.
    pub script_name: Vec<u8>,
    /// The ways to the workers beside this one.
    pub channels: Option<Arc<Channels>>,
    /// Where requests are logged.
    pub access_log: Option<AccessLog>,
    /// Where they are counted, beside the scoreboard.
    pub metrics: Option<Statsd>,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The process's exit code.
    pub code: i32,
    /// Pool threads that are still in the middle of a request: the interpreter must not be finalized under them.
    pub stuck_threads: usize,
}

/// Serve until told to stop.
///
/// # Errors
/// The system refused what the loop is made of (poll set, waker), or a thread could not be started.
pub fn run(setup: Setup, application: &dyn Application) -> io::Result<Exit> {
    let Setup {
        listeners,
        config,
        scoreboard,
        slot,
        signals,
        interrupts,
        booted,
        parent,
        ..
    } = setup;
    let poll = Poll::new()?;
    fork_guard::register_poll_set(poll.registry());
    let waker = Waker::new(poll.registry(), waker_token())?;
    let wake = move || {
        // The waker is an eventfd: writing to it fails only when it is already signalled.
        let _ = waker.wake();
    };
    let connections_max = config.workers.worker_connections.max(1);
    // One job per connection at most; at a stop the accept queue is emptied beyond the limit.
    let jobs_max = connections_max + config.socket.backlog as usize;
    let pool = Pool::new(config.workers.threads, jobs_max, Box::new(wake));
    let pool = Arc::new(
        pool.with_parallel_threads(application.is_parallel())
            .with_queue_timeout(config.workers.queue_timeout)
            .with_in_flight(config.workers.request_timeout.is_some())
            .with_take_back(setup.channels.is_some()),
    );
    let mut core = Core::new(CoreSetup {
        config: &config,
        pool: pool.clone(),
        server: setup.server,
        script_name: setup.script_name,
        requests_max: setup.max_requests,
        access_log: setup.access_log,
        metrics: setup.metrics,
        scoreboard,
        slot,
    });
    core.arbiter = ArbiterLine::new(booted);
    let mut event_loop = EventLoop {
        listener_set: ListenerSet::new(&poll)?,
        acceptors: listeners.into_iter().map(Acceptor::from).collect(),
        accepting: Accepting::Over,
        connections: Connections::default(),
        connections_max,
        handed_over: HandedOver::default(),
        descriptors: Descriptors::new(signals, interrupts, poll.registry(), descriptor_token)?,
        events: turn_events(),
        poll,
        application,
        phase: Phase::Serving,
        graceful_timeout: config.workers.graceful_timeout,
        exit_code: 0,
        sleep_max: beat_period(config.workers.timeout),
        brief_sleep_was_idle: false,
        streamed: None,
        stream_is_quick: false,
        skipped_poll: false,
        stalls: StallDetector::new(core.now),
        exhausted_at: None,
        siblings: setup
            .channels
            .map(|channels| Siblings::new(channels, config.workers.handover)),
        more_messages: true,
        messages_wait: false,
        last_beat: None,
        parent,
        core,
    };
    event_loop.listen_to_siblings()?;
    application.start_threads(&pool).map_err(io::Error::other)?;
    let slot = event_loop.core.slot();
    slot.set_threads_count(u32::try_from(config.workers.threads).unwrap_or(u32::MAX));
    slot.set_state(SlotState::Serving);
    event_loop.core.arbiter.nudge();
    event_loop.run()?;
    Ok(Exit {
        code: event_loop.exit_code,
        stuck_threads: pool.live_threads(),
    })
}

/// Beats must come well within the arbiter's patience (`timeout`).
fn beat_period(timeout: Option<Duration>) -> Duration {
    timeout.map_or(BEAT_PERIOD_MAX, |timeout| {
        (timeout / 4).min(BEAT_PERIOD_MAX)
    })
}

const BEAT_PERIOD_MAX: Duration = Duration::from_secs(1);
