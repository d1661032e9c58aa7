//! Connections under a seed: the real event loop and real sockets, with clients, application and time played.
//!
//! One thread plays everything a step at a time: clients send in pieces of any size, read or do not, close one side or
//! go away; the application answers in any order, whole, in a stream, too short, too long or not at all; time jumps; the
//! worker is asked to stop. After each iteration of the loop what must always hold is checked, and at the end every byte that
//! a client got is held against a model that knows only what was asked and what was answered.
//!
//! A failure prints its seed: `SIM_SEED=n cargo test --no-default-features simulation` replays it, and
//! `SIM_ROUNDS=n` plays n seeds.
#![allow(clippy::unwrap_used)]

mod application;
mod client;
mod client_socket;
mod http2_client;
mod plan;
mod streams;

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mio::{Poll, Waker};
use nix::sys::socket::{setsockopt, sockopt};

use crate::config::{Config, ProxyProtocol};
use crate::logging::access::AccessFormat;
use crate::pool::{Peer, Pool, PoolThread, ThreadStartError};
use crate::scoreboard::Scoreboard;
use crate::tls::CurrentServer;

use self::application::{Application, Taken};
use self::client::{Circumstances, Client};
use self::client_socket::{ClientSocket, world_of_tls};
use self::plan::{BODY_BYTES_MAX, Plan, Rng};
use super::access_lines::AccessLog;
use super::arbiter_channel::ArbiterChannel;
use super::descriptors::Descriptors;
use super::event_loop::{EventLoop, Parts};
use super::events;
use super::requests::{Requests, RequestsSetup};
use super::shared_io::SharedIo;
use super::transport::Transport;
use super::worker_slot::WorkerSlot;

const ROUNDS: u64 = 2000;
/// Far more than the longest plan takes.
const ROUNDS_TO_FINISH: usize = 20_000;
/// Longer than any timeout of the worker's.
const LONG: Duration = Duration::from_secs(200);

#[test]
fn every_request_is_answered_once_in_order_whatever_peers_do() {
    for seed in seeds() {
        let shown = ShownOnFailure(seed);
        World::new(seed).play();
        drop(shown);
    }
}

/// `SIM_SEED` alone, or the first `SIM_ROUNDS`.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse::<u64>().unwrap());
    match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_ROUNDS").unwrap_or(ROUNDS),
    }
}

struct ShownOnFailure(u64);

impl Drop for ShownOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SIM_SEED={}", self.0);
        }
    }
}

/// Threads are played by [`Application`].
struct NoThreads;

impl crate::pool::Application for NoThreads {
    fn start_threads(&self, _: &Arc<Pool>) -> Result<(), ThreadStartError> {
        Ok(())
    }
}

