//! The items of a response that is streamed, and the `bytes` objects that the event loop borrows.
//!
//! Runs on pool threads, attached. A thread whose client has too much unread waits without the GIL, a greenlet yields to
//! its hub. A thread that others wait for goes on without its client: what follows goes to the window's spool, until the
//! client has taken that.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::pool::{
    BorrowedBuffer, ConnId, NotSent, NotStored, Piece, Pool, Reply, SpoolRoom, Waited, Window,
    WindowClosed,
};
use crate::python::gil::{Reason, release};
use crate::python::green;

/// The high watermark of a streamed response: with more unsent bytes its thread waits.
pub(super) const WINDOW_BYTES: usize = 512 * 1024;
/// Up to this length an item is copied. The event loop borrows a longer one.
const STREAM_COPY_BYTES_MAX: usize = 4 * 1024;

/// Whether the client still listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Open,
    Gone,
}

impl Flow {
    pub(super) fn of(sent: Result<(), StreamEnd>) -> PyResult<Self> {
        match sent {
            Ok(()) => Ok(Self::Open),
            Err(StreamEnd::Gone) => Ok(Self::Gone),
            Err(StreamEnd::Raised(error)) => Err(error),
        }
    }
}

/// Why nothing more can be sent.
#[derive(Debug)]
pub(super) enum StreamEnd {
    /// The connection is gone.
    Gone,
    /// The greenlet was told to end while it waited.
    Raised(PyErr),
}

impl From<WindowClosed> for StreamEnd {
    fn from(_: WindowClosed) -> Self {
        Self::Gone
    }
}

impl From<NotSent> for StreamEnd {
    fn from(_: NotSent) -> Self {
        Self::Gone
    }
}

/// The client of a streamed response.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamClient<'a> {
    pub(super) conn: ConnId,
    pub(super) pool: &'a Pool,
    pub(super) window: &'a Arc<Window>,
}

