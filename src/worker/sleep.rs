//! How the event loop sleeps: it measures, asks the policy (`pool/policy.rs`), and carries out what is decided.
//!
//! When jobs wait, the pool's threads may leave the loop asleep while they have more to run (`pool/loop_park.rs`), and
//! a thread that is awake is trusted to come back for the next job (`policy::wake`). Both hold because the loop then
//! sleeps briefly and sees for itself whether the pool moves.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::pool::balance;
use crate::pool::policy::{self, BriefSleep, LoopSleep, LoopView, StallDetector};
use crate::pool::{Pool, SleepMode};

use super::requests::Requests;

/// How many events are taken from the poll set in one iteration at most.
const ITERATION_EVENTS: usize = 512;
/// After this many looks at the poll set that may not have shown everything, the next counts as one that has: the poll set shows
/// what came first first, and deadlines must not wait for ever.
const PARTIAL_LOOKS_MAX: u32 = 64;
/// An iteration that takes longer, or a sleep that lasts longer than it should by this much, is a pause: the process had no
/// processor. A busy machine takes it away for some 10 ms at a time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// A stream whose pieces come within this of one another is awaited with brief sleeps.
const QUICK_STREAM: Duration = Duration::from_millis(1);

/// The loop's poll set, and what its last sleeps have shown.
#[derive(Debug)]
pub(super) struct Sleeper {
    poll: Poll,
    events: Events,
    stalls: StallDetector,
    /// The last brief sleep brought nothing, so the next one is long.
    brief_sleep_was_idle: bool,
    /// The last sleep found replies and did not look at the poll set.
    skipped_poll: bool,
    stream: Stream,
    /// All that had happened to the sockets by then has been among the events that were taken.
    known_until: Instant,
    /// How many looks at the poll set since then may not have shown everything.
    partial_looks: u32,
    /// When the last sleep ended.
    awoke_at: Instant,
    /// How long the poll set was to wait.
    asked: Duration,
}

/// How a sleep ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awoken {
    /// When it began.
    pub(super) since: Instant,
    pub(super) at: Instant,
    /// The events are all that had happened to the sockets by then.
    pub(super) known_until: Instant,
    /// How long the loop had no processor, as far as it can tell, since it awoke before.
    pub(super) pause: Duration,
}

/// The pieces of streamed responses.
#[derive(Clone, Copy, Debug)]
enum Stream {
    None,
    /// Pieces were written at this time.
    WrittenAt(Instant),
    /// They followed others so closely that the next are waited for.
    Quick(Instant),
}

/// What the pool shows before a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    /// Jobs wait in the queue.
    pub(super) jobs_wait: bool,
    /// They wait for threads that stand still: peer workers may have them.
    pub(super) is_stuck: bool,
}

impl Sleeper {
    pub(super) fn new(poll: Poll, now: Instant) -> Self {
        Self {
            poll,
            events: Events::with_capacity(ITERATION_EVENTS),
            stalls: StallDetector::new(now),
            brief_sleep_was_idle: false,
            skipped_poll: false,
            stream: Stream::None,
            known_until: now,
            partial_looks: 0,
            awoke_at: now,
            asked: Duration::ZERO,
        }
    }

    /// Take the events of the last sleep. They are to be given back with [`Sleeper::give_back`].
    pub(super) fn take_events(&mut self) -> Events {
        std::mem::replace(&mut self.events, Events::with_capacity(0))
    }

    pub(super) fn give_back(&mut self, events: Events) {
        self.events = events;
    }

    /// Pieces of streamed responses were written: more may follow at once.
    pub(super) fn note_stream(&mut self, now: Instant) {
        self.stream = match self.stream {
            Stream::WrittenAt(last) | Stream::Quick(last)
                if now.saturating_duration_since(last) < QUICK_STREAM =>
            {
                Stream::Quick(now)
            }
            _ => Stream::WrittenAt(now),
        };
    }

    fn take_quick_stream(&mut self) -> bool {
        let Stream::Quick(last) = self.stream else {
            return false;
        };
        self.stream = Stream::WrittenAt(last);
        true
    }

