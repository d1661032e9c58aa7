//! A client of HTTP/2 in the simulation: the streams of one connection, by the h2 crate, moved as far as the seed lets them.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http_message::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client_socket::ClientSocket;
use super::plan::{Ask, Rng};

/// Bytes between the crate and the socket.
#[derive(Debug, Default)]
struct Pipe {
    input: Vec<u8>,
    output: Vec<u8>,
    /// The server has ended its side.
    is_at_end: bool,
}

struct PipeEnd(Rc<RefCell<Pipe>>);

type Begun = Result<(SendRequest<Bytes>, Connection<PipeEnd, Bytes>), h2::Error>;

enum State {
    Beginning(Pin<Box<dyn Future<Output = Begun>>>),
    Open(SendRequest<Bytes>, Box<Connection<PipeEnd, Bytes>>),
    Over,
}

/// A stream that is open.
struct Stream {
    response: Option<ResponseFuture>,
    out: SendStream<Bytes>,
    sent: usize,
    is_sent: bool,
    incoming: Option<RecvStream>,
    answer: Received,
}

/// What has come of an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    pub(super) status: u16,
    /// Which request the application says it answers; `None` on an error page.
    pub(super) tag: Option<String>,
    pub(super) body: Vec<u8>,
}

/// How a request has ended.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Whole(Received),
    /// The server has reset the stream, or the connection is gone.
    Broken(Option<Reason>),
    /// The client has reset it.
    Cancelled,
}

enum Phase {
    NotBegun,
    Open(Box<Stream>),
    Over(Outcome),
}

/// See the module.
pub(super) struct Http2Client {
    socket: Option<ClientSocket>,
    pipe: Rc<RefCell<Pipe>>,
    state: State,
    pub(super) asks: Vec<Ask>,
    phases: Vec<Phase>,
    pub(super) went_away: bool,
}

impl Http2Client {
    pub(super) fn new(socket: ClientSocket, asks: Vec<Ask>, window: u32) -> Self {
        let pipe = Rc::new(RefCell::new(Pipe::default()));
        let mut builder = Builder::new();
        builder.initial_window_size(window).enable_push(false);
        let handshake = builder.handshake(PipeEnd(pipe.clone()));
        Self {
            socket: Some(socket),
            pipe,
            state: State::Beginning(Box::pin(handshake)),
            phases: asks.iter().map(|_| Phase::NotBegun).collect(),
            asks,
            went_away: false,
        }
    }

