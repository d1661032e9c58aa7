//! The TLS handshakes of all connections: with which settings they begin, how many steps of them one iteration makes, and
//! which of them have failed, for the log.
//!
//! A step costs up to half a millisecond (a signature with an RSA key), so that many clients that come together would keep
//! all others waiting. Steps over the bound wait for the next iteration.

use std::sync::Arc;
use std::time::Instant;

use rustls::{HandshakeKind, ServerConnection};

use crate::config::ClientCertificates;
use crate::pool::{ClientCertificate, Peer, TlsInfo};
use crate::tls::{CurrentServer, PeerCertificate, Refreshed, Server, names};

use super::describe::PeerText;
use super::failure_series::{COALESCING, FailureSeries};
use super::transport::HandshakeError;
use super::worker_slot::WorkerSlot;

/// This many steps of handshakes are made in one iteration.
const ITERATION_STEPS: u32 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Handshakes {
    /// `None`: the worker speaks plain HTTP.
    current: Option<CurrentServer>,
    steps_left: u32,
    failures: FailureSeries,
    slot: WorkerSlot,
}

impl Handshakes {
    pub(super) fn new(current: Option<CurrentServer>, slot: WorkerSlot) -> Self {
        Self {
            current,
            steps_left: ITERATION_STEPS,
            failures: FailureSeries::default(),
            slot,
        }
    }

    /// Whether connections begin with a handshake.
    pub(super) fn are_expected(&self) -> bool {
        self.current.is_some()
    }

    /// The settings of a handshake that begins now.
    pub(super) fn server(&self) -> Option<Arc<Server>> {
        self.current
            .as_ref()
            .map(|current| current.server().clone())
    }

    /// An iteration begins.
    pub(super) fn renew(&mut self) {
        self.steps_left = ITERATION_STEPS;
    }

    /// Whether one more step may be made in this iteration.
    pub(super) fn take_step(&mut self) -> bool {
        let left = self.steps_left.checked_sub(1);
        self.steps_left = left.unwrap_or(0);
        left.is_some()
    }

    /// A handshake is done. Returns what its requests show of it.
    pub(super) fn note_done(&self, agreed: &ServerConnection) -> Arc<TlsInfo> {
        let slot = self.slot.get();
        slot.add_tls_handshakes(1);
        if agreed.handshake_kind() == Some(HandshakeKind::Resumed) {
            slot.add_tls_resumed(1);
        }
        match agreed.alpn_protocol() {
            Some(b"h2") => slot.add_tls_alpn_h2(1),
            Some(_) => slot.add_tls_alpn_http1(1),
            None => {}
        }
        let protocol = agreed.protocol_version().map_or("", names::protocol);
        let suite = agreed.negotiated_cipher_suite();
        let cipher = suite.map_or("", |suite| names::cipher(suite.suite()));
        let asks_for_certificate = self.current.as_ref().is_some_and(|current| {
            current.server().client_certificates() != ClientCertificates::None
        });
        let client = agreed.peer_certificates().and_then(<[_]>::first);
        let client = client.map(|certificate| ClientCertificate {
            der: certificate.to_vec(),
            parsed: PeerCertificate::parse(certificate),
        });
        let alpn = agreed.alpn_protocol();
        let info = TlsInfo::new((protocol, cipher), alpn, asks_for_certificate, client);
        Arc::new(info)
    }

    /// A handshake has failed. The first of a series is logged at once, the others together.
    pub(super) fn note_failure(&mut self, peer: Peer, error: &HandshakeError, now: Instant) {
        self.slot.get().add_tls_failed(1);
        let peer = PeerText(peer);
        let what = format_args!("with ip={peer}: {error}");
        if self.failures.note(&what, now) {
            log::info!("TLS handshake failed {what}");
        }
    }

    /// Called a few times a second: are there new certificates?
    pub(super) fn refresh(&mut self) {
        match self.current.as_mut().map(CurrentServer::refresh) {
            None | Some(Refreshed::Unchanged) => {}
            Some(Refreshed::Replaced) => log::debug!("New connections use the new certificates."),
            Some(Refreshed::Failed(error)) => {
                log::error!("The new certificates cannot be used; keeping the old ones: {error}");
            }
        }
    }

    /// Log how many more failures a series had, when it is over or the worker stops.
    pub(super) fn end_series(&mut self, now: Instant, worker_stops: bool) {
        if let Some((more, last)) = self.failures.end(now, worker_stops) {
            let seconds = COALESCING.as_secs();
            log::info!("{more} more TLS handshakes failed within {seconds} s, the last {last}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::Scoreboard;

    fn plain() -> Handshakes {
        let scoreboard = Scoreboard::new(1, 1).expect("memory");
        Handshakes::new(None, WorkerSlot::new(Arc::new(scoreboard), 0))
    }

    #[test]
    fn an_iteration_makes_so_many_steps() {
        let mut handshakes = plain();
        let steps = (0..100).filter(|_| handshakes.take_step()).count();
        assert_eq!(steps, ITERATION_STEPS as usize);
        handshakes.renew();
        assert!(handshakes.take_step());
    }

    #[test]
    fn failures_are_counted_one_by_one() {
        let (mut handshakes, now) = (plain(), Instant::now());
        for _ in 0..3 {
            handshakes.note_failure(Peer::Unix, &HandshakeError::Ended, now);
        }
        assert_eq!(handshakes.slot.get().tls_failed(), 3);
    }
}
