//! The TLS handshakes of all connections: with which settings they begin, how many steps of them one iteration makes, and
//! which of them have failed, for the log.
//!
//! A step costs up to half a millisecond (a signature with an RSA key), so that many clients that come together would keep
//! all others waiting. Steps over the bound wait for the next iteration.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::pool::Peer;

use super::describe::PeerText;
use super::transport::HandshakeError;

/// This many steps of handshakes are made in one iteration.
const ITERATION_STEPS: u32 = 8;
/// Failures within this time of the first are one more line in the log.
const COALESCING: Duration = Duration::from_secs(5);

/// Failures in close succession, of which the first is logged.
#[derive(Debug)]
struct Series {
    began: Instant,
    more: u64,
    /// The last of them, for the log.
    last: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Handshakes {
    /// `None`: the worker speaks plain HTTP.
    config: Option<Arc<ServerConfig>>,
    steps_left: u32,
    failures: Option<Series>,
}

impl Handshakes {
    pub(super) fn new(config: Option<Arc<ServerConfig>>) -> Self {
        Self {
            config,
            steps_left: ITERATION_STEPS,
            failures: None,
        }
    }

    /// Whether connections begin with a handshake.
    pub(super) fn are_expected(&self) -> bool {
        self.config.is_some()
    }

    /// The settings of a handshake that begins now.
    pub(super) fn config(&self) -> Option<Arc<ServerConfig>> {
        self.config.clone()
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

    /// A handshake has failed. The first of a series is logged at once, the others together.
    pub(super) fn note_failure(&mut self, peer: Peer, error: &HandshakeError, now: Instant) {
        let what = format!("with ip={}: {error}", PeerText(peer));
        match &mut self.failures {
            Some(series) => {
                series.more += 1;
                series.last = what;
            }
            None => {
                log::info!("TLS handshake failed {what}");
                self.failures = Some(Series {
                    began: now,
                    more: 0,
                    last: String::new(),
                });
            }
        }
    }

    /// Called a few times a second.
    pub(super) fn on_heartbeat(&mut self, now: Instant) {
        let is_over = |series: &mut Series| now.duration_since(series.began) >= COALESCING;
        if let Some(Series { more, last, .. }) = self.failures.take_if(is_over)
            && more > 0
        {
            log::info!(
                "{more} more TLS handshakes failed within {} s, the last {last}",
                COALESCING.as_secs()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iteration_makes_so_many_steps() {
        let mut handshakes = Handshakes::new(None);
        let steps = (0..100).filter(|_| handshakes.take_step()).count();
        assert_eq!(steps, ITERATION_STEPS as usize);
        handshakes.renew();
        assert!(handshakes.take_step());
    }

    #[test]
    fn failures_after_the_first_wait_for_the_end_of_their_series() {
        let (mut handshakes, now) = (Handshakes::new(None), Instant::now());
        for _ in 0..3 {
            handshakes.note_failure(Peer::Unix, &HandshakeError::Ended, now);
        }
        assert_eq!(
            handshakes.failures.as_ref().map(|series| series.more),
            Some(2)
        );
        handshakes.on_heartbeat(now + COALESCING / 2);
        assert!(handshakes.failures.is_some());
        handshakes.on_heartbeat(now + COALESCING);
        assert!(handshakes.failures.is_none());
    }
}
