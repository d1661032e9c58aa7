//! The arbiter's own small HTTP server (`admin_bind`): the dashboard, `/live`, `/ready` and `/metrics`, from the scoreboard.
//!
//! It lives in the arbiter's one loop: no thread, nothing that blocks. Everything is bounded: connections, the size of
//! a request, a few seconds for all of it. A new connection always finds room: the oldest one that has sent nothing is
//! closed for it, then the oldest that has sent a part, then the oldest whose response is not read. A request that has
//! arrived with its connection is answered before the next connection is accepted, so no number of idle connections
//! keeps `/live` from its answer. Nor does any number of new ones: each has a moment for its request to arrive. An address that cannot be bound is logged and tried again; it never keeps the server
//! from serving.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};

use super::admin_response::{Answered, Asked, Response};
use super::admin_token::AdminToken;
use crate::config::Config;
use crate::fork_guard;
use crate::http::{BodySize, Exchange, HttpDate, Limits, Received, RequestHead, ResponseDefaults};
use crate::net::{
    self, AcceptPause, AddressError, BindAddress, BindError, BindOptions, Bound, Listener,
    has_place,
};

/// What answers a request. The number is the connection's, for a response that comes later.
pub(super) type Answer<'a> = &'a mut dyn FnMut(&Asked, &mut AdminToken, u64) -> Answered;

type AnswerOf<'a> = &'a mut dyn FnMut(&Asked, u64) -> Answered;

/// See the module.
#[derive(Debug)]
pub(super) struct AdminServer {
    address: BindAddress,
    listener: Option<Bound>,
    /// When binding is tried again, and whether its failure was logged.
    retry_at: u64,
    failure_logged: bool,
    /// For want of a descriptor.
    pause: AcceptPause,
    /// Oldest first.
    connections: Vec<Connection>,
    last_number: u64,
    token: AdminToken,
}

/// One connection: a request and its response.
#[derive(Debug)]
struct Connection {
    number: u64,
    socket: File,
    exchange: Exchange,
    read_buffer: Vec<u8>,
    write_buffer: Vec<u8>,
    written: usize,
    stage: Stage,
    asked: Asked,
    /// Until then everything must be done.
    deadline: u64,
}

/// In the order in which connections make room for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Silent,
    Asking,
    Answered,
    /// For its response, [`AdminServer::complete`].
    Waiting,
}

impl AdminServer {
    /// Binds `address`, now or later.
    ///
    /// # Errors
    /// It is no address.
    pub(super) fn open(address: &str, now: u64) -> Result<Self, AddressError> {
        let mut admin = Self {
            address: BindAddress::parse(address)?,
            listener: None,
            retry_at: 0,
            failure_logged: false,
            pause: AcceptPause::default(),
            connections: Vec::new(),
            last_number: 0,
            token: AdminToken::default(),
        };
        admin.bind(now);
        Ok(admin)
    }

    fn bind(&mut self, now: u64) {
        let options = BindOptions {
            backlog: BACKLOG,
            ..BindOptions::default()
        };
        match net::bind_all(std::slice::from_ref(&self.address), &options, |_| false) {
            Ok(mut bound) => {
                self.listener = bound.pop();
                self.failure_logged = false;
                if let Some(bound) = &self.listener {
                    log::info!("Health and figures at: {}", bound.listener);
                }
            }
            Err(BindError::Pending(_)) => self.retry_at = now + NAME_MS,
            Err(error) => {
                if !std::mem::replace(&mut self.failure_logged, true) {
                    log::error!("admin_bind: {error}; trying again while serving");
                }
                self.retry_at = now + RETRY_MS;
            }
        }
    }

    /// Nothing is answered any more, and the socket file of a unix address is removed.
    pub(super) fn close(mut self) {
        self.token.report_rest();
        if let Some(bound) = &self.listener {
            bound.unlink();
            bound.end();
        }
    }

