//! A stream whose thread is wanted for other requests: see [`StreamSpool`].

use std::io;

use super::{Condition, Flow, Window, WindowClosed};
use crate::pool::stream_spool::{Block, SpoolWrite, SpooledPart, StreamSpool};

/// What becomes of an item of a stream that spools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolRoom {
    /// The loop has taken everything: the item is sent as that of any stream.
    CaughtUp,
    /// It is kept. Whether the spool is to be announced.
    Kept { announce: bool },
    /// There is no room in memory.
    Full,
}

/// Why items could not be written to a file.
#[derive(Debug)]
pub enum NotStored {
    /// The connection is gone.
    Closed,
    /// The response has as much there as it may have.
    Limit,
    /// `bytes` were to be written.
    Failed { bytes: u64, error: io::Error },
}

impl Window {
    /// Pool thread: it was hurried. What follows is spooled.
    pub fn begin_spool(&self) {
        self.lock().condition.spool();
    }

    /// Whether what follows is spooled.
    pub fn is_spooling(&self) -> bool {
        self.lock().condition == Condition::Spooling
    }

    /// Whether something is spooled that the loop has not taken.
    pub fn has_spooled(&self) -> bool {
        !self.lock().is_spool_empty()
    }

    /// Pool thread, of a stream that spools: an item is to be sent.
    ///
    /// # Errors
    /// [`WindowClosed`] when the connection is gone.
    pub fn keep(&self, item: &[u8]) -> Result<SpoolRoom, WindowClosed> {
        let mut flow = self.lock();
        if flow.condition == Condition::Closed {
            return Err(WindowClosed);
        }
        if flow.has_caught_up(self.high_bytes()) {
            flow.condition.resume();
            return Ok(SpoolRoom::CaughtUp);
        }
        let spool = flow.spool.get_or_insert_default();
        if !spool.has_room(item.len()) {
            return Ok(SpoolRoom::Full);
        }
        let announce = spool.keep(item);
        Ok(SpoolRoom::Kept { announce })
    }

    /// Pool thread, without the GIL: write what is in memory, and `item` behind it, to a file. Returns whether the spool is
    /// to be announced.
    ///
    /// # Errors
    /// See [`NotStored`]. What was in memory is there again.
    pub fn store(&self, item: &[u8]) -> (bool, Result<(), NotStored>) {
        let begun = {
            let mut flow = self.lock();
            match flow.condition {
                Condition::Closed => return (false, Err(NotStored::Closed)),
                _ => flow.spool.get_or_insert_default().begin_write(item.len()),
            }
        };
        let Some(mut write) = begun else {
            return (false, Err(NotStored::Limit));
        };
        let bytes = write.bytes() + item.len() as u64;
        let (block, result) = match write.write(item, &self.unsent) {
            Ok(block) => (Some(block), Ok(())),
            Err(error) => (None, Err(NotStored::Failed { bytes, error })),
        };
        self.end_write(write, block, result)
    }

    fn end_write(
        &self,
        write: SpoolWrite,
        block: Option<Block>,
        result: Result<(), NotStored>,
    ) -> (bool, Result<(), NotStored>) {
        let mut flow = self.lock();
        if flow.condition == Condition::Closed {
            // The file is closed without the lock.
            drop(flow);
            return (false, Err(NotStored::Closed));
        }
        let announce = flow.spool.get_or_insert_default().end_write(write, block);
        drop(flow);
        (announce, result)
    }

    /// Event loop, when the client has taken everything: what it is sent next of an announced spool, and whether there is
    /// more behind it.
    pub fn take_spooled(&self) -> Option<(SpooledPart, bool)> {
        let mut flow = self.lock();
        let (part, has_more) = flow.spool.as_mut()?.take()?;
        let bytes = part.memory_bytes();
        flow.unsent_bytes += bytes;
        self.unsent.add(bytes);
        if !has_more && flow.waiting && flow.unsent_bytes <= self.high_bytes() / 2 {
            self.moved.notify_one();
        }
        drop(flow);
        Some((part, has_more))
    }

