//! The end: close the listeners, let the workers finish, kill what does not.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::policy::STOP_MARGIN;
use super::workers::Stage;
use super::{Arbiter, Hook};
use crate::net::BindAddress;
use crate::scoreboard::monotonic_ms;

impl Arbiter<'_> {
    /// Stops the workers and says goodbye. Returns the exit code.
    pub(super) fn halt(&mut self, graceful: bool, reason: Option<&str>, code: i32) -> i32 {
        self.stop(graceful);
        if code == 0 {
            log::info!("Shutting down: Master");
        } else {
            log::error!("Shutting down: Master");
        }
        if let Some(reason) = reason {
            log::error!("Reason: {reason}");
        }
        self.unlink_files();
        if let Err(reason) = self.call_hook(Hook::OnExit) {
            log::error!("{reason}");
            return super::EXIT_UNHANDLED;
        }
        code
    }

    pub(super) fn stop(&mut self, graceful: bool) {
        self.stopping = true;
        self.close_listeners();
        let mut signal = if graceful {
            Signal::SIGTERM
        } else {
            Signal::SIGQUIT
        };
        self.retire_all(signal);
        // A quick stop is not for requests to finish in, only for exit handlers to run.
        let patience = if graceful {
            self.config.graceful_timeout + STOP_MARGIN
        } else {
            self.config.graceful_timeout.min(QUICK_STOP)
        };
        let mut deadline = monotonic_ms() + millis(patience);
        self.bury_quietly();
        while !self.workers.is_empty() && monotonic_ms() < deadline {
            let arrived = self.wait(POLL_MS);
            let quick = arrived
                .iter()
                .any(|signal| matches!(signal, Signal::SIGINT | Signal::SIGQUIT));
            if quick && signal == Signal::SIGTERM {
                log::info!("Quick shutdown requested");
                signal = Signal::SIGQUIT;
                self.retire_all(signal);
                deadline = deadline.min(monotonic_ms() + QUICK_MS);
            }
            self.bury_quietly();
        }
        self.kill_rest();
    }

    /// Only the first call has something to do. Socket files go; what was handed to us stays.
    fn close_listeners(&mut self) {
        if let Some(rollout) = self.rollout.take() {
            self.listeners.extend(rollout.into_listeners());
        }
        for bound in self.listeners.drain(..) {
            if !matches!(bound.address, BindAddress::Fd(_)) {
                bound.unlink();
            }
        }
    }

    pub(super) fn unlink_files(&mut self) {
        self.close_listeners();
        if let Some(admin) = self.admin.take() {
            admin.unlink();
        }
        if let Some(pidfile) = self.pidfile.take() {
            pidfile.unlink();
        }
    }

    fn retire_all(&mut self, signal: Signal) {
        let now = monotonic_ms();
        for worker in self.workers.iter_mut() {
            worker.send(signal);
            worker.enter(Stage::Retiring, now);
        }
    }

    fn kill_rest(&mut self) {
        if self.workers.is_empty() {
            return;
        }
        log::warn!(
            "{} worker(s) did not stop in time and are killed",
            self.workers.len()
        );
        let now = monotonic_ms();
        for worker in self.workers.iter_mut() {
            for request in worker.slot().running() {
                log::warn!(
                    "Worker (pid:{}): cut after {} ms: {} {}",
                    worker.pid,
                    now.saturating_sub(request.since_ms),
                    request.method.escape_ascii(),
                    request.path.escape_ascii()
                );
            }
            worker.send(Signal::SIGKILL);
            worker.enter(Stage::Killed, now);
        }
        let deadline = now + QUICK_MS;
        while !self.workers.is_empty() && monotonic_ms() < deadline {
            self.wait(POLL_MS);
            self.bury_quietly();
        }
    }

    /// Nothing that a dying worker brings about may keep the server from stopping.
    fn bury_quietly(&mut self) {
        while let Err(super::Leave::Failed(reason)) = self.reap() {
            log::error!("{reason}");
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

/// A signal ends a wait at once; this only bounds the time to notice a deadline.
const POLL_MS: u64 = 100;
const QUICK_MS: u64 = 2000;
const QUICK_STOP: Duration = Duration::from_secs(5);
