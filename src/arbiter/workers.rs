//! The workers that exist, from fork to burial.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, read};

use super::WorkerView;
use super::policy::{Beats, Member};
use crate::scoreboard::{Scoreboard, Slot, SlotState};

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
    /// Read end of the readiness pipe, until a byte or the end came.
    pub(super) booted: Option<OwnedFd>,
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
        match kill(self.pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => log::error!("Worker (pid:{}) cannot be signalled: {errno}", self.pid),
        }
    }

    /// Reads the readiness pipe; true when the worker has just reported that it serves.
    pub(super) fn read_booted(&mut self, now: u64) -> bool {
        let Some(pipe) = &self.booted else {
            return false;
        };
        match read(pipe, &mut [0; 8]) {
            Err(Errno::EAGAIN | Errno::EINTR) => false,
            Ok(0) | Err(_) => {
                self.booted = None;
                false
            }
            Ok(_) => {
                self.booted = None;
                let booting = self.stage == Stage::Booting;
                if booting {
                    self.enter(Stage::Serving, now);
                }
                booting
            }
        }
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
        };
        self.workers.iter().map(member).collect()
    }

    pub(super) fn send_all(&self, signal: Signal) {
        self.iter().for_each(|worker| worker.send(signal));
    }

    /// Readiness pipes that still have something to say.
    pub(super) fn boot_pipes(&self) -> Vec<BorrowedFd<'_>> {
        self.workers
            .iter()
            .filter_map(|worker| worker.booted.as_ref().map(|pipe| pipe.as_fd()))
            .collect()
    }

    /// A slot of `board` that no living worker has.
    pub(super) fn free_slot(&self, board: &Arc<Scoreboard>) -> Option<usize> {
        let taken = |slot: usize| {
            self.iter()
                .any(|worker| worker.slot == slot && Arc::ptr_eq(&worker.board, board))
        };
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