    /// Pool thread, without the GIL, at the end of the response: take what is left, to send it in order.
    pub fn take_rest(&self) -> Vec<SpooledPart> {
        if self.lock().has_long_tail() {
            // Without room on the disk it stays in memory.
            let _ = self.store(&[]);
        }
        let mut flow = self.lock();
        let Some(spool) = flow.spool.as_mut() else {
            return Vec::new();
        };
        let parts = spool.take_all();
        flow.condition.resume();
        parts
    }

    /// Event loop: requests wait, and the thread of this stream with them.
    pub(super) fn hurry(&self) {
        let mut flow = self.lock();
        flow.is_hurried = true;
        drop(flow);
        self.moved.notify_one();
    }
}

impl Flow {
    /// The loop has taken all that was spooled, and the client most of it: the stream is one like any other again.
    fn has_caught_up(&self, high_bytes: usize) -> bool {
        self.is_spool_empty() && self.unsent_bytes <= high_bytes / 2
    }

    pub(super) fn is_spool_empty(&self) -> bool {
        self.spool.as_deref().is_none_or(StreamSpool::is_empty)
    }

    fn has_long_tail(&self) -> bool {
        let spool = self.spool.as_deref();
        spool.is_some_and(StreamSpool::has_long_tail)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::FileExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::pool::response_memory::UnsentBytes;
    use crate::pool::stream_spool::{FILE_BYTES_MAX, TAIL_BYTES_MAX};
    use crate::pool::window::{NotSent, Waited};

    /// A window of 10 bytes with 20 unsent, whose thread was hurried.
    fn hurried() -> Window {
        let window = Window::new(10);
        assert_eq!(window.add(20), Ok(true));
        window.begin_spool();
        assert_eq!(window.add(1), Err(NotSent::Spooling));
        window
    }

    fn kept(announce: bool) -> Result<SpoolRoom, WindowClosed> {
        Ok(SpoolRoom::Kept { announce })
    }

    fn read(part: SpooledPart) -> Vec<u8> {
        match part {
            SpooledPart::Bytes(bytes) => bytes,
            SpooledPart::File { file, offset, len } => {
                let mut bytes = vec![0; usize::try_from(len).unwrap()];
                file.file().read_exact_at(&mut bytes, offset).unwrap();
                bytes
            }
        }
    }

    #[test]
    fn an_empty_spool_is_announced_and_what_is_taken_counts_again() {
        let window = hurried();
        assert!(window.take_spooled().is_none());
        assert_eq!(window.keep(b"first "), kept(true));
        assert_eq!(window.keep(b"second"), kept(false));
        let (part, has_more) = window.take_spooled().unwrap();
        assert_eq!((read(part), has_more), (b"first second".to_vec(), false));
        assert_eq!(window.keep(b"third"), kept(true), "32 bytes are unsent");
        assert_eq!(read(window.take_spooled().unwrap().0), b"third");
        window.credit(35);
        assert_eq!(window.keep(b"fourth"), Ok(SpoolRoom::CaughtUp));
        assert_eq!(window.add(6), Ok(false));
        assert_eq!(window.unsent.held(), 8);
    }

    #[test]
    fn what_is_on_the_disk_comes_before_what_is_in_memory() {
        let window = hurried();
        assert_eq!(window.keep(b"one "), kept(true));
        let (announce, stored) = window.store(b"two ");
        assert!(!announce && stored.is_ok());
        assert!(window.store(b"three ").1.is_ok());
        assert_eq!(window.keep(b"four"), kept(false));
        let (part, has_more) = window.take_spooled().unwrap();
        assert_eq!((read(part), has_more), (b"one two three ".to_vec(), true));
        let (announce, stored) = window.store(b" five ");
        assert!(!announce && stored.is_ok());
        assert_eq!(window.keep(b"six"), kept(false));
        let rest: Vec<_> = window.take_rest().into_iter().map(read).collect();
        assert_eq!(rest, [b"four five ".to_vec(), b"six".to_vec()]);
        assert!(window.take_spooled().is_none() && !window.is_spooling());
    }

    #[test]
    fn a_file_is_taken_in_steps_and_the_next_one_begins_when_it_is_gone() {
        let window = hurried();
        let item = vec![b'x'; TAIL_BYTES_MAX + 1];
        assert_eq!(window.keep(&item), Ok(SpoolRoom::Full));
        for announce in [true, false, false] {
            let (announced, stored) = window.store(&item);
            assert!(announced == announce && stored.is_ok());
        }
        let mut lens = Vec::new();
        while let Some((part, has_more)) = window.take_spooled() {
            lens.push(read(part).len());
            assert_eq!(has_more, lens.len() < 2);
        }
        assert_eq!(lens, [2 * TAIL_BYTES_MAX, TAIL_BYTES_MAX + 3]);
        assert!(window.store(b"y").0);
        let Some((SpooledPart::File { offset, .. }, _)) = window.take_spooled() else {
            panic!("it is in a file");
        };
        assert_eq!(offset, 0, "of another file");
    }

    #[test]
    fn what_cannot_be_stored_stays_in_memory() {
        let window = hurried();
        assert_eq!(window.keep(b"kept"), kept(true));
        let more = usize::try_from(FILE_BYTES_MAX).unwrap();
        let write = window.lock().spool.as_mut().unwrap().begin_write(more);
        assert!(write.is_none(), "it would be too long");
        let write = window.lock().spool.as_mut().unwrap().begin_write(0);
        let error = Err(NotStored::Limit);
        let (announce, _) = window.end_write(write.unwrap(), None, error);
        assert!(!announce);
        assert_eq!(read(window.take_spooled().unwrap().0), b"kept");
    }

    #[test]
    fn what_the_loop_misses_while_it_is_being_written_is_announced_again() {
        for is_stored in [true, false] {
            let window = hurried();
            assert_eq!(window.keep(b"kept"), kept(true));
            let mut write = window
                .lock()
                .spool
                .as_mut()
                .unwrap()
                .begin_write(0)
                .unwrap();
            assert!(window.take_spooled().is_none());
            let block = write.write(&[], &window.unsent).unwrap();
            let block = is_stored.then_some(block);
            let (announce, _) = window.end_write(write, block, Ok(()));
            assert!(announce, "nobody else would tell the loop");
            assert_eq!(read(window.take_spooled().unwrap().0), b"kept");
        }
    }

    #[test]
    fn a_thread_waits_until_all_is_taken_and_written_or_it_is_hurried_again() {
        let window = Arc::new(hurried());
        assert_eq!(window.keep(b"kept"), kept(true));
        let wait = || {
            let window = window.clone();
            std::thread::spawn(move || window.wait_or_hurry(|_| false))
        };
        let until_it_waits = || {
            while window.unsent.waiting_streams() == 0 || !window.lock().waiting {
                std::thread::yield_now();
            }
        };
        let waiter = wait();
        until_it_waits();
        window.credit(20);
        assert!(window.lock().waiting, "something is spooled");
        assert!(window.take_spooled().is_some());
        assert_eq!(waiter.join().unwrap(), Ok(Waited::Room));
        assert_eq!(window.keep(b"more"), Ok(SpoolRoom::CaughtUp));
        assert_eq!(window.add(20), Ok(true));
        let waiter = wait();
        until_it_waits();
        while window.unsent.hurry_streams(std::time::Instant::now()) {
            std::thread::yield_now();
        }
        assert_eq!(waiter.join().unwrap(), Ok(Waited::Hurried));
    }

    #[test]
    fn a_window_that_closes_gives_its_spool_back() {
        let unsent = Arc::new(UnsentBytes::new(0, None));
        let window = Window::counted(10, unsent);
        assert_eq!(window.add(20), Ok(true));
        window.begin_spool();
        assert!(window.store(b"stored").0);
        window.close();
        assert!(window.take_spooled().is_none() && window.take_rest().is_empty());
        assert_eq!(window.keep(b"late"), Err(WindowClosed));
        assert!(matches!(
            window.store(b"late"),
            (false, Err(NotStored::Closed))
        ));
    }
}
