//! Takeover: what no thread of a worker has begun goes to its successor when the worker is aborted, and when it is cut at the
//! end of `graceful_timeout`.
//!
//! A view that never returns costs its worker at `timeout`. What waits behind it has not begun, so any worker may run it:
//! gunicorn's sync worker would not even have accepted it. The connections are left in the channels to any worker
//! (`net/channel.rs`), and the first worker with a free thread takes all of them. That is the successor unless another has
//! one before. A request is taken out of the queue before it is left, so no thread of the dying worker runs it.
//!
//! What cannot be transferred (TLS, HTTP/2, behind a PROXY header, with a large body) is answered with 503.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::net::Channels;
use crate::pool::balance;
use crate::scoreboard::{SlotState, monotonic_ms};

use super::connections::Connections;
use super::deliver;
use super::peer_workers::take_in;
use super::requests::{Requests, recycle};
use super::shared_io::SharedIo;
use super::worker_slot::WorkerSlot;

/// How many connections are taken in one iteration: as many as one worker can leave.
const ITERATION_MESSAGES: usize = 2048;

/// Whether connections may lie in the channels to any worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// They were announced when no thread was free, or another process was reading.
    Perhaps,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Takeover {
    channels: Arc<Channels>,
    slot: WorkerSlot,
    /// How many listeners this worker has: a reload may have changed them since a connection was accepted.
    listeners: usize,
    left: Left,
}

impl Takeover {
    /// # Errors
    /// The poll set refused a channel.
    pub(super) fn new(
        channels: Arc<Channels>,
        slot: WorkerSlot,
        listeners: usize,
        (registry, token): (&Registry, Token),
    ) -> io::Result<Self> {
        for receiver in channels.receivers_of_any() {
            let mut source = SourceFd(&receiver.as_raw_fd());
            registry.register(&mut source, token, Interest::READABLE)?;
        }
        Ok(Self {
            channels,
            slot,
            listeners,
            left: Left::Nothing,
        })
    }

    /// Take in what workers have left that are gone, if a thread is free for it.
    pub(super) fn take(
        &mut self,
        connections: &mut Connections,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        self.left = Left::Nothing;
        let own = requests.dispatch.own_load(0);
        if requests.shutdown.is_draining() || own.load >= own.threads {
            self.left = Left::Perhaps;
            return;
        }
        let (mut taken, mut buffer) = (0, std::mem::take(&mut io.input));
        let mut read = 0;
        for reader in self.channels.readers_of_any() {
            read += 1;
            while taken < ITERATION_MESSAGES {
                let (len, socket) = match reader.receive(&mut buffer) {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(error) => {
                        io.exhaustion.note(&error, requests.clock.now());
                        self.left = Left::Perhaps;
                        break;
                    }
                };
                taken += 1;
                if buffer
                    .first()
                    .is_some_and(|listener| usize::from(*listener) < self.listeners)
                {
                    take_in(socket, &buffer[..len], connections, requests, io);
                }
            }
        }
        io.input = buffer;
        if read < self.channels.receivers_of_any().count() {
            self.left = Left::Perhaps;
        }
        if taken > 0 {
            log::info!("Serving {taken} connection(s) of a stopped worker.");
        }
    }

    /// A few times a second: what was announced at a bad time is looked for again.
    pub(super) fn on_heartbeat(
        &mut self,
        connections: &mut Connections,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        if self.left == Left::Perhaps {
            self.take(connections, requests, io);
        }
    }

    /// The worker is aborted: leave all that no thread has begun.
    pub(super) fn leave_all(&self, connections: &mut Connections, requests: &mut Requests) {
        let mut left = self.leave_waiting(connections, requests);
        for id in connections.ids() {
            left += u64::from(connections.transfer(
                id,
                None,
                &requests.dispatch,
                |message, socket| self.channels.send_to_any(message, socket),
            ));
        }
        self.note(left);
    }

    /// The worker was asked to stop, and is cut: leave the requests that wait, if another worker serves.
    pub(super) fn leave_if_served(
        &self,
        connections: &mut Connections,
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        let (scoreboard, now) = (self.slot.scoreboard(), monotonic_ms());
        let serves = |index: usize| {
            let slot = scoreboard.slot(index);
            slot.state() == SlotState::Serving
                && balance::is_responsive(now, slot.loop_heartbeat_at())
        };
        if (0..scoreboard.slots()).any(serves) {
            self.note(self.leave_waiting(connections, requests));
            deliver::refuse_waiting(connections, requests, io);
        }
    }

    fn leave_waiting(&self, connections: &mut Connections, requests: &mut Requests) -> u64 {
        let mut left = 0;
        // What has to stay is answered in its order.
        while let Some(job) = requests.dispatch.take_first() {
            let send =
                |message: &[u8], socket: BorrowedFd<'_>| self.channels.send_to_any(message, socket);
            if connections.get(job.conn).is_none() {
                deliver::orphan(job, connections, None, requests);
            } else if connections.transfer(job.conn, Some(&job), &requests.dispatch, send) {
                left += 1;
                recycle(job, requests);
            } else {
                requests.dispatch.refuse(job);
            }
        }
        left
    }

