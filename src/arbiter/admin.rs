//! The arbiter's own small HTTP server (`admin_bind`): `/live`, `/ready` and `/metrics`, told from the scoreboard.
//!
//! It lives in the arbiter's one loop: no thread, nothing that blocks. Everything is bounded: few connections at a
//! time, small requests, one answer each, a few seconds for all of it. An address that cannot be bound is logged and
//! tried again; it never keeps the server from serving.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags};

use crate::fork_guard;
use crate::http::{
    BodySize, Exchange, HttpDate, Limits, Received, RequestHead, ResponseDefaults, ResponseHead,
    Status,
};
use crate::net::{self, BindAddress, BindOptions, Bound, Listener};

/// What is told to a question.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn text(status: Status, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Admin {
    address: BindAddress,
    listener: Option<Bound>,
    /// When binding is tried again, and whether its failure was logged.
    retry_at: u64,
    failure_logged: bool,
    visits: Vec<Visit>,
}

/// One connection: a question and its answer.
#[derive(Debug)]
struct Visit {
    socket: File,
    exchange: Exchange,
    inbound: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    is_answered: bool,
    /// What is asked for; empty for what is not GET or HEAD.
    path: Vec<u8>,
    /// It has so long for everything.
    until: u64,
}

impl Admin {
    /// Binds `address`, now or later.
    ///
    /// # Errors
    /// It is no address.
    pub(super) fn open(address: &str, now: u64) -> Result<Self, String> {
        let parsed = BindAddress::parse(address);
        let mut admin = Self {
            address: parsed.map_err(|error| format!("admin_bind: {error}"))?,
            listener: None,
            retry_at: 0,
            failure_logged: false,
            visits: Vec::new(),
        };
        admin.bind(now);
        Ok(admin)
    }

    fn bind(&mut self, now: u64) {
        let options = BindOptions {
            backlog: VISITS_MAX as u32 * 4,
            ..BindOptions::default()
        };
        match net::bind_all(std::slice::from_ref(&self.address), &options, || false) {
            Ok(mut bound) => {
                self.listener = bound.pop();
                self.failure_logged = false;
                if let Some(bound) = &self.listener {
                    log::info!("Health and figures at: {}", bound.listener);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failure_logged, true) {
                    log::error!("admin_bind: {error}; trying again while serving");
                }
                self.retry_at = now + RETRY_MS;
            }
        }
    }

    /// The socket file of a unix address goes.
    pub(super) fn unlink(&self) {
        if let Some(bound) = &self.listener {
            bound.unlink();
        }
    }

    /// What the arbiter's poll waits for on our behalf.
    pub(super) fn waited(&self) -> impl Iterator<Item = PollFd<'_>> {
        let listener = self
            .listener
            .iter()
            .filter(|_| self.visits.len() < VISITS_MAX)
            .map(|bound| PollFd::new(bound.listener.as_fd(), PollFlags::POLLIN));
        let visits = self.visits.iter().map(|visit| {
            let wants = if visit.is_answered {
                PollFlags::POLLOUT
            } else {
                PollFlags::POLLIN
            };
            PollFd::new(visit.socket.as_fd(), wants)
        });
        listener.chain(visits)
    }

    /// Takes in who has come, hears what they ask, and lets them have what `tell` says to its path.
    pub(super) fn turn(&mut self, now: u64, tell: &dyn Fn(&[u8]) -> Answer) {
        if self.listener.is_none() && now >= self.retry_at {
            self.bind(now);
        }
        while self.visits.len() < VISITS_MAX
            && let Some(socket) = self.listener.as_ref().and_then(accept)
        {
            self.visits.push(Visit {
                socket,
                exchange: Exchange::default(),
                inbound: Vec::new(),
                out: Vec::new(),
                written: 0,
                is_answered: false,
                path: Vec::new(),
                until: now + VISIT_MS,
            });
        }
        self.visits
            .retain_mut(|visit| now < visit.until && visit.go_on(tell));
    }
}

