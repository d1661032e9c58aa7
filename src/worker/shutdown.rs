//! How a worker stops: it drains, waits for its pool threads, and is over. The only place that knows whether the worker
//! drains; connections ask here.

use std::time::{Duration, Instant};

/// Why a request was not answered.
const CUT: &str = "cut by the stop";
const CLIENT_GONE: &str = "client gone";

/// What `reason` is of a request that was not whole.
pub(super) fn reason_of_half(reason: &'static str) -> &'static str {
    match reason {
        CLIENT_GONE => "client gone before the end of the request",
        other => other,
    }
}

/// Threads that are in the middle of a request get this long to end it at a quick stop.
const QUICK_STOP_GRACE: Duration = Duration::from_millis(100);

/// How far the worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// No new connections; requests in flight are finished until then.
    Draining {
        until: Instant,
    },
    /// No connections any more; the threads may leave until then.
    Leaving {
        until: Instant,
    },
    Stopped,
}

/// What the event loop has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// All requests are answered: let the threads leave.
    Leave,
    /// `graceful_timeout` is over: close what is open, then let the threads leave.
    Cut,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shutdown {
    phase: Phase,
    graceful_timeout: Duration,
    /// The worker has closed connections that waited for an answer.
    has_cut: bool,
    exit_code: i32,
}

impl Shutdown {
    pub(super) fn new(graceful_timeout: Duration) -> Self {
        Self {
            phase: Phase::Serving,
            graceful_timeout,
            has_cut: false,
            exit_code: 0,
        }
    }

    pub(super) fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Every answer says close.
    pub(super) fn is_draining(&self) -> bool {
        !self.is_serving()
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Stopped
    }

    pub(super) fn exit_code(&self) -> i32 {
        self.exit_code
    }

    /// Connections are closed with what is under way.
    pub(super) fn has_cut(&self) -> bool {
        self.has_cut
    }

    /// Why a connection is gone whose request was not answered.
    pub(super) fn reason_of_gone(&self) -> &'static str {
        if self.has_cut { CUT } else { CLIENT_GONE }
    }

    /// Begin to stop gracefully. Returns false when the worker stops already.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        if !self.is_serving() {
            return false;
        }
        let until = now + self.graceful_timeout;
        self.phase = Phase::Draining { until };
        true
    }

    /// Stop at once, with this exit code: the connections are closed next, then the threads may leave.
    pub(super) fn stop_now(&mut self, exit_code: i32, now: Instant) {
        self.exit_code = exit_code;
        self.cut(now);
    }

    /// Connections with a request under way are closed next.
    pub(super) fn cut(&mut self, now: Instant) {
        self.has_cut = true;
        let until = now + QUICK_STOP_GRACE;
        self.phase = Phase::Leaving { until };
    }

    /// What is next while the worker drains, when it has `connections`. What came until `known_until` is handled.
    pub(super) fn advance(
        &mut self,
        connections: usize,
        now: Instant,
        known_until: Instant,
    ) -> Next {
        let Phase::Draining { until } = self.phase else {
            return Next::Nothing;
        };
        if connections == 0 {
            let until = until.max(now + QUICK_STOP_GRACE);
            self.phase = Phase::Leaving { until };
            return Next::Leave;
        }
        if until > known_until {
            return Next::Nothing;
        }
        self.cut(now);
        Next::Cut
    }

    /// The worker stops when its last thread has left, or in time.
    pub(super) fn end(&mut self, threads: usize, now: Instant) {
        if let Phase::Leaving { until } = self.phase
            && (threads == 0 || until <= now)
        {
            self.phase = Phase::Stopped;
        }
    }

    /// When the phase must be checked again if nothing else happens.
    pub(super) fn next_check(&self) -> Option<Instant> {
        match self.phase {
            Phase::Draining { until } | Phase::Leaving { until } => Some(until),
            Phase::Serving | Phase::Stopped => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACEFUL: Duration = Duration::from_secs(30);

    #[test]
    fn a_worker_without_connections_leaves_and_waits_for_its_threads() {
        let (mut shutdown, now) = (Shutdown::new(GRACEFUL), Instant::now());
        assert_eq!(shutdown.advance(0, now, now), Next::Nothing);
        assert!(shutdown.begin(now) && !shutdown.begin(now));
        assert!(shutdown.is_draining());
        assert_eq!(shutdown.advance(1, now, now), Next::Nothing);
        assert_eq!(shutdown.advance(0, now, now), Next::Leave);
        assert_eq!(shutdown.next_check(), Some(now + GRACEFUL));
        shutdown.end(1, now);
        assert!(!shutdown.is_over());
        shutdown.end(0, now);
        assert!(shutdown.is_over());
        assert_eq!(shutdown.reason_of_gone(), "client gone");
    }

    #[test]
    fn what_is_open_at_the_end_of_the_grace_is_cut() {
        let (mut shutdown, now) = (Shutdown::new(GRACEFUL), Instant::now());
        shutdown.begin(now);
        let over = now + GRACEFUL;
        assert_eq!(shutdown.advance(1, over, now), Next::Nothing);
        assert_eq!(shutdown.advance(1, over, over), Next::Cut);
        assert_eq!(shutdown.reason_of_gone(), "cut by the stop");
        shutdown.end(1, now + GRACEFUL + QUICK_STOP_GRACE);
        assert!(shutdown.is_over() && shutdown.exit_code() == 0);
    }

    #[test]
    fn a_quick_stop_gives_threads_a_moment() {
        let (mut shutdown, now) = (Shutdown::new(GRACEFUL), Instant::now());
        shutdown.stop_now(1, now);
        assert_eq!(shutdown.advance(0, now, now), Next::Nothing);
        assert_eq!(shutdown.next_check(), Some(now + QUICK_STOP_GRACE));
        assert_eq!(shutdown.exit_code(), 1);
    }
}
