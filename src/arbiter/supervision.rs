//! What the arbiter decides, as pure functions: which workers to kill, start and retire, and when to give up.
//!
//! Nothing here forks, signals or reads a clock, so every rule is a unit test. Times are milliseconds of the
//! scoreboard's clock.

use std::fmt;
use std::time::Duration;

use nix::sys::signal::Signal;

/// How far a worker's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Forked, or asked for at a fork server; it does not serve yet.
    Booting,
    Serving,
    /// It was asked to stop, or announced that it stops.
    Retiring,
    /// It was silent for too long and got ABRT.
    Aborted,
    /// It got KILL.
    Killed,
}

/// The settings that the watchdog goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) boot: Option<Duration>,
    pub(super) silence: Option<Duration>,
    pub(super) graceful: Duration,
}

/// When the worker last showed signs of life. 0 means never.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heartbeats {
    pub(super) event_loop: u64,
    pub(super) python: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// ABRT, so that the application's hook can log where it hangs.
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

/// The watchdog's verdict on a worker that entered `stage` at `since`.
pub(super) fn verdict(
    stage: Stage,
    since: u64,
    heartbeats: Heartbeats,
    now: u64,
    timeouts: &Timeouts,
) -> Verdict {
    let waited = |from: u64| Duration::from_millis(now.saturating_sub(from));
    let exceeds =
        |from: u64, limit: Option<Duration>| limit.is_some_and(|limit| waited(from) > limit);
    // A heartbeat older than the stage has no bearing on it; a Python heartbeat that never came is not missed.
    let loop_heartbeat = heartbeats.event_loop.max(since);
    let python_heartbeat = heartbeats.python.max(since);
    match stage {
        Stage::Booting if exceeds(since, timeouts.boot) => Verdict::Abort(Fault::Boot),
        Stage::Retiring if waited(since) > timeouts.graceful + STOP_MARGIN => Verdict::Kill,
        Stage::Serving | Stage::Retiring if exceeds(loop_heartbeat, timeouts.silence) => {
            Verdict::Abort(Fault::EventLoop)
        }
        Stage::Serving | Stage::Retiring
            if heartbeats.python != 0 && exceeds(python_heartbeat, timeouts.silence) =>
        {
            Verdict::Abort(Fault::Python)
        }
        Stage::Aborted if waited(since) >= ABORT_TO_KILL => Verdict::Kill,
        _ => Verdict::Fine,
    }
}

/// A worker as [`reconcile`] sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) age: u64,
    pub(super) generation: u32,
    pub(super) stage: Stage,
    /// It has served long enough (`max_requests` and the like) and goes on until a successor takes its place.
    pub(super) wants_replacement: bool,
}

/// The desired state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Desired {
    pub(super) target: usize,
    /// Workers of another generation are out of date.
    pub(super) generation: u32,
    /// While a reload has not shown that its code boots: how many workers were wanted before it. That many stay.
    pub(super) unproven: Option<usize>,
    /// How many processes above `target` may exist to replace workers that are out of date.
    pub(super) reload_surge: usize,
    /// How many processes above `target` may exist to replace workers that want it.
    pub(super) max_retiring: usize,
}

/// What to do so that `target` workers of the current generation serve.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) spawn: usize,
    /// Ages of the workers to send TERM, oldest first.
    pub(super) retire: Vec<u64>,
    /// Only workers that are leaving are out of date.
    pub(super) is_current: bool,
}

/// One rule for start, reload, recycling, TTIN, TTOU and crashes:
///
/// 1. Missing workers are started at once, also while others are still leaving.
/// 2. A worker that is to be replaced (it is out of date, or wants it) gets a successor beside it, as long as there
///    are no more processes than the target and the surge. Leaving workers count: they hold their memory.
/// 3. A worker is asked to leave only when at least `target` others serve: one that boots replaces none.
///
/// `members` are ordered by age.
pub(super) fn reconcile(desired: &Desired, members: &[Member]) -> Changes {
    let target = desired.target;
    let is_old = |member: &Member| member.generation != desired.generation;
    let active: Vec<_> = members.iter().filter(|member| member.is_active()).collect();
    let leaves_soon = |member: &&&Member| is_old(member) || member.wants_replacement;
    let to_replace = active.iter().filter(leaves_soon).count();
    let any_old = active.iter().any(|member| is_old(member));

    let missing = target.saturating_sub(active.len());
    let surge = if any_old {
        desired.reload_surge
    } else {
        desired.max_retiring
    };
    let most = target.max(desired.unproven.unwrap_or(0)) + surge;
    let room = most.saturating_sub(members.len() + missing);
    let fresh = active.len() - to_replace;
    let successors = room.min(target.saturating_sub(fresh + missing));

    let retire = retirements(desired, &active, is_old);
    Changes {
        spawn: missing + successors,
        is_current: active
            .iter()
            .all(|member| !is_old(member) || retire.contains(&member.age)),
        retire,
    }
}

