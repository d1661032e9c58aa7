//! "Python is alive": a thread that takes the GIL at intervals and records it; and the queue of tasks that need the GIL.
//!
//! The event loop's own heartbeat goes on while a C extension keeps the GIL for ever. This one stops then. It is a native
//! thread, started in the worker after the fork, with one thread state for its life. It also runs what other threads
//! need done with the GIL and may not wait for: the event loop and the log.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use pyo3::prelude::*;

use super::fork_guard::end_child;
use super::gil::{Reason, release};
use super::native_thread::{NativeThread, ThreadEnd};

/// The longest and the shortest time between two heartbeats. Within the timeout there are four.
const PERIOD_MAX: Duration = Duration::from_secs(1);
const PERIOD_MIN: Duration = Duration::from_millis(50);
/// Tasks beyond this are dropped: they are posted faster than Python runs them.
const TASKS_MAX: usize = 1024;

/// Something to do with the GIL.
pub type GilTask = Box<dyn FnOnce(Python<'_>) + Send>;

/// Takes tasks to the thread, from any other one and without waiting.
#[derive(Clone, Debug)]
pub struct GilTaskQueue(Sender<Message>);

enum Message {
    Run(GilTask),
    Stop,
}

impl GilTaskQueue {
    /// Have the task run soon. False: the queue is full, or the thread has left.
    pub fn post(&self, task: GilTask) -> bool {
        self.0.try_send(Message::Run(task)).is_ok()
    }
}

/// The queue of the process's heartbeat, while that runs.
static CURRENT: Mutex<Option<GilTaskQueue>> = Mutex::new(None);

/// Another thread that runs the tasks: where requests are greenlets, locks of Python are for the hub's thread alone.
pub trait TaskRunner: Send + Sync {
    /// False: there is no room for it.
    fn post(&self, task: GilTask) -> bool;

    /// Whether it may be long until the task is run.
    fn is_stalled(&self) -> bool;
}

static RUNNER: Mutex<Option<Arc<dyn TaskRunner>>> = Mutex::new(None);

/// From now on tasks are the runner's, or with `None` the heartbeat's again.
pub fn set_runner(runner: Option<Arc<dyn TaskRunner>>) {
    *RUNNER.lock().unwrap_or_else(PoisonError::into_inner) = runner;
}

fn runner() -> Option<Arc<dyn TaskRunner>> {
    let runner = RUNNER.lock().unwrap_or_else(PoisonError::into_inner);
    runner.clone()
}

/// As [`post`], for what is better done otherwise than late.
pub fn post_promptly(task: GilTask) -> bool {
    !runner().is_some_and(|runner| runner.is_stalled()) && post(task)
}

/// Have the task run soon by the process's heartbeat. False: there is none, or its queue is full.
pub fn post(task: GilTask) -> bool {
    if let Some(runner) = runner() {
        return runner.post(task);
    }
    let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    current.as_ref().is_some_and(|queue| queue.post(task))
}

/// The thread, until it is stopped.
#[derive(Debug)]
pub struct Heartbeat {
    queue: GilTaskQueue,
    thread: NativeThread,
}

impl Heartbeat {
    /// Call `record` with the GIL, often enough for `timeout` (the setting's; `None` is off).
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(timeout: Option<Duration>, record: Box<dyn Fn() + Send>) -> io::Result<Self> {
        let period = period(timeout);
        let (sender, arrived) = bounded(TASKS_MAX);
        let thread = NativeThread::spawn("ferricorn-pulse", move || {
            Python::attach(|py| live(py, period, &arrived, &record));
        })?;
        let queue = GilTaskQueue(sender);
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(queue.clone());
        Ok(Self { queue, thread })
    }

    /// The way to the thread.
    #[must_use]
    pub fn queue(&self) -> GilTaskQueue {
        self.queue.clone()
    }

    /// End the thread, before the interpreter ends. Tasks that were posted run first.
    #[must_use]
    pub fn stop(self, py: Python<'_>) -> ThreadEnd {
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Self { queue, thread } = self;
        release(py, Reason::ThreadEnd, || {
            // With a full queue the thread runs one of its tasks, or is stuck in it.
            let _ = queue.0.send_timeout(Message::Stop, STOP_WITHIN);
        });
        thread.join(py)
    }
}

/// A task that takes longer holds up the end of its worker.
const STOP_WITHIN: Duration = Duration::from_secs(2);

fn period(timeout: Option<Duration>) -> Duration {
    timeout.map_or(PERIOD_MAX, |timeout| {
        (timeout / 4).clamp(PERIOD_MIN, PERIOD_MAX)
    })
}

fn live(py: Python<'_>, period: Duration, arrived: &Receiver<Message>, record: &(dyn Fn() + Send)) {
    record();
    let mut next = Instant::now() + period;
    loop {
        let received = release(py, Reason::Heartbeat, || arrived.recv_deadline(next));
        match received {
            Ok(Message::Run(task)) => {
                task(py);
                end_child(py, None);
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() >= next {
            record();
            next = Instant::now() + period;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::with_interpreter;
    use std::sync::mpsc::channel;

    #[test]
    fn there_are_four_heartbeats_within_the_timeout() {
        assert_eq!(period(None), PERIOD_MAX);
        assert_eq!(
            period(Some(Duration::from_secs(2))),
            Duration::from_millis(500)
        );
        assert_eq!(period(Some(Duration::from_secs(600))), PERIOD_MAX);
        assert_eq!(period(Some(Duration::from_millis(1))), PERIOD_MIN);
    }

    #[test]
    fn tasks_run_in_order_and_before_the_end() {
        with_interpreter(|py| {
            let (recorded, records) = channel();
            let heartbeat =
                Heartbeat::start(None, Box::new(move || recorded.send(()).unwrap())).unwrap();
            let (ran, order) = channel();
            for number in 0..3 {
                let ran = ran.clone();
                assert!(post(Box::new(move |_| ran.send(number).unwrap())));
            }
            assert_eq!(heartbeat.stop(py), ThreadEnd::Returned);
            assert_eq!(order.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
            assert!(records.try_recv().is_ok(), "the first is recorded at once");
            assert!(!post(Box::new(|_| {})), "there is no thread any more");
        });
    }
}
