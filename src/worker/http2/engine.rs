//! The h2 crate, driven by hand: bytes are fed in, requests and bytes come out. No runtime and no task.
//!
//! The crate reads from and writes to an end of a [`Wire`], two buffers that it shares with this file. Nothing in it needs
//! to wake the loop: whatever could move a stream on arrives as bytes, or is done by the loop itself, which polls after
//! both. So its waker does nothing.
//!
//! The way out is bounded: past its room the wire takes no more, and the crate keeps its frames until there is room again.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Ping, Reason, RecvStream};
use http_message::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config;

/// What the crate buffers of one stream's body.
pub(super) const STREAM_BYTES_MAX: usize = 64 * 1024;
/// The connection's window while bodies are taken in as they come.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// The largest window there is (RFC 9113 section 6.9.1), without what may have come before.
const WINDOW_BYTES_MAX: u32 = 0x7fff_ffff - WINDOW_BYTES_BEFORE_SETTINGS;
/// The window of a connection and of a stream until settings say otherwise (RFC 9113 section 6.9.2).
pub(super) const WINDOW_BYTES_BEFORE_SETTINGS: u32 = 65_535;
/// Streams that were reset before the loop had seen them; the loop's own limit is tighter in time.
const UNSEEN_RESETS_MAX: usize = 400;
/// Streams that we have reset and whose late frames are still ignored.
const RESET_STREAMS_MAX: usize = 200;
/// What stays allocated of either way while nothing is in it.
const KEPT_BYTES: usize = 4 * 1024;
/// The way out has room for this much at once while bodies are sent: four frames, and what is small.
const OUTPUT_BYTES: usize = STREAM_BYTES_MAX + 4 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Engine {
    state: State,
    wire: WireEnd,
}

#[derive(Debug)]
enum State {
    /// The preface is not whole.
    Beginning(Box<Handshake<WireEnd, Bytes>>),
    Open(Box<Connection<WireEnd, Bytes>>),
    /// The last GOAWAY is out.
    Over,
}

/// What came of a poll.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is returned; a box would be one more allocation for each request"
)]
pub(super) enum Polled {
    Request(Request<RecvStream>, SendResponse<Bytes>),
    /// All that can move now has moved.
    Nothing,
    /// The client has broken the protocol: the connection is over too, with this code.
    Broken(Reason),
    /// The connection is over once its bytes are written.
    Over,
}

#[derive(Debug, Default)]
struct Wire {
    input: Vec<u8>,
    /// Of the input, what the crate has taken.
    taken: usize,
    output: Vec<u8>,
    room: usize,
    /// The crate had more than there was room for.
    is_full: bool,
}

/// The loop goes from thread to thread, and with it both ends: the lock is never contended.
#[derive(Clone, Debug)]
struct WireEnd(Arc<Mutex<Wire>>);

impl Engine {
    /// `holds_bodies`: bodies are taken in only as the application reads them, so each stream may fill its window.
    /// `bytes_before`: so much will be fed that the client has not taken from the connection's window.
    pub(super) fn new(settings: &config::Http2, holds_bodies: bool, bytes_before: u32) -> Self {
        debug_assert!(
            bytes_before <= WINDOW_BYTES_BEFORE_SETTINGS,
            "a window's worth"
        );
        let streams = settings.http2_max_concurrent_streams;
        let stream_window = settings.http2_initial_window_size;
        let window = match holds_bodies {
            true => stream_window.saturating_mul(streams).max(WINDOW_BYTES),
            false => WINDOW_BYTES.max(stream_window),
        };
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(streams)
            .initial_window_size(stream_window)
            .initial_connection_window_size(window.min(WINDOW_BYTES_MAX) + bytes_before)
            .max_frame_size(settings.http2_max_frame_size)
            .max_send_buffer_size(STREAM_BYTES_MAX)
            .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
            .max_concurrent_reset_streams(RESET_STREAMS_MAX)
            // Those that we reset for an error are bounded in time, not for the life of the connection.
            .max_local_error_reset_streams(None);
        if settings.http2_max_header_list_size > 0 {
            builder.max_header_list_size(settings.http2_max_header_list_size);
        }
        let wire = Wire {
            room: STREAM_BYTES_MAX,
            ..Wire::default()
        };
        let wire = WireEnd(Arc::new(Mutex::new(wire)));
        let handshake = builder.handshake(wire.clone());
        Self {
            state: State::Beginning(Box::new(handshake)),
            wire,
        }
    }