    /// What the loop's poll waits for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = PollFd<'_>> {
        let listener = self.listener.iter().filter(|_| self.pause.is_over());
        let listener = listener.map(|bound| PollFd::new(bound.listener.as_fd(), PollFlags::POLLIN));
        // A hang-up of one that waits would end every poll at once.
        let active = self.connections.iter();
        let active = active.filter(|connection| connection.stage != Stage::Waiting);
        let connections = active.map(|connection| {
            let wanted = if connection.stage == Stage::Answered {
                PollFlags::POLLOUT
            } else {
                PollFlags::POLLIN
            };
            PollFd::new(connection.socket.as_fd(), wanted)
        });
        listener.chain(connections)
    }

    /// Milliseconds that the loop may sleep.
    pub(super) fn patience(&self, now: u64) -> Option<u64> {
        let retry = (self.listener.is_none()).then(|| self.retry_at.saturating_sub(now));
        [self.pause.patience(now), retry]
            .into_iter()
            .flatten()
            .min()
    }

    /// Accepts, reads requests, and sends what `answer` returns for their paths.
    pub(super) fn serve(&mut self, now: u64, config: &Arc<Config>, answer: Answer<'_>) {
        let mut token = std::mem::take(&mut self.token);
        token.follow(config);
        self.serve_all(now, &mut |asked, number| answer(asked, &mut token, number));
        token.report(now);
        self.token = token;
    }

    fn serve_all(&mut self, now: u64, answer: AnswerOf<'_>) {
        if self.listener.is_none() && now >= self.retry_at {
            self.bind(now);
        }
        self.connections
            .retain_mut(|connection| now < connection.deadline && connection.resume(answer));
        if !self.pause.resume(now) {
            return;
        }
        for _ in 0..ACCEPTS_PER_ITERATION {
            let Some(bound) = &self.listener else {
                break;
            };
            let count = self.connections.len();
            let is_full = !has_place(count, CONNECTIONS_MAX, &bound.listener);
            if is_full && self.is_too_early(now) {
                self.pause.begin(now, ARRIVAL_MS);
                break;
            }
            let socket = match accept(bound) {
                Ok(socket) => socket,
                // Those that idle have descriptors.
                Err(error)
                    if error.raw_os_error() == Some(Errno::EMFILE as i32)
                        && !self.is_too_early(now)
                        && self.make_room(answer) =>
                {
                    continue;
                }
                Err(error) => {
                    self.pause.failed(&error, "admin_bind", now);
                    break;
                }
            };
            self.last_number += 1;
            let mut connection = Connection::new(self.last_number, socket, now + CONNECTION_MS);
            if connection.resume(answer) {
                if is_full {
                    self.make_room(answer);
                }
                self.connections.push(connection);
            }
        }
    }

    /// The response for which a connection waits. It may be gone.
    pub(super) fn complete(&mut self, number: u64, response: &Response) {
        let mut waiting = self.connections.iter_mut();
        let waiting = waiting.find(|one| one.number == number && one.stage == Stage::Waiting);
        waiting.into_iter().for_each(|one| one.respond(response));
    }

    /// The one that makes room next.
    fn next_to_leave(&self) -> Option<usize> {
        (0..self.connections.len()).min_by_key(|at| self.connections[*at].stage)
    }

    /// Whether that one has just come: its request may be on its way.
    fn is_too_early(&self, now: u64) -> bool {
        self.next_to_leave().is_some_and(|at| {
            let one = &self.connections[at];
            one.stage <= Stage::Asking && now + CONNECTION_MS < one.deadline + ARRIVAL_MS
        })
    }

    /// Returns false when there is none to close.
    fn make_room(&mut self, answer: AnswerOf<'_>) -> bool {
        while let Some(at) = self.next_to_leave() {
            let one = &mut self.connections[at];
            let stage = one.stage;
            // Its request may have arrived in the meantime.
            if !one.resume(answer) || one.stage == stage {
                self.connections.remove(at);
                return true;
            }
        }
        false
    }
}

fn accept(bound: &Bound) -> io::Result<File> {
    let socket: OwnedFd = match &bound.listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(true)?;
            stream.into()
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(true)?;
            stream.into()
        }
    };
    fork_guard::register(&socket);
    Ok(File::from(socket))
}

impl Connection {
    fn new(number: u64, socket: File, deadline: u64) -> Self {
        Self {
            number,
            socket,
            exchange: Exchange::default(),
            read_buffer: Vec::new(),
            write_buffer: Vec::new(),
            written: 0,
            stage: Stage::Silent,
            asked: Asked::default(),
            deadline,
        }
    }

    /// Returns false when it is over.
    fn resume(&mut self, answer: AnswerOf<'_>) -> bool {
        let is_asking = matches!(self.stage, Stage::Silent | Stage::Asking);
        if is_asking && !self.receive(answer) {
            return false;
        }
        if self.stage != Stage::Answered {
            return true;
        }
        loop {
            match self.socket.write(&self.write_buffer[self.written..]) {
                Ok(0) => return false,
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            if self.written == self.write_buffer.len() {
                return false;
            }
        }
    }

    fn receive(&mut self, answer: AnswerOf<'_>) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(len) => self.read_buffer.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
            self.stage = Stage::Asking;
            self.parse(answer);
            if self.stage != Stage::Asking {
                return true;
            }
            if self.read_buffer.len() > REQUEST_BYTES_MAX {
                return false;
            }
        }
    }