    /// Check the pool before a sleep. In a stall another thread is notified.
    pub(super) fn watch(&mut self, pool: &Pool, now: Instant) -> Watched {
        let jobs_wait = pool.queue_length() > 0;
        let stall = self.stalls.look(jobs_wait, pool.jobs_taken(), now);
        let is_stuck = stall.is_some_and(|stall| {
            pool.notify_stall(stall, now);
            balance::offloads(stall, pool.has_parked_threads(), pool.is_fast())
        });
        Watched {
            jobs_wait,
            is_stuck,
        }
    }

    /// Sleep until something happens, for a time that depends on what is known to be waiting. `has_work`: the loop has
    /// more to do itself. `timeout` is how long a sleep that nothing ends may last; it is asked for such a sleep only.
    ///
    /// # Errors
    /// The poll set failed.
    pub(super) fn sleep(
        &mut self,
        has_work: bool,
        jobs_wait: bool,
        requests: &mut Requests,
        timeout: impl FnOnce(&mut Requests) -> Duration,
    ) -> io::Result<Awoken> {
        let since = Instant::now();
        let result = self.choose_and_sleep(has_work, jobs_wait, requests, timeout);
        requests.dispatch.pool().unpark();
        let now = Instant::now();
        if jobs_wait {
            self.stalls.note_sleep(now.saturating_duration_since(since));
        }
        match result {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            // What came while a signal stopped the process is not among the events.
            result => self.note_look(since, result.is_ok() && !self.skipped_poll),
        }
        let pause = pause(self.awoke_at, since, now, self.asked);
        self.awoke_at = now;
        Ok(Awoken {
            since,
            at: now,
            known_until: self.known_until,
            pause,
        })
    }

    /// The poll set was looked at after `before`, unless `has_looked` says that it was not. A look shows the events that its buffer
    /// has room for.
    fn note_look(&mut self, before: Instant, has_looked: bool) {
        let is_whole = has_looked && self.events.iter().count() < ITERATION_EVENTS;
        if is_whole || self.partial_looks >= PARTIAL_LOOKS_MAX {
            self.known_until = before;
            self.partial_looks = 0;
        } else {
            self.partial_looks += 1;
        }
    }

    fn choose_and_sleep(
        &mut self,
        has_work: bool,
        jobs_wait: bool,
        requests: &mut Requests,
        timeout: impl FnOnce(&mut Requests) -> Duration,
    ) -> io::Result<()> {
        let view = LoopView {
            has_work,
            jobs_wait,
            brief_sleep_was_idle: self.brief_sleep_was_idle,
            stream_is_quick: self.take_quick_stream(),
        };
        let pool = requests.dispatch.pool();
        if pool.is_loop_delegated() && !self.skipped_poll && pool.has_replies() {
            // The thread that runs the loop has just answered a request: the poll set is looked at in the next iteration.
            self.skipped_poll = true;
            self.events.clear();
            return Ok(());
        }
        let time = match policy::loop_sleep(view, || pool.has_parked_threads()) {
            LoopSleep::No => Duration::ZERO,
            LoopSleep::Brief => {
                self.sleep_briefly(pool);
                if jobs_wait && !self.skipped_poll && pool.has_replies() {
                    // There is something to do already; the poll set is looked at in the next iteration.
                    self.skipped_poll = true;
                    self.events.clear();
                    return Ok(());
                }
                Duration::ZERO
            }
            LoopSleep::UntilWoken => {
                self.brief_sleep_was_idle = false;
                requests.accounting.flush_log();
                match pool.park(SleepMode::UntilWoken) {
                    true => timeout(requests),
                    false => Duration::ZERO,
                }
            }
        };
        self.skipped_poll = false;
        self.asked = time;
        self.poll.poll(&mut self.events, Some(time))
    }

    fn sleep_briefly(&mut self, pool: &Pool) {
        match pool.brief_sleep() {
            BriefSleep::Batching(time) => {
                if pool.park(SleepMode::Batching) {
                    pool.sleep_as_thread(time);
                    self.brief_sleep_was_idle = !pool.has_replies();
                }
            }
            BriefSleep::Timed(time) => {
                if pool.park(SleepMode::Timed) {
                    let mut descriptors =
                        [PollFd::new(self.poll.registry().as_fd(), PollFlags::POLLIN)];
                    // An interrupted sleep is a short one.
                    let ready = ppoll(&mut descriptors, Some(TimeSpec::from_duration(time)), None)
                        .unwrap_or(0);
                    self.brief_sleep_was_idle = ready == 0 && !pool.has_replies();
                }
            }
        }
    }
}