fn accept(bound: &Bound) -> Option<File> {
    // Whatever keeps a visitor out, the next turn tries again.
    let socket: OwnedFd = match &bound.listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().ok()?;
            stream.set_nonblocking(true).ok()?;
            stream.into()
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().ok()?;
            stream.set_nonblocking(true).ok()?;
            stream.into()
        }
    };
    fork_guard::register(&socket);
    Some(File::from(socket))
}

impl Visit {
    /// Returns false when it is over.
    fn go_on(&mut self, tell: &dyn Fn(&[u8]) -> Answer) -> bool {
        if !self.is_answered && !self.listen(tell) {
            return false;
        }
        if !self.is_answered {
            return true;
        }
        loop {
            match self.socket.write(&self.out[self.written..]) {
                Ok(0) => return false,
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            if self.written == self.out.len() {
                return false;
            }
        }
    }

    fn listen(&mut self, tell: &dyn Fn(&[u8]) -> Answer) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(len) => self.inbound.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
            self.hear(tell);
            if self.is_answered {
                return true;
            }
            if self.inbound.len() > QUESTION_BYTES_MAX {
                return false;
            }
        }
    }

    fn hear(&mut self, tell: &dyn Fn(&[u8]) -> Answer) {
        // Nobody sends a body here.
        let limits = Limits::new(4094, 100, 8190, 1);
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut date = HttpDate::new();
        let defaults = ResponseDefaults {
            server: b"ferricorn",
            date: date.at(i64::try_from(since.as_secs()).unwrap_or(0)),
        };
        let mut head = RequestHead::default();
        loop {
            match self.exchange.receive(&self.inbound, &limits, &mut head) {
                Err(error) => {
                    let (status, message) = (error.status(), error.page_message());
                    self.exchange
                        .refuse(status, &message, &defaults, &mut self.out);
                    self.is_answered = true;
                    return;
                }
                Ok(step) => {
                    self.inbound.drain(..step.consumed);
                    match step.received {
                        Received::NeedData => return,
                        Received::Head => self.path = asked(&head),
                        Received::Whole => {
                            self.path = asked(&head);
                            break;
                        }
                        Received::Data(_) => {}
                        Received::End => break,
                    }
                }
            }
        }
        let answer = match self.path.as_slice() {
            b"" => Answer::text(METHOD_NOT_ALLOWED, "GET or HEAD\n"),
            path => tell(path),
        };
        self.exchange.close_after_this();
        let body = answer.body.as_bytes();
        let head = head_of(&answer);
        let out = &mut self.out;
        self.exchange
            .respond(&head, BodySize::Exact(body.len() as u64), &defaults, out);
        let take = self.exchange.data(body.len(), out);
        out.extend_from_slice(&body[..take]);
        self.exchange.data_end(out);
        self.exchange.finish(out);
        self.is_answered = true;
    }
}

fn asked(head: &RequestHead) -> Vec<u8> {
    match head.method() {
        b"GET" | b"HEAD" => head.path().to_vec(),
        _ => Vec::new(),
    }
}

fn head_of(answer: &Answer) -> ResponseHead {
    let mut head = ResponseHead::default();
    let line = format!("{} {}", answer.status.code, answer.status.reason);
    // None of these can be refused: they are ours.
    let _ = head.set_status(line.as_bytes());
    let _ = head.push(b"Content-Type", answer.content_type.as_bytes());
    let _ = head.push(b"Cache-Control", b"no-store");
    head
}

const METHOD_NOT_ALLOWED: Status = Status {
    code: 405,
    reason: "Method Not Allowed",
};
/// More wait in the listener's queue.
const VISITS_MAX: usize = 32;
const VISIT_MS: u64 = 5000;
const QUESTION_BYTES_MAX: usize = 16 * 1024;
const RETRY_MS: u64 = 1000;
