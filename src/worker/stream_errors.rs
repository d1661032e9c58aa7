//! Streams of HTTP/2 that were reset for errors of their clients, for the log.

use std::time::Instant;

use super::describe::PeerText;
use super::failure_series::{COALESCING, FailureSeries};
use crate::pool::Peer;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct StreamErrors(FailureSeries);

impl StreamErrors {
    /// One more. The first of a series is logged at once, the others together.
    pub(super) fn note(&mut self, peer: Peer, why: &str, now: Instant) {
        let peer = PeerText(peer);
        let what = format_args!("for ip={peer}: {why}");
        if self.0.note(&what, now) {
            log::info!("HTTP/2 stream is reset {what}");
        }
    }

    /// Log how many more a series had, when it is over or the worker stops.
    pub(super) fn end_series(&mut self, now: Instant, worker_stops: bool) {
        if let Some((more, last)) = self.0.end(now, worker_stops) {
            let seconds = COALESCING.as_secs();
            log::info!("{more} more HTTP/2 streams were reset within {seconds} s, the last {last}");
        }
    }
}