    /// Bytes have arrived.
    pub(super) fn feed(&self, bytes: &[u8]) {
        self.wire.lock().input.extend_from_slice(bytes);
    }

    /// The way out may hold this many bytes more.
    pub(super) fn set_room(&self, room: usize) {
        let mut wire = self.wire.lock();
        wire.room = room;
        wire.is_full = false;
    }

    /// The crate has more to write than there was room for.
    pub(super) fn is_full(&self) -> bool {
        self.wire.lock().is_full
    }

    /// Change what is to be written.
    pub(super) fn edit_output(&self, edit: impl FnOnce(&mut Vec<u8>)) {
        edit(&mut self.wire.lock().output);
    }

    /// What is to be written. The caller empties it.
    pub(super) fn take_output(&self) -> Vec<u8> {
        std::mem::take(&mut self.wire.lock().output)
    }

    /// Give the emptied buffer back. One that has grown is kept while the connection `is_sending`.
    pub(super) fn reuse_output(&self, mut buffer: Vec<u8>, is_sending: bool) {
        buffer.clear();
        let kept = if is_sending { OUTPUT_BYTES } else { KEPT_BYTES };
        if buffer.capacity() <= kept {
            self.wire.lock().output = buffer;
        }
    }

    /// Move what can be moved. To be called until there is nothing more.
    pub(super) fn poll(&mut self) -> Polled {
        let mut context = Context::from_waker(Waker::noop());
        if let State::Beginning(handshake) = &mut self.state {
            match Pin::new(handshake.as_mut()).poll(&mut context) {
                Poll::Pending => return Polled::Nothing,
                Poll::Ready(Ok(connection)) => self.state = State::Open(Box::new(connection)),
                Poll::Ready(Err(error)) => return self.end(&error),
            }
        }
        let State::Open(connection) = &mut self.state else {
            return Polled::Over;
        };
        match connection.poll_accept(&mut context) {
            Poll::Pending => Polled::Nothing,
            Poll::Ready(Some(Ok((request, respond)))) => Polled::Request(request, respond),
            Poll::Ready(Some(Err(error))) => self.end(&error),
            Poll::Ready(None) => {
                self.state = State::Over;
                Polled::Over
            }
        }
    }

    fn end(&mut self, error: &h2::Error) -> Polled {
        log::debug!("An HTTP/2 connection ended: {error}");
        self.state = State::Over;
        match error.reason() {
            Some(code) if error.is_library() && error.is_go_away() => Polled::Broken(code),
            _ => Polled::Over,
        }
    }

    /// Whether the crate knows a stream that is not closed.
    pub(super) fn has_streams(&self) -> bool {
        matches!(&self.state, State::Open(connection) if connection.has_streams())
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Say that no more requests are taken, and learn from the answer which are on their way (RFC 9113 section 6.8).
    /// Returns false while the preface is not whole.
    pub(super) fn drain(&mut self) -> bool {
        match &mut self.state {
            State::Open(connection) => connection.graceful_shutdown(),
            State::Beginning(_) => return false,
            State::Over => {}
        }
        true
    }

    /// Send a PING. Its answer is not waited for. The crate has one for its user at a time, and the connection needs no other.
    pub(super) fn probe(&mut self) {
        if let State::Open(connection) = &mut self.state
            && let Some(mut pings) = connection.ping_pong()
            && let Err(error) = pings.send_ping(Ping::opaque())
        {
            log::debug!("PING cannot be sent on an HTTP/2 connection: {error}");
        }
    }

    /// End the connection. What is not answered will not be.
    pub(super) fn go_away(&mut self, reason: Reason) {
        match &mut self.state {
            State::Open(connection) => connection.abrupt_shutdown(reason),
            State::Beginning(_) => self.state = State::Over,
            State::Over => {}
        }
    }
}

impl AsyncRead for WireEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut *self.lock();
        let waiting = &wire.input[wire.taken..];
        if waiting.is_empty() {
            return Poll::Pending;
        }
        let step = waiting.len().min(into.remaining());
        into.put_slice(&waiting[..step]);
        wire.taken += step;
        if wire.taken == wire.input.len() {
            wire.taken = 0;
            wire.input.clear();
            wire.input.shrink_to(KEPT_BYTES);
        }
        Poll::Ready(Ok(()))
    }
}

