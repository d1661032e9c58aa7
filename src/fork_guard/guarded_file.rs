//! A file of the server's that a child of the application must not have.

#![expect(
    unsafe_code,
    reason = "the file is not closed where its number is not its own any more"
)]

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use super::is_child;
use super::own_descriptors::{Registered, registered, registered_inode};

/// See the module. Temporary files are unlinked: a child that kept one would keep its place on the disk.
#[derive(Debug)]
pub struct GuardedFile {
    /// Ends before the file is closed: the number, and the inode, may be the application's then.
    registered: Registered,
    file: ManuallyDrop<File>,
}

impl GuardedFile {
    /// A file whose inode is known.
    pub fn of_inode(file: File, inode: u64) -> Self {
        Self {
            registered: registered_inode(file.as_raw_fd(), inode),
            file: ManuallyDrop::new(file),
        }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Another thread is to close it: from now on it is not what this one keeps for its children.
    pub fn leave_thread(&self) {
        self.registered.keep_no_more();
    }
}

impl From<File> for GuardedFile {
    fn from(file: File) -> Self {
        Self {
            registered: registered(&file),
            file: ManuallyDrop::new(file),
        }
    }
}

impl Drop for GuardedFile {
    /// In a child the number was closed at the fork, unless it was kept, and may be another file's by now.
    fn drop(&mut self) {
        if self.registered.end() || !is_child() {
            // SAFETY: the field is used nowhere after this.
            unsafe { ManuallyDrop::drop(&mut self.file) };
        }
    }
}

impl AsFd for GuardedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_inode_for_as_long_as_it_is_open() {
        use std::os::unix::fs::MetadataExt as _;
        let file = tempfile::tempfile().unwrap();
        let (number, inode) = (file.as_raw_fd(), file.metadata().unwrap().ino());
        let guarded = GuardedFile::of_inode(file, inode);
        assert_eq!(guarded.file().as_raw_fd(), number);
        assert_eq!(super::super::own_descriptors::inode_of(number), inode);
        drop(guarded);
        assert_eq!(super::super::own_descriptors::inode_of(number), 0);
    }
}
