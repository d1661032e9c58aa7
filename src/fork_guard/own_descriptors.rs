//! The descriptors that a child must not have.
//!
//! A descriptor is registered when it is made, with its inode. The child closes a number only when the inode behind it is
//! still the same: a number that was closed and belongs to the application by now is left alone. So registering is one
//! call where a descriptor is made, and nothing need be done where it is closed. What has no inode of its own (poll
//! sets, event descriptors, `inotify`) must live as long as the process serves.
//!
//! Clients' sockets come and go by the thousand, and a system call for each would be one too many. Their numbers are bits in
//! a table ([`own`], [`disown`]), which only the event loop's thread changes. The child needs no file for it: it is forked
//! also where no descriptor is left, and where there is no `/proc`.
#![expect(
    unsafe_code,
    reason = "between fork and any other code only system calls are allowed"
)]

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd as _, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use nix::libc;

/// By number, the inode; 0 is none. Descriptors that are made early and kept have low numbers.
static TABLE: [AtomicU64; NUMBERS] = [const { AtomicU64::new(0) }; NUMBERS];
const NUMBERS: usize = 16 * 1024;

/// A bit by number: a client's socket. 128 KiB, of which the system gives what is used.
static SOCKETS: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
const WORDS: usize = (1 << 20) / WORD_BITS;
const WORD_BITS: usize = u64::BITS as usize;
/// Words of [`SOCKETS`] that were used.
static WORDS_USED: AtomicUsize = AtomicUsize::new(0);

/// A child must not have this descriptor.
pub fn register(descriptor: impl AsFd) {
    let number = descriptor.as_fd().as_raw_fd();
    if let (Some(entry), Some(inode)) = (entry(number), inode(number)) {
        entry.store(inode, Ordering::Relaxed);
    }
}

/// A child must not have this client's socket, which the event loop has from now on.
pub fn own(socket: impl AsFd) {
    if let Some((word, bit)) = place(socket.as_fd().as_raw_fd()) {
        SOCKETS[word].fetch_or(bit, Ordering::Relaxed);
        if WORDS_USED.load(Ordering::Relaxed) <= word {
            WORDS_USED.fetch_max(word + 1, Ordering::Relaxed);
        }
    }
}

/// The event loop is about to close the socket: the next descriptor of this number may be the application's.
pub fn disown(socket: impl AsFd) {
    if let Some((word, bit)) = place(socket.as_fd().as_raw_fd()) {
        SOCKETS[word].fetch_and(!bit, Ordering::Relaxed);
    }
}

/// A registration that ends with this value: for files, whose inodes are used again.
#[derive(Debug)]
pub struct Registered(RawFd);

/// As [`register`], for as long as the value lives. Declared before the descriptor in a struct, it ends first.
#[must_use]
pub fn registered(descriptor: impl AsFd) -> Registered {
    register(descriptor.as_fd());
    Registered(descriptor.as_fd().as_raw_fd())
}

/// As [`registered`], without a system call: the inode of the descriptor is known.
pub(super) fn registered_inode(number: RawFd, inode: u64) -> Registered {
    if let Some(entry) = entry(number) {
        entry.store(inode, Ordering::Relaxed);
    }
    Registered(number)
}

thread_local! {
    /// See [`keep_for_this_thread`]; -1 is none.
    static KEPT: Cell<RawFd> = const { Cell::new(-1) };
}

/// A child that this thread forks keeps this descriptor, although it is registered: it is the body of the request that the
/// thread runs. That holds until the thread says another.
pub fn keep_for_this_thread(descriptor: impl AsFd) {
    KEPT.set(descriptor.as_fd().as_raw_fd());
}

impl Registered {
    /// A child of this thread does not keep it, as [`keep_for_this_thread`] may have said.
    pub(super) fn keep_no_more(&self) {
        if KEPT.get() == self.0 {
            KEPT.set(-1);
        }
    }

    /// End it. Returns whether it was still there.
    pub(super) fn end(&mut self) -> bool {
        // Once: the number may be another file's, and registered, as soon as this one is closed.
        self.keep_no_more();
        let number = std::mem::replace(&mut self.0, -1);
        entry(number).is_some_and(|entry| entry.swap(0, Ordering::Relaxed) != 0)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.end();
    }
}

fn entry(number: RawFd) -> Option<&'static AtomicU64> {
    TABLE.get(usize::try_from(number).ok()?)
}

fn place(number: RawFd) -> Option<(usize, u64)> {
    let number = usize::try_from(number).ok()?;
    let word = number / WORD_BITS;
    (word < WORDS).then_some((word, 1 << (number % WORD_BITS)))
}

fn stat(number: RawFd) -> Option<libc::stat> {
    // SAFETY: all zeros are a valid stat.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills `stat`; a number that is not open fails.
    let failed = unsafe { libc::fstat(number, &raw mut stat) };
    (failed == 0).then_some(stat)
}

fn inode(number: RawFd) -> Option<u64> {
    #[allow(clippy::unnecessary_cast, reason = "the type is the system's")]
    stat(number).map(|stat| stat.st_ino as u64)
}

fn is_socket(number: RawFd) -> bool {
    stat(number).is_some_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFSOCK)
}

pub(super) fn close_all() {
    let kept = KEPT.get();
    for (number, entry) in TABLE.iter().enumerate() {
        let number = number as RawFd;
        if number == kept {
            continue;
        }
        let registered = entry.swap(0, Ordering::Relaxed);
        if registered != 0 && inode(number) == Some(registered) {
            close(number);
        }
    }
    let used = WORDS_USED.load(Ordering::Relaxed).min(WORDS);
    for (at, word) in SOCKETS[..used].iter().enumerate() {
        let mut bits = word.swap(0, Ordering::Relaxed);
        while bits != 0 {
            let number = (at * WORD_BITS) as RawFd + bits.trailing_zeros() as RawFd;
            bits &= bits - 1;
            if is_socket(number) {
                close(number);
            }
        }
    }
}

fn close(number: RawFd) {
    // SAFETY: the number is the server's, as its entry says, and no code of the server uses it in this process.
    unsafe { libc::close(number) };
}

#[cfg(test)]
pub(super) fn inode_of(number: RawFd) -> u64 {
    entry(number).map_or(0, |entry| entry.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_beyond_the_table_has_no_place() {
        assert_eq!(place(-1), None);
        assert_eq!(place(65), Some((1, 2)));
        assert_eq!(place((1 << 20) - 1), Some((WORDS - 1, 1 << 63)));
        assert_eq!(place(1 << 20), None);
    }

    #[test]
    fn a_registration_ends_with_its_value() {
        let file = tempfile::tempfile().unwrap();
        let registration = registered(&file);
        assert_ne!(inode_of(file.as_raw_fd()), 0);
        drop(registration);
        assert_eq!(inode_of(file.as_raw_fd()), 0);
    }
}
