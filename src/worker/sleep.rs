//! How the event loop sleeps: for how long, and what it watches meanwhile.
//!
//! When jobs wait, the pool's threads may leave the loop asleep while they have more to run (`pool/replies.rs`), and a
//! thread that is awake is trusted to come back for the next job (`Pool::notify_one`). Both hold because the loop then
//! sleeps shortly and sees for itself whether the pool moves. It does so, too, while a generator yields piece after
//! piece: a write for each would cost more than the pieces.

use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::pool::{Reason, SleepMode};

use super::event_loop::EventLoop;
use super::siblings::{RELIEF_PERIOD, Siblings};

/// How long it sleeps when jobs wait and threads may leave it asleep (see `pool/replies.rs`).
const SHORT_SLEEP: Duration = Duration::from_micros(500);

/// With more work than this ahead the loop looks at nothing for a part of that time, and then at all that has come:
/// each wake-up takes the processor's caches from the application.
const MUCH_WORK: Duration = Duration::from_micros(500);
const DEAF_PART: u32 = 2;
const DEAF_SLEEP_MAX: Duration = Duration::from_millis(4);
/// Not so when jobs are briefer than what the loop itself does for them: then it had better keep up.
const BRIEF_JOB: Duration = Duration::from_micros(30);

/// The answer to a lone request is awaited for so long. It comes much sooner, so what counts is what the timer costs to
/// set, which is less when it is not the processor's next one.
const LONE_SLEEP: Duration = Duration::from_millis(2);

/// A pool of fast jobs must stand still for so long before its requests are handed to another worker: on a machine
/// that is busy with something else its threads may wait as long for a processor.
const FAST_POOL_PATIENCE: Duration = Duration::from_millis(25);

/// When the pool was last seen to move.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) taken: usize,
    /// For so long the loop has slept since then, or since it called a thread because the pool does not move. While it
    /// works itself, it may be what keeps the threads from their processor.
    pub(super) asleep: Duration,
    /// Since when it has not moved, whomever the loop called.
    pub(super) still_since: Instant,
}

impl EventLoop<'_> {
    /// Sleep until something happens, for a time that depends on what is known to be waiting.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        let jobs_wait = self.watch_pool();
        let lies_down = jobs_wait.then(Instant::now);
        let result = self.sleep(jobs_wait);
        self.services.dispatch.pool().unpark();
        if let Some(at) = lies_down {
            self.progress.asleep += at.elapsed();
        }
        match result {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn sleep(&mut self, jobs_wait: bool) -> io::Result<()> {
        let stream_is_quick = std::mem::take(&mut self.stream_is_quick);
        let timeout = if self.connections.has_to_resume()
            || self.services.dispatch.has_answered()
            || self.more_messages
        {
            Duration::ZERO
        } else if jobs_wait
            && (!self.short_sleep_was_idle || self.services.dispatch.pool().has_parked_threads())
            || stream_is_quick && !self.short_sleep_was_idle
        {
            self.short_sleep();
            if jobs_wait && !self.skipped_poll && self.services.dispatch.pool().has_replies() {
                // There is something to do already; the poll set has its turn in the next round.
                self.skipped_poll = true;
                self.events.clear();
                return Ok(());
            }
            Duration::ZERO
        } else {
            self.short_sleep_was_idle = false;
            self.services.accounting.flush_log();
            if self.services.dispatch.pool().park(SleepMode::UntilWoken) {
                self.sleep_time(jobs_wait)
            } else {
                Duration::ZERO
            }
        };
        self.skipped_poll = false;
        self.poll.poll(&mut self.events, Some(timeout))
    }

    /// Whether jobs wait. When they have waited for a short sleep's time and none was taken, the threads that are
    /// awake are all held up in the application: another one is needed.
    fn watch_pool(&mut self) -> bool {
        let pool = self.services.dispatch.pool();
        let taken = pool.jobs_taken();
        let jobs_wait = pool.queue_length() > 0;
        if !jobs_wait || taken != self.progress.taken {
            self.progress = Progress {
                taken,
                asleep: Duration::ZERO,
                still_since: self.services.clock.now(),
            };
        } else if self.progress.asleep >= SHORT_SLEEP {
            pool.notify_one(Reason::Stall);
            self.progress.asleep = Duration::ZERO;
            let still = self
                .services
                .clock
                .now()
                .saturating_duration_since(self.progress.still_since);
            // Threads whose jobs last microseconds are waiting for a processor, not for the application.
            if !pool.has_parked_threads() && (!pool.is_fast() || still >= FAST_POOL_PATIENCE) {
                self.relieve();
            }
        }
        jobs_wait
    }

    fn short_sleep(&mut self) {
        if let Some(time) = self.deaf_time() {
            if self.services.dispatch.pool().park(SleepMode::Batching) {
                thread::park_timeout(time);
                self.short_sleep_was_idle = !self.services.dispatch.pool().has_replies();
            }
            return;
        }
        if self.services.dispatch.pool().park(SleepMode::Timed) {
            let mut descriptors = [PollFd::new(self.poll.registry().as_fd(), PollFlags::POLLIN)];
            let time = TimeSpec::from_duration(SHORT_SLEEP);
            // An interrupted sleep is a short one.
            let ready = ppoll(&mut descriptors, Some(time), None).unwrap_or(0);
            self.short_sleep_was_idle = ready == 0 && !self.services.dispatch.pool().has_replies();
        }
    }

    /// For how long the loop may look at nothing: fast jobs wait, and either so many of them that who comes now waits
    /// longer anyway, or one, whose answer is there in a moment and wakes the loop.
    fn deaf_time(&self) -> Option<Duration> {
        let pool = self.services.dispatch.pool();
        if !pool.is_fast() {
            return None;
        }
        let (ahead, jobs) = (pool.queued_work(), pool.queue_length());
        if ahead >= MUCH_WORK && ahead >= BRIEF_JOB * u32::try_from(jobs).unwrap_or(u32::MAX) {
            return Some((ahead / DEAF_PART).min(DEAF_SLEEP_MAX));
        }
        (jobs == 1).then_some(LONE_SLEEP)
    }

    fn sleep_time(&mut self, jobs_wait: bool) -> Duration {
        let now = Instant::now();
        let services = &mut self.services;
        let mut time = services
            .deadlines
            .next_in(now)
            .unwrap_or(self.heartbeat.period())
            .min(self.heartbeat.period());
        if jobs_wait && self.siblings.as_ref().is_some_and(Siblings::may_relieve) {
            time = time.min(RELIEF_PERIOD);
        }
        let checks = [
            self.listeners.next_check(),
            services.dispatch.next_overdue(),
            self.timed_out.next_check(),
            services.drops.next_check(),
            services.shutdown.next_check(),
        ];
        for at in checks.into_iter().flatten() {
            time = time.min(at.saturating_duration_since(now));
        }
        // The poll set counts whole milliseconds; waking one too early would only make it spin until the time.
        time + Duration::from_micros(999)
    }
}
