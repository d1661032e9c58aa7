//! A connection's way out: encoded bytes to the transport, what it does not take to the write queue, and the window that
//! holds back the thread of a streamed response.
//!
//! Bytes leave in order: nothing is written past the queue. What the application sends within one iteration leaves in one
//! write: a streamed response schedules a flush for the end of the iteration.

use std::io;
use std::sync::Arc;

use crate::pool::{Piece, Window};

use super::deferred_drop::DeferredDrops;
use super::transport::Transport;
use super::write_queue::{Flush, WriteQueue};

/// All connections together write at most this many bytes of their queues in one iteration, so that many large responses do
/// not keep a small one waiting for more than about a millisecond.
const ITERATION_BYTES: u64 = 2 * 1024 * 1024;

/// What the connections together may still write in this iteration.
#[derive(Debug)]
pub(super) struct WriteBudget {
    left: u64,
    was_exhausted: bool,
}

impl Default for WriteBudget {
    fn default() -> Self {
        Self {
            left: ITERATION_BYTES,
            was_exhausted: false,
        }
    }
}

impl WriteBudget {
    /// An iteration begins.
    pub(super) fn renew(&mut self) {
        self.was_exhausted = self.is_exhausted();
        self.left = ITERATION_BYTES;
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.left == 0
    }

    /// The last iteration's budget was not enough for all.
    pub(super) fn was_exhausted(&self) -> bool {
        self.was_exhausted
    }

    /// A connection has written `bytes` of its queue. What is over the budget is one connection's share at most.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }
}

/// How far a flush came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Everything is written.
    Done,
    /// The client has to take something first; it has taken this many bytes now.
    Blocked { written: u64 },
    /// The share of this connection is used up for this iteration: this many bytes.
    ShareUsed { written: u64 },
    /// All connections have together used up what may be written in this iteration.
    BudgetExhausted,
}

/// Why a response cannot be written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The client is gone.
    Socket,
    /// The file was truncated while it was being sent.
    FileShort,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct WriteSide {
    queue: WriteQueue,
    /// Of the response that is being streamed.
    window: Option<Arc<Window>>,
    /// There is more of it in the window's spool.
    has_spool: bool,
    /// A flush is to come at the end of the iteration.
    is_flush_scheduled: bool,
}

impl WriteSide {
    /// Nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that wait to be written.
    pub(super) fn unsent_bytes(&self) -> u64 {
        self.queue.unsent_bytes()
    }

    /// Write `bytes`, and queue what the socket does not take. Empties `bytes`.
    pub(super) fn send(&mut self, bytes: &mut Vec<u8>, transport: &mut Transport) {
        self.send_by(Transport::write, bytes, transport);
    }

    /// As [`WriteSide::send`], when the end of the stream is sent next.
    pub(super) fn send_last(&mut self, bytes: &mut Vec<u8>, transport: &mut Transport) {
        self.send_by(Transport::write_last, bytes, transport);
    }

    fn send_by(
        &mut self,
        write: fn(&mut Transport, &[u8]) -> io::Result<usize>,
        bytes: &mut Vec<u8>,
        transport: &mut Transport,
    ) {
        let mut written = 0;
        if self.queue.is_empty() && !bytes.is_empty() {
            // A broken socket is found again, and its connection closed, by the flush that follows.
            written = write(transport, bytes).unwrap_or(0);
        }
        if written < bytes.len() {
            self.queue.push_bytes(&bytes[written..], 0);
        }
        bytes.clear();
    }

    /// Queue `bytes`. Empties `bytes`.
    pub(super) fn queue_bytes(&mut self, bytes: &mut Vec<u8>) {
        self.queue.push_bytes(bytes, 0);
        bytes.clear();
    }

    /// Queue the first `take` bytes of a piece, which gives back `credit` bytes of the window when it is written.
    pub(super) fn queue_piece(
        &mut self,
        piece: Piece,
        take: u64,
        credit: usize,
        drops: &mut DeferredDrops,
    ) {
        self.queue.push_piece(piece, take, credit, drops);
    }

    /// Write what is queued.
    ///
    /// # Errors
    /// It can never be written.
    pub(super) fn flush(
        &mut self,
        transport: &mut Transport,
        budget: &mut WriteBudget,
        drops: &mut DeferredDrops,
    ) -> Result<Progress, WriteError> {
        if self.queue.is_empty() {
            return Ok(Progress::Done);
        }
        if budget.is_exhausted() {
            return Ok(Progress::BudgetExhausted);
        }
        let flushed = self
            .queue
            .flush(transport, drops)
            .map_err(|_| WriteError::Socket)?;
        budget.spend(flushed.written);
        if flushed.credit > 0
            && let Some(window) = &self.window
        {
            window.credit(flushed.credit);
        }
        match flushed.end {
            Flush::Done => Ok(Progress::Done),
            Flush::Blocked => Ok(Progress::Blocked {
                written: flushed.written,
            }),
            Flush::ShareUsed => Ok(Progress::ShareUsed {
                written: flushed.written,
            }),
            Flush::FileShort => Err(WriteError::FileShort),
        }
    }

