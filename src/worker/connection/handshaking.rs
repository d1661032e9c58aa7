//! The TLS handshake of one connection. While it goes on, nothing else is read or written.
//!
//! `transport/tls.rs` makes its steps, `handshakes.rs` bounds them for all connections, the lifecycle has the deadline.

use crate::worker::connection_lifecycle::Action;
use crate::worker::events::InputEvent;
use crate::worker::handshakes::Handshakes;
use crate::worker::link::Link;
use crate::worker::loop_clock::Clock;
use crate::worker::transport::{Handshake, HandshakeError};

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handshaken {
    /// It is not done, or has failed.
    Pending(Action),
    /// Requests of HTTP/1 come next.
    Http1,
    /// ALPN has chosen HTTP/2.
    Http2,
}

/// The client's first bytes are `hello`.
pub(super) fn begin(hello: &[u8], link: &mut Link, handshakes: &Handshakes, clock: &Clock) {
    if let Some((tls, server)) = link.transport.tls().zip(handshakes.server()) {
        tls.begin(server, hello);
        link.lifecycle.begin_handshake(clock);
    }
}

/// Continue it.
pub(super) fn step(link: &mut Link, handshakes: &mut Handshakes, clock: &mut Clock) -> Handshaken {
    if !handshakes.take_step() {
        return Handshaken::Pending(Action::Resume);
    }
    let Some(tls) = link.transport.tls() else {
        return Handshaken::Http1;
    };
    match tls.handshake(link.read.is_closed()) {
        Ok(Handshake::Blocked) => Handshaken::Pending(Action::Wait),
        Ok(Handshake::ShareUsed) => Handshaken::Pending(Action::Resume),
        Ok(Handshake::Done) => {
            link.lifecycle.end_handshake();
            // The first request may have come with the client's last message.
            link.read.on_edge(InputEvent::Readable);
            let Some(agreed) = tls.agreed() else {
                return Handshaken::Http1;
            };
            link.client.set_tls(handshakes.note_done(agreed));
            match agreed.alpn_protocol() {
                Some(b"h2") => Handshaken::Http2,
                _ => Handshaken::Http1,
            }
        }
        Err(error) => Handshaken::Pending(fail(&error, link, handshakes, clock)),
    }
}

/// It has failed, or took too long.
pub(super) fn fail(
    error: &HandshakeError,
    link: &mut Link,
    handshakes: &mut Handshakes,
    clock: &mut Clock,
) -> Action {
    handshakes.note_failure(link.client.peer(), error, clock.now());
    if !matches!(error, HandshakeError::Tls(_)) || link.transport.shutdown_write().is_err() {
        return Action::Close;
    }
    // The client may still be sending, and a reset would destroy the alert on its way.
    link.lifecycle.begin_lingering_close(clock);
    Action::Resume
}
