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
    /// It has served long enough (`max_requests` and its kin) and goes on until somebody takes its place.
    pub(super) asks: bool,
}

/// What the workers should come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) target: usize,
    /// Workers of another generation are out of date.
    pub(super) generation: u32,
    /// While a reload has not shown that its code boots: how many workers were wanted before it. So many
    /// stay.
    pub(super) unproven: Option<usize>,
    /// So many processes more than `target` there may be to replace workers that are out of date.
    pub(super) reload_surge: usize,
    /// Idem, to replace workers that ask for it.
    pub(super) max_retiring: usize,
}

/// What to do so that `target` workers of the current generation serve.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) spawn: usize,
    /// Ages of the workers to send TERM, oldest first.
    pub(super) retire: Vec<u64>,
    /// Nobody is out of date any more, but those that leave.
    pub(super) is_current: bool,
}

/// One rule for start, reload, recycling, TTIN, TTOU and crashes:
///
/// 1. What is missing is started at once, whoever may still be leaving.
/// 2. Who is to be replaced (out of date, or asking) gets a successor beside it, as long as there are no more
///    processes than the target and the surge. Those that are leaving count: they hold their memory.
/// 3. Somebody is told to go only when at least `target` others serve: what boots is nobody's substitute.
///
/// `members` are ordered by age.
pub(super) fn plan(wish: &Wish, members: &[Member]) -> Plan {
    let target = wish.target;
    let is_old = |member: &Member| member.generation != wish.generation;
    let active: Vec<_> = members.iter().filter(|member| member.is_active()).collect();
    let leaves_soon = |member: &&&Member| is_old(member) || member.asks;
    let to_replace = active.iter().filter(leaves_soon).count();
    let any_old = active.iter().any(|member| is_old(member));

    let missing = target.saturating_sub(active.len());
    let surge = if any_old {
        wish.reload_surge
    } else {
        wish.max_retiring
    };
    let most = target.max(wish.unproven.unwrap_or(0)) + surge;
    let room = most.saturating_sub(members.len() + missing);
    let fresh = active.len() - to_replace;
    let successors = room.min(target.saturating_sub(fresh + missing));

    // Who may go: as long as a reload is unproven only those of before that are one too many, as when another reload
    // was under way. They would keep its first worker from having a place.
    let mut candidates = active.clone();
    let stays = match wish.unproven {
        Some(before) => {
            candidates.retain(|member| is_old(member));
            before
        }
        None => target,
    };
    let serving = candidates
        .iter()
        .filter(|member| member.stage == Stage::Serving);
    let mut spare = serving.count().saturating_sub(stays);
    let surplus = candidates.len().saturating_sub(stays);
    // Out of date and asking, out of date, asking, and only then the oldest of the rest.
    candidates.sort_by_key(|member| (!is_old(member), !member.asks, member.age));
    let mut retire = Vec::new();
    for member in candidates {
        let serves = member.stage == Stage::Serving;
        let goes = match member.stage {
            Stage::Serving => spare > 0,
            Stage::Booting => target == 0 || is_old(member),
            _ => false,
        };
        if retire.len() < surplus && goes {
            spare -= usize::from(serves && spare > 0);
            retire.push(member.age);
        }
    }
    retire.sort_unstable();
    Plan {
        spawn: missing + successors,
        is_current: active
            .iter()
            .all(|member| !is_old(member) || retire.contains(&member.age)),
        retire,
    }
}

impl Member {
    /// It serves, or is going to.
    fn is_active(&self) -> bool {
        !matches!(self.stage, Stage::Retiring | Stage::Killed)
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
    /// It said itself that it was going.
    pub(super) drained: bool,
    /// It was to show that a reload boots, and none had shown it.
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
    // What we ask to stop may end as it likes.
    if matches!(dead.stage, Stage::Retiring) {
        return Consequence::Replace;
    }
    let boot_failure = match dead.death {
        Death::Exit(code @ EXIT_BOOT) => Some(("Worker failed to boot.", code)),
        Death::Exit(code @ EXIT_APP_LOAD) => Some(("App failed to load.", code)),
        _ => None,
    };
    let unbooted = matches!(dead.stage, Stage::Booting | Stage::Aborted | Stage::Killed);
    match boot_failure {
        Some((reason, _)) if dead.in_rollout => return Consequence::FailRollout(reason),
        Some((reason, code)) if !started => return Consequence::Halt { reason, code },
        Some(_) => return Consequence::BackOff,
        None if dead.in_rollout && unbooted => {
            return Consequence::FailRollout("Worker failed to boot.");
        }
        None => {}
    }
    let dies_young = dead.stage == Stage::Booting || (dead.lifetime < SOON && !dead.drained);
    if dies_young {
        Consequence::BackOff
    } else {
        Consequence::Replace
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
pub(super) const SOON: Duration = Duration::from_secs(5);
const BACKOFF_FIRST_MS: u64 = 100;
const BACKOFF_MAX_MS: u64 = 15_000;
const QUIET_MS: u64 = 10_000;

#[cfg(test)]
mod tests;