struct World {
    rng: Rng,
    event_loop: EventLoop,
    application: Application,
    clients: Vec<Client>,
    circumstances: Circumstances,
    /// Targets of the requests that ran.
    ran: Vec<String>,
    log: Arc<Mutex<Vec<u8>>>,
    may_jump: bool,
    may_stop: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let mut config = Config::default();
        config.limits.limit_request_body = BODY_BYTES_MAX;
        config.proxy.proxy_protocol =
            rng.pick(&[ProxyProtocol::Off, ProxyProtocol::Off, ProxyProtocol::Auto]);
        let is_tls = rng.chance(25);
        config.limits.body_buffer_size = rng.pick(&[16, 500, 1 << 20]);
        config.limits.body_buffer_total = rng.pick(&[64, 2000, 64 << 20]);
        let (event_loop, application, log) = worker(&config, is_tls, &mut rng);
        let mut world = Self {
            application,
            event_loop,
            clients: Vec::new(),
            circumstances: Circumstances {
                time_jumped: false,
                stopped: false,
            },
            ran: Vec::new(),
            log,
            may_jump: rng.chance(35),
            may_stop: rng.chance(15),
            rng,
        };
        let has_small_buffers = world.rng.chance(50);
        let is_proxied = config.proxy.proxy_protocol != ProxyProtocol::Off;
        for number in 0..1 + world.rng.below(5) {
            let plan = Plan::new(number, is_proxied, is_tls, &mut world.rng);
            world.connect(has_small_buffers, plan);
        }
        world
    }

    fn connect(&mut self, has_small_buffers: bool, plan: Plan) {
        let theirs = connection(&mut self.event_loop, has_small_buffers);
        let socket = match plan.plain_bytes {
            Some(plain) => ClientSocket::with_tls(theirs, plain, self.rng.chance(70)),
            None => ClientSocket::Plain(theirs),
        };
        self.clients.push(Client::new(plan, socket));
    }

    fn play(mut self) {
        for _ in 0..50 + self.rng.below(300) {
            self.step();
        }
        self.finish();
        for client in &self.clients {
            client.check(self.circumstances);
        }
        self.check_end();
    }

    /// Something happens somewhere.
    fn step(&mut self) {
        let at = self.rng.below(self.clients.len());
        let len = self.rng.len();
        let client = &mut self.clients[at];
        match self.rng.below(100) {
            0..25 => drop(client.send(len)),
            25..40 => drop(client.read(len)),
            40..41 if client.has_sent_all() => drop(client.shut()),
            41..42 => client.go_away(),
            42..45 if self.may_jump => self.jump(),
            45 if self.may_stop => self.stop(),
            46..60 => self.take_job(),
            60..75 => self.reply(),
            _ => self.iterate(),
        }
    }

    fn iterate(&mut self) {
        self.event_loop.poll_at_once().unwrap();
        self.event_loop.iterate().unwrap();
        self.check_always();
    }

    fn jump(&mut self) {
        self.circumstances.time_jumped = true;
        let seconds = self.rng.below(70) as u64;
        self.event_loop.advance_clock(Duration::from_secs(seconds));
        self.iterate();
    }

    fn stop(&mut self) {
        self.circumstances.stopped = true;
        self.event_loop.begin_drain();
        self.iterate();
    }

    fn take_job(&mut self) {
        let Some(taken) = self.application.take(&mut self.rng) else {
            return;
        };
        let Taken { target, body, .. } = taken;
        let (client, number) = place_of(&target);
        let client = &mut self.clients[client];
        let ask = &client.plan.asks[number];
        assert_eq!(number, client.answers.len(), "{target} is run out of order");
        assert!(
            !client.in_flight,
            "{target} is run before the last one is over"
        );
        assert_eq!(body, ask.body, "{target} has another's body");
        assert_eq!(taken.peer, client.plan.peer, "{target} comes from another");
        client.in_flight = true;
        client.answers.push(taken.answer);
        self.ran.push(target);
    }

    fn reply(&mut self) {
        if let Some(target) = self.application.reply(&mut self.rng) {
            self.clients[place_of(&target).0].in_flight = false;
        }
    }

    /// Everybody does what is left to do, until nothing moves any more.
    fn finish(&mut self) {
        let (mut rounds, mut quiet_rounds) = (0, 0);
        while quiet_rounds < 3 {
            rounds += 1;
            assert!(
                rounds < ROUNDS_TO_FINISH,
                "a client waits for ever: {:?}",
                self.application
            );
            let mut moved = self.application.is_busy();
            for client in &mut self.clients {
                moved |= client.send(usize::MAX / 2) > 0;
                moved |= client.read(64 * 1024) > 0;
                if client.has_sent_all() && self.rng.chance(30) {
                    moved |= client.shut();
                }
            }
            self.take_job();
            self.reply();
            self.iterate();
            quiet_rounds = if moved { 0 } else { quiet_rounds + 1 };
        }
    }

    /// What must hold after every iteration.
    fn check_always(&self) {
        let mut held_bytes = self.application.held_bytes();
        for connection in self.event_loop.connections() {
            connection.check_invariants();
            held_bytes += connection.held_bytes();
        }
        // The rest is with jobs that wait.
        let account = self.event_loop.requests().bodies.held_bytes();
        let is_whole = self.event_loop.requests().dispatch.pool().queue_length() == 0;
        assert!(
            held_bytes <= account,
            "{held_bytes} held, {account} accounted for"
        );
        assert!(
            held_bytes == account || !is_whole,
            "{held_bytes} held, {account} accounted for"
        );
    }

    /// What must hold when all is over: nothing is left of anything.
    fn check_end(mut self) {
        for _ in 0..3 {
            self.event_loop.advance_clock(LONG);
            self.iterate();
        }
        check_over(&self.event_loop, &self.application, &self.log, &self.ran);
    }
}

