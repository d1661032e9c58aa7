//! Bodies in unlinked temporary files that they share: those of responses in one, those of requests in another. Where descriptors
//! are short a client that does not read takes none but its own: those that bodies would take are what other clients wait for.
//!
//! The first file is made before the worker serves, while there is a descriptor for it. A response gives its place on the disk
//! back when it is dropped; a file system without holes keeps it until the last response of the file is dropped.
//!
//! Its bytes are copied into the socket. After `sendfile` the socket would refer to the file's pages, and a hole wipes what
//! it has of a page, or of several pages that the system keeps as one, also while they are on their way to the client.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::fork_guard::{GuardedFile, is_child};

use super::disk_thread;
use super::temporary_file::{TemporaryFile, file_beside_clients, temporary_file};

/// After this many bytes the next response begins another file, if it can: one client that does not read must not hold the
/// place of all others for ever, on a file system without holes.
const SHARED_BYTES: u64 = 256 * 1024 * 1024;
/// Responses begin at multiples of this: what lies in one block of the file system with another response is no hole when both
/// are dropped.
const BLOCK_BYTES: u64 = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct SharedFiles {
    /// Where the files go, unless that fails (`worker_tmp_dir`).
    directory: Option<PathBuf>,
    /// The file that the next response goes to.
    current: Mutex<Option<Arc<SharedFile>>>,
}

/// A file, and what is in use of it.
#[derive(Debug)]
struct SharedFile {
    file: TemporaryFile,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    responses: usize,
    /// Where the last of them ends.
    end: u64,
}

impl SharedFiles {
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self {
            directory,
            current: Mutex::default(),
        }
    }

    /// Make the first file, while there is a descriptor for it. Without one the first response tries again.
    pub fn prepare(&self) {
        let file = temporary_file(self.directory()).ok();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = file.map(SharedFile::new);
    }

    /// Where the files go, unless that fails.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Write `parts`, which have `len` bytes in all, one behind another.
    ///
    /// # Errors
    /// No file could be made or written.
    pub(super) fn store<'a>(
        &self,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
        len: u64,
    ) -> io::Result<StoredBytes> {
        let stored = self.reserve(len)?;
        match stored.write(parts.clone()) {
            // Behind others it may be beyond `ulimit -f`.
            Err(error) if is_too_large(&error) && stored.offset > 0 => {
                let stored = self.begin_file(len)?;
                stored.write(parts)?;
                Ok(stored)
            }
            written => written.map(|()| stored),
        }
    }

    /// A place for `len` bytes that are still to come, in a file of its own, or where descriptors are short in one that is shared.
    ///
    /// # Errors
    /// No file could be made.
    pub fn place(&self, len: u64) -> io::Result<(PieceFile, u64)> {
        if let Ok(own) = file_beside_clients(self.directory()) {
            return Ok((own.into(), 0));
        }
        let stored = self.reserve(len)?;
        let offset = stored.offset();
        Ok((PieceFile::Shared(stored), offset))
    }

    /// A place for `len` bytes.
    fn reserve(&self, len: u64) -> io::Result<StoredBytes> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = |current: &Option<Arc<SharedFile>>, bytes_max| {
            let file = current.as_ref()?;
            file.reserve(len, bytes_max)
        };
        if let Some(stored) = behind(&current, SHARED_BYTES) {
            return Ok(stored);
        }
        match self.renew(&mut current, len) {
            // Without a descriptor the file becomes longer.
            Err(error) => behind(&current, u64::MAX).ok_or(error),
            made => made,
        }
    }

    /// A place for `len` bytes at the beginning of a new file.
    fn begin_file(&self, len: u64) -> io::Result<StoredBytes> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.renew(&mut current, len)
    }

    fn renew(&self, current: &mut Option<Arc<SharedFile>>, len: u64) -> io::Result<StoredBytes> {
        let file = SharedFile::new(temporary_file(self.directory.as_deref())?);
        let stored = file.reserve(len, u64::MAX);
        *current = Some(file);
        stored.ok_or_else(|| Errno::EFBIG.into())
    }
}