/// Which of the active workers go now.
fn retirements(
    desired: &Desired,
    active: &[&Member],
    is_old: impl Fn(&Member) -> bool,
) -> Vec<u64> {
    // While a reload is unproven only extra workers of older generations go, as after a reload that interrupted
    // another. They would keep its first worker from having a place.
    let mut candidates = active.to_vec();
    let stays = match desired.unproven {
        Some(before) => {
            candidates.retain(|member| is_old(member));
            before
        }
        None => desired.target,
    };
    let serving = candidates
        .iter()
        .filter(|member| member.stage == Stage::Serving);
    let mut spare = serving.count().saturating_sub(stays);
    let extra = candidates.len().saturating_sub(stays);
    // Out of date and wanting it, out of date, wanting it, and only then the oldest of the rest.
    candidates.sort_by_key(|member| (!is_old(member), !member.wants_replacement, member.age));
    let mut retire = Vec::new();
    for member in candidates {
        let serves = member.stage == Stage::Serving;
        let goes = match member.stage {
            Stage::Serving => spare > 0,
            Stage::Booting => desired.target == 0 || is_old(member),
            _ => false,
        };
        if retire.len() < extra && goes {
            spare -= usize::from(serves && spare > 0);
            retire.push(member.age);
        }
    }
    retire.sort_unstable();
    retire
}

impl Member {
    /// It serves, or is going to.
    fn is_active(&self) -> bool {
        !matches!(self.stage, Stage::Retiring | Stage::Killed)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExitStatus {
    Code(i32),
    Signal(i32),
}

impl ExitStatus {
    pub(super) fn code_or(self, otherwise: i32) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(_) => otherwise,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => f.write_str(signal.as_str()),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// A worker that has ended, as [`after_exit`] sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExitReport {
    pub(super) status: ExitStatus,
    pub(super) stage: Stage,
    /// It has accepted connections.
    pub(super) has_served: bool,
    /// It was the first worker of a reload, and none of that generation had served.
    pub(super) in_rollout: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// Replace it at once, if the desired state wants that.
    Replace,
    /// It never served: its place waits before the next attempt.
    BackOff,
    /// The reload is given up; the old generation goes on.
    FailRollout(&'static str),
    /// The server has never been up: stop it with a reason in the log.
    Halt { reason: &'static str, code: i32 },
}

/// `has_started`: all workers of the first start have served. From then on a worker that cannot boot never
/// stops the ones that serve.
pub(super) fn after_exit(exit: &ExitReport, has_started: bool) -> Consequence {
    // What was asked to stop may end in any way, and the exit codes of a worker that has served are the application's.
    if exit.stage == Stage::Retiring || exit.has_served {
        return Consequence::Replace;
    }
    let boot_failure = match exit.status {
        ExitStatus::Code(code @ EXIT_BOOT) => Some(("Worker failed to boot.", code)),
        ExitStatus::Code(code @ EXIT_APP_LOAD) => Some(("App failed to load.", code)),
        _ => None,
    };
    match boot_failure {
        Some((reason, _)) if exit.in_rollout => Consequence::FailRollout(reason),
        Some((reason, code)) if !has_started => Consequence::Halt { reason, code },
        Some(_) => Consequence::BackOff,
        None if exit.in_rollout => Consequence::FailRollout("Worker failed to boot."),
        None => Consequence::BackOff,
    }
}

/// Why a server stops whose application was not preloaded, and its exit code. `sys.exit(0)` is what the application wants.
/// A fork server that is gone without a word has failed, also when it left with 0 (`os._exit`).
pub(super) fn preload_end(wanted_exit: Option<i32>, status: ExitStatus) -> (&'static str, i32) {
    match (wanted_exit, status) {
        (Some(code), _) => (PRELOAD_EXITED, code),
        (None, ExitStatus::Code(0)) => (PRELOAD_FAILED, EXIT_PRELOAD),
        (None, status) => (PRELOAD_FAILED, status.code_or(EXIT_PRELOAD)),
    }
}

/// Exit code of a worker whose application raised while it was imported.
pub const EXIT_BOOT: i32 = 3;
/// Exit code of a worker whose application was not found, or is none.
pub const EXIT_APP_LOAD: i32 = 4;

const PRELOAD_EXITED: &str = "The application called sys.exit while it was being preloaded.";
pub(super) const PRELOAD_FAILED: &str = "The application failed to preload.";
/// gunicorn's, which imports in the master.
const EXIT_PRELOAD: i32 = 1;

/// A worker ends by itself when `graceful_timeout` is over; a second later it is killed.
pub(super) const STOP_MARGIN: Duration = Duration::from_secs(1);
const ABORT_TO_KILL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