/// Nothing is left of anything, and each request that `ran` has its line.
fn check_over(
    event_loop: &EventLoop,
    application: &Application,
    log: &Mutex<Vec<u8>>,
    ran: &[String],
) {
    assert_eq!(
        event_loop.connections().count(),
        0,
        "a connection without a deadline"
    );
    assert_eq!(event_loop.requests().bodies.held_bytes(), 0);
    application.check_over();
    let log = log.lock().unwrap();
    let log = String::from_utf8_lossy(&log);
    for target in ran {
        let lines = log.lines().filter(|line| line == target).count();
        assert_eq!(lines, 1, "{target} in the access log");
    }
}

/// A client's end of a connection that the worker has.
fn connection(event_loop: &mut EventLoop, has_small_buffers: bool) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    if has_small_buffers {
        setsockopt(&ours, sockopt::SndBuf, &1).unwrap();
        setsockopt(&theirs, sockopt::SndBuf, &1).unwrap();
    }
    let ours = Transport::from(mio::net::UnixStream::from_std(ours));
    event_loop.take_in(ours, Peer::Unix);
    theirs
}

/// A worker's loop, what plays its application, and its access log.
fn worker(
    config: &Config,
    is_tls: bool,
    rng: &mut Rng,
) -> (EventLoop, Application, Arc<Mutex<Vec<u8>>>) {
    let poll = Poll::new().unwrap();
    let waker = Waker::new(poll.registry(), events::WAKER).unwrap();
    let pool = Arc::new(Pool::new(1, 1000, Box::new(move || waker.wake().unwrap())));
    let log = Arc::new(Mutex::new(Vec::new()));
    let event_loop = event_loop(poll, config, pool.clone(), log.clone(), is_tls);
    let application = Application::new(PoolThread::register(&pool), rng);
    (event_loop, application, log)
}

/// `/client/number`.
fn place_of(target: &str) -> (usize, usize) {
    let (client, number) = target[1..].split_once('/').unwrap();
    (client.parse().unwrap(), number.parse().unwrap())
}

fn event_loop(
    poll: Poll,
    config: &Config,
    pool: Arc<Pool>,
    log: Arc<Mutex<Vec<u8>>>,
    is_tls: bool,
) -> EventLoop {
    let server = || CurrentServer::new(world_of_tls().certificates.clone());
    let sink = move |lines: &[u8]| log.lock().unwrap().extend_from_slice(lines);
    let format = AccessFormat::compile("%(U)s").unwrap();
    let slot = WorkerSlot::new(Arc::new(Scoreboard::new(1, 1).unwrap()), 0);
    let requests = Requests::new(RequestsSetup {
        config,
        pool,
        server: b"simulated".to_vec(),
        script_name: Vec::new(),
        access_log: Some(AccessLog::new(format, Box::new(sink))),
        metrics: None,
        requests_max: None,
        arbiter: ArbiterChannel::new(slot.clone(), None),
        slot: slot.clone(),
    });
    EventLoop::new(Parts {
        descriptors: Descriptors::new(None, None, poll.registry()).unwrap(),
        poll,
        listeners: Vec::new(),
        config,
        requests,
        io: SharedIo::new(is_tls.then(|| server().unwrap()), slot.clone()),
        slot,
        peers: None,
        channels: None,
        parent: None,
        log: None,
        application: Arc::new(NoThreads),
    })
    .unwrap()
}
