//! Flow control of one streamed response: the pool thread waits while the client has too much unread.
//!
//! The thread adds what it sends, the event loop takes away what the socket has accepted. Above the high
//! watermark the thread waits (without the GIL) until half of it has been written. The wait is bounded by the loop:
//! a client that reads nothing for `send_timeout` is closed, and closing the connection closes the window.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The connection is gone: nothing more can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowClosed;

/// Bytes on their way from one pool thread to one client.
#[derive(Debug)]
pub struct Window {
    flow: Mutex<Flow>,
    moved: Condvar,
    /// Above this many unsent bytes the thread waits.
    high_bytes: usize,
}

#[derive(Debug)]
struct Flow {
    /// Sent by the thread and not yet accepted by the socket.
    unsent_bytes: usize,
    closed: bool,
    /// The thread sleeps on `moved`.
    waiting: bool,
}

impl Window {
    /// A window that lets `high_bytes` be under way.
    pub fn new(high_bytes: usize) -> Self {
        let flow = Flow {
            unsent_bytes: 0,
            closed: false,
            waiting: false,
        };
        Self {
            flow: Mutex::new(flow),
            moved: Condvar::new(),
            high_bytes,
        }
    }

    /// Pool thread: `len` bytes are sent. Returns whether it must [`Window::wait`] before the next ones.
    ///
    /// # Errors
    /// [`WindowClosed`] when the connection is gone; the bytes need not be sent.
    pub fn add(&self, len: usize) -> Result<bool, WindowClosed> {
        let mut flow = self.lock();
        if flow.closed {
            return Err(WindowClosed);
        }
        flow.unsent_bytes += len;
        Ok(flow.unsent_bytes > self.high_bytes)
    }

    /// Pool thread, without the GIL: sleep until at most half of the window is unsent.
    ///
    /// # Errors
    /// [`WindowClosed`] when the connection is gone.
    pub fn wait(&self) -> Result<(), WindowClosed> {
        let mut flow = self.lock();
        while !flow.closed && flow.unsent_bytes > self.high_bytes / 2 {
            flow.waiting = true;
            flow = self
                .moved
                .wait(flow)
                .unwrap_or_else(PoisonError::into_inner);
        }
        flow.waiting = false;
        if flow.closed {
            Err(WindowClosed)
        } else {
            Ok(())
        }
    }

    /// Event loop: the socket has accepted `len` bytes (or they will never be sent).
    pub fn credit(&self, len: usize) {
        let mut flow = self.lock();
        debug_assert!(flow.unsent_bytes >= len, "the socket accepts what was sent");
        flow.unsent_bytes = flow.unsent_bytes.saturating_sub(len);
        if flow.waiting && flow.unsent_bytes <= self.high_bytes / 2 {
            self.moved.notify_one();
        }
    }

    /// Event loop: the connection is gone.
    pub fn close(&self) {
        self.lock().closed = true;
        self.moved.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_thread_waits_only_above_the_high_mark() {
        let window = Window::new(10);
        assert_eq!(window.add(10), Ok(false));
        assert_eq!(window.add(1), Ok(true));
        window.credit(6);
        assert_eq!(window.wait(), Ok(()));
    }

    #[test]
    fn credit_and_close_wake_the_waiting_thread() {
        for close in [false, true] {
            let window = Arc::new(Window::new(10));
            assert_eq!(window.add(20), Ok(true));
            let waiter = std::thread::spawn({
                let window = window.clone();
                move || window.wait()
            });
            if close {
                window.close()
            } else {
                window.credit(15)
            }
            assert_eq!(waiter.join().unwrap().is_err(), close);
        }
    }

    #[test]
    fn a_closed_window_takes_nothing() {
        let window = Window::new(10);
        window.close();
        assert_eq!(window.add(1), Err(WindowClosed));
        assert_eq!(window.wait(), Err(WindowClosed));
    }
}
