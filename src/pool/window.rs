//! Flow control of one streamed response: the pool thread waits while the client has too much unread.
//!
//! The thread adds what it sends, the event loop takes away what the socket has accepted. Above the high
//! watermark the thread waits (without the GIL) until half of it has been written. The wait is bounded by the loop:
//! a client that reads nothing for `send_timeout` is closed, and closing the connection closes the window. It is also bounded
//! by other requests that wait for a thread: what follows is then spooled (`window/spooling.rs`).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::hub_wakeup::Ticket;
use super::response_memory::UnsentBytes;
use super::stream_spool::StreamSpool;

mod spooling;

pub use spooling::{NotStored, SpoolRoom};

/// The connection is gone: nothing more can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowClosed;

/// Why bytes cannot be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The connection is gone.
    Closed,
    /// The stream spools: they are to go there ([`Window::keep`]).
    Spooling,
}

/// Why a thread waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The client has read enough.
    Room,
    /// A request waits for the thread.
    Hurried,
}

/// While the worker holds as much unsent as it may, a window holds this many bytes at most: what the socket's own buffer takes.
const FULL_BYTES: usize = 64 * 1024;

/// Bytes on their way from one pool thread to one client.
#[derive(Debug)]
pub struct Window {
    flow: Mutex<Flow>,
    moved: Condvar,
    /// Above this many unsent bytes the thread waits.
    high_bytes: usize,
    /// Where the bytes count.
    unsent: Arc<UnsentBytes>,
}

#[derive(Debug)]
struct Flow {
    /// Sent by the thread and not yet accepted by the socket.
    unsent_bytes: usize,
    condition: Condition,
    /// The thread waits on `moved`.
    waiting: bool,
    /// It is to wait no longer.
    is_hurried: bool,
    /// Greenlets that wait.
    tickets: Vec<Ticket>,
    spool: Option<Box<StreamSpool>>,
}

/// What becomes of bytes that the thread sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Open,
    Spooling,
    Closed,
}

impl Condition {
    fn spool(&mut self) {
        if *self == Self::Open {
            *self = Self::Spooling;
        }
    }

    fn resume(&mut self) {
        if *self == Self::Spooling {
            *self = Self::Open;
        }
    }

    fn close(&mut self) {
        *self = Self::Closed;
    }
}

impl Window {
    /// A window that lets `high_bytes` be under way.
    pub fn new(high_bytes: usize) -> Self {
        Self::counted(high_bytes, Arc::default())
    }

    /// As [`Window::new`], with the bytes counted among those that the worker holds.
    pub fn counted(high_bytes: usize, unsent: Arc<UnsentBytes>) -> Self {
        let flow = Flow {
            unsent_bytes: 0,
            condition: Condition::Open,
            waiting: false,
            is_hurried: false,
            tickets: Vec::new(),
            spool: None,
        };
        Self {
            flow: Mutex::new(flow),
            moved: Condvar::new(),
            high_bytes,
            unsent,
        }
    }

    /// Pool thread: `len` bytes are sent. Returns whether it must [`Window::wait`] before the next ones.
    ///
    /// # Errors
    /// See [`NotSent`]; the bytes are not to be sent.
    pub fn add(&self, len: usize) -> Result<bool, NotSent> {
        let mut flow = self.lock();
        if flow.condition != Condition::Open {
            return Err(match flow.condition {
                Condition::Spooling => NotSent::Spooling,
                _ => NotSent::Closed,
            });
        }
        flow.unsent_bytes += len;
        self.unsent.add(len);
        Ok(flow.unsent_bytes > self.high_bytes())
    }

    /// Pool thread, without the GIL: wait until at most half of the window is unsent, and nothing is spooled.
    ///
    /// # Errors
    /// [`WindowClosed`] when the connection is gone.
    pub fn wait(&self) -> Result<(), WindowClosed> {
        let counted = self.unsent.stream_waits(None);
        let waited = self.wait_until(None);
        drop(counted);
        waited.map(|_| ())
    }

