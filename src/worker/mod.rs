//! The worker: listeners, event loop and pool wired together. No Python here.
//!
//! [`run`] is the worker process's main thread from boot to exit. It is given the sockets, the settings and an
//! [`Application`]; a closure in Rust serves as well as a WSGI application (see `tests/integration`).
//!
//! # Layers
//!
//! A file uses files of the layers above its own in this table, never one below. Fields are private to their files.
//!
//! | layer | files | what they own |
//! | --- | --- | --- |
//! | system | `transport`, `events`, `descriptors`, `accept` | sockets, the poll set's tokens, listeners |
//! | time and bounds | `loop_clock`, `spool`, `shortage`, `standstill`, `exhaustion`, `shutdown` | now, what is due, what may be held and for how long, how far a stop is |
//! | figures | `worker_slot`, `describe`, `failure_series`, `stream_errors`, `unstored_bodies`, `handshakes`, `access_lines`, `broken_off`, `accounting`, `arbiter_channel`, `loop_heartbeat` | what is counted, logged and reported |
//! | requests | `request_policy`, `usage`, `deferred_drop`, `load_shedding`, `health`, `dispatch` | what is accepted, and the way to the pool and back |
//! | sides | `read_side`, `write_queue`, `write_side`, `body_stream` | bytes on their way in and out |
//! | owners | `requests`, `shared_io` | name the owners above that connections share: what requests need, what bytes need |
//! | protocol | `http1`, `preamble` | bytes to requests, replies to bytes |
//! | connection | `connection_lifecycle`, `link`, `http2`, `connection` | one client, from accept to close |
//! | connections | `bridges`, `connections`, `eviction`, `timed_out`, `deliver`, `peer_workers`, `takeover` | all of them, replies to them, transfers of them |
//! | loop | `sleep`, `event_loop` | when what happens |
//!
//! The answers that the loop gives itself (load shedding, health checks) are values: `dispatch` queues them and
//! `deliver` takes them, as it takes the pool's replies. What a connection wants of the loop is the `Action` that each of
//! its steps returns.
//!
//! # TLS
//!
//! `transport.rs` hides what kind a socket is, and TLS is a variant of it (`transport/tls.rs`): `shutdown_write`
//! and `close` send `close_notify` first, `send_file` reads and encrypts, `transferable` returns `None`. `read_side.rs` and
//! `write_side.rs` ask for bytes and offer bytes, plain ones. A connection begins with a preamble
//! (`preamble`): a PROXY header, then the first bytes of a handshake. The handshake is a state of `connection_lifecycle.rs` under the deadline of the first head; `handshakes` bounds its steps and logs failures.
//!
//! # Protocols
//!
//! A connection is a `Link` (`link.rs`) and the protocol that it speaks. It begins as HTTP/1. When its first bytes are HTTP/2's preface,
//! or ALPN has chosen it, or a request asks for it, `http2.rs` takes over. Each call of the loop to a connection is a step of the
//! protocol, which is given the link. A stream is a request
//! with a number, which is one more field of [`pool::ConnId`](crate::pool::ConnId): it addresses jobs, replies, windows,
//! deadlines and timed-out requests, and only `http2/mux.rs` takes it apart.

mod accept;
mod access_lines;
mod accounting;
mod arbiter_channel;
mod body_stream;
mod bridges;
mod broken_off;
mod connection;
mod connection_lifecycle;
mod connections;
mod deferred_drop;
mod deliver;
mod describe;
mod descriptors;
mod dispatch;
mod event_loop;
mod events;
mod eviction;
mod exhaustion;
mod failure_series;
mod handshakes;
mod health;
mod http1;
mod http2;
mod link;
mod load_shedding;
mod loop_clock;
mod loop_heartbeat;
mod peer_workers;
mod preamble;
mod read_side;
mod request_policy;
mod requests;
mod shared_io;
mod shortage;
mod shutdown;
#[cfg(test)]
mod simulation;
mod sleep;
mod spool;
mod standstill;
mod stream_errors;
mod takeover;
mod timed_out;
mod transport;
mod unstored_bodies;
mod usage;
mod worker_slot;
mod write_queue;
mod write_side;

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::config::{Config, HttpProtocol};
use crate::fork_guard;
use crate::logging::Log;
use crate::logging::statsd::Statsd;
use crate::net::{Channels, Listener};
use crate::pool::{Application, Pool, UnsentBytes};
use crate::scoreboard::Scoreboard;
use crate::tls::{Certificates, CurrentServer};

pub use access_lines::{AccessLines, AccessLog, AccessRelay, AccessSink, LoggedWorker};

