//! Unlinked temporary files, for bodies that are not to stay in memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::fork_guard::GuardedFile;

use super::disk_thread;

/// A file that nobody else has: when it is closed its place on the disk is free. Another thread closes it, because that takes
/// time.
#[derive(Debug)]
pub struct TemporaryFile(Option<GuardedFile>);

impl TemporaryFile {
    /// The file.
    pub fn file(&self) -> &File {
        self.guarded().file()
    }

    fn guarded(&self) -> &GuardedFile {
        let file = self.0.as_ref();
        file.expect("only its end takes the file away")
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if let Some(file) = self.0.take() {
            file.leave_thread();
            disk_thread::give(move || drop(file));
        }
    }
}

impl AsFd for TemporaryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.guarded().as_fd()
    }
}

impl From<File> for TemporaryFile {
    fn from(file: File) -> Self {
        Self(Some(file.into()))
    }
}

/// A new one, in `directory` (`worker_tmp_dir`) if that is possible, else where the system has such files.
///
/// # Errors
/// It could not be made.
pub fn temporary_file(directory: Option<&Path>) -> io::Result<TemporaryFile> {
    if let Some(directory) = directory
        && let Ok(file) = tempfile::tempfile_in(directory)
    {
        return Ok(file.into());
    }
    Ok(tempfile::tempfile()?.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn another_thread_closes_what_is_done_with() {
        let file = temporary_file(None).unwrap();
        let inode = file.file().metadata().unwrap().ino();
        let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        let is_open = || std::fs::metadata(&path).is_ok_and(|metadata| metadata.ino() == inode);
        let held = disk_thread::hold();
        drop(file);
        assert!(is_open(), "the thread that is done with it does not wait");
        drop(held);
        disk_thread::wait_until_done();
        assert!(!is_open());
    }

    #[test]
    fn a_directory_that_is_missing_is_no_obstacle() {
        assert!(temporary_file(Some(Path::new("/nonexistent"))).is_ok());
    }
}
