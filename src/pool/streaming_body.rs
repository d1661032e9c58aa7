//! A request body that reaches the application as it arrives (`request_buffering = False`): a bounded window between
//! the event loop, which pushes what it has decoded, and the pool thread, which waits for it without the GIL.
//!
//! When the window is full the loop stops reading, and the kernel holds the client back. A read that empties
//! the window asks for more, and so does the first one that finds nothing: that is when a client that waits for
//! `100 Continue` gets it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::conn_id::ConnId;
use super::hub_wakeup::Ticket;

/// The loop stops reading at this many unread bytes. What one read brought may come on top.
const WINDOW_BYTES: usize = 64 * 1024;

/// Who is asked for more of a body: the event loop, through the pool.
pub trait BodyDemand: Send + Sync + std::fmt::Debug {
    /// The application waits for more of the body of this connection, or has room for it.
    fn want_body(&self, conn: ConnId);
}

/// See the module.
#[derive(Debug)]
pub struct StreamingBody {
    flow: Mutex<Flow>,
    moved: Condvar,
    conn: ConnId,
    demand: Arc<dyn BodyDemand>,
}

#[derive(Debug)]
struct Flow {
    bytes: Vec<u8>,
    end: End,
    /// The loop has stopped reading.
    is_paused: bool,
    /// The application has asked for the body.
    was_asked: bool,
    /// Greenlets that wait.
    tickets: Vec<Ticket>,
}

#[derive(Debug)]
enum End {
    Open,
    /// Everything has arrived.
    Whole,
    /// It never will.
    Broken(io::ErrorKind, &'static str),
}

impl StreamingBody {
    /// The body of the request that `conn` is sending.
    pub fn new(demand: Arc<dyn BodyDemand>, conn: ConnId) -> Self {
        let flow = Flow {
            bytes: Vec::new(),
            end: End::Open,
            is_paused: false,
            was_asked: false,
            tickets: Vec::new(),
        };
        Self {
            flow: Mutex::new(flow),
            moved: Condvar::new(),
            conn,
            demand,
        }
    }

    /// Event loop: bytes have arrived. Returns whether it must stop reading until [`BodyDemand::want_body`].
    pub fn push(&self, bytes: &[u8]) -> bool {
        let mut flow = self.lock();
        flow.bytes.extend_from_slice(bytes);
        flow.is_paused = flow.bytes.len() >= WINDOW_BYTES;
        self.notify(&mut flow);
        flow.is_paused
    }

    /// Event loop: the body is whole.
    pub fn end(&self) {
        let mut flow = self.lock();
        flow.end = End::Whole;
        self.notify(&mut flow);
    }

    /// Event loop: the rest of the body will not come.
    pub fn break_off(&self, kind: io::ErrorKind, why: &'static str) {
        let mut flow = self.lock();
        if matches!(flow.end, End::Open) {
            flow.end = End::Broken(kind, why);
        }
        self.notify(&mut flow);
    }

    fn notify(&self, flow: &mut Flow) {
        flow.tickets.drain(..).for_each(Ticket::call_up);
        self.moved.notify_all();
    }

    /// Pool thread, without the GIL: wait for bytes and append them to `to`. Returns false at the end of the body.
    /// A greenlet gives a `ticket` and does not wait here: it is called up when something has arrived.
    ///
    /// # Errors
    /// The body was broken off: a part must never pass for the whole. `WouldBlock`: the ticket will be called up.
    pub fn take(&self, to: &mut Vec<u8>, ticket: Option<&Ticket>) -> io::Result<bool> {
        let mut flow = self.lock();
        while flow.bytes.is_empty() {
            match flow.end {
                End::Open => {}
                End::Whole => return Ok(false),
                End::Broken(kind, why) => return Err(io::Error::new(kind, why)),
            }
            if !std::mem::replace(&mut flow.was_asked, true) {
                self.demand.want_body(self.conn);
            }
            if let Some(ticket) = ticket {
                flow.tickets.push(ticket.clone());
                return Err(io::ErrorKind::WouldBlock.into());
            }
            flow = self
                .moved
                .wait(flow)
                .unwrap_or_else(PoisonError::into_inner);
        }
        to.append(&mut flow.bytes);
        if std::mem::take(&mut flow.is_paused) {
            self.demand.want_body(self.conn);
        }
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts how often more was asked for.
    #[derive(Debug, Default)]
    struct Asked(AtomicUsize);

    impl BodyDemand for Asked {
        fn want_body(&self, _: ConnId) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Asked {
        fn count(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn body() -> (Arc<Asked>, StreamingBody) {
        let asked = Arc::new(Asked::default());
        let conn = ConnId::new(0, 0);
        (asked.clone(), StreamingBody::new(asked, conn))
    }

    #[test]
    fn a_full_window_pauses_and_an_emptied_one_asks_for_more() {
        let (asked, body) = body();
        assert!(!body.push(&[1; 10]));
        assert!(body.push(&[2; WINDOW_BYTES]));
        assert_eq!(asked.count(), 0);
        let mut bytes = Vec::new();
        assert!(body.take(&mut bytes, None).unwrap());
        assert_eq!(bytes.len(), WINDOW_BYTES + 10);
        assert_eq!(asked.count(), 1);
    }

    #[test]
    fn the_first_read_that_finds_nothing_asks_and_waits() {
        let (asked, body) = body();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut bytes = Vec::new();
                while body.take(&mut bytes, None).unwrap() {}
                bytes
            });
            while asked.count() == 0 {
                std::thread::yield_now();
            }
            body.push(b"late");
            body.end();
            assert_eq!(reader.join().unwrap(), b"late");
        });
    }

    #[test]
    fn a_greenlet_does_not_wait_and_is_called_up() {
        let (asked, body) = body();
        let hub = Arc::new(crate::pool::HubWakeup::new().unwrap());
        let mut bytes = Vec::new();
        let error = body.take(&mut bytes, Some(&hub.ticket())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!((asked.count(), hub.next_due()), (1, None));
        body.push(b"late");
        assert_eq!(hub.next_due(), Some(1));
        assert!(body.take(&mut bytes, Some(&hub.ticket())).unwrap());
        assert_eq!(bytes, b"late");
    }

    #[test]
    fn a_broken_body_is_an_error_behind_what_had_come_and_stays_one() {
        let (_asked, body) = body();
        body.push(b"part");
        body.break_off(io::ErrorKind::TimedOut, "too slow");
        let mut bytes = Vec::new();
        assert!(body.take(&mut bytes, None).unwrap());
        for _ in 0..2 {
            let error = body.take(&mut bytes, None).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }
}