    fn note(&self, left: u64) {
        if left > 0 {
            self.slot.get().add_passed_on(left);
            log::info!("Leaving {left} waiting connection(s) to the next worker.");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::pool::Peer;
    use crate::scoreboard::Scoreboard;
    use crate::worker::events::{InputEvent, SocketEvent, of_connection};
    use crate::worker::requests::tests::for_tests;
    use crate::worker::transport::Transport;

    struct Worker {
        takeover: Takeover,
        connections: Connections,
        requests: Requests,
        io: SharedIo,
        _poll: mio::Poll,
    }

    fn worker(channels: &Arc<Channels>) -> Worker {
        let poll = mio::Poll::new().unwrap();
        let (requests, io) = for_tests();
        let slot = WorkerSlot::new(Arc::new(Scoreboard::new(1, 1).unwrap()), 0);
        let place = (poll.registry(), Token(1));
        Worker {
            takeover: Takeover::new(channels.clone(), slot, 1, place).unwrap(),
            connections: Connections::new(poll.registry().try_clone().unwrap()),
            requests,
            io,
            _poll: poll,
        }
    }

    impl Worker {
        /// A client connects to `listener` and sends `bytes`.
        fn connect(&mut self, listener: usize, bytes: &[u8]) -> UnixStream {
            let (ours, mut theirs) = Transport::pair();
            let connections = &mut self.connections;
            let (requests, io) = (&mut self.requests, &mut self.io);
            let id = connections.open(ours, Peer::Unix, listener, requests, io);
            theirs.write_all(bytes).unwrap();
            let readable = SocketEvent {
                input: InputEvent::Readable,
                is_writable: false,
                is_broken: false,
            };
            connections.on_event(of_connection(id), readable, requests, io);
            theirs
        }

        fn leave_all(&mut self) {
            self.takeover
                .leave_all(&mut self.connections, &mut self.requests);
        }

        fn take(&mut self) {
            self.takeover
                .take(&mut self.connections, &mut self.requests, &mut self.io);
        }

        /// The requests that wait for a thread: target and length of the body.
        fn waiting(&mut self) -> Vec<(String, Option<u64>)> {
            let dispatch = &mut self.requests.dispatch;
            std::iter::from_fn(|| dispatch.take_first())
                .map(|job| {
                    let target = String::from_utf8_lossy(job.head.target()).into_owned();
                    (target, job.body_bytes)
                })
                .collect()
        }
    }

    const GET: &[u8] = b"GET /get HTTP/1.1\r\nHost: h\r\n\r\n";

    #[test]
    fn what_no_thread_has_begun_goes_to_the_next_worker_as_it_was_sent() {
        let channels = Arc::new(Channels::new(0).unwrap());
        let (mut first, mut second) = (worker(&channels), worker(&channels));
        let chunked = b"POST /chunked HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let counted = b"POST /counted HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd";
        let clients = [GET, chunked, counted, &counted[..56], &GET[..9], b""]
            .map(|bytes| first.connect(0, bytes));
        first.leave_all();
        assert_eq!((first.connections.len(), first.waiting().len()), (0, 0));
        second.take();
        assert_eq!(second.connections.len(), clients.len());
        let expected = [("/get", 0), ("/chunked", 5), ("/counted", 4)]
            .map(|(target, len)| (target.to_owned(), Some(len)));
        assert_eq!(second.waiting(), expected);
    }

    #[test]
    fn a_large_body_stays_and_is_refused() {
        let channels = Arc::new(Channels::new(0).unwrap());
        let (mut first, mut second) = (worker(&channels), worker(&channels));
        let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n";
        let mut client = first.connect(0, &[&head[..], &[b'x'; 70_000]].concat());
        first.leave_all();
        deliver::refuse_waiting(&mut first.connections, &mut first.requests, &mut first.io);
        second.take();
        assert_eq!(second.connections.len(), 0);
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 503");
    }

    #[test]
    fn a_worker_takes_what_was_left_only_while_a_thread_is_free() {
        let channels = Arc::new(Channels::new(0).unwrap());
        let (mut first, mut second) = (worker(&channels), worker(&channels));
        let _left = first.connect(0, GET);
        let _of_another_listener = first.connect(7, GET);
        let _running = second.connect(0, GET);
        first.leave_all();
        second.take();
        assert_eq!(
            (second.connections.len(), second.takeover.left),
            (1, Left::Perhaps)
        );
        assert_eq!(second.waiting().len(), 1);
        let connections = &mut second.connections;
        let (requests, io) = (&mut second.requests, &mut second.io);
        second.takeover.on_heartbeat(connections, requests, io);
        assert_eq!(
            (second.connections.len(), second.takeover.left),
            (2, Left::Nothing)
        );
    }
}