/// How long the process had no processor in an iteration, which began when it awoke, and in the sleep after it, which was to last
/// for `asked`. Nothing shows when in a sleep that was: none of it counts.
fn pause(awoke_at: Instant, asleep_since: Instant, now: Instant, asked: Duration) -> Duration {
    if now.saturating_duration_since(awoke_at) < PAUSE_MIN {
        return Duration::ZERO;
    }
    let iteration = asleep_since.saturating_duration_since(awoke_at);
    let sleep = now.saturating_duration_since(asleep_since);
    let is_late = sleep.saturating_sub(asked) >= PAUSE_MIN;
    let in_iteration = Some(iteration).filter(|time| *time >= PAUSE_MIN);
    let in_sleep = Some(sleep).filter(|_| is_late);
    in_iteration.unwrap_or_default() + in_sleep.unwrap_or_default()
}

#[cfg(test)]
impl Sleeper {
    /// Collect the events that there are.
    pub(super) fn poll_at_once(&mut self) -> io::Result<()> {
        self.poll.poll(&mut self.events, Some(Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pool::Job;
    use crate::worker::requests::tests::for_tests;

    fn sleeper() -> (Sleeper, Requests, Instant) {
        let (requests, _) = for_tests();
        let now = requests.clock.now();
        (Sleeper::new(Poll::new().unwrap(), now), requests, now)
    }

    #[test]
    fn a_stream_is_quick_while_its_pieces_follow_closely() {
        let (mut sleeper, _, now) = sleeper();
        sleeper.note_stream(now);
        assert!(!sleeper.take_quick_stream());
        sleeper.note_stream(now + QUICK_STREAM / 2);
        assert!(sleeper.take_quick_stream() && !sleeper.take_quick_stream());
        sleeper.note_stream(now + QUICK_STREAM * 2);
        assert!(!sleeper.take_quick_stream());
    }

    #[test]
    fn a_pause_is_an_iteration_or_a_sleep_that_takes_too_long() {
        let now = Instant::now();
        let [brief, long] = [PAUSE_MIN / 2, PAUSE_MIN * 20];
        let seen =
            |iteration, sleep, asked| pause(now, now + iteration, now + iteration + sleep, asked);
        assert_eq!(seen(brief, long, long), Duration::ZERO);
        assert_eq!(
            seen(brief, brief, long),
            Duration::ZERO,
            "something happened"
        );
        assert_eq!(seen(long, brief, brief), long);
        assert_eq!(seen(brief, long, brief), long);
        assert_eq!(seen(long, long, Duration::ZERO), long * 2);
    }

    #[test]
    fn a_loop_with_work_does_not_ask_how_long_it_may_sleep() {
        let (mut sleeper, mut requests, _) = sleeper();
        let timeout = |_: &mut Requests| panic!("it does not sleep");
        sleeper.sleep(true, false, &mut requests, timeout).unwrap();
        assert_eq!(sleeper.take_events().iter().count(), 0);
    }

    #[test]
    fn a_sleep_that_shows_nothing_tells_nothing_of_the_sockets() {
        let (mut sleeper, _, now) = sleeper();
        let [first, second] = [1, 2].map(|seconds| now + Duration::from_secs(seconds));
        sleeper.note_look(first, true);
        assert_eq!(sleeper.known_until, first);
        for _ in 0..PARTIAL_LOOKS_MAX {
            sleeper.note_look(second, false);
            assert_eq!(sleeper.known_until, first);
        }
        sleeper.note_look(second, false);
        assert_eq!(
            sleeper.known_until, second,
            "deadlines do not wait for ever"
        );
    }

    #[test]
    fn a_pool_that_takes_nothing_while_the_loop_sleeps_is_stuck() {
        let (mut sleeper, requests, now) = sleeper();
        let pool = requests.dispatch.pool();
        let no_stall = sleeper.watch(pool, now);
        assert!(!no_stall.jobs_wait && !no_stall.is_stuck);
        pool.push(Box::new(Job::new(now))).unwrap();
        assert!(sleeper.watch(pool, now).jobs_wait);
        sleeper.stalls.note_sleep(Duration::from_millis(1));
        assert!(sleeper.watch(pool, now).is_stuck);
    }
}
