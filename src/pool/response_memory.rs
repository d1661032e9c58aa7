//! Whole responses that wait in memory for their clients to read them: how many bytes a worker holds of them, and the file
//! for those that are over the bound (`response_buffer_total`).
//!
//! A pool thread reserves the bytes of a response before it hands it to the event loop ([`UnsentBytes::reserve`]). The
//! reservation travels with the body, through the write queue, and gives the bytes back when it is dropped: when the body
//! is written, or will not be. A response that gets none goes to an unlinked temporary file on the pool thread, so that the
//! loop never waits for the disk. A streamed response has a window of its own and is not counted.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Responses of fewer bytes in memory are not counted: the socket's own buffer takes as much.
pub const COUNTED_BYTES_MIN: u64 = 64 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct UnsentBytes {
    held: AtomicU64,
    /// 0 is no bound.
    bytes_max: u64,
    /// Where temporary files go, unless that fails (`worker_tmp_dir`).
    directory: Option<PathBuf>,
}

impl UnsentBytes {
    /// A bound of `bytes_max` bytes; 0 is none.
    pub fn new(bytes_max: u64, directory: Option<PathBuf>) -> Self {
        Self {
            held: AtomicU64::new(0),
            bytes_max,
            directory,
        }
    }

    /// Bytes that wait now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Reserve `bytes`. `None` when the bound does not allow it.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        // Made first, so that what is refused is given back.
        let reservation = Reservation {
            unsent: self.clone(),
            bytes,
        };
        let is_within = self.bytes_max == 0 || before.saturating_add(bytes) <= self.bytes_max;
        is_within.then_some(reservation)
    }

    /// Write `parts` to a temporary file, one behind another.
    ///
    /// # Errors
    /// The file could not be made or written.
    pub fn store<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> io::Result<File> {
        let mut file = self.temporary_file()?;
        for part in parts {
            file.write_all(part)?;
        }
        Ok(file)
    }

    fn temporary_file(&self) -> io::Result<File> {
        if let Some(directory) = &self.directory
            && let Ok(file) = tempfile::tempfile_in(directory)
        {
            return Ok(file);
        }
        tempfile::tempfile()
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    unsent: Arc<UnsentBytes>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.unsent.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read as _, Seek as _};

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
    fn a_body_is_stored_in_its_order_also_where_the_directory_is_missing() {
        let unsent = UnsentBytes::new(1, Some("/nonexistent".into()));
        let parts = [&b"first "[..], b"second ", b"third"];
        let mut file = unsent.store(parts.into_iter()).unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first second third");
    }
}