impl SharedFile {
    fn new(file: TemporaryFile) -> Arc<Self> {
        Arc::new(Self {
            file,
            used: Mutex::default(),
        })
    }

    /// A place behind the others. `None` where the file would have more than `bytes_max` bytes.
    fn reserve(self: &Arc<Self>, len: u64, bytes_max: u64) -> Option<StoredBytes> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = used.end.checked_next_multiple_of(BLOCK_BYTES)?;
        let end = offset.checked_add(len)?;
        if offset > 0 && end > bytes_max {
            return None;
        }
        used.end = end;
        used.responses += 1;
        Some(StoredBytes {
            file: self.clone(),
            offset,
            len,
        })
    }

    /// A response has no more use for its place. The last one leaves the file empty. The disk's thread calls this.
    fn release(&self, offset: u64, len: u64) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.responses > 1 {
            drop(used);
            // While it still counts: an empty file would give its place to another one.
            self.punch(offset, len);
            used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        }
        used.responses -= 1;
        if used.responses == 0 && self.file.file().set_len(0).is_ok() {
            used.end = 0;
        }
    }

    fn punch(&self, offset: u64, len: u64) {
        // To the end of its last block, which has nothing else.
        let len = len.next_multiple_of(BLOCK_BYTES);
        let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
            return;
        };
        if len > 0 {
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            // Not every file system has holes.
            let _ = fallocate(self.file.file(), hole, offset, len);
        }
    }
}

/// Write `parts` one behind another, from `at` on.
///
/// # Errors
/// Those of the file.
pub(super) fn write_at<'a>(
    file: &File,
    parts: impl Iterator<Item = &'a [u8]>,
    mut at: u64,
) -> io::Result<()> {
    for part in parts {
        file.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EFBIG as i32)
}

/// A range of a file, the response's alone.
#[derive(Debug)]
pub struct StoredBytes {
    file: Arc<SharedFile>,
    offset: u64,
    len: u64,
}

impl StoredBytes {
    /// The file that it is in.
    pub fn file(&self) -> &File {
        self.file.file.file()
    }

    /// Where it begins in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn write<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        write_at(self.file(), parts, self.offset)
    }
}

impl Drop for StoredBytes {
    /// In a child the number may be another file's by now, and the place is its parent's.
    fn drop(&mut self) {
        if is_child() {
            return;
        }
        let (file, offset, len) = (self.file.clone(), self.offset, self.len);
        disk_thread::give(move || file.release(offset, len));
    }
}

/// Where the bytes of a [`Piece::File`](super::Piece::File) or [`RequestBody::File`](super::RequestBody::File) are read.
#[derive(Debug)]
pub enum PieceFile {
    /// The application's.
    Application(GuardedFile),
    /// A file that has no other bytes, and that nobody changes.
    Own(TemporaryFile),
    /// A part of a file that has nothing else than parts of this response, and that nobody changes.
    Part(Arc<TemporaryFile>),
    /// A file that responses share: to be copied, see the module.
    Shared(StoredBytes),
}

impl PieceFile {
    /// The file.
    pub fn file(&self) -> &File {
        match self {
            Self::Application(file) => file.file(),
            Self::Own(file) => file.file(),
            Self::Part(file) => file.file(),
            Self::Shared(stored) => stored.file(),
        }
    }
}

impl From<File> for PieceFile {
    fn from(file: File) -> Self {
        Self::Own(file.into())
    }
}

impl From<TemporaryFile> for PieceFile {
    fn from(file: TemporaryFile) -> Self {
        Self::Own(file)
    }
}

