//! What the arbiter decides, as pure functions: whom to kill, whom to start, whom to retire, when to give up.
//!
//! Nothing here forks, signals or reads a clock, so every rule is a unit test. Times are milliseconds of
//! the scoreboard's clock.

use std::time::Duration;

use super::workers::Stage;

/// The settings that `judge` goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) boot: Option<Duration>,
    pub(super) silence: Option<Duration>,
    pub(super) graceful: Duration,
}

/// When the worker last showed signs of life. 0 means never.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beats {
    pub(super) event_loop: u64,
    pub(super) python: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// ABRT, so that the application's hook can say where it hangs.
    Abort(Fault),
    /// KILL: it was aborted, or asked to stop, and is still there.
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Boot,
    EventLoop,
    Python,
}

/// Is this worker to be killed? `since` is when the worker entered `stage`.
pub(super) fn judge(
    stage: Stage,
    since: u64,
    beats: Beats,
    now: u64,
    patience: &Patience,
) -> Verdict {
    let waited = |from: u64| Duration::from_millis(now.saturating_sub(from));
    let exceeds =
        |from: u64, limit: Option<Duration>| limit.is_some_and(|limit| waited(from) > limit);
    // A beat older than the stage says nothing about it; a Python beat that never came is not judged.
    let loop_beat = beats.event_loop.max(since);
    let python_beat = beats.python.max(since);
    match stage {
        Stage::Booting if exceeds(since, patience.boot) => Verdict::Abort(Fault::Boot),
        Stage::Retiring if waited(since) > patience.graceful + STOP_MARGIN => Verdict::Kill,
        Stage::Serving | Stage::Retiring if exceeds(loop_beat, patience.silence) => {
            Verdict::Abort(Fault::EventLoop)
        }
        Stage::Serving | Stage::Retiring
            if beats.python != 0 && exceeds(python_beat, patience.silence) =>
        {
            Verdict::Abort(Fault::Python)
        }
        Stage::Aborted if waited(since) >= ABORT_TO_KILL => Verdict::Kill,
        _ => Verdict::Fine,
    }
}

/// A worker as `plan` sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) age: u64,
    pub(super) generation: u32,
    pub(super) stage: Stage,
}

/// What to do so that `target` workers serve.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) spawn: usize,
    /// Ages of the workers to send TERM, oldest first.
    pub(super) retire: Vec<u64>,
    /// The new generation serves: the reload is done.
    pub(super) rolled_out: bool,
}

/// `rollout` is the generation that a reload is bringing up, if one is under way: then only its workers are
/// started, and the others stay until all of it serves. `members` are ordered by age.
pub(super) fn plan(target: usize, rollout: Option<u32>, members: &[Member]) -> Plan {
    let staying =
        |member: &&Member| member.stage != Stage::Retiring && member.stage != Stage::Killed;
    let ours = |member: &&Member| rollout.is_none_or(|generation| member.generation == generation);
    let current: Vec<_> = members.iter().filter(staying).filter(ours).collect();
    let surplus = current.len().saturating_sub(target);
    let mut retire: Vec<_> = current[..surplus].iter().map(|member| member.age).collect();
    let serving = current[surplus..]
        .iter()
        .filter(|member| member.stage == Stage::Serving)
        .count();
    let rolled_out = rollout.is_some() && serving >= target;
    if rolled_out {
        let old = members
            .iter()
            .filter(staying)
            .filter(|member| !ours(member));
        retire.extend(old.map(|member| member.age));
        retire.sort_unstable();
    }
    Plan {
        spawn: target.saturating_sub(current.len()),
        retire,
        rolled_out,
    }
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    Exit(i32),
    Signal(i32),
}

/// The dead worker, as `after_death` sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Obituary {
    pub(super) death: Death,
    pub(super) stage: Stage,
    /// It said itself that it was going, as after `max_requests`.
    pub(super) drained: bool,
    pub(super) in_rollout: bool,
    pub(super) lifetime: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// Replace it, if the plan wants that.
    Replace,
    /// Replace it, but not at full speed.
    BackOff,
    /// The reload is given up; the old generation goes on.
    FailRollout(&'static str),
    /// The server has never been up: stop it and tell the operator.
    Halt { reason: &'static str, code: i32 },
}

/// `started`: all workers of the first start have served. From then on a worker that cannot boot never
/// stops the ones that serve.
pub(super) fn after_death(dead: &Obituary, started: bool) -> Consequence {
    let boot_failure = match dead.death {
        Death::Exit(code @ EXIT_BOOT) => Some(("Worker failed to boot.", code)),
        Death::Exit(code @ EXIT_APP_LOAD) => Some(("App failed to load.", code)),
        _ => None,
    };
    // What we ask to stop may end as it likes.
    if matches!(dead.stage, Stage::Retiring) {
        return Consequence::Replace;
    }
    match boot_failure {
        Some((reason, code)) if !started => return Consequence::Halt { reason, code },
        Some((reason, _)) if dead.in_rollout => return Consequence::FailRollout(reason),
        Some(_) => return Consequence::BackOff,
        None => {}
    }
    let unbooted = dead.stage == Stage::Booting || (dead.lifetime < SOON && !dead.drained);
    match dead.stage {
        Stage::Booting | Stage::Aborted | Stage::Killed if dead.in_rollout => {
            Consequence::FailRollout("Worker failed to boot.")
        }
        _ if unbooted => Consequence::BackOff,
        _ => Consequence::Replace,
    }
}

/// Keeps workers that die young from being replaced at full speed.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    deaths: u32,
    last_death: u64,
    delay: u64,
}

impl Backoff {
    /// Returns how long to wait: the first time hardly, then twice as long each time.
    pub(super) fn died_young(&mut self, now: u64) -> Duration {
        // After a quiet time it is a new story.
        if now.saturating_sub(self.last_death) > self.delay * 2 + QUIET_MS {
            self.deaths = 0;
        }
        self.delay = (BACKOFF_FIRST_MS << self.deaths.min(16)).min(BACKOFF_MAX_MS);
        self.deaths = self.deaths.saturating_add(1);
        self.last_death = now;
        Duration::from_millis(self.delay)
    }

    /// Milliseconds until workers may be started again; 0 means now.
    pub(super) fn remaining(&self, now: u64) -> u64 {
        (self.last_death + self.delay).saturating_sub(now)
    }

    /// The operator changed something: try at once.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Exit code of a worker whose application raised while it was imported.
pub const EXIT_BOOT: i32 = 3;
/// Exit code of a worker whose application was not found, or is none.
pub const EXIT_APP_LOAD: i32 = 4;

/// A worker ends by itself when `graceful_timeout` is over; a little later it is killed.
pub(super) const STOP_MARGIN: Duration = Duration::from_secs(1);
const ABORT_TO_KILL: Duration = Duration::from_secs(1);
/// A worker that dies sooner than this after its fork may do so again and again.
const SOON: Duration = Duration::from_secs(5);
const BACKOFF_FIRST_MS: u64 = 100;
const BACKOFF_MAX_MS: u64 = 15_000;
const QUIET_MS: u64 = 10_000;

#[cfg(test)]
mod tests;
