//! Hijacked connections. The application has a plain one's socket. Of one that speaks TLS it has one end of a socket pair, a
//! bridge: the loop carries its bytes to the client and back, encrypted on the way.
//!
//! Connections that the application has hijacked are not in the slab of `connections.rs`, but it keeps their ids until their
//! requests are over, so that the drain waits for them and the log names them:
//!
//! 1. *Possible.* The request's job takes a second descriptor of the socket with it. Nothing is read or written here while a
//!    request is with the pool, so the socket can be used there from that moment. That is done only when nothing was read
//!    behind the head, so no byte can be lost on the way; a client must not send any before it is answered (RFC 9110 section
//!    7.8), and one that does is answered in HTTP.
//! 2. *Hijacked.* The application has used the socket: the connection is dropped here. What the application still answers
//!    goes nowhere: it has written its answer itself.
//! 3. *Not hijacked.* The application answers in HTTP, and the connection continues as any other.
//!
//! A bridge has no deadline while both sides live: the connection is the application's, as a plain one that it has hijacked.
//! When the application closes its end, what it wrote is sent, then the end of the stream, and the client has a moment
//! to close too. When the client closes, the application reads the end.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use crate::fork_guard;
use crate::pool::ConnId;

use super::events;
use super::transport::{Ending, Transport};

/// One bridge carries at most about this many bytes in each direction in one iteration.
const SHARE_BYTES: usize = 512 * 1024;
/// It carries them in steps of this many.
const STEP_BYTES: usize = 16 * 1024;
/// From the application's close to the client's.
const LINGERING_CLOSE: Duration = Duration::from_secs(2);

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    /// Read, and not yet written.
    bytes: Vec<u8>,
    written: usize,
    state: DirectionState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DirectionState {
    #[default]
    Open,
    /// Nothing more comes; the rest is to be written.
    Ended,
    /// The end is passed on.
    Closed,
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    /// One of the sides would block.
    Blocked,
    ShareUsed,
    /// Both sides are at their end.
    Over,
}

impl Direction {
    /// Carry bytes until one of the sides would block, or the share is used.
    fn carry(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Carried> {
        let mut carried = 0;
        while carried < SHARE_BYTES {
            if self.bytes.is_empty() {
                if self.state != DirectionState::Open {
                    return Ok(Carried::Blocked);
                }
                self.bytes.resize(STEP_BYTES, 0);
                let got = unless_blocked(read(&mut self.bytes))?;
                self.bytes.truncate(got.unwrap_or(0));
                if self.bytes.is_empty() {
                    // A bridge that is idle keeps no memory.
                    self.bytes = Vec::new();
                    if got.is_some() {
                        self.state = DirectionState::Ended;
                    }
                    return Ok(Carried::Blocked);
                }
            }
            let Some(len) = unless_blocked(write(&self.bytes[self.written..]))? else {
                return Ok(Carried::Blocked);
            };
            self.written += len;
            carried += len;
            if self.written == self.bytes.len() {
                self.bytes.clear();
                self.written = 0;
            }
        }
        Ok(Carried::ShareUsed)
    }

    /// Whether the end is to be passed on now.
    fn ends_now(&mut self) -> bool {
        let ends = self.state == DirectionState::Ended && self.bytes.is_empty();
        if ends {
            self.state = DirectionState::Closed;
        }
        ends
    }

    /// The reader is gone: what is on its way is not wanted.
    fn give_up(&mut self) {
        *self = Self {
            state: DirectionState::Closed,
            ..Self::default()
        };
    }
}

/// `None` when the side would block.
fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(len) => Ok(Some(len)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

/// One hijacked connection.
#[derive(Debug)]
struct Bridge {
    id: ConnId,
    client: Transport,
    application: UnixStream,
    to_application: Direction,
    to_client: Direction,
    /// The application has closed its end: until when the client may close.
    closes_at: Option<Instant>,
}

/// All of a worker.
#[derive(Debug, Default)]
pub(super) struct Bridges {
    open: Vec<Bridge>,
    /// Those that have more than their share of an iteration.
    to_resume: Vec<ConnId>,
}

impl Bridges {
    /// The application has hijacked the connection `id`.
    pub(super) fn open(
        &mut self,
        id: ConnId,
        client: Transport,
        mut application: UnixStream,
        registry: &Registry,
    ) {
        let token = events::of_bridge(id);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.register(&mut application, token, interest) {
            log::error!("A hijacked connection could not be registered: {error}");
            return client.close(Ending::Orderly);
        }
        fork_guard::own(&client);
        fork_guard::own(&application);
        self.open.push(Bridge {
            id,
            client,
            application,
            to_application: Direction::default(),
            to_client: Direction::default(),
            closes_at: None,
        });
        // What has come before makes no event.
        self.to_resume.push(id);
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.open.iter().map(|bridge| bridge.id)
    }

    /// Whether some have more to carry.
    pub(super) fn has_to_resume(&self) -> bool {
        !self.to_resume.is_empty()
    }

    /// There is news of one of its sockets.
    pub(super) fn on_event(&mut self, token: Token, now: Instant) {
        let of_token = |id| events::of_bridge(id) == token || events::of_connection(id) == token;
        if let Some(place) = self.open.iter().position(|bridge| of_token(bridge.id)) {
            self.carry(place, now);
        }
    }

    /// Carry on where the share of the last iteration ended.
    pub(super) fn resume(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.to_resume) {
            if let Some(place) = self.open.iter().position(|bridge| bridge.id == id) {
                self.carry(place, now);
            }
        }
    }

    /// Called a few times a second: those whose client does not close are closed.
    pub(super) fn on_heartbeat(&mut self, now: Instant) {
        let is_due = |bridge: &Bridge| bridge.closes_at.is_some_and(|at| at <= now);
        let (due, open) = std::mem::take(&mut self.open).into_iter().partition(is_due);
        self.open = open;
        let due: Vec<Bridge> = due;
        due.into_iter().for_each(Bridge::close);
    }

    /// The worker ends.
    pub(super) fn close_all(&mut self) {
        self.open.drain(..).for_each(Bridge::close);
    }

    fn carry(&mut self, place: usize, now: Instant) {
        let bridge = &mut self.open[place];
        match bridge.carry(now) {
            Ok(Carried::Blocked) => {}
            Ok(Carried::ShareUsed) => self.to_resume.push(bridge.id),
            // A client that is gone ends both sides.
            Ok(Carried::Over) | Err(_) => self.open.swap_remove(place).close(),
        }
    }
}

impl Bridge {
    fn carry(&mut self, now: Instant) -> io::Result<Carried> {
        if self.client.has_unsent() {
            self.client.send_unsent()?;
        }
        let (client, application) = (&mut self.client, &mut self.application);
        if self.closes_at.is_some() {
            return discard(client);
        }
        let inward = self
            .to_application
            .carry(|bytes| client.read(bytes), |bytes| application.write(bytes));
        let inward = match inward {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.to_application.give_up();
                Carried::Blocked
            }
            inward => inward?,
        };
        let outward = self
            .to_client
            .carry(|bytes| application.read(bytes), |bytes| client.write(bytes))?;
        if self.to_application.ends_now() {
            // It may be gone already.
            let _ = application.shutdown(Shutdown::Write);
        }
        if self.to_client.ends_now() {
            client.shutdown_write()?;
            self.closes_at = Some(now + LINGERING_CLOSE);
            return discard(client);
        }
        match (inward, outward) {
            (Carried::Blocked, Carried::Blocked) => Ok(Carried::Blocked),
            _ => Ok(Carried::ShareUsed),
        }
    }

