//! Streams under a seed: clients of HTTP/2, in clear text or over TLS, at the real event loop.
//!
//! As in `simulation.rs`, one thread plays everything. Streams begin, wait for windows, are reset by their clients; the
//! application answers in any order; time jumps and the worker stops. At the end each request has run once at most, with its
//! own body, and its stream got its own answer, whole, unless something explains why not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use h2::Reason;

use super::application::{Answer, Application};
use super::client_socket::ClientSocket;
use super::http2_client::{Http2Client, Outcome};
use super::plan::{BODY_BYTES_MAX, Plan, Rng};
use super::{
    LONG, ROUNDS_TO_FINISH, ShownOnFailure, check_over, connection, place_of, seeds, worker,
};
use crate::config::{Config, Http2Cleartext, HttpProtocol};
use crate::worker::event_loop::EventLoop;

#[test]
fn every_stream_gets_its_own_answer_whatever_peers_do() {
    for seed in seeds() {
        let shown = ShownOnFailure(seed);
        World::new(seed).play();
        drop(shown);
    }
}

struct World {
    rng: Rng,
    event_loop: EventLoop,
    application: Application,
    clients: Vec<Http2Client>,
    /// What the application has said to each client's requests.
    answers: Vec<Vec<Option<Answer>>>,
    ran: Vec<String>,
    log: Arc<Mutex<Vec<u8>>>,
    may_jump: bool,
    may_stop: bool,
    is_disturbed: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let mut config = Config::default();
        config.limits.limit_request_body = BODY_BYTES_MAX;
        config.limits.body_buffer_size = rng.pick(&[16, 500, 1 << 20]);
        config.http2.http_protocols = vec![HttpProtocol::H1, HttpProtocol::H2];
        config.http2.http2_cleartext = Http2Cleartext::PriorKnowledge;
        config.http2.http2_max_concurrent_streams = rng.pick(&[1, 3, 100]);
        config.http2.http2_initial_window_size = rng.pick(&[100, 65_535]);
        let is_tls = rng.chance(30);
        let (event_loop, application, log) = worker(&config, is_tls, &mut rng);
        let mut world = Self {
            application,
            event_loop,
            clients: Vec::new(),
            answers: Vec::new(),
            ran: Vec::new(),
            log,
            may_jump: rng.chance(25),
            may_stop: rng.chance(15),
            is_disturbed: false,
            rng,
        };
        let has_small_buffers = world.rng.chance(50);
        for number in 0..1 + world.rng.below(3) {
            world.connect(number, has_small_buffers, is_tls);
        }
        world
    }

    fn connect(&mut self, number: usize, has_small_buffers: bool, is_tls: bool) {
        let theirs = connection(&mut self.event_loop, has_small_buffers);
        let socket = match is_tls {
            true => ClientSocket::with_tls_and_http2(theirs),
            false => ClientSocket::Plain(theirs),
        };
        let asks = Plan::streams(number, &mut self.rng);
        self.answers.push(vec![None; asks.len()]);
        let window = self.rng.pick(&[300, 5000, 65_535]);
        self.clients.push(Http2Client::new(socket, asks, window));
    }

    fn play(mut self) {
        for _ in 0..100 + self.rng.below(400) {
            self.step();
        }
        self.finish();
        for number in 0..self.clients.len() {
            self.check(number);
        }
        self.check_end();
    }

    fn step(&mut self) {
        let at = self.rng.below(self.clients.len());
        let len = self.rng.len();
        let client = &mut self.clients[at];
        match self.rng.below(100) {
            0..20 => drop(client.send(len)),
            20..40 => drop(client.read(len)),
            40..50 => drop(client.begin()),
            50 if self.rng.chance(50) => client.cancel(&mut self.rng),
            51 if self.rng.chance(20) => client.go_away(),
            52 if self.may_jump => {
                self.is_disturbed = true;
                let seconds = self.rng.below(70) as u64;
                self.event_loop.advance_clock(Duration::from_secs(seconds));
            }
            53 if self.may_stop => {
                self.is_disturbed = true;
                self.event_loop.begin_drain();
            }
            54..65 => self.take_job(),
            65..78 => drop(self.application.reply(&mut self.rng)),
            _ => self.iterate(),
        }
    }

    fn iterate(&mut self) {
        self.event_loop.poll_at_once().unwrap();
        self.event_loop.iterate().unwrap();
    }

    fn take_job(&mut self) {
        let Some(taken) = self.application.take(&mut self.rng) else {
            return;
        };
        let (client, number) = place_of(&taken.target);
        let ask = &self.clients[client].asks[number];
        assert_eq!(taken.body, ask.body, "{} has another's body", taken.target);
        let answer = self.answers[client][number].replace(taken.answer);
        assert!(answer.is_none(), "{} is run twice", taken.target);
        self.ran.push(taken.target);
    }

    /// Everybody does what is left to do, until nothing moves any more.
    fn finish(&mut self) {
        let (mut rounds, mut quiet_rounds) = (0, 0);
        while quiet_rounds < 5 {
            rounds += 1;
            assert!(
                rounds < ROUNDS_TO_FINISH,
                "a client waits for ever: {:?}",
                self.application
            );
            let mut moved = self.application.is_busy();
            for client in &mut self.clients {
                moved |= client.begin();
                moved |= client.send(usize::MAX / 2) > 0;
                moved |= client.read(64 * 1024) > 0;
            }
            self.take_job();
            self.application.reply(&mut self.rng);
            self.iterate();
            quiet_rounds = if moved { 0 } else { quiet_rounds + 1 };
        }
    }

    fn check(&self, number: usize) {
        let client = &self.clients[number];
        let may_be_cut = self.is_disturbed || client.went_away;
        for (at, (ask, answer)) in client.asks.iter().zip(&self.answers[number]).enumerate() {
            let target = &ask.target;
            match (client.outcome(at), answer) {
                (Some(Outcome::Whole(received)), Some(answer)) if received.tag.is_some() => {
                    assert_eq!(received.tag.as_ref(), Some(target), "another's answer");
                    assert_eq!(received.status, answer.status, "{target}");
                    assert_eq!(received.body, answer.body_due(ask), "{target}");
                    assert!(
                        !answer.is_broken(ask),
                        "{target}: a broken answer looks whole"
                    );
                }
                (Some(Outcome::Whole(received)), Some(answer)) => assert!(
                    received.status == 500 && answer.is_failure() || may_be_cut,
                    "nothing explains {received:?} to {target}"
                ),
                // It was asked before the client knew how many may be.
                (Some(Outcome::Broken(Some(Reason::REFUSED_STREAM))), None) => {}
                (Some(Outcome::Broken(reason)), Some(answer)) => assert!(
                    may_be_cut || answer.is_broken(ask) || answer.fails_in_stream(),
                    "{} {target} was broken off, {reason:?}: {}",
                    ask.method,
                    answer.shown()
                ),
                (Some(Outcome::Cancelled), _) => {}
                (outcome, answer) => assert!(
                    may_be_cut,
                    "{target} (begun: {}): {outcome:?}, {:?}",
                    client.has_begun(at),
                    answer.as_ref().map(Answer::shown)
                ),
            }
        }
    }

    /// What must hold when all is over: nothing is left of anything.
    fn check_end(mut self) {
        self.clients.clear();
        for _ in 0..3 {
            self.event_loop.advance_clock(LONG);
            self.iterate();
            // Jobs of clients that are gone come back.
            while self.application.is_busy() {
                self.take_job();
                self.application.reply(&mut self.rng);
                self.iterate();
            }
        }
        check_over(&self.event_loop, &self.application, &self.log, &self.ran);
    }
}
