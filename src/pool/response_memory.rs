//! Responses that wait in memory for their clients to read them: how many bytes a worker holds of them, and what becomes of
//! those that are over the bound (`response_buffer_total`).
//!
//! A pool thread reserves the bytes of a whole response before it hands it to the event loop ([`UnsentBytes::reserve`]). The
//! reservation travels with the body, through the write queue, and gives the bytes back when it is dropped: when the body
//! is written, or will not be. An object that is the body of many responses counts once (`counted_objects.rs`). A response
//! that gets none goes to an unlinked temporary file on the pool thread, so that the loop never waits for the disk. A streamed
//! response counts what is in its window.
//!
//! Where no file can be written the response is sent from memory all the same, and its thread waits for the client, as the
//! thread of a stream does ([`UnsentBytes::overdraw`]): memory is bounded by the number of threads, and nothing is lost. When
//! all other threads wait like that, the last one is hurried: its client has to acknowledge 64 KiB per second, or is
//! closed.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::borrowed_buffer::BorrowedBuffer;
use super::counted_objects::CountedObjects;
use super::hub_wakeup::Ticket;
use super::hurries::Hurries;
use super::shared_files::{PieceFile, SharedFiles, StoredBytes, write_at};
use super::temporary_file::{TemporaryFile, file_beside_clients, file_while_half_are_free};

/// Responses of fewer bytes in memory are not counted: the socket's own buffer takes as much.
pub const COUNTED_BYTES_MIN: u64 = 64 * 1024;
/// A full disk is logged again after this long.
const QUIET: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub struct UnsentBytes {
    held: AtomicU64,
    /// 0 is no bound.
    bytes_max: u64,
    objects: CountedObjects<Reservation>,
    files: SharedFiles,
    /// Threads that wait for the clients of responses over the bound.
    waiting: AtomicUsize,
    /// Threads that wait for the clients of streams.
    waiting_streams: AtomicUsize,
    hurries: Hurries,
    failures: Mutex<Failures>,
}

/// Responses that found no place in a file.
#[derive(Debug, Default)]
struct Failures {
    logged: Option<Instant>,
    /// Since then.
    count: u64,
}

impl Failures {
    /// One more. Returns how many there were since the last line of the log, if it is time for another.
    fn note(&mut self, now: Instant) -> Option<u64> {
        let is_quiet = |at: Instant| now.saturating_duration_since(at) < QUIET;
        if self.logged.is_some_and(is_quiet) {
            self.count += 1;
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

impl UnsentBytes {
    /// A bound of `bytes_max` bytes; 0 is none.
    pub fn new(bytes_max: u64, directory: Option<PathBuf>) -> Self {
        let files = SharedFiles::new(directory);
        // Without a bound nothing is stored.
        if bytes_max > 0 {
            files.prepare();
        }
        Self {
            bytes_max,
            files,
            ..Self::default()
        }
    }

    /// Bytes that wait now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether streams are to hold little.
    pub fn is_full(&self) -> bool {
        self.bytes_max != 0 && self.held() >= self.bytes_max
    }

    /// How many threads wait for the clients of responses over the bound.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many threads wait for the clients of streams.
    pub fn waiting_streams(&self) -> usize {
        self.waiting_streams.load(Ordering::Relaxed)
    }

    /// The thread of a stream waits for its client until what is returned is dropped. It can be hurried by `hurry`, if that is
    /// given.
    pub(super) fn stream_waits(
        &self,
        hurry: Option<Arc<dyn Fn() + Send + Sync>>,
    ) -> StreamWait<'_> {
        self.waiting_streams.fetch_add(1, Ordering::Relaxed);
        StreamWait {
            unsent: self,
            number: hurry.map(|hurry| self.hurries.begin(hurry, Instant::now())),
        }
    }

    /// Requests wait, and all threads for clients: streams go on without theirs. Returns whether there are such, or will be.
    pub fn hurry_streams(&self, now: Instant) -> bool {
        self.hurries.hurry(now)
    }

    pub(super) fn hurries(&self) -> &Hurries {
        &self.hurries
    }

    /// A stream has `bytes` more unsent.
    pub(super) fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A stream has `bytes` fewer unsent.
    pub(super) fn subtract(&self, bytes: usize) {
        self.held.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Reserve `bytes`. `None` when the bound does not allow it.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        // Made first, so that what is refused is given back.
        let reservation = Reservation {
            unsent: self.clone(),
            bytes,
            overdraft: None,
        };
        let is_within = self.bytes_max == 0 || before.saturating_add(bytes) <= self.bytes_max;
        is_within.then_some(reservation)
    }

    /// Count an object that is the whole body of a response, once however many responses have it, until it is dropped.
    ///
    /// # Errors
    /// The bound does not allow it; the object as it was.
    pub fn count_object(
        self: &Arc<Self>,
        object: Box<dyn BorrowedBuffer>,
    ) -> Result<Box<dyn BorrowedBuffer>, Box<dyn BorrowedBuffer>> {
        self.objects.count(object, |bytes| self.reserve(bytes))
    }

    /// Reserve `bytes` whatever the bound says, for a thread of `threads` that will [`Overdraft::wait`].
    pub fn overdraw(self: &Arc<Self>, bytes: u64, threads: usize) -> (Reservation, Overdraft) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        let end = Arc::new(End::default());
        let reservation = Reservation {
            unsent: self.clone(),
            bytes,
            overdraft: Some((end.clone(), waiting >= threads)),
        };
        let unsent = self.clone();
        (reservation, Overdraft { unsent, end })
    }

    /// Write `parts`, which have `bytes` bytes in all, to a temporary file, one behind another. Returns where they are. While
    /// half of the descriptors are free each response has a file of its own: threads write faster to different ones.
    ///
    /// # Errors
    /// The file could not be made or written.
    pub fn store<'a>(
        &self,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
        bytes: u64,
    ) -> io::Result<(PieceFile, u64)> {
        if let Ok(file) = file_while_half_are_free(self.files.directory()) {
            write_at(file.file(), parts, 0)?;
            return Ok((file.into(), 0));
        }
        let stored = self.files.store(parts, bytes)?;
        let offset = stored.offset();
        Ok((PieceFile::Shared(stored), offset))
    }