    fn close(self) {
        fork_guard::disown(&self.client);
        fork_guard::disown(&self.application);
        self.client.close(Ending::Orderly);
    }
}

/// Read and forget, until the client closes its side too.
fn discard(client: &mut Transport) -> io::Result<Carried> {
    let mut bytes = vec![0; STEP_BYTES];
    for _ in 0..SHARE_BYTES / STEP_BYTES {
        match unless_blocked(client.read(&mut bytes))? {
            Some(0) => return Ok(Carried::Over),
            Some(_) => {}
            None => return Ok(Carried::Blocked),
        }
    }
    Ok(Carried::ShareUsed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pair() -> (std::os::unix::net::UnixStream, UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (theirs, UnixStream::from_std(ours))
    }

    const ID: ConnId = ConnId::new(3, 5);

    #[test]
    fn bytes_and_ends_are_carried_both_ways() {
        let poll = mio::Poll::new().unwrap();
        let (mut client, client_side) = pair();
        let (mut application, application_side) = pair();
        let (mut bridges, now) = (Bridges::default(), Instant::now());
        bridges.open(ID, client_side.into(), application_side, poll.registry());
        client.write_all(b"question").unwrap();
        assert!(bridges.has_to_resume());
        bridges.resume(now);
        let mut bytes = [0; 64];
        let len = application.read(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"question");
        let long = vec![7; 300_000];
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                application.write_all(&long).unwrap();
                application
            });
            let mut got = 0;
            client.set_nonblocking(true).unwrap();
            while got < long.len() {
                bridges.on_event(events::of_bridge(ID), now);
                bridges.resume(now);
                got += client.read(&mut [0; 10_000]).unwrap_or(0);
            }
            drop(sender.join().unwrap());
        });
        client.set_nonblocking(false).unwrap();
        bridges.on_event(events::of_bridge(ID), now);
        assert_eq!(client.read(&mut bytes).unwrap(), 0);
        assert_eq!(bridges.ids().count(), 1, "the client may close too");
        bridges.on_heartbeat(now + LINGERING_CLOSE);
        assert_eq!(bridges.ids().count(), 0);
    }

    #[test]
    fn the_end_of_a_client_reaches_the_application() {
        let poll = mio::Poll::new().unwrap();
        let (client, client_side) = pair();
        let (mut application, application_side) = pair();
        let (mut bridges, now) = (Bridges::default(), Instant::now());
        bridges.open(ID, client_side.into(), application_side, poll.registry());
        drop(client);
        bridges.on_event(events::of_connection(ID), now);
        assert_eq!(application.read(&mut [0; 8]).unwrap(), 0);
        drop(application);
        bridges.on_event(events::of_bridge(ID), now);
        bridges.resume(now);
        assert_eq!(bridges.ids().count(), 0);
    }
}
