//! The workers that exist, from fork to reaping, and what those that are gone have counted.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, pipe2, read};

use super::exit_report::{self, RequestCounters};
use super::metrics::{self, Counters, Format, WorkerFigures};
use super::supervision::{self, ExitStatus, Member, Stage, Timeouts, Verdict};
use super::worker_handle::{SlotNews, WorkerHandle};
use crate::fork_guard;
use crate::logging::Log;
use crate::scoreboard::{Running, Scoreboard, Unready};

/// All workers, oldest first.
#[derive(Debug)]
pub(super) struct Children {
    workers: Vec<WorkerHandle>,
    /// Both ends of the pipe on which workers write "read my slot".
    notify_read: OwnedFd,
    notify_write: OwnedFd,
    /// More was in the pipe than honest workers write; it is left alone for a moment.
    is_flooded: bool,
    requests: RequestCounters,
    /// What workers that were reaped have counted.
    counters: Counters,
}

/// A child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaped {
    Child(Pid, ExitStatus),
    /// Its status has no name, as after a real-time signal, and with it its pid is lost.
    Unreadable,
}

/// The next child that has ended, by the kernel's word.
pub(super) fn reap() -> Option<Reaped> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => {
                return Some(Reaped::Child(pid, ExitStatus::Code(code)));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                return Some(Reaped::Child(pid, ExitStatus::Signal(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            Err(Errno::EINVAL) => return Some(Reaped::Unreadable),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Whether the process is a child of this one that has not been reaped.
pub(super) fn is_child(pid: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(pid), flags) != Err(Errno::ECHILD)
}

/// Whether there is no such process any more.
pub(super) fn is_gone(pid: Pid) -> bool {
    kill(pid, None) == Err(Errno::ESRCH)
}

impl Children {
    /// # Errors
    /// There is no descriptor left for the notify pipe.
    pub(super) fn new() -> io::Result<Self> {
        let (notify_read, notify_write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        fork_guard::register(&notify_read);
        fork_guard::register(&notify_write);
        Ok(Self {
            workers: Vec::new(),
            notify_read,
            notify_write,
            is_flooded: false,
            requests: RequestCounters::default(),
            counters: Counters::default(),
        })
    }

    /// Becomes readable when a worker writes "read my slot". `None` while a worker floods it: then the slots are read
    /// after [`Self::patience`].
    pub(super) fn notify_pipe(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_flooded).then(|| self.notify_read.as_fd())
    }

    /// Milliseconds that the loop may sleep.
    pub(super) fn patience(&self) -> Option<u64> {
        self.is_flooded.then_some(FLOOD_PAUSE_MS)
    }

    /// The end of the notify pipe that workers write to.
    pub(super) fn clone_notifier(&self) -> io::Result<OwnedFd> {
        let clone = self.notify_write.try_clone()?;
        fork_guard::register(&clone);
        Ok(clone)
    }

    /// Reads the slots of all workers. Returns those whose slot shows something new, with their place.
    pub(super) fn read_slots(&mut self, now: u64) -> Vec<(SlotNews, u32, usize)> {
        // Bounded: a worker that writes without end must not hold the loop.
        let mut bytes = [0; 4096];
        let mut reads = 0..NOTIFY_READS_MAX;
        self.is_flooded = reads.all(|_| matches!(read(&self.notify_read, &mut bytes), Ok(1..)));
        let mut news = Vec::new();
        for worker in &mut self.workers {
            let change = worker.read_slot(now);
            match change {
                SlotNews::None => continue,
                SlotNews::Serves => log::debug!("Worker (pid:{}) serves", worker.pid()),
                SlotNews::Leaves => log::debug!("Worker (pid:{}) leaves", worker.pid()),
            }
            news.push((change, worker.generation(), worker.slot_number()));
        }
        news
    }

    pub(super) fn add(&mut self, worker: WorkerHandle) {
        let position = self.workers.partition_point(|one| one.age() < worker.age());
        self.workers.insert(position, worker);
    }

    pub(super) fn remove(&mut self, pid: Pid) -> Option<WorkerHandle> {
        let position = self.workers.iter().position(|worker| worker.pid() == pid)?;
        Some(self.workers.remove(position))
    }

    /// A worker has been reaped: its figures are kept, and its slot is free for the next.
    pub(super) fn close_account(&mut self, worker: &WorkerHandle, lost: &[Running]) {
        self.requests.add(worker.slot(), lost);
        self.counters.add(worker.slot());
        worker.slot().release();
    }

    pub(super) fn requests(&self) -> RequestCounters {
        self.requests
    }

    /// Whether some worker can take a request.
    pub(super) fn readiness(&self, max_queue: usize) -> Result<(), Unready> {
        let mut why_not = Unready::NoneServes;
        // The slot shows the end of a boot before the arbiter has read it.
        let stays =
            |worker: &&WorkerHandle| matches!(worker.stage(), Stage::Booting | Stage::Serving);
        for worker in self.iter().filter(stays) {
            match worker.slot().reported_readiness(max_queue) {
                Ok(()) => return Ok(()),
                Err(why) => why_not = why,
            }
        }
        Err(why_not)
    }

    /// For `/metrics`. Workers whose scoreboard is not `scoreboard` have another name.
    pub(super) fn metrics(
        &self,
        format: Format,
        scoreboard: &Arc<Scoreboard>,
        wanted: usize,
        log: Log,
        certificate_end: Option<i64>,
    ) -> String {
        let workers: Vec<_> = self
            .iter()
            .map(|worker| WorkerFigures {
                name: match worker.is_on(scoreboard) {
                    true => worker.slot_number().to_string(),
                    false => format!("{}-old", worker.slot_number()),
                },
                stage: worker.stage(),
                slot: worker.slot(),
            })
            .collect();
        let dropped = log.dropped_lines();
        let workers = (&*workers, wanted);
        metrics::render(format, workers, &self.counters, dropped, certificate_end)
    }

    /// What all workers have counted, those that are gone included.
    pub(super) fn all_counters(&self) -> Counters {
        let mut counters = self.counters;
        self.iter().for_each(|worker| counters.add(worker.slot()));
        counters
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

    pub(super) fn by_age(&self, age: u64) -> Option<&WorkerHandle> {
        self.workers.iter().find(|worker| worker.age() == age)
    }

    pub(super) fn by_age_mut(&mut self, age: u64) -> Option<&mut WorkerHandle> {
        self.workers.iter_mut().find(|worker| worker.age() == age)
    }

    pub(super) fn by_pid(&self, pid: Pid) -> Option<&WorkerHandle> {
        self.workers.iter().find(|worker| worker.pid() == pid)
    }

    pub(super) fn by_pid_mut(&mut self, pid: Pid) -> Option<&mut WorkerHandle> {
        self.workers.iter_mut().find(|worker| worker.pid() == pid)
    }

    pub(super) fn members(&self) -> Vec<Member> {
        self.workers.iter().map(WorkerHandle::member).collect()
    }

    pub(super) fn send_all(&self, signal: Signal) {
        self.iter().for_each(|worker| worker.send(signal));
    }

    pub(super) fn retire_all(&mut self, signal: Signal, now: u64) {
        for worker in &mut self.workers {
            worker.retire(signal, now);
        }
    }

    pub(super) fn kill_all(&mut self, now: u64) {
        for worker in &mut self.workers {
            worker.kill(now);
        }
    }

    /// For `length` milliseconds until `now` nothing could run.
    pub(super) fn excuse(&mut self, length: u64, now: u64) {
        for worker in &mut self.workers {
            worker.excuse(length, now);
        }
    }

    /// Aborts and kills workers that are silent for too long. Returns how many were aborted.
    pub(super) fn watch(&mut self, log: Log, timeouts: &Timeouts, now: u64) -> u64 {
        let mut aborted = 0;
        for worker in &mut self.workers {
            let heartbeats = worker.heartbeats(now);
            match supervision::verdict(worker.stage(), worker.since(), heartbeats, now, timeouts) {
                Verdict::Fine => {}
                Verdict::Abort(fault) => {
                    aborted += 1;
                    exit_report::log_timeout(log, worker, fault, now);
                    worker.send(Signal::SIGABRT);
                    worker.enter(Stage::Aborted, now);
                }
                Verdict::Kill => {
                    if worker.stage() == Stage::Retiring {
                        log::error!(
                            "Worker (pid:{}) did not leave within graceful_timeout",
                            worker.pid()
                        );
                    }
                    worker.kill(now);
                }
            }
        }
        aborted
    }

    /// The server ends, and no other process has its listeners: the first worker to stop ends them. Returns the workers' ages.
    pub(super) fn end_listeners(&self) -> Vec<u64> {
        self.iter()
            .inspect(|worker| worker.slot().set_ends_listeners())
            .map(WorkerHandle::age)
            .collect()
    }

    /// Whether a worker of this age exists that may still accept connections.
    pub(super) fn accepts(&self, age: u64) -> bool {
        let worker = self.by_age(age);
        worker.is_some_and(|worker| !worker.slot().accepts_no_more())
    }

    pub(super) fn count(&self, stage: Stage) -> usize {
        self.iter().filter(|worker| worker.stage() == stage).count()
    }

    /// Slots of `scoreboard` whose number no living worker has, on this scoreboard or on one before it: the channels between workers
    /// go by the number.
    pub(super) fn free_slots(&self, scoreboard: &Arc<Scoreboard>) -> impl Iterator<Item = usize> {
        let is_taken = |slot: &usize| self.iter().any(|worker| worker.slot_number() == *slot);
        (0..scoreboard.slots()).filter(move |slot| !is_taken(slot))
    }

    /// Workers that are gone, although the kernel gave no readable status for them.
    pub(super) fn vanished(&self) -> Vec<Pid> {
        let pids = self.workers.iter().map(WorkerHandle::pid);
        pids.filter(|pid| is_gone(*pid)).collect()
    }
}

/// A scoreboard with spare slots: its untouched pages cost nothing.
pub(super) fn roomy_scoreboard(workers: usize, threads: usize) -> io::Result<Arc<Scoreboard>> {
    let slots = (workers * 2 + SPARE_SLOTS).max(SLOTS_MIN);
    Scoreboard::new(slots, threads.max(THREADS_MIN)).map(Arc::new)
}

const SLOTS_MIN: usize = 64;
const SPARE_SLOTS: usize = 16;
const THREADS_MIN: usize = 16;
/// 64 KiB of notifications an iteration, which is what a pipe holds.
const NOTIFY_READS_MAX: usize = 16;
/// A worker that writes without end has the loop read 20 times a second, and no more.
const FLOOD_PAUSE_MS: u64 = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arbiter::worker_handle::tests::on_paper;
    use crate::scoreboard::SlotState;

    #[test]
    fn only_children_of_this_process_are_children() {
        assert!(!is_child(Pid::from_raw(1)));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        assert!(is_child(pid), "running or ended, it is not reaped");
        child.wait().unwrap();
        assert!(!is_child(pid));
    }

    #[test]
    fn slots_of_living_workers_are_taken_on_every_scoreboard() {
        let scoreboard = Arc::new(Scoreboard::new(4, 1).unwrap());
        let larger = Arc::new(Scoreboard::new(5, 1).unwrap());
        let mut children = Children::new().unwrap();
        children.add(on_paper(&scoreboard, 2));
        children.add(on_paper(&scoreboard, 0));
        assert_eq!(children.free_slots(&larger).collect::<Vec<_>>(), [1, 3, 4]);
        let ages: Vec<_> = children.iter().map(WorkerHandle::age).collect();
        assert_eq!(ages, [1, 3], "oldest first");
    }

    #[test]
    fn a_flood_of_notifications_is_read_in_bounded_steps() {
        let scoreboard = Arc::new(Scoreboard::new(1, 1).unwrap());
        let mut children = Children::new().unwrap();
        children.add(on_paper(&scoreboard, 0));
        let pipe = children.clone_notifier().unwrap();
        while nix::unistd::write(&pipe, &[b'!'; 4096]).is_ok() {}
        scoreboard.slot(0).set_state(SlotState::Serving);
        let news = children.read_slots(2000);
        assert_eq!(news, [(SlotNews::Serves, 1, 0)]);
        assert!(children.notify_pipe().is_none(), "the loop does not spin");
        assert!(children.read_slots(2001).is_empty());
        assert!(children.notify_pipe().is_some());
    }
}