    /// A streamed response begins.
    pub(super) fn open_window(&mut self, window: Arc<Window>) {
        self.window = Some(window);
        self.has_spool = false;
    }

    /// There is something in the spool of the response that is being streamed.
    pub(super) fn note_spool(&mut self) {
        self.has_spool = true;
    }

    /// When everything is written: what comes next from the spool.
    pub(super) fn take_spooled(&mut self) -> Option<Piece> {
        if !self.has_spool || !self.queue.is_empty() {
            return None;
        }
        let taken = self
            .window
            .as_ref()
            .and_then(|window| window.take_spooled());
        self.has_spool = matches!(taken, Some((_, true)));
        taken.map(|(part, _)| part.into())
    }

    /// A response is over: its thread does not wait any more.
    pub(super) fn forget_window(&mut self) {
        self.window = None;
    }

    /// Have a flush at the end of the iteration. Returns false when there will be one already.
    pub(super) fn schedule_flush(&mut self) -> bool {
        !std::mem::replace(&mut self.is_flush_scheduled, true)
    }

    /// The end of the iteration has come. Returns whether something is to be flushed: the end of the response may have
    /// come in the same iteration and taken everything along.
    pub(super) fn take_scheduled(&mut self) -> bool {
        self.is_flush_scheduled = false;
        !self.queue.is_empty()
    }

    /// The connection is gone: wake the thread that waits for the window, give back what was borrowed.
    pub(super) fn close(&mut self, drops: &mut DeferredDrops) {
        if let Some(window) = self.window.take() {
            window.close();
        }
        self.queue.abandon(drops);
    }

    /// A response is being streamed.
    pub(super) fn has_window(&self) -> bool {
        self.window.is_some()
    }
}

/// A piece that will not be sent is done with.
pub(super) fn discard(piece: Piece, drops: &mut DeferredDrops) {
    drops.push(piece.into_borrowed());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use super::*;

    #[test]
    fn nothing_is_written_past_the_queue_and_written_pieces_give_their_window_back() {
        let (mut transport, mut theirs) = Transport::pair();
        let (mut side, mut drops) = (WriteSide::default(), DeferredDrops::default());
        let window = Arc::new(Window::new(2));
        assert_eq!(window.add(3), Ok(true));
        side.open_window(window.clone());
        side.queue_piece(Piece::Bytes(b"abc".to_vec()), 3, 3, &mut drops);
        side.send(&mut b"def".to_vec(), &mut transport);
        assert_eq!(side.unsent_bytes(), 6);
        let mut budget = WriteBudget::default();
        let progress = side.flush(&mut transport, &mut budget, &mut drops).unwrap();
        assert_eq!(progress, Progress::Done);
        assert_eq!(window.add(0), Ok(false));
        drop(transport);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcdef");
    }

    #[test]
    fn an_exhausted_budget_leaves_the_queue_for_the_next_iteration() {
        let (mut transport, _theirs) = Transport::pair();
        let (mut side, mut drops) = (WriteSide::default(), DeferredDrops::default());
        side.queue_bytes(&mut b"abc".to_vec());
        let mut budget = WriteBudget::default();
        budget.spend(u64::MAX);
        let progress = side.flush(&mut transport, &mut budget, &mut drops).unwrap();
        assert_eq!(progress, Progress::BudgetExhausted);
        budget.renew();
        let progress = side.flush(&mut transport, &mut budget, &mut drops).unwrap();
        assert_eq!(progress, Progress::Done);
    }

    #[test]
    fn a_flush_is_scheduled_once_per_iteration() {
        let mut side = WriteSide::default();
        side.queue_bytes(&mut b"abc".to_vec());
        assert!(side.schedule_flush() && !side.schedule_flush());
        assert!(side.take_scheduled() && side.schedule_flush());
    }

    #[test]
    fn closing_ends_the_wait_of_a_thread() {
        let mut side = WriteSide::default();
        let window = Arc::new(Window::new(2));
        side.open_window(window.clone());
        side.close(&mut DeferredDrops::default());
        assert!(window.add(1).is_err() && !side.has_window());
    }

    #[test]
    fn an_exhausted_budget_is_remembered_for_one_iteration() {
        let mut budget = WriteBudget::default();
        budget.spend(ITERATION_BYTES - 1);
        assert!(!budget.is_exhausted());
        budget.spend(100);
        assert!(budget.is_exhausted() && !budget.was_exhausted());
        budget.renew();
        assert!(!budget.is_exhausted() && budget.was_exhausted());
        budget.renew();
        assert!(!budget.was_exhausted());
    }
}
