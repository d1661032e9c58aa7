//! A thread of the server beside the pool's, and its end with a bound.
//!
//! Such threads attach to the interpreter now and then, so they must have ended before the interpreter is finalized. One
//! that does not end in time is reported: the worker then leaves without finalizing.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::Python;

use super::gil::{Reason, release};

/// A thread of this kind ends within milliseconds of its signal. What takes longer waits for something that will not
/// come, such as a descriptor that the application has closed.
const END_WITHIN: Duration = Duration::from_secs(2);

/// How a thread ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadEnd {
    Returned,
    Panicked,
    /// It still runs, and is left behind.
    Stuck,
}

/// A running thread.
#[derive(Debug)]
pub struct NativeThread {
    name: &'static str,
    /// The thread sends once, when it returns. A panic drops the other end instead.
    returned: Receiver<()>,
}

impl NativeThread {
    /// Runs `body` on a thread of this name.
    ///
    /// # Errors
    /// The system refused a thread.
    pub fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (sender, returned) = channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                body();
                // The receiver is gone when the thread was left behind.
                let _ = sender.send(());
            })?;
        Ok(Self { name, returned })
    }

    /// Waits for its end, without the GIL and for two seconds at most. Anything but a return is logged.
    #[must_use]
    pub fn join(self, py: Python<'_>) -> ThreadEnd {
        self.join_within(py, END_WITHIN)
    }

    fn join_within(self, py: Python<'_>, patience: Duration) -> ThreadEnd {
        let Self { name, returned } = self;
        match release(py, Reason::ThreadEnd, move || {
            returned.recv_timeout(patience)
        }) {
            Ok(()) => ThreadEnd::Returned,
            Err(RecvTimeoutError::Disconnected) => {
                log::error!("Thread {name} panicked.");
                ThreadEnd::Panicked
            }
            Err(RecvTimeoutError::Timeout) => {
                log::error!("Thread {name} did not end in time.");
                ThreadEnd::Stuck
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::with_interpreter;

    #[test]
    fn a_thread_that_returns_is_joined() {
        with_interpreter(|py| {
            let thread = NativeThread::spawn("returns", || {}).unwrap();
            assert_eq!(thread.join(py), ThreadEnd::Returned);
        });
    }

    #[test]
    fn a_thread_that_does_not_end_is_left_behind() {
        with_interpreter(|py| {
            let (hold, held) = channel::<()>();
            let thread = NativeThread::spawn("waits", move || {
                let _ = held.recv();
            })
            .unwrap();
            assert_eq!(
                thread.join_within(py, Duration::from_millis(1)),
                ThreadEnd::Stuck
            );
            drop(hold);
        });
    }

    #[test]
    fn a_panic_is_not_taken_for_a_return() {
        with_interpreter(|py| {
            let thread = NativeThread::spawn("panics", || panic!("on purpose")).unwrap();
            assert_eq!(thread.join(py), ThreadEnd::Panicked);
        });
    }
}