impl From<GuardedFile> for PieceFile {
    fn from(file: GuardedFile) -> Self {
        Self::Application(file)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn store(files: &SharedFiles, parts: &[&[u8]]) -> StoredBytes {
        let len = parts.iter().map(|part| part.len() as u64).sum();
        files.store(parts.iter().copied(), len).unwrap()
    }

    fn read(stored: &StoredBytes) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(stored.len).unwrap()];
        let file = stored.file();
        file.read_exact_at(&mut bytes, stored.offset).unwrap();
        bytes
    }

    fn number(stored: &StoredBytes) -> i32 {
        stored.file().as_raw_fd()
    }

    #[test]
    fn responses_share_a_file_and_each_has_its_bytes_in_their_order() {
        let files = SharedFiles::new(Some("/nonexistent".into()));
        let first = store(&files, &[b"first ", b"second ", b"third"]);
        let other = store(&files, &[b"other"]);
        assert_eq!(read(&first), b"first second third");
        assert_eq!(read(&other), b"other");
        assert_eq!(number(&first), number(&other));
        assert_eq!((first.offset(), other.offset()), (0, BLOCK_BYTES));
        drop(first);
        assert_eq!(read(&other), b"other");
        drop(other);
        disk_thread::wait_until_done();
        assert_eq!(store(&files, &[b"again"]).offset(), 0, "it is empty again");
    }

    #[test]
    fn a_response_gives_its_place_back_although_another_one_stays() {
        let files = SharedFiles::new(None);
        let large = vec![b'x'; 1 << 20];
        let (first, other) = (store(&files, &[&large]), store(&files, &[b"other"]));
        let blocks = || other.file().metadata().unwrap().blocks();
        let before = blocks();
        assert!(before >= 2048);
        drop(first);
        disk_thread::wait_until_done();
        assert!(blocks() + 2000 < before, "{} of {before} blocks", blocks());
        assert_eq!(read(&other), b"other");
    }

    #[test]
    fn another_thread_gives_places_back() {
        let files = SharedFiles::new(None);
        let stored = [b"first", b"other"].map(|bytes| store(&files, &[bytes]));
        let shared = files.current.lock().unwrap().clone().unwrap();
        let responses = || shared.used.lock().unwrap().responses;
        let held = disk_thread::hold();
        drop(stored);
        assert_eq!(responses(), 2, "who is done with them does not wait");
        drop(held);
        disk_thread::wait_until_done();
        assert_eq!(responses(), 0);
    }

    #[test]
    fn the_last_response_leaves_no_block_whatever_the_lengths_were() {
        let files = SharedFiles::new(None);
        let mut stored: Vec<_> = (1..9_usize)
            .map(|number| store(&files, &[&vec![b'x'; number * 10_001]]))
            .collect();
        let last = stored.pop().unwrap();
        let shared = files.current.lock().unwrap().clone().unwrap();
        let metadata = || shared.file.file().metadata().unwrap();
        let all = metadata().blocks();
        drop(stored);
        disk_thread::wait_until_done();
        assert!(metadata().blocks() <= all / 4, "only the last one's");
        drop(last);
        disk_thread::wait_until_done();
        assert_eq!((metadata().blocks(), metadata().len()), (0, 0));
    }

    #[test]
    fn a_long_file_is_followed_by_another_and_without_a_descriptor_it_becomes_longer() {
        let files = SharedFiles::new(None);
        let first = files.reserve(SHARED_BYTES).unwrap();
        let second = files.reserve(1).unwrap();
        assert_ne!(number(&first), number(&second));
        let current = files.current.lock().unwrap();
        let current = current.as_ref().unwrap();
        assert!(current.reserve(SHARED_BYTES, SHARED_BYTES).is_none());
        let beyond = current.reserve(SHARED_BYTES, u64::MAX).unwrap();
        assert_eq!(
            (number(&beyond), beyond.offset),
            (number(&second), BLOCK_BYTES)
        );
    }

    #[test]
    fn what_could_not_be_written_is_an_error() {
        let files = SharedFiles::new(None);
        let read_only = File::open("/dev/null").unwrap();
        *files.current.lock().unwrap() = Some(SharedFile::new(read_only.into()));
        assert!(files.store([&b"lost"[..]].into_iter(), 4).is_err());
    }
}
