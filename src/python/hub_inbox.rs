//! What the event loop tells the thread of the hub: requests whose time is over, hooks and tasks, and the end.
//!
//! The loop never attaches for that. It pushes and wakes the hub, which looks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam::queue::SegQueue;
use pyo3::prelude::*;

use crate::pool::{HubWakeup, TimedOutRequest};

use super::fork_guard::end_child;
use super::heartbeat::GilTask;
use super::hub_call::HubCall;
use super::threads::SignalHook;

/// For how long the event loop waits until the hub begins with what is to be done about a signal; `None`: the loop does it.
pub type HookPatience = fn(i32) -> Option<Duration>;

/// Tasks beyond this are dropped: they are posted faster than Python runs them.
const TASKS_MAX: usize = 1024;

/// See the module.
pub(super) struct HubInbox {
    wakeup: Arc<HubWakeup>,
    timed_out: SegQueue<TimedOutRequest>,
    calls: SegQueue<Arc<HubCall>>,
    tasks: SegQueue<GilTask>,
    /// A greenlet runs the tasks: they are run in order.
    runs_tasks: AtomicBool,
    on_signal: SignalHook,
    patience: HookPatience,
    /// The greenlets that still run are to be killed.
    must_end: AtomicBool,
    /// The hub's thread has left the pool.
    has_left: Mutex<bool>,
    left: Condvar,
}

impl HubInbox {
    /// # Errors
    /// The system has no descriptor left.
    pub(super) fn new(on_signal: SignalHook, patience: HookPatience) -> std::io::Result<Self> {
        Ok(Self {
            wakeup: Arc::new(HubWakeup::new()?),
            timed_out: SegQueue::new(),
            calls: SegQueue::new(),
            tasks: SegQueue::new(),
            runs_tasks: AtomicBool::new(false),
            on_signal,
            patience,
            must_end: AtomicBool::new(false),
            has_left: Mutex::new(false),
            left: Condvar::new(),
        })
    }

    pub(super) fn wakeup(&self) -> &Arc<HubWakeup> {
        &self.wakeup
    }

    /// The loop: the hooks of a signal are called in a greenlet if `hub_turns`, else here.
    pub(super) fn on_signal(&self, signal: i32, hub_turns: bool) {
        let turns = hub_turns && !*self.has_left();
        if let Some(patience) = (self.patience)(signal).filter(|_| turns) {
            let call = Arc::new(HubCall::new(signal));
            self.calls.push(Arc::clone(&call));
            self.wakeup.wake();
            if call.wait(patience) {
                return;
            }
        }
        (self.on_signal)(signal);
    }

    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// In a greenlet: a hook may switch.
    pub(super) fn run_calls(&self) {
        while let Some(call) = self.calls.pop() {
            call.run(|signal| (self.on_signal)(signal));
        }
    }

    /// Any thread: have the task run by the hub's. False: more wait than it runs.
    pub(super) fn push_task(&self, task: GilTask) -> bool {
        let has_room = self.tasks.len() < TASKS_MAX;
        if has_room {
            self.tasks.push(task);
            self.wakeup.wake();
        }
        has_room
    }

    /// Whether there is a task, and no greenlet runs them.
    pub(super) fn has_tasks(&self) -> bool {
        !self.tasks.is_empty() && !self.runs_tasks.load(Ordering::Relaxed)
    }

    /// In a greenlet: a task may switch. Another one that is begun meanwhile leaves them to the first.
    pub(super) fn run_tasks(&self, py: Python<'_>) {
        if self.runs_tasks.swap(true, Ordering::Relaxed) {
            return;
        }
        while let Some(task) = self.tasks.pop() {
            task(py);
            end_child(py, None);
        }
        self.runs_tasks.store(false, Ordering::Relaxed);
    }

    pub(super) fn push_timed_out(&self, request: TimedOutRequest) {
        self.timed_out.push(request);
        self.wakeup.wake();
    }

    pub(super) fn next_timed_out(&self) -> Option<TimedOutRequest> {
        self.timed_out.pop()
    }

    /// The loop: the greenlets that still run are to be killed. Returns whether the hub's thread has left within `patience`.
    pub(super) fn end_greenlets(&self, patience: Duration) -> bool {
        self.must_end.store(true, Ordering::Release);
        self.wakeup.wake();
        let waited = self
            .left
            .wait_timeout_while(self.has_left(), patience, |has_left| !*has_left);
        let (has_left, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *has_left
    }

    pub(super) fn must_end(&self) -> bool {
        self.must_end.load(Ordering::Acquire)
    }

    /// The hub's thread is the pool's no longer.
    pub(super) fn leave(&self) {
        *self.has_left() = true;
        self.left.notify_all();
    }

    fn has_left(&self) -> MutexGuard<'_, bool> {
        self.has_left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
