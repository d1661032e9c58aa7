//! How the event loop sleeps: it measures, asks the policy (`pool/policy.rs`), and carries out what is decided.
//!
//! When jobs wait, the pool's threads may leave the loop asleep while they have more to run (`pool/loop_park.rs`), and
//! a thread that is awake is trusted to come back for the next job (`policy::wake`). Both hold because the loop then
//! sleeps briefly and sees for itself whether the pool moves.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::pool::policy::{self, BriefSleep, LoopSleep, LoopView};
use crate::pool::{Reason, SleepMode};

use super::accept::Accepting;
use super::event_loop::EventLoop;
use super::siblings::Siblings;

impl EventLoop<'_> {
    /// Sleep until something happens, for a time that depends on what is known to be waiting.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        let jobs_wait = self.watch_pool();
        let asleep_since = jobs_wait.then(Instant::now);
        let result = self.sleep(jobs_wait);
        self.core.pool.unpark();
        if let Some(since) = asleep_since {
            self.stalls.note_sleep(since.elapsed());
        }
        match result {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn sleep(&mut self, jobs_wait: bool) -> io::Result<()> {
        let view = LoopView {
            has_work: !self.core.again.is_empty()
                || self.core.overload.has_answers()
                || self.more_messages,
            jobs_wait,
            brief_sleep_was_idle: self.brief_sleep_was_idle,
            stream_is_quick: std::mem::take(&mut self.stream_is_quick),
        };
        let timeout = match policy::loop_sleep(view, || self.core.pool.has_parked_threads()) {
            LoopSleep::No => Duration::ZERO,
            LoopSleep::Brief => {
                self.sleep_briefly();
                if jobs_wait && !self.skipped_poll && self.core.pool.has_replies() {
                    // There is something to do already; the poll set has its turn in the next round.
                    self.skipped_poll = true;
                    self.events.clear();
                    return Ok(());
                }
                Duration::ZERO
            }
            LoopSleep::UntilWoken => {
                self.brief_sleep_was_idle = false;
                if let Some(log) = &mut self.core.access_log {
                    log.flush();
                }
                if self.core.pool.park(SleepMode::UntilWoken) {
                    self.poll_timeout(jobs_wait)
                } else {
                    Duration::ZERO
                }
            }
        };
        self.skipped_poll = false;
        self.poll.poll(&mut self.events, Some(timeout))
    }

    /// Whether jobs wait. In a stall another thread is notified, or the jobs are offloaded to peers.
    fn watch_pool(&mut self) -> bool {
        let pool = &self.core.pool;
        let jobs_wait = pool.queue_length() > 0;
        let stall = self
            .stalls
            .look(jobs_wait, pool.jobs_taken(), self.core.now);
        if let Some(stall) = stall {
            pool.notify_one(Reason::Stall);
            if policy::offloads(stall, pool.has_parked_threads(), pool.is_fast()) {
                self.relieve();
            }
        }
        jobs_wait
    }

    fn sleep_briefly(&mut self) {
        match self.core.pool.brief_sleep() {
            BriefSleep::Batching(time) => {
                if self.core.pool.park(SleepMode::Batching) {
                    self.core.pool.sleep_as_thread(time);
                    self.brief_sleep_was_idle = !self.core.pool.has_replies();
                }
            }
            BriefSleep::Timed(time) => {
                if self.core.pool.park(SleepMode::Timed) {
                    let mut descriptors =
                        [PollFd::new(self.poll.registry().as_fd(), PollFlags::POLLIN)];
                    // An interrupted sleep is a short one.
                    let ready = ppoll(&mut descriptors, Some(TimeSpec::from_duration(time)), None)
                        .unwrap_or(0);
                    self.brief_sleep_was_idle = ready == 0 && !self.core.pool.has_replies();
                }
            }
        }
    }

    /// How long the poll set may sleep.
    fn poll_timeout(&mut self, jobs_wait: bool) -> Duration {
        let now = Instant::now();
        let deadline = self.core.deadlines.next_in(now);
        let accepting_again = match self.accepting {
            Accepting::PausedUntil(at) => Some(at),
            _ => None,
        };
        policy::poll_timeout(
            now,
            deadline.map_or(self.sleep_max, |time| time.min(self.sleep_max)),
            jobs_wait && self.siblings.as_ref().is_some_and(Siblings::may_relieve),
            [
                accepting_again,
                self.core.overload.next_due(&self.core.pool),
                self.core
                    .overruns
                    .as_ref()
                    .map(|overruns| overruns.next_look()),
                self.core.released.next_look(),
                self.phase.next_look(),
            ],
        )
    }
}