impl StreamClient<'_> {
    /// Send one item, then wait if the client has too much unread.
    pub(super) fn send_item(self, py: Python<'_>, bytes: &Bound<'_, PyBytes>) -> PyResult<Flow> {
        if bytes.as_bytes().is_empty() {
            return Ok(Flow::Open);
        }
        match self.send_piece(piece_of(bytes)) {
            Ok(true) => Flow::of(self.wait_or_spool(py)),
            Ok(false) => Flow::of(self.give_way(py)),
            Err(NotSent::Closed) => Ok(Flow::Gone),
            Err(NotSent::Spooling) => Flow::of(self.spool(py, bytes)),
        }
    }

    /// A greenlet whose client keeps up with it would never yield: from time to time it lets the others run.
    fn give_way(self, py: Python<'_>) -> Result<(), StreamEnd> {
        match green::here() {
            Some(hub) if hub.has_sent_alone(self.conn, Instant::now()) => {
                let waited = hub.begin_wait().until_called(py, Some(Duration::ZERO));
                waited.map_err(StreamEnd::Raised)
            }
            _ => Ok(()),
        }
    }

    /// Send a piece. Returns whether the client has too much unread.
    pub(super) fn send_piece(self, piece: Piece) -> Result<bool, NotSent> {
        let must_wait = self.window.add(piece.window_bytes())?;
        self.pool.send_piece(self.conn, piece, must_wait);
        Ok(must_wait)
    }

    /// Wait until the client has read enough.
    pub(super) fn wait(self, py: Python<'_>) -> Result<(), StreamEnd> {
        let Some(hub) = green::here() else {
            return Ok(release(py, Reason::Window, || self.window.wait())?);
        };
        loop {
            let wait = hub.begin_wait();
            if self.window.await_room(wait.ticket())? {
                return Ok(());
            }
            wait.until_called(py, None).map_err(StreamEnd::Raised)?;
        }
    }

    /// Wait until the client has read enough, or another request waits for the thread: then what follows is spooled.
    fn wait_or_spool(self, py: Python<'_>) -> Result<(), StreamEnd> {
        if green::here().is_some() {
            return self.wait(py);
        }
        match self.wait_or_hurry(py)? {
            Waited::Room => {}
            Waited::Hurried => self.window.begin_spool(),
        }
        Ok(())
    }

    fn wait_or_hurry(self, py: Python<'_>) -> Result<Waited, WindowClosed> {
        let others_wait = |is_series| {
            self.pool.queue_length() > 0 && (is_series || self.pool.has_stuck_threads())
        };
        release(py, Reason::Window, || {
            self.window.wait_or_hurry(others_wait)
        })
    }

    /// An item of a stream that spools. Cold, and in a frame of its own.
    #[cold]
    #[inline(never)]
    fn spool(self, py: Python<'_>, bytes: &Bound<'_, PyBytes>) -> Result<(), StreamEnd> {
        let content = bytes.as_bytes();
        let mut can_store = true;
        loop {
            match self.window.keep(content)? {
                SpoolRoom::Kept { announce } => {
                    self.announce(announce);
                    return Ok(());
                }
                SpoolRoom::Full => {}
                SpoolRoom::CaughtUp => match self.send_piece(piece_of(bytes)) {
                    Ok(true) => return self.wait_or_spool(py),
                    Ok(false) => return Ok(()),
                    Err(NotSent::Closed) => return Err(StreamEnd::Gone),
                    Err(NotSent::Spooling) => continue,
                },
            }
            if !can_store {
                release(py, Reason::Window, || self.window.wait())?;
            } else if self.pool.queue_length() == 0 {
                self.wait_or_hurry(py)?;
            } else if self.store(py, content)? {
                return Ok(());
            } else {
                can_store = false;
            }
        }
    }

    /// Write what is kept to a file, and `content` behind it. Returns false when there is no room for it.
    fn store(self, py: Python<'_>, content: &[u8]) -> Result<bool, WindowClosed> {
        let (announce, stored) = release(py, Reason::UnsentResponse, || self.window.store(content));
        self.announce(announce);
        match stored {
            Ok(()) => Ok(true),
            Err(NotStored::Closed) => Err(WindowClosed),
            Err(NotStored::Limit) => Ok(false),
            Err(NotStored::Failed { bytes, error }) => {
                self.pool.unsent().log_failure(bytes, &error);
                Ok(false)
            }
        }
    }

    fn announce(self, announce: bool) {
        if announce {
            self.pool.send_and_wait(Reply::Spooled(self.conn));
        }
    }

    /// The response is over: send what is in the spool, so that the thread is free.
    pub(super) fn flush_spool(self, py: Python<'_>) {
        if !self.window.has_spooled() {
            return;
        }
        let parts = release(py, Reason::UnsentResponse, || self.window.take_rest());
        for part in parts {
            // The loop learns from the job that there is no more.
            let _ = self.send_piece(part.into());
        }
    }

    /// Wait until the client has read enough, for `patience` at most. Returns whether it has.
    pub(super) fn wait_for(self, py: Python<'_>, patience: Duration) -> Result<bool, StreamEnd> {
        let Some(hub) = green::here() else {
            let wait = || self.window.wait_for(patience);
            return Ok(release(py, Reason::Window, wait)?);
        };
        let wait = hub.begin_wait();
        if self.window.await_room(wait.ticket())? {
            return Ok(true);
        }
        let waited = wait.until_called(py, Some(patience));
        waited.map_err(StreamEnd::Raised)?;
        Ok(self.window.has_room()?)
    }
}

/// An item as the event loop gets it.
pub(super) fn piece_of(bytes: &Bound<'_, PyBytes>) -> Piece {
    let content = bytes.as_bytes();
    if content.len() > STREAM_COPY_BYTES_MAX {
        Piece::Borrowed(Box::new(BorrowedBytes::new(bytes)))
    } else {
        Piece::Bytes(content.to_vec())
    }
}

/// A `bytes` object that the event loop reads.
#[derive(Debug)]
pub(super) struct BorrowedBytes {
    /// Keeps the bytes alive. Dropped on a pool thread.
    _object: Py<PyBytes>,
    start: NonNull<u8>,
    len: usize,
}

impl BorrowedBytes {
    pub(super) fn new(bytes: &Bound<'_, PyBytes>) -> Self {
        let content = bytes.as_bytes();
        Self {
            start: NonNull::from(content).cast(),
            len: content.len(),
            _object: bytes.clone().unbind(),
        }
    }
}

#[expect(
    unsafe_code,
    reason = "the bytes of an immutable object are read without the GIL"
)]
// SAFETY: `bytes` objects are immutable and `_object` keeps this one alive, so its bytes may be read on any thread.
unsafe impl Send for BorrowedBytes {}

impl BorrowedBuffer for BorrowedBytes {
    #[expect(
        unsafe_code,
        reason = "the bytes of an immutable object are read without the GIL"
    )]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `start` and `len` are those of the bytes object that `_object` keeps alive; its content does not move
        // or change.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}
