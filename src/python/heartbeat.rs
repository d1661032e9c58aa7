//! "Python is alive": a thread that takes the GIL now and then and says so.
//!
//! The event loop's own beat goes on while a C extension keeps the GIL for ever; this one stops. It is a native
//! thread, started in the worker after the fork, with one thread state for its life. What the event loop wants of
//! Python, and must not wait for, it runs too: see [`post`].

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use pyo3::prelude::*;

use super::gil::{Reason, handoff};

/// Beats come at least so often, and four times within the timeout.
const PERIOD_MAX: Duration = Duration::from_secs(1);
const PERIOD_MIN: Duration = Duration::from_millis(50);
/// More than this waits only when the chores are slower than what asks for them.
const CHORES_MAX: usize = 1024;

/// Something to do with the GIL.
pub type Chore = Box<dyn FnOnce(Python<'_>) + Send>;

enum Message {
    Chore(Chore),
    Stop,
}

/// Of the process's heartbeat, while it beats.
static CHORES: Mutex<Option<Sender<Message>>> = Mutex::new(None);

/// Have `chore` run on the heartbeat's thread, in the order of the calls. False: there is none, or it is far behind.
pub fn post(chore: Chore) -> bool {
    let chores = CHORES.lock().unwrap_or_else(PoisonError::into_inner);
    chores
        .as_ref()
        .is_some_and(|chores| chores.try_send(Message::Chore(chore)).is_ok())
}

/// The thread, until it is stopped.
#[derive(Debug)]
pub struct Heartbeat {
    stop: Sender<Message>,
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
        let (sender, messages) = bounded(CHORES_MAX);
        let thread = std::thread::Builder::new()
            .name("ferricorn-beat".to_owned())
            .spawn(move || Python::attach(|py| live(py, period, &messages, &beat)))?;
        *CHORES.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
        Ok(Self {
            stop: sender,
            thread,
        })
    }

    /// End the thread, before the interpreter ends. What was posted is done first.
    pub fn stop(self, py: Python<'_>) {
        *CHORES.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let ended = handoff(py, Reason::Heartbeat, || {
            // The thread holds the other end until it leaves.
            let _ = self.stop.send(Message::Stop);
            self.thread.join()
        });
        if ended.is_err() {
            log::error!("The heartbeat thread panicked.");
        }
    }
}

fn live(py: Python<'_>, period: Duration, messages: &Receiver<Message>, beat: &(dyn Fn() + Send)) {
    beat();
    let mut next = Instant::now() + period;
    loop {
        let received = handoff(py, Reason::Heartbeat, || messages.recv_deadline(next));
        match received {
            Ok(Message::Chore(chore)) => chore(py),
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() >= next {
            beat();
            next = Instant::now() + period;
        }
    }
}