    pub(super) fn outcome(&self, number: usize) -> Option<&Outcome> {
        match &self.phases[number] {
            Phase::Over(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// It was sent to the crate, so that its answer is awaited.
    pub(super) fn has_begun(&self, number: usize) -> bool {
        !matches!(self.phases[number], Phase::NotBegun)
    }

    /// Move at most `len` bytes to the server. Returns how many moved.
    pub(super) fn send(&mut self, len: usize) -> usize {
        self.drive();
        let pipe = &mut *self.pipe.borrow_mut();
        let Some(socket) = &mut self.socket else {
            return 0;
        };
        let end = pipe.output.len().min(len);
        let written = socket.write(&pipe.output[..end]);
        pipe.output.drain(..written.counted);
        written.moved
    }

    /// Read at most `len` bytes. Returns how many moved.
    pub(super) fn read(&mut self, len: usize) -> usize {
        let moved = {
            let pipe = &mut *self.pipe.borrow_mut();
            match self.socket.as_mut().filter(|_| !pipe.is_at_end) {
                Some(socket) => socket.read(len, &mut pipe.input).unwrap_or_else(|_| {
                    pipe.is_at_end = true;
                    1
                }),
                None => 0,
            }
        };
        self.drive();
        moved
    }

    /// Go away without a word.
    pub(super) fn go_away(&mut self) {
        self.socket = None;
        self.went_away = true;
    }

    /// Begin one more request, if there is one. Returns whether that was possible.
    pub(super) fn begin(&mut self) -> bool {
        let is_new = |phase: &Phase| matches!(phase, Phase::NotBegun);
        let (Some(number), State::Open(requests, _)) =
            (self.phases.iter().position(is_new), &mut self.state)
        else {
            return false;
        };
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(())) = requests.poll_ready(&mut context) else {
            return false;
        };
        let ask = &self.asks[number];
        let request = Request::builder()
            .method(ask.method)
            .uri(format!("http://h{}", ask.target))
            .body(())
            .unwrap();
        let is_sent = ask.body.is_empty();
        let Ok((response, out)) = requests.send_request(request, is_sent) else {
            return false;
        };
        self.phases[number] = Phase::Open(Box::new(Stream {
            response: Some(response),
            out,
            sent: 0,
            is_sent,
            incoming: None,
            answer: Received::default(),
        }));
        true
    }

    /// Reset one of the open streams.
    pub(super) fn cancel(&mut self, rng: &mut Rng) {
        let at = rng.below(self.phases.len());
        if let Some(phase @ Phase::Open(_)) = self.phases.get_mut(at) {
            if let Phase::Open(stream) = phase {
                stream.out.send_reset(Reason::CANCEL);
            }
            *phase = Phase::Over(Outcome::Cancelled);
        }
    }

    fn drive(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        if let State::Beginning(handshake) = &mut self.state {
            match handshake.as_mut().poll(&mut context) {
                Poll::Pending => return,
                Poll::Ready(Ok((requests, connection))) => {
                    self.state = State::Open(requests, Box::new(connection));
                }
                Poll::Ready(Err(_)) => self.state = State::Over,
            }
        }
        // What one moves the other may wait for.
        for _ in 0..3 {
            if let State::Open(_, connection) = &mut self.state
                && Pin::new(connection.as_mut()).poll(&mut context).is_ready()
            {
                self.state = State::Over;
            }
            for (phase, ask) in self.phases.iter_mut().zip(&self.asks) {
                if let Phase::Open(stream) = phase
                    && let Some(outcome) = stream.advance(ask, &mut context)
                {
                    *phase = Phase::Over(outcome);
                }
            }
        }
    }
}

impl Stream {
    fn advance(&mut self, ask: &Ask, context: &mut Context<'_>) -> Option<Outcome> {
        self.send_body(ask, context);
        if let Some(response) = &mut self.response {
            match Pin::new(response).poll(context) {
                Poll::Pending => return None,
                Poll::Ready(Err(error)) => return Some(Outcome::Broken(error.reason())),
                Poll::Ready(Ok(message)) => {
                    self.response = None;
                    let (head, body) = message.into_parts();
                    self.answer.status = head.status.as_u16();
                    let tag = head.headers.get("x-ask");
                    self.answer.tag = tag.map(|tag| tag.to_str().unwrap().to_owned());
                    self.incoming = Some(body);
                }
            }
        }
        let incoming = self.incoming.as_mut()?;
        loop {
            match incoming.poll_data(context) {
                Poll::Pending => return None,
                Poll::Ready(Some(Err(error))) => return Some(Outcome::Broken(error.reason())),
                Poll::Ready(None) => return Some(Outcome::Whole(self.answer.clone())),
                Poll::Ready(Some(Ok(bytes))) => {
                    self.answer.body.extend_from_slice(&bytes);
                    let _ = incoming.flow_control().release_capacity(bytes.len());
                }
            }
        }
    }

    fn send_body(&mut self, ask: &Ask, context: &mut Context<'_>) {
        while !self.is_sent {
            let left = ask.body.len() - self.sent;
            self.out.reserve_capacity(left);
            let room = match self.out.capacity() {
                0 => match self.out.poll_capacity(context) {
                    Poll::Ready(Some(Ok(room))) if room > 0 => room,
                    // It goes on when there is credit; an answer may come before the end.
                    _ => return,
                },
                room => room,
            };
            let end = self.sent + room.min(left);
            let part = Bytes::copy_from_slice(&ask.body[self.sent..end]);
            self.sent = end;
            self.is_sent = end == ask.body.len();
            if self.out.send_data(part, self.is_sent).is_err() {
                self.is_sent = true;
            }
        }
    }
}

impl AsyncRead for PipeEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let pipe = &mut *self.0.borrow_mut();
        if pipe.input.is_empty() && !pipe.is_at_end {
            return Poll::Pending;
        }
        let step = pipe.input.len().min(into.remaining());
        into.put_slice(&pipe.input[..step]);
        pipe.input.drain(..step);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PipeEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
