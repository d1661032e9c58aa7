//! The end: close the listeners, let the workers finish, kill what does not, and say what became of the requests.
//!
//! With `stop_delay` the first TERM only starts that clock. Until it is over everything goes on as before, accepting,
//! respawning and all, but the workers' slots say that the server is not ready for more, so that health checks can.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::policy::STOP_MARGIN;
use super::workers::{Stage, WorkerHandle};
use super::{Arbiter, Hook, Leave};
use crate::scoreboard::{Running, monotonic_ms};

/// What became of all requests, summed up as workers are buried.
#[derive(Debug, Default)]
pub(super) struct Tally {
    served: u64,
    refused: u64,
    cut: u64,
}

impl Tally {
    /// `running` is what its threads were in when it died.
    pub(super) fn count(&mut self, worker: &WorkerHandle, running: &[Running]) {
        let slot = worker.slot();
        self.served += slot.requests().saturating_sub(slot.refused());
        self.refused += slot.refused();
        // One that closed its connections itself has counted them, with those that were still running.
        self.cut += slot.cut().max(running.len() as u64);
    }
}

impl Arbiter<'_> {
    /// TERM. A second one cuts the delay.
    pub(super) fn begin_stop(&mut self) -> Result<(), Leave> {
        let delay = self.config.lifecycle.stop_delay;
        if delay.is_zero() || self.stops_at.is_some() {
            return Err(Leave::Stop { graceful: true });
        }
        self.stops_at = Some(monotonic_ms() + millis(delay));
        self.notify_stopping();
        for worker in self.workers.iter() {
            worker.slot().announce_stop();
        }
        log::info!(
            "Stopping in {} s; until then requests are served.",
            delay.as_secs()
        );
        Ok(())
    }

    /// Stops the workers and says goodbye. Returns the exit code.
    pub(super) fn halt(&mut self, graceful: bool, reason: Option<&str>, code: i32) -> i32 {
        self.stop(graceful);
        let Tally {
            served,
            refused,
            cut,
        } = self.tally;
        log::info!("Requests: {served} served, {refused} refused, {cut} cut");
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
        self.notify_stopping();
        self.close_listeners();
        self.dismiss_templates(|_| true);
        let mut signal = if graceful {
            Signal::SIGTERM
        } else {
            Signal::SIGQUIT
        };
        self.retire_all(signal);
        // A quick stop is not for requests to finish in, only for exit handlers to run.
        let patience = if graceful {
            self.config.workers.graceful_timeout + STOP_MARGIN
        } else {
            self.config.workers.graceful_timeout.min(QUICK_STOP)
        };
        let mut deadline = monotonic_ms() + millis(patience);
        self.bury_quietly();
        while !(self.workers.is_empty() && self.templates.is_empty()) && monotonic_ms() < deadline {
            let arrived = self.wait(POLL_MS);
            self.hear();
            let quick = arrived
                .iter()
                .any(|signal| matches!(signal, Signal::SIGINT | Signal::SIGQUIT));
            if arrived.contains(&Signal::SIGUSR1) {
                self.host.reopen_logs();
                self.workers.send_all(Signal::SIGUSR1);
            }
            // A second TERM is none: supervisors send it to the master and to its group, so it comes twice.
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

    pub(super) fn unlink_files(&mut self) {
        self.close_listeners();
        self.control.close();
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
            worker.send(Signal::SIGKILL);
            worker.enter(Stage::Killed, now);
        }
        let deadline = now + QUICK_MS;
        while !self.workers.is_empty() && monotonic_ms() < deadline {
            self.wait(POLL_MS);
            self.hear();
            self.bury_quietly();
        }
    }

    /// Nothing that a dying worker brings about may keep the server from stopping.
    fn bury_quietly(&mut self) {
        // Whoever waits for the stop can ask what it waits for.
        if let Err(super::Leave::Failed(reason)) = self.serve_control() {
            log::error!("{reason}");
        }
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
