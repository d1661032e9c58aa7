//! The workers that exist, from fork to burial.

use std::io;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::WorkerView;
use super::policy::{Beats, Member};
use crate::scoreboard::{Scoreboard, Slot, SlotState, monotonic_ms};

/// What the arbiter knows and wants of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Forked; its readiness byte has not come.
    Booting,
    Serving,
    /// Was told to stop.
    Retiring,
    /// Was silent too long and got ABRT.
    Aborted,
    /// Got KILL.
    Killed,
}

#[derive(Debug)]
pub(super) struct WorkerHandle {
    pub(super) pid: Pid,
    pub(super) age: u64,
    pub(super) generation: u32,
    pub(super) stage: Stage,
    /// When it entered its stage, and when it was forked.
    pub(super) since: u64,
    pub(super) forked_at: u64,
    /// The board may be replaced by a larger one at a reload; the worker keeps the one it was born with.
    pub(super) board: Arc<Scoreboard>,
    pub(super) slot: usize,
    /// When its time is over (`max_worker_lifetime`), on the scoreboard's clock.
    pub(super) expires_at: Option<u64>,
    /// It is to be replaced: its time is over, or it holds too much memory.
    pub(super) worn_out: bool,
}

/// What a worker's slot says anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    None,
    /// It serves from now on.
    Serves,
    /// Somebody else than we told it to go.
    Leaves,
}

impl WorkerHandle {
    /// As hooks see it.
    pub(super) fn view(&self) -> WorkerView {
        WorkerView {
            pid: Some(self.pid.as_raw()),
            age: self.age,
            aborted: self.stage == Stage::Aborted,
        }
    }

    pub(super) fn slot(&self) -> Slot<'_> {
        self.board.slot(self.slot)
    }

    pub(super) fn enter(&mut self, stage: Stage, now: u64) {
        self.stage = stage;
        self.since = now;
    }

    pub(super) fn beats(&self) -> Beats {
        Beats {
            event_loop: self.slot().loop_beat_at(),
            python: self.slot().python_beat_at(),
        }
    }

    /// It announced itself that it is going.
    pub(super) fn drains(&self) -> bool {
        self.slot().state() == SlotState::Draining
    }

    /// A worker that is gone already will be reaped in a moment.
    pub(super) fn send(&self, signal: Signal) {
        if matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) {
            // The application may keep the signal from the worker.
            self.slot().ask_to_stop(signal as i32, monotonic_ms());
        }
        match kill(self.pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => log::error!("Worker (pid:{}) cannot be signalled: {errno}", self.pid),
        }
    }

    /// It wants, or needs, a successor.
    pub(super) fn asks(&self) -> bool {
        self.worn_out || self.slot().asks_to_go() || self.slot().wants_replacement()
    }

    /// Looks at the slot.
    pub(super) fn look(&mut self, now: u64) -> News {
        let serves = matches!(
            self.slot().state(),
            SlotState::Serving | SlotState::Draining
        );
        if serves && self.stage == Stage::Booting {
            self.enter(Stage::Serving, now);
            return News::Serves;
        }
        if self.stage == Stage::Serving && self.drains() {
            self.enter(Stage::Retiring, now);
            return News::Leaves;
        }
        News::None
    }
}

/// All workers, oldest first.
#[derive(Debug, Default)]
pub(super) struct WorkerSet {
    workers: Vec<WorkerHandle>,
}

impl WorkerSet {
    pub(super) fn add(&mut self, worker: WorkerHandle) {
        debug_assert!(self.workers.last().is_none_or(|last| last.age < worker.age));
        self.workers.push(worker);
    }

    pub(super) fn remove(&mut self, pid: Pid) -> Option<WorkerHandle> {
        let position = self.workers.iter().position(|worker| worker.pid == pid)?;
        Some(self.workers.remove(position))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &WorkerHandle> {
        self.workers.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut WorkerHandle> {
        self.workers.iter_mut()
    }

    pub(super) fn by_age(&mut self, age: u64) -> Option<&mut WorkerHandle> {
        self.workers.iter_mut().find(|worker| worker.age == age)
    }

    pub(super) fn members(&self) -> Vec<Member> {
        let member = |worker: &WorkerHandle| Member {
            age: worker.age,
            generation: worker.generation,
            stage: worker.stage,
            asks: worker.asks(),
        };
        self.workers.iter().map(member).collect()
    }

    pub(super) fn send_all(&self, signal: Signal) {
        self.iter().for_each(|worker| worker.send(signal));
    }

    pub(super) fn count(&self, stage: Stage) -> usize {
        self.iter().filter(|worker| worker.stage == stage).count()
    }

    /// A slot of `board` whose number no living worker has, on this board or on one before it: the ways between
    /// workers go by the number.
    pub(super) fn free_slot(&self, board: &Scoreboard) -> Option<usize> {
        let taken = |slot: usize| self.iter().any(|worker| worker.slot == slot);
        (0..board.slots()).find(|slot| !taken(*slot))
    }

    /// Workers whose process does not exist any more, though nobody told us how it ended.
    pub(super) fn vanished(&self) -> Vec<Pid> {
        self.iter()
            .map(|worker| worker.pid)
            .filter(|pid| kill(*pid, None) == Err(Errno::ESRCH))
            .collect()
    }
}

/// A board with room to grow: its untouched pages cost nothing.
pub(super) fn roomy_board(workers: usize, threads: usize) -> io::Result<Arc<Scoreboard>> {
    let slots = (workers * 2 + SPARE_SLOTS).max(SLOTS_MIN);
    Scoreboard::new(slots, threads.max(THREADS_MIN)).map(Arc::new)
}

const SLOTS_MIN: usize = 64;
const SPARE_SLOTS: usize = 16;
const THREADS_MIN: usize = 16;