    fn parse(&mut self, answer: AnswerOf<'_>) {
        let limits = Limits::new(4094, 100, 8190, BODY_BYTES_MAX);
        let mut head = RequestHead::default();
        loop {
            match self.exchange.receive(&self.read_buffer, &limits, &mut head) {
                Err(error) => {
                    let (status, message) = (error.status(), error.page_message());
                    let out = &mut self.write_buffer;
                    let mut date = HttpDate::new();
                    self.exchange
                        .refuse(status, &message, &defaults(&mut date), out);
                    self.stage = Stage::Answered;
                    return;
                }
                Ok(step) => {
                    if let Received::Data(range) = &step.received {
                        self.asked.push_body(&self.read_buffer[range.clone()]);
                    }
                    self.read_buffer.drain(..step.consumed);
                    match step.received {
                        Received::NeedData => return,
                        Received::Head => self.asked = Asked::of(&head),
                        Received::Whole => {
                            self.asked = Asked::of(&head);
                            break;
                        }
                        Received::Data(_) => {}
                        Received::End => break,
                    }
                }
            }
        }
        match answer(&self.asked, self.number) {
            Answered::Now(response) => self.respond(&response),
            Answered::Later => self.stage = Stage::Waiting,
        }
    }

    fn respond(&mut self, response: &Response) {
        let mut date = HttpDate::new();
        let defaults = &defaults(&mut date);
        self.exchange.close_after_this();
        let body = response.body();
        let head = response.head();
        let out = &mut self.write_buffer;
        let size = BodySize::Exact(body.len() as u64);
        self.exchange.respond(&head, size, defaults, out);
        let take = self.exchange.data(body.len(), out);
        out.extend_from_slice(&body[..take]);
        self.exchange.data_end(out);
        self.exchange.finish(out);
        self.stage = Stage::Answered;
    }
}

fn defaults(date: &mut HttpDate) -> ResponseDefaults<'_> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    ResponseDefaults {
        server: b"ferricorn",
        date: date.at(i64::try_from(since.as_secs()).unwrap_or(0)),
    }
}