    /// Pool thread, without the GIL: as [`Window::wait`], unless the thread is hurried because others wait for it. After a
    /// while it looks by itself whether `others_wait`, which is told whether threads are hurried one after another.
    ///
    /// # Errors
    /// [`WindowClosed`] when the connection is gone.
    pub fn wait_or_hurry(
        self: &Arc<Self>,
        others_wait: impl FnOnce(bool) -> bool,
    ) -> Result<Waited, WindowClosed> {
        let mut flow = self.lock();
        flow.is_hurried = false;
        drop(flow);
        let window = self.clone();
        let counted = self
            .unsent
            .stream_waits(Some(Arc::new(move || window.hurry())));
        let since = Instant::now();
        let (patience, is_series) = self.unsent.hurries().patience(since);
        let mut waited = self.wait_until(Some(patience))?;
        if waited.is_none() && others_wait(is_series) {
            self.unsent.hurries().note(Instant::now());
            waited = Some(Waited::Hurried);
        }
        let waited = match waited {
            Some(waited) => waited,
            None => self.wait_until(None)?.unwrap_or(Waited::Room),
        };
        drop(counted);
        Ok(waited)
    }

    /// Wait for `patience` at most. `None`: that is over.
    fn wait_until(&self, patience: Option<Duration>) -> Result<Option<Waited>, WindowClosed> {
        let mut flow = self.lock();
        flow.waiting = true;
        let must_wait = |flow: &mut Flow| {
            let has_room = flow.unsent_bytes <= self.high_bytes() / 2 && flow.is_spool_empty();
            flow.condition != Condition::Closed && !has_room && !flow.is_hurried
        };
        let mut is_over = false;
        let mut flow = match patience {
            None => {
                let waited = self.moved.wait_while(flow, must_wait);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
            Some(patience) => {
                let waited = self.moved.wait_timeout_while(flow, patience, must_wait);
                let (flow, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                is_over = timeout.timed_out();
                flow
            }
        };
        flow.waiting = false;
        let is_hurried = std::mem::take(&mut flow.is_hurried);
        match flow.condition {
            Condition::Closed => Err(WindowClosed),
            _ if is_over => Ok(None),
            _ if is_hurried => Ok(Some(Waited::Hurried)),
            _ => Ok(Some(Waited::Room)),
        }
    }

    /// Pool thread, without the GIL: as [`Window::wait`], for `patience` at most. Returns whether there is room.
    ///
    /// # Errors
    /// [`WindowClosed`] when the connection is gone.
    pub fn wait_for(&self, patience: Duration) -> Result<bool, WindowClosed> {
        let mut flow = self.lock();
        flow.waiting = true;
        let waited = self.moved.wait_timeout_while(flow, patience, |flow| {
            flow.condition != Condition::Closed && flow.unsent_bytes > self.high_bytes() / 2
        });
        let (mut flow, _) = waited.unwrap_or_else(PoisonError::into_inner);
        flow.waiting = false;
        drop(flow);
        self.has_room()
    }

    /// Pool thread: whether at most half of the window is unsent.
    ///
    /// # Errors
    /// [`WindowClosed`] when the connection is gone.
    pub fn has_room(&self) -> Result<bool, WindowClosed> {
        let flow = self.lock();
        if flow.condition == Condition::Closed {
            return Err(WindowClosed);
        }
        Ok(flow.unsent_bytes <= self.high_bytes() / 2)
    }

    /// A greenlet, before it waits: as [`Window::has_room`]. Without room the ticket is called up when that may have
    /// changed.
    ///
    /// # Errors
    /// [`WindowClosed`] when the connection is gone.
    pub fn await_room(&self, ticket: Ticket) -> Result<bool, WindowClosed> {
        let mut flow = self.lock();
        if flow.condition == Condition::Closed {
            return Err(WindowClosed);
        }
        let has_room = flow.unsent_bytes <= self.high_bytes() / 2;
        if !has_room {
            flow.tickets.push(ticket);
        }
        Ok(has_room)
    }

    /// Event loop: the socket has accepted `len` bytes (or they will never be sent).
    pub fn credit(&self, len: usize) {
        let mut flow = self.lock();
        debug_assert!(flow.unsent_bytes >= len, "the socket accepts what was sent");
        let len = len.min(flow.unsent_bytes);
        flow.unsent_bytes -= len;
        self.unsent.subtract(len);
        if (flow.waiting || !flow.tickets.is_empty()) && flow.unsent_bytes <= self.high_bytes() / 2
        {
            flow.call_up();
            self.moved.notify_one();
        }
    }

    /// Event loop: the connection is gone.
    pub fn close(&self) {
        let mut flow = self.lock();
        flow.condition.close();
        flow.call_up();
        let spool = flow.spool.take();
        drop(flow);
        self.moved.notify_one();
        // Files are closed without the lock.
        drop(spool);
    }

    fn high_bytes(&self) -> usize {
        match self.unsent.is_full() {
            true => self.high_bytes.min(FULL_BYTES),
            false => self.high_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    fn call_up(&mut self) {
        self.tickets.drain(..).for_each(Ticket::call_up);
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // What was never written, or not counted back by a connection that closed.
        let left = self.lock().unsent_bytes;
        self.unsent.subtract(left);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
    fn a_thread_that_waits_is_counted_while_it_does() {
        let unsent = Arc::new(UnsentBytes::new(0, None));
        let window = Arc::new(Window::counted(10, unsent.clone()));
        assert_eq!(window.add(20), Ok(true));
        let waiter = std::thread::spawn({
            let window = window.clone();
            move || window.wait()
        });
        while unsent.waiting_streams() == 0 {
            std::thread::yield_now();
        }
        window.credit(15);
        waiter.join().unwrap().unwrap();
        assert_eq!(unsent.waiting_streams(), 0);
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
    fn what_is_unsent_counts_and_a_full_worker_lets_a_stream_hold_little() {
        let unsent = Arc::new(UnsentBytes::new(100_000, None));
        let (first, second) = (
            Window::counted(512 * 1024, unsent.clone()),
            Window::counted(512 * 1024, unsent.clone()),
        );
        assert_eq!(first.add(70_000), Ok(false));
        assert_eq!(second.add(30_000), Ok(false));
        assert_eq!(
            first.add(1),
            Ok(true),
            "the worker is full, and this is more than 64 KiB"
        );
        assert_eq!(second.add(1), Ok(false));
        second.credit(30_001);
        assert_eq!(unsent.held(), 70_001);
        drop(first);
        assert_eq!(unsent.held(), 0);
    }

    #[test]
    fn a_greenlet_is_called_up_when_there_is_room_or_none_will_be() {
        let hub = Arc::new(crate::pool::HubWakeup::new().unwrap());
        let window = Window::new(10);
        assert_eq!(window.await_room(hub.ticket()), Ok(true));
        assert_eq!(window.add(20), Ok(true));
        assert_eq!(window.await_room(hub.ticket()), Ok(false));
        window.credit(1);
        assert_eq!(hub.next_due(), None);
        window.credit(14);
        assert_eq!(hub.next_due(), Some(2));
        assert_eq!(window.add(20), Ok(true));
        assert_eq!(window.await_room(hub.ticket()), Ok(false));
        window.close();
        assert_eq!(hub.next_due(), Some(3));
        assert_eq!(window.await_room(hub.ticket()), Err(WindowClosed));
    }

    #[test]
    fn patience_ends_before_the_client_reads() {
        let window = Window::new(10);
        assert_eq!(window.add(20), Ok(true));
        assert_eq!(window.wait_for(Duration::ZERO), Ok(false));
        window.credit(15);
        assert_eq!(window.wait_for(Duration::ZERO), Ok(true));
        window.close();
        assert_eq!(window.wait_for(Duration::ZERO), Err(WindowClosed));
    }

    #[test]
    fn a_closed_window_takes_nothing() {
        let window = Window::new(10);
        window.close();
        assert_eq!(window.add(1), Err(NotSent::Closed));
        assert_eq!(window.wait(), Err(WindowClosed));
    }
}