    /// Write `parts`, which have `bytes` bytes in all, to the file that responses share.
    ///
    /// # Errors
    /// It could not be made or written.
    pub(super) fn store_shared<'a>(
        &self,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
        bytes: u64,
    ) -> io::Result<StoredBytes> {
        self.files.store(parts, bytes)
    }

    /// A file for parts of a response.
    ///
    /// # Errors
    /// It could not be made.
    pub fn temporary_file(&self) -> io::Result<TemporaryFile> {
        file_beside_clients(self.files.directory())
    }

    /// Log that a response of `bytes` bytes is to wait for its client, at most once a minute.
    pub fn log_failure(&self, bytes: u64, error: &io::Error) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = failures.note(Instant::now());
        drop(failures);
        let Some(count) = noted else { return };
        let others = match count {
            0 => String::new(),
            count => format!(" ({count} more since this was last logged)"),
        };
        log::warn!(
            "No room for a response of {bytes} bytes in memory (response_buffer_total) or in a file (worker_tmp_dir): \
            {error}. Its thread waits for its client{others}."
        );
    }

    /// The worker stops: log how many there were since the last line.
    pub fn log_more_failures(&self) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = std::mem::take(&mut failures.count);
        drop(failures);
        if count > 0 {
            log::warn!("There was no room for {count} more responses since this was last logged.");
        }
    }
}

/// A thread that waits for the client of a stream.
#[derive(Debug)]
pub(super) struct StreamWait<'a> {
    unsent: &'a UnsentBytes,
    /// In [`Hurries`].
    number: Option<u64>,
}

impl Drop for StreamWait<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.unsent.hurries.end(number);
        }
        self.unsent.waiting_streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    unsent: Arc<UnsentBytes>,
    bytes: u64,
    /// Of a response over the bound, and whether its thread was the last free one.
    overdraft: Option<(Arc<End>, bool)>,
}

impl Reservation {
    /// Whether the client has to be quick: no other thread is free.
    pub fn is_hurried(&self) -> bool {
        matches!(self.overdraft, Some((_, true)))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.unsent.held.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some((end, _)) = &self.overdraft {
            end.come();
        }
    }
}

/// The end of a response over the bound.
#[derive(Debug, Default)]
struct End {
    has_come: Mutex<bool>,
    moved: Condvar,
    /// The greenlet that waits.
    ticket: OnceLock<Ticket>,
}

impl End {
    fn come(&self) {
        *self.has_come.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.moved.notify_one();
        if let Some(ticket) = self.ticket.get() {
            ticket.clone().call_up();
        }
    }
}

/// A response over the bound, for its thread.
#[derive(Debug)]
pub struct Overdraft {
    unsent: Arc<UnsentBytes>,
    end: Arc<End>,
}

impl Overdraft {
    /// Pool thread, without the GIL: wait until the response is written, or will not be.
    pub fn wait(self) {
        let has_come = self.end.has_come.lock();
        let has_come = has_come.unwrap_or_else(PoisonError::into_inner);
        let waited = self.end.moved.wait_while(has_come, |has_come| !*has_come);
        drop(waited);
    }

    /// A greenlet, before it waits: whether it must, until the ticket is called up. Asked once.
    pub fn must_wait(&self, ticket: Ticket) -> bool {
        self.end.ticket.get_or_init(|| ticket);
        let has_come = self.end.has_come.lock();
        !*has_come.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Overdraft {
    fn drop(&mut self) {
        self.unsent.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_over_the_bound_is_refused_and_what_is_done_with_makes_room() {
        let unsent = Arc::new(UnsentBytes::new(10, None));
        let first = unsent.reserve(6);
        assert!(first.is_some() && unsent.reserve(5).is_none());
        assert_eq!(unsent.held(), 6);
        let second = unsent.reserve(4);
        assert!(second.is_some());
        drop(first);
        assert_eq!(unsent.held(), 4);
        assert!(unsent.reserve(6).is_some());
        let unbounded = Arc::new(UnsentBytes::new(0, None));
        assert!(unbounded.reserve(u64::MAX / 2).is_some());
    }

    #[test]
    fn a_thread_waits_for_what_is_over_the_bound_and_the_last_free_one_is_in_a_hurry() {
        let unsent = Arc::new(UnsentBytes::new(10, None));
        let (first, thread) = unsent.overdraw(20, 2);
        assert!(!first.is_hurried() && unsent.held() == 20 && unsent.is_full());
        let (second, other_thread) = unsent.overdraw(5, 2);
        assert!(second.is_hurried());
        let waiting = std::thread::spawn(move || thread.wait());
        drop(first);
        waiting.join().unwrap();
        assert_eq!(unsent.held(), 5);
        drop(other_thread);
        assert!(!unsent.overdraw(5, 2).0.is_hurried());
    }

    #[test]
    fn a_full_disk_is_logged_once_and_then_counted() {
        let mut failures = Failures::default();
        let now = Instant::now();
        assert_eq!(failures.note(now), Some(0));
        assert_eq!(failures.note(now + QUIET / 2), None);
        assert_eq!(failures.note(now + QUIET / 2), None);
        assert_eq!(failures.note(now + QUIET), Some(2));
        assert_eq!(failures.note(now + QUIET), None);
    }
}
