//! "Python is alive": a thread that takes the GIL now and then and says so.
//!
//! The event loop's own beat goes on while a C extension keeps the GIL for ever; this one stops. It is a native
//! thread, started in the worker after the fork, with one thread state for its life.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use pyo3::prelude::*;

use super::gil::{Reason, handoff};

/// Beats come at least so often, and four times within the timeout.
const PERIOD_MAX: Duration = Duration::from_secs(1);
const PERIOD_MIN: Duration = Duration::from_millis(50);

/// The thread, until it is stopped.
#[derive(Debug)]
pub struct Heartbeat {
    stop: Sender<()>,
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
        let (stop, stopped) = bounded(1);
        let thread = std::thread::Builder::new()
            .name("ferricorn-beat".to_owned())
            .spawn(move || {
                Python::attach(|py| {
                    loop {
                        beat();
                        let waited =
                            handoff(py, Reason::Heartbeat, || stopped.recv_timeout(period));
                        if waited != Err(RecvTimeoutError::Timeout) {
                            return;
                        }
                    }
                });
            })?;
        Ok(Self { stop, thread })
    }

    /// End the thread, before the interpreter ends.
    pub fn stop(self, py: Python<'_>) {
        // The thread holds the other end until it leaves.
        let _ = self.stop.try_send(());
        if handoff(py, Reason::Heartbeat, || self.thread.join()).is_err() {
            log::error!("The heartbeat thread panicked.");
        }
    }
}
