//! "Python is alive": a thread that takes the GIL now and then and says so.
//!
//! The event loop's own beat goes on while a C extension keeps the GIL for ever; this one stops. It is a native
//! thread, started in the worker after the fork, with one thread state for its life. Whatever else must be done with
//! the GIL and at once, but not by the event loop, is its errand too.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use pyo3::prelude::*;

use super::gil::{Reason, release};

/// Beats come at least so often, and four times within the timeout.
const PERIOD_MAX: Duration = Duration::from_secs(1);
const PERIOD_MIN: Duration = Duration::from_millis(50);
/// More than this waits only when the errands are slower than what asks for them.
const ERRANDS_MAX: usize = 1024;

/// Something to do with the GIL.
pub type Errand = Box<dyn FnOnce(Python<'_>) + Send>;

/// Takes errands to the thread, from any other one and without waiting.
#[derive(Clone, Debug)]
pub struct Errands(Sender<Option<Errand>>);

impl Errands {
    /// Have it done soon. An errand that finds no room, or no thread any more, is dropped.
    pub fn run(&self, errand: Errand) {
        let _ = self.0.try_send(Some(errand));
    }
}

/// Of the process's heartbeat, while it beats.
static CURRENT: Mutex<Option<Errands>> = Mutex::new(None);

/// Have it done soon, by the process's heartbeat. False: there is none, or it is far behind.
pub fn post(errand: Errand) -> bool {
    let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    current
        .as_ref()
        .is_some_and(|errands| errands.0.try_send(Some(errand)).is_ok())
}

/// The thread, until it is stopped.
#[derive(Debug)]
pub struct Heartbeat {
    /// `None` is the end.
    errands: Sender<Option<Errand>>,
    thread: JoinHandle<()>,
}

impl Heartbeat {
    /// Call `beat` with the GIL, often enough for `timeout` (the setting's; `None` is off).
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(timeout: Option<Duration>, beat: Box<dyn Fn() + Send>) -> io::Result<Self> {
        let period = timeout.map_or(PERIOD_MAX, |timeout| {
            (timeout / 4).clamp(PERIOD_MIN, PERIOD_MAX)
        });
        let (errands, arrived) = bounded::<Option<Errand>>(ERRANDS_MAX);
        let thread = std::thread::Builder::new()
            .name("ferricorn-beat".to_owned())
            .spawn(move || Python::attach(|py| live(py, period, &arrived, &beat)))?;
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Errands(errands.clone()));
        Ok(Self { errands, thread })
    }

    /// The way to the thread.
    pub fn errands(&self) -> Errands {
        Errands(self.errands.clone())
    }

    /// End the thread, before the interpreter ends. What was posted is done first.
    pub fn stop(self, py: Python<'_>) {
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let ended = release(py, Reason::Heartbeat, || {
            // The thread holds the other end until it leaves.
            let _ = self.errands.send(None);
            self.thread.join()
        });
        if ended.is_err() {
            log::error!("The heartbeat thread panicked.");
        }
    }
}

fn live(
    py: Python<'_>,
    period: Duration,
    errands: &Receiver<Option<Errand>>,
    beat: &(dyn Fn() + Send),
) {
    beat();
    let mut next = Instant::now() + period;
    loop {
        let received = release(py, Reason::Heartbeat, || errands.recv_deadline(next));
        match received {
            Ok(Some(errand)) => errand(py),
            Ok(None) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() >= next {
            beat();
            next = Instant::now() + period;
        }
    }
}
