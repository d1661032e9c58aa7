//! One worker as the arbiter sees it, from its fork until it is reaped.
//!
//! The pid is the kernel's word (the fork's result, or a child of this process that a fork server reported). Nothing that is
//! read from the worker's slot of the scoreboard decides which process is signalled.

use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::runtime::WorkerInfo;
use super::supervision::{Heartbeats, Member, Stage};
use crate::scoreboard::{Scoreboard, Slot, SlotState, monotonic_ms};

/// See the module.
#[derive(Debug)]
pub(super) struct WorkerHandle {
    pid: Pid,
    birth: Birth,
    stage: Stage,
    /// When it entered its stage.
    since: u64,
    has_served: bool,
    /// Its heartbeats count as of then at least: it could not run until now.
    excused: Heartbeats,
    /// Its time is over, or it holds too much memory.
    is_worn: bool,
}

/// What is known of a worker before its fork.
#[derive(Clone, Debug)]
pub(super) struct Birth {
    pub(super) age: u64,
    pub(super) generation: u32,
    /// The scoreboard may be replaced by a larger one at a reload; the worker keeps the one it was born with.
    pub(super) scoreboard: Arc<Scoreboard>,
    pub(super) slot: usize,
    /// When it was asked for, or forked.
    pub(super) at: u64,
    /// When its time is over (`max_worker_lifetime`).
    pub(super) expires_at: Option<u64>,
}

/// What has changed on a worker's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotNews {
    None,
    /// It serves from now on.
    Serves,
    /// It leaves, and the arbiter did not ask it to.
    Leaves,
}

