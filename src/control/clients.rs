//! The connections of the control socket: bytes in, requests out; answers in, bytes out. Nothing waits.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::command::{Asked, Request};
use super::frame::{self, Inbox};
use crate::fork_guard;
use crate::net::{AcceptPause, has_place};

/// Names a connection; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientId(u64);

/// All connections of the control socket.
#[derive(Debug, Default)]
pub struct Clients {
    clients: Vec<Client>,
    /// While no client can be accepted.
    pause: AcceptPause,
    next_id: u64,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    stream: UnixStream,
    inbox: Inbox,
    /// Unsent bytes of answers.
    write_buffer: Vec<u8>,
    /// A request is being worked on; the next one waits.
    busy: bool,
    /// Nothing more is read; it goes when everything is sent.
    closing: bool,
    /// When something last happened, in milliseconds of the monotonic clock.
    active_at: u64,
}

impl Clients {
    /// Accepts connections, reads what has come, and returns the requests that are whole: one of each client
    /// at most. Mistakes are answered here.
    pub fn receive(&mut self, listener: &UnixListener, now_ms: u64) -> Vec<(ClientId, Request)> {
        self.accept(listener, now_ms);
        let mut requests = Vec::new();
        for client in &mut self.clients {
            if let Some(request) = client.receive(now_ms) {
                requests.push((client.id, request));
            }
        }
        self.flush(now_ms);
        requests
    }

    /// Answers the request that `id` waits for. The client may be gone.
    pub fn answer(&mut self, id: ClientId, message: &Value, now_ms: u64) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.busy = false;
            client.queue(message, now_ms);
        }
        self.flush(now_ms);
    }

    /// What to poll for: whose next move it is, and whether that is to read an answer. Not those whose request is
    /// being worked on: a hang-up of theirs would end every poll at once.
    pub fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let idle = self.clients.iter().filter(|client| !client.busy);
        idle.map(|client| (client.stream.as_fd(), !client.write_buffer.is_empty()))
    }

    /// A client has sent more than the request that was just answered.
    #[must_use]
    pub fn have_more(&self) -> bool {
        self.clients
            .iter()
            .any(|client| !client.busy && client.write_buffer.is_empty() && client.inbox.is_whole())
    }

    /// Whether the listener is to be polled.
    #[must_use]
    pub fn are_accepted(&self) -> bool {
        self.pause.is_over()
    }

    /// Milliseconds that the caller may sleep.
    #[must_use]
    pub fn patience(&self, now_ms: u64) -> Option<u64> {
        self.pause.patience(now_ms)
    }

    fn accept(&mut self, listener: &UnixListener, now_ms: u64) {
        if !self.pause.resume(now_ms) {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.make_room(listener, now_ms) {
                // The others wait in the listener's queue meanwhile.
                return self.pause.begin(now_ms, ROOM_MS);
            }
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => return self.pause.failed(&error, "control_socket", now_ms),
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            fork_guard::register(&stream);
            self.next_id += 1;
            self.clients.push(Client {
                id: ClientId(self.next_id),
                stream,
                inbox: Inbox::new(REQUEST_BYTES_MAX),
                write_buffer: Vec::new(),
                busy: false,
                closing: false,
                active_at: now_ms,
            });
        }
    }

    /// False when a client waits to be accepted and every place has a client that is at work. Of those that idle the one that
    /// does so longest makes room.
    fn make_room(&mut self, listener: &UnixListener, now_ms: u64) -> bool {
        if has_place(self.clients.len(), CLIENTS_MAX, listener) || !is_readable(listener) {
            return true;
        }
        let idles = |client: &Client| {
            !client.busy && now_ms.saturating_sub(client.active_at) >= IDLE_WITH_OTHERS_MS
        };
        let idle = (0..self.clients.len()).filter(|at| idles(&self.clients[*at]));
        let oldest = idle.min_by_key(|at| self.clients[*at].active_at);
        oldest.map(|at| self.clients.swap_remove(at)).is_some()
    }

    /// Writes what can be written and removes clients that are done, gone or idle.
    fn flush(&mut self, now_ms: u64) {
        self.clients.retain_mut(|client| {
            let sent = client.send(now_ms);
            let patience = if client.write_buffer.is_empty() {
                IDLE_MS
            } else {
                SEND_MS
            };
            let is_done = client.closing
                && client.write_buffer.is_empty()
                && !client.busy
                && !client.inbox.is_whole();
            let is_late = !client.busy && now_ms.saturating_sub(client.active_at) > patience;
            sent.is_ok() && !is_done && !is_late
        });
    }
}

impl Client {
    fn receive(&mut self, now_ms: u64) -> Option<Request> {
        // One thing after the other: a client that does not read its answers is not listened to either.
        while !self.busy && self.write_buffer.is_empty() {
            match self.inbox.take() {
                Ok(Some(payload)) => match Asked::read(&payload) {
                    Asked::Request(request) => {
                        self.busy = true;
                        return Some(request);
                    }
                    Asked::Mistake { id, error } => self.queue(&mistake(&id, &error), now_ms),
                },
                Ok(None) if self.closing => return None,
                Ok(None) => {
                    if !self.read(now_ms) {
                        return None;
                    }
                }
                Err(too_long) => {
                    let error = format!("Message too large: {}", too_long.length);
                    self.queue(&mistake(&Value::from(0), &error), now_ms);
                    self.inbox = Inbox::new(0);
                    self.closing = true;
                    return None;
                }
            }
        }
        None
    }

    /// False when there is nothing to read now.
    fn read(&mut self, now_ms: u64) -> bool {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => {
                self.closing = true;
                false
            }
            Ok(count) => {
                self.active_at = now_ms;
                self.inbox.push(&bytes[..count]);
                true
            }
            Err(error) => {
                self.closing |= !is_transient(&error);
                false
            }
        }
    }

    fn queue(&mut self, message: &Value, now_ms: u64) {
        self.active_at = now_ms;
        self.write_buffer.extend_from_slice(&frame::encode(message));
    }

    fn send(&mut self, now_ms: u64) -> io::Result<()> {
        while !self.write_buffer.is_empty() {
            match self.stream.write(&self.write_buffer) {
                Ok(count) => {
                    self.write_buffer.drain(..count);
                    self.active_at = now_ms;
                }
                Err(error) if is_transient(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_readable(listener: &UnixListener) -> bool {
    let mut waited = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut waited, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// The answer to what was not understood or cannot be done.
pub(super) fn mistake(id: &Value, error: &str) -> Value {
    json!({"id": id, "status": "error", "error": error})
}

/// A client that may connect may also stop the server, so these bounds are against accidents.
const CLIENTS_MAX: usize = 128;
const ACCEPTS_PER_TURN: usize = 32;
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// gunicorn's patience with a silent client.
const IDLE_MS: u64 = 300_000;
/// The patience with a silent client while others wait for its place: more than a client needs between its `connect` and its
/// request.
const IDLE_WITH_OTHERS_MS: u64 = 1000;
/// After this long a place may be free.
const ROOM_MS: u64 = 50;
/// The patience with a client that does not read.
const SEND_MS: u64 = 30_000;

#[cfg(test)]
mod tests;