use self::arbiter_channel::ArbiterChannel;
use self::descriptors::Descriptors;
use self::event_loop::{EventLoop, Parts};
use self::peer_workers::PeerWorkers;
use self::requests::{Requests, RequestsSetup};
use self::shared_io::SharedIo;
use self::worker_slot::WorkerSlot;

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
    /// What its connections speak TLS with; `None`: they are plain.
    pub certificates: Option<Arc<Certificates>>,
    /// The worker asks for a successor after this many requests.
    pub max_requests: Option<u64>,
    /// The `Server` field's value; empty for none.
    pub server: Vec<u8>,
    /// `SCRIPT_NAME` of the environment; empty for none.
    pub script_name: Vec<u8>,
    /// The channels to its peers.
    pub channels: Option<Arc<Channels>>,
    /// Where requests are logged.
    pub access_log: Option<AccessLog>,
    /// Where they are counted, beside the scoreboard.
    pub metrics: Option<Statsd>,
    /// The process's logs, which the loop looks after.
    pub log: Option<Log>,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The process's exit code.
    pub code: i32,
    /// Pool threads that are still in the middle of a request: the interpreter must not be finalized under them.
    pub stuck_threads: usize,
}

/// Serve until a signal stops the worker.
///
/// # Errors
/// The system refused what the loop is made of (poll set, waker), or a thread could not be started.
pub fn run(setup: Setup, application: Arc<dyn Application>) -> io::Result<Exit> {
    let config = setup.config;
    let poll = Poll::new()?;
    fork_guard::register(poll.registry());
    let waker = waker(&poll)?;
    let wake = move || {
        // It fails only when the loop was woken 2^64 times and has not looked.
        let _ = waker.write(1);
    };
    let peers = setup
        .channels
        .clone()
        .filter(|channels| channels.count() > 0);
    let pool = Pool::new(config.workers.threads, jobs_max(&config), Box::new(wake));
    let pool = Arc::new(
        pool.with_parallel_threads(application.is_parallel())
            .with_hub(application.hub())
            .with_queue_timeout(config.workers.queue_timeout)
            .with_in_flight(config.workers.request_timeout.is_some())
            .with_unsent(UnsentBytes::new(
                config.limits.response_buffer_total,
                config.workers.worker_tmp_dir.clone(),
            ))
            .with_take_back(peers.is_some()),
    );
    let slot = WorkerSlot::new(setup.scoreboard, setup.slot);
    let certificates = setup.certificates.map(CurrentServer::new).transpose();
    let requests = Requests::new(RequestsSetup {
        config: &config,
        pool: pool.clone(),
        server: setup.server,
        script_name: setup.script_name,
        access_log: setup.access_log,
        metrics: setup.metrics,
        requests_max: setup.max_requests,
        arbiter: ArbiterChannel::new(slot.clone(), setup.booted),
        slot: slot.clone(),
    });
    requests.bodies.prepare();
    let mut event_loop = EventLoop::new(Parts {
        descriptors: Descriptors::new(setup.signals, setup.interrupts, poll.registry())?,
        poll,
        listeners: setup.listeners,
        config: &config,
        requests,
        io: SharedIo::new(certificates.map_err(io::Error::other)?, slot.clone()),
        slot: slot.clone(),
        peers: peers
            .map(|channels| PeerWorkers::new(slot.clone(), channels, config.workers.handover)),
        channels: setup.channels,
        parent: setup.parent,
        log: setup.log,
        application: Arc::clone(&application),
    })?;
    application.start_threads(&pool).map_err(io::Error::other)?;
    let threads = u32::try_from(config.workers.threads).unwrap_or(u32::MAX);
    slot.get().set_threads_count(threads);
    event_loop.start()?;
    let code = pool.serve(Box::new(event_loop))?;
    Ok(Exit {
        code,
        stuck_threads: pool.live_threads(),
    })
}

/// What the pool's threads wake the loop with. Each write is an event, because the poll set is edge-triggered. mio has the
/// same and does not tell its number, which a child of the application must lose.
fn waker(poll: &Poll) -> io::Result<EventFd> {
    let waker = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    fork_guard::register(&waker);
    let mut source = SourceFd(&waker.as_raw_fd());
    poll.registry()
        .register(&mut source, events::WAKER, Interest::READABLE)?;
    Ok(waker)
}

/// One job per connection of HTTP/1 at most; at a stop the accept queue is emptied beyond the limit.
fn jobs_max(config: &Config) -> usize {
    let connections = config.workers.worker_connections.max(1) + config.socket.backlog as usize;
    match config.http2.http_protocols.contains(&HttpProtocol::H2) {
        true => connections * http2::jobs_max(config.workers.threads),
        false => connections,
    }
}