impl WireEnd {
    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let wire = &mut *self.lock();
        if wire.output.len() >= wire.room {
            wire.is_full = true;
            return Poll::Pending;
        }
        // One write goes past the room: it is a frame's at most.
        let written: usize = slices.iter().map(|slice| slice.len()).sum();
        if written > KEPT_BYTES && wire.output.capacity() < OUTPUT_BYTES {
            // To grow step by step would copy the frames that are there.
            let missing = OUTPUT_BYTES.saturating_sub(wire.output.len());
            wire.output.reserve_exact(missing);
        }
        for slice in slices {
            wire.output.extend_from_slice(slice);
        }
        Poll::Ready(Ok(written))
    }
}

impl AsyncWrite for WireEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(&[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{FrameEvent, FrameKind, FrameScan};

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

    fn engine() -> Engine {
        let engine = Engine::new(&config::Config::default().http2, false, 0);
        engine.set_room(1 << 20);
        engine
    }

    fn kinds(engine: &Engine) -> Vec<FrameKind> {
        let mut kinds = Vec::new();
        FrameScan::default().feed(&engine.take_output(), |event, _| {
            if let FrameEvent::Head(head) = event {
                kinds.push(head.kind);
            }
        });
        kinds
    }

    #[test]
    fn a_preface_in_pieces_is_answered_with_settings_and_a_request_comes_out() {
        let mut engine = engine();
        for byte in PREFACE.iter().chain(SETTINGS) {
            engine.feed(&[*byte]);
            assert!(matches!(engine.poll(), Polled::Nothing));
        }
        assert_eq!(kinds(&engine)[0], FrameKind::Settings);
        // GET, http, / and no authority.
        engine.feed(&[0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84]);
        let Polled::Request(request, _respond) = engine.poll() else {
            panic!("no request")
        };
        assert_eq!(request.uri().path(), "/");
        assert!(engine.has_streams());
    }

    #[test]
    fn a_connection_lives_on_after_any_number_of_malformed_requests() {
        let mut engine = engine();
        engine.feed(&[PREFACE, SETTINGS].concat());
        for stream in (1..6001_u32).step_by(2) {
            let mut head = vec![0, 0, 5, 1, 5, 0, 0, 0, 0, 0x82, 0x86, 0x84, 0x90, 0x82];
            head[5..9].copy_from_slice(&stream.to_be_bytes());
            engine.feed(&head);
            assert!(matches!(engine.poll(), Polled::Nothing));
            assert!(!kinds(&engine).contains(&FrameKind::GoAway), "{stream}");
        }
        assert!(!engine.is_over());
    }

    #[test]
    fn a_wire_without_room_holds_frames_back() {
        let mut engine = engine();
        engine.feed(&[PREFACE, SETTINGS].concat());
        engine.set_room(0);
        assert!(matches!(engine.poll(), Polled::Nothing));
        assert!(engine.is_full() && engine.take_output().is_empty());
        engine.set_room(100);
        assert!(matches!(engine.poll(), Polled::Nothing));
        assert!(!engine.is_full() && !engine.take_output().is_empty());
    }

    #[test]
    fn a_drained_connection_says_so_twice_and_ends_with_the_answer_to_its_ping() {
        let mut engine = engine();
        engine.feed(&[PREFACE, SETTINGS].concat());
        assert!(matches!(engine.poll(), Polled::Nothing));
        engine.take_output();
        assert!(engine.drain());
        assert!(matches!(engine.poll(), Polled::Nothing));
        let output = engine.take_output();
        let ping = output.windows(9).position(|at| at[..4] == [0, 0, 8, 6]);
        let ping = ping.map(|at| output[at..at + 17].to_vec());
        let mut pong = ping.unwrap_or_default();
        pong[4] = 1;
        engine.feed(&pong);
        assert!(matches!(engine.poll(), Polled::Over));
        assert_eq!(kinds(&engine), [FrameKind::GoAway]);
        assert!(engine.is_over());
    }
}