const CONNECTIONS_MAX: usize = 64;
/// More wait in the listener's queue, each for an iteration of the loop at most.
const ACCEPTS_PER_ITERATION: usize = 256;
const BACKLOG: u32 = 1024;
const CONNECTION_MS: u64 = 5000;
/// A request follows its connection within a fraction of this, also on a busy machine. The places still take 6,400
/// connections a second.
const ARRIVAL_MS: u64 = 10;
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// A form with a token.
const BODY_BYTES_MAX: u64 = 4096;
const RETRY_MS: u64 = 1000;
/// Between two looks whether the name is known.
const NAME_MS: u64 = 20;

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;
    use crate::http::Status;

    fn admin() -> (AdminServer, std::net::SocketAddr) {
        let admin = AdminServer::open("127.0.0.1:0", 0).unwrap();
        let Some(Listener::Tcp(listener)) = admin.listener.as_ref().map(|bound| &bound.listener)
        else {
            panic!("a TCP listener");
        };
        let address = listener.local_addr().unwrap();
        (admin, address)
    }

    fn alive(_: &Asked, _: &mut AdminToken, _: u64) -> Answered {
        Answered::Now(Response::text(Status::OK, "alive\n"))
    }

    /// Serves from `now` on until it is as it should be: what a client has sent may be a moment on its way.
    fn serve_until(admin: &mut AdminServer, mut now: u64, is_so: impl Fn(&AdminServer) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            admin.serve(now, &Arc::default(), &mut alive);
            if is_so(admin) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{admin:?}");
            std::thread::sleep(Duration::from_millis(1));
            // Only where it matters: deadlines are near in some tests.
            if !admin.pause.is_over() {
                now += ARRIVAL_MS;
            }
        }
    }

    fn stages(admin: &AdminServer) -> Vec<Stage> {
        admin.connections.iter().map(|one| one.stage).collect()
    }

    /// Whether the server has closed the connection, after all that it has sent.
    fn is_answered(stream: &TcpStream) -> bool {
        stream.set_nonblocking(true).unwrap();
        let is_answered = stream.peek(&mut [0]).is_ok();
        stream.set_nonblocking(false).unwrap();
        is_answered
    }

    fn read(mut stream: &TcpStream) -> String {
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    }

    #[test]
    fn live_is_answered_beside_any_number_of_idle_connections() {
        let (mut admin, address) = admin();
        let idle: Vec<_> = (0..CONNECTIONS_MAX * 3)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let mut asking = TcpStream::connect(address).unwrap();
        asking
            .write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        serve_until(&mut admin, 1, |_| is_answered(&asking));
        assert!(read(&asking).ends_with("alive\n"));
        assert_eq!(admin.connections.len(), CONNECTIONS_MAX);
        assert_eq!(read(&idle[0]), "", "the oldest was closed");
    }

    #[test]
    fn silent_connections_make_room_before_slow_ones() {
        let (mut admin, address) = admin();
        let mut slow = TcpStream::connect(address).unwrap();
        slow.write_all(b"GET /live HTTP/1.1\r\nHost:").unwrap();
        serve_until(&mut admin, 1, |admin| stages(admin) == [Stage::Asking]);
        let idle: Vec<_> = (0..CONNECTIONS_MAX + 1)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        serve_until(&mut admin, 2, |_| {
            // The two oldest of those that are silent.
            is_answered(&idle[0]) && is_answered(&idle[1])
        });
        assert_eq!(stages(&admin)[..2], [Stage::Asking, Stage::Silent]);
        slow.write_all(b" x\r\n\r\n").unwrap();
        serve_until(&mut admin, 3, |_| is_answered(&slow));
        assert!(read(&slow).ends_with("alive\n"));
        drop(idle);
        serve_until(&mut admin, 4, |admin| admin.connections.is_empty());
    }

    #[test]
    fn a_connection_that_has_just_come_makes_no_room() {
        let (mut admin, address) = admin();
        let mut first = TcpStream::connect(address).unwrap();
        let others: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        admin.serve(1, &Arc::default(), &mut alive);
        assert_eq!(admin.connections.len(), CONNECTIONS_MAX);
        assert_eq!(admin.patience(1), Some(ARRIVAL_MS));
        first
            .write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        serve_until(&mut admin, 1, |_| is_answered(&first));
        assert!(read(&first).ends_with("alive\n"));
        drop(others);
    }

    #[test]
    fn a_response_may_come_later() {
        let (mut admin, address) = admin();
        let mut asking = TcpStream::connect(address).unwrap();
        asking
            .write_all(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na=b")
            .unwrap();
        let mut numbers = Vec::new();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while numbers.is_empty() && std::time::Instant::now() < deadline {
            admin.serve(1, &Arc::default(), &mut |_, _, number| {
                numbers.push(number);
                Answered::Later
            });
        }
        assert_eq!(stages(&admin), [Stage::Waiting]);
        assert_eq!(admin.descriptors().count(), 1, "the listener's");
        let response = Response::text(Status::OK, "at last\n");
        admin.complete(numbers[0] + 1, &response);
        assert_eq!(stages(&admin), [Stage::Waiting]);
        admin.complete(numbers[0], &response);
        admin.complete(numbers[0], &response);
        serve_until(&mut admin, 2, |_| is_answered(&asking));
        let text = read(&asking);
        assert!(text.ends_with("at last\n") && text.matches("HTTP/1.1").count() == 1);
    }

    #[test]
    fn a_slow_request_has_five_seconds() {
        let (mut admin, address) = admin();
        let mut slow = TcpStream::connect(address).unwrap();
        slow.write_all(b"GET /live").unwrap();
        serve_until(&mut admin, 1, |admin| stages(admin) == [Stage::Asking]);
        admin.serve(CONNECTION_MS, &Arc::default(), &mut alive);
        assert_eq!(admin.connections.len(), 1);
        admin.serve(CONNECTION_MS + 1, &Arc::default(), &mut alive);
        assert!(admin.connections.is_empty());
    }

    #[test]
    fn long_bodies_and_nonsense_are_refused() {
        let (mut admin, address) = admin();
        for (request, status) in [
            (
                "POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 4097\r\n\r\n",
                "413",
            ),
            ("nonsense\r\n\r\n", "400"),
        ] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            serve_until(&mut admin, 1, |_| is_answered(&stream));
            let response = read(&stream);
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status}")),
                "{response}"
            );
        }
    }
}