impl WorkerHandle {
    pub(super) fn new(pid: Pid, birth: Birth) -> Self {
        birth.scoreboard.slot(birth.slot).set_pid(pid.as_raw());
        Self {
            pid,
            stage: Stage::Booting,
            since: birth.at,
            has_served: false,
            excused: Heartbeats::default(),
            is_worn: false,
            birth,
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn age(&self) -> u64 {
        self.birth.age
    }

    pub(super) fn generation(&self) -> u32 {
        self.birth.generation
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn since(&self) -> u64 {
        self.since
    }

    pub(super) fn forked_at(&self) -> u64 {
        self.birth.at
    }

    pub(super) fn has_served(&self) -> bool {
        self.has_served
    }

    /// As hooks see it.
    pub(super) fn info(&self) -> WorkerInfo {
        WorkerInfo {
            pid: Some(self.pid.as_raw()),
            age: self.birth.age,
            aborted: self.stage == Stage::Aborted,
        }
    }

    /// As `supervision` sees it.
    pub(super) fn member(&self) -> Member {
        Member {
            age: self.birth.age,
            generation: self.birth.generation,
            stage: self.stage,
            wants_replacement: self.wants_replacement(),
        }
    }

    pub(super) fn slot(&self) -> Slot<'_> {
        self.birth.scoreboard.slot(self.birth.slot)
    }

    pub(super) fn slot_number(&self) -> usize {
        self.birth.slot
    }

    pub(super) fn is_on(&self, scoreboard: &Arc<Scoreboard>) -> bool {
        Arc::ptr_eq(&self.birth.scoreboard, scoreboard)
    }

    pub(super) fn enter(&mut self, stage: Stage, now: u64) {
        self.stage = stage;
        self.since = now;
    }

    /// Heartbeats that claim to be of the future count as of now.
    pub(super) fn heartbeats(&self, now: u64) -> Heartbeats {
        let python = match self.slot().python_heartbeat_at() {
            0 => 0,
            at => at.max(self.excused.python).min(now),
        };
        let event_loop = self.slot().reported_loop_heartbeat();
        Heartbeats {
            event_loop: event_loop.max(self.excused.event_loop).min(now),
            python,
        }
    }

    /// For `length` milliseconds until `now` it could not run: they count neither as silence nor for the stage.
    pub(super) fn excuse(&mut self, length: u64, now: u64) {
        let later = |at: u64| at.saturating_add(length).min(now);
        let Heartbeats { event_loop, python } = self.heartbeats(now);
        self.excused = Heartbeats {
            event_loop: later(event_loop),
            python: if python == 0 { 0 } else { later(python) },
        };
        self.since = later(self.since);
    }

    /// It announced that it is leaving.
    pub(super) fn is_draining(&self) -> bool {
        self.slot().reported_state() == SlotState::Draining
    }

    /// A worker that is gone already will be reaped in a moment: until then its pid is no other process's.
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

    /// Sends `signal`, after which the worker is to leave. One that was stopped goes on for that, as under systemd
    /// (systemd.kill(5)); it would be killed with its requests.
    pub(super) fn retire(&mut self, signal: Signal, now: u64) {
        self.send(signal);
        self.send(Signal::SIGCONT);
        self.enter(Stage::Retiring, now);
    }

    pub(super) fn kill(&mut self, now: u64) {
        self.send(Signal::SIGKILL);
        self.enter(Stage::Killed, now);
    }

    pub(super) fn is_expired(&self, now: u64) -> bool {
        self.birth
            .expires_at
            .is_some_and(|expires_at| expires_at <= now)
    }

    pub(super) fn mark_worn(&mut self) {
        self.is_worn = true;
    }

    pub(super) fn wants_replacement(&self) -> bool {
        self.is_worn || self.slot().asks_to_go() || self.slot().wants_replacement()
    }

    /// Reads the slot, and enters the stage that it shows.
    pub(super) fn read_slot(&mut self, now: u64) -> SlotNews {
        let serves = matches!(
            self.slot().reported_state(),
            SlotState::Serving | SlotState::Draining
        );
        if serves && self.stage == Stage::Booting {
            self.enter(Stage::Serving, now);
            self.has_served = true;
            return SlotNews::Serves;
        }
        if self.stage == Stage::Serving && self.is_draining() {
            self.enter(Stage::Retiring, now);
            return SlotNews::Leaves;
        }
        SlotNews::None
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A worker that exists on paper only; its pid is this process's.
    pub(in crate::arbiter) fn on_paper(scoreboard: &Arc<Scoreboard>, slot: usize) -> WorkerHandle {
        scoreboard.slot(slot).claim(1);
        let birth = Birth {
            age: slot as u64 + 1,
            generation: 1,
            scoreboard: Arc::clone(scoreboard),
            slot,
            at: 1000,
            expires_at: Some(5000),
        };
        WorkerHandle::new(Pid::this(), birth)
    }

    #[test]
    fn stages_follow_what_the_slot_says() {
        let scoreboard = Arc::new(Scoreboard::new(1, 1).unwrap());
        let mut worker = on_paper(&scoreboard, 0);
        assert_eq!(worker.read_slot(1100), SlotNews::None);
        scoreboard.slot(0).set_state(SlotState::Serving);
        assert_eq!(worker.read_slot(1200), SlotNews::Serves);
        assert_eq!((worker.stage(), worker.since()), (Stage::Serving, 1200));
        assert_eq!(worker.read_slot(1300), SlotNews::None);
        scoreboard.slot(0).set_state(SlotState::Draining);
        assert_eq!(worker.read_slot(1400), SlotNews::Leaves);
        assert_eq!(worker.stage(), Stage::Retiring);
        assert!(worker.has_served());
    }

    #[test]
    fn garbage_on_the_slot_changes_neither_pid_nor_stage() {
        let scoreboard = Arc::new(Scoreboard::new(1, 1).unwrap());
        let mut worker = on_paper(&scoreboard, 0);
        scoreboard.slot(0).set_pid(1);
        scoreboard.slot(0).loop_heartbeat(u64::MAX);
        scoreboard.slot(0).python_heartbeat(u64::MAX);
        assert_eq!(worker.read_slot(1100), SlotNews::None);
        assert_eq!(worker.pid(), Pid::this());
        assert_eq!(worker.heartbeats(1100).event_loop, 1100);
        assert_eq!(worker.heartbeats(1100).python, 1100);
    }

    #[test]
    fn silence_while_nothing_could_run_is_no_silence() {
        let scoreboard = Arc::new(Scoreboard::new(1, 1).unwrap());
        let mut worker = on_paper(&scoreboard, 0);
        scoreboard.slot(0).loop_heartbeat(2000);
        worker.excuse(50_000, 53_000);
        let heartbeats = worker.heartbeats(53_000);
        assert_eq!((heartbeats.event_loop, heartbeats.python), (52_000, 0));
        assert_eq!(worker.since(), 51_000);
        // One after the other, and no heartbeat between them.
        scoreboard.slot(0).python_heartbeat(2500);
        worker.excuse(10_000, 63_500);
        let heartbeats = worker.heartbeats(63_500);
        assert_eq!((heartbeats.event_loop, heartbeats.python), (62_000, 12_500));
        scoreboard.slot(0).loop_heartbeat(63_400);
        assert_eq!(worker.heartbeats(63_500).event_loop, 63_400);
        worker.excuse(u64::MAX, 63_500);
        assert_eq!(
            worker.heartbeats(63_500).event_loop,
            63_500,
            "not of the future"
        );
    }

    #[test]
    fn a_worker_is_worn_by_age_or_by_its_own_word() {
        let scoreboard = Arc::new(Scoreboard::new(1, 1).unwrap());
        let mut worker = on_paper(&scoreboard, 0);
        assert!(!worker.is_expired(4999) && worker.is_expired(5000));
        assert!(!worker.member().wants_replacement);
        scoreboard.slot(0).ask_to_go();
        assert!(worker.member().wants_replacement);
        scoreboard.slot(0).claim(1);
        worker.mark_worn();
        assert!(worker.member().wants_replacement);
    }
}
