//! Unlinked temporary files, for bodies that are not to stay in memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

use crate::fork_guard::GuardedFile;

use super::disk_thread;

/// That many descriptors are no file's, or an eighth of all.
const DESCRIPTORS_LEFT: u64 = 64;

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

/// A new one, unless that takes one of the last descriptors. Those are for clients: a few connections of HTTP/2 may have hundreds
/// of responses, and new clients could not be accepted while those wait.
///
/// # Errors
/// It could not be made.
pub(super) fn file_beside_clients(directory: Option<&Path>) -> io::Result<TemporaryFile> {
    let limit = descriptors_max()?;
    file_leaving(directory, DESCRIPTORS_LEFT.min(limit / 8), limit)
}

/// A new one, while half of the descriptors are free.
///
/// # Errors
/// It could not be made.
pub(super) fn file_while_half_are_free(directory: Option<&Path>) -> io::Result<TemporaryFile> {
    let limit = descriptors_max()?;
    file_leaving(directory, limit / 2, limit)
}

/// A file, if more than `left` of `limit` descriptors stay free.
fn file_leaving(directory: Option<&Path>, left: u64, limit: u64) -> io::Result<TemporaryFile> {
    let file = temporary_file(directory)?;
    if limit.saturating_sub(file.file().as_raw_fd().unsigned_abs().into()) <= left {
        return Err(Errno::EMFILE.into());
    }
    Ok(file)
}

fn descriptors_max() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
