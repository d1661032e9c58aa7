//! The descriptors that a child must not have.
//!
//! A descriptor is registered when it is made, with its inode. The child closes a number only when the inode behind it is
//! still the same: a number that was closed and belongs to the application by now is left alone. So registering is one
//! call where a descriptor is made, and nothing need be done where it is closed. What has no inode of its own (poll
//! sets, event descriptors, `inotify`) must live as long as the process serves.
//!
//! Connections are not registered one by one. The worker's poll set knows them: the child reads its members from
//! `/proc/self/fdinfo`, again with their inodes.
#![expect(
    unsafe_code,
    reason = "between fork and any other code only system calls are allowed"
)]

use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd as _, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::libc;

/// By number, the inode and its kind; 0 is none. Descriptors that are made early and kept have low numbers.
static TABLE: [AtomicU64; NUMBERS] = [const { AtomicU64::new(0) }; NUMBERS];
const NUMBERS: usize = 16 * 1024;
/// The highest bit of an entry: the members of a poll set are to be closed as well.
const POLL_SET: u64 = 1 << 63;

/// A child must not have this descriptor.
pub fn register(descriptor: impl AsFd) {
    let number = descriptor.as_fd().as_raw_fd();
    if let (Some(entry), Some(inode)) = (entry(number), inode(number)) {
        entry.store(inode & !POLL_SET, Ordering::Relaxed);
    }
}

/// A child must not have this poll set, nor its members.
pub fn register_poll_set(descriptor: impl AsFd) {
    let number = descriptor.as_fd().as_raw_fd();
    if let (Some(entry), Some(inode)) = (entry(number), inode(number)) {
        entry.store(inode | POLL_SET, Ordering::Relaxed);
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

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(entry) = entry(self.0) {
            entry.store(0, Ordering::Relaxed);
        }
    }
}

fn entry(number: RawFd) -> Option<&'static AtomicU64> {
    TABLE.get(usize::try_from(number).ok()?)
}

fn inode(number: RawFd) -> Option<u64> {
    // SAFETY: all zeros are a valid stat.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills `stat`; a number that is not open fails.
    let failed = unsafe { libc::fstat(number, &raw mut stat) };
    #[allow(clippy::unnecessary_cast, reason = "the type is the system's")]
    (failed == 0).then_some(stat.st_ino as u64)
}

/// Poll sets first, because their members are asked of them.
pub(super) fn close_all() {
    for (number, entry) in TABLE.iter().enumerate() {
        if entry.load(Ordering::Relaxed) & POLL_SET != 0 {
            close_members(number as RawFd);
        }
    }
    for (number, entry) in TABLE.iter().enumerate() {
        let registered = entry.load(Ordering::Relaxed);
        if registered != 0 {
            entry.store(0, Ordering::Relaxed);
            close_if(number as RawFd, registered & !POLL_SET);
        }
    }
}

fn close_if(number: RawFd, registered: u64) {
    if inode(number) == Some(registered) {
        // SAFETY: the number is the server's, as its inode says, and no code of the server uses it in this process.
        unsafe { libc::close(number) };
    }
}

fn close_members(set: RawFd) {
    let path = Path::of(set);
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the path ends with NUL.
    let list = unsafe { libc::open(path.0.as_ptr().cast(), flags) };
    if list < 0 {
        return;
    }
    let mut members = Members::default();
    let mut buffer = [0; 1024];
    loop {
        // SAFETY: the buffer is as long as is said.
        let got = unsafe { libc::read(list, buffer.as_mut_ptr().cast(), buffer.len()) };
        let Ok(got @ 1..) = usize::try_from(got) else {
            break;
        };
        for &byte in &buffer[..got] {
            if let ControlFlow::Break((number, inode)) = members.take(byte)
                && number != list
            {
                close_if(number, inode);
            }
        }
    }
    // SAFETY: the number was opened here.
    unsafe { libc::close(list) };
}

/// `/proc/self/fdinfo/NUMBER`, made without memory from the heap.
struct Path([u8; 40]);

impl Path {
    fn of(number: RawFd) -> Self {
        const START: &[u8] = b"/proc/self/fdinfo/";
        let mut path = [0; 40];
        path[..START.len()].copy_from_slice(START);
        let mut digits = [0; 10];
        let mut left = number.unsigned_abs();
        let mut count = 0;
        loop {
            digits[count] = b'0' + (left % 10) as u8;
            left /= 10;
            count += 1;
            if left == 0 {
                break;
            }
        }
        for (at, digit) in digits[..count].iter().rev().enumerate() {
            path[START.len() + at] = *digit;
        }
        Self(path)
    }
}

/// Reads lines as `tfd:        7 events: 19 data: ff  pos:0 ino:61 sdev:7` byte by byte, as proc_pid_fdinfo(5) has them.
#[derive(Default)]
struct Members {
    /// The last letters of the line, the latest in the lowest byte.
    key: u32,
    field: Field,
    number: RawFd,
    inode: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Field {
    #[default]
    Other,
    Number,
    Inode,
}

impl Members {
    /// A member, with the byte that ends its inode.
    fn take(&mut self, byte: u8) -> ControlFlow<(RawFd, u64)> {
        const TFD: u32 = u32::from_be_bytes(*b"tfd:");
        const INO: u32 = u32::from_be_bytes(*b"ino:");
        match (self.field, byte) {
            (Field::Number, b' ') if self.number == 0 => {}
            (Field::Number, b'0'..=b'9') => {
                self.number = self
                    .number
                    .saturating_mul(10)
                    .saturating_add(RawFd::from(byte - b'0'));
            }
            (Field::Inode, b'0'..=b'9') => self.inode = self.inode << 4 | u64::from(byte - b'0'),
            (Field::Inode, b'a'..=b'f') => {
                self.inode = self.inode << 4 | u64::from(byte - b'a' + 10);
            }
            (Field::Inode, _) => {
                let member = (self.number, self.inode);
                *self = Self::default();
                return ControlFlow::Break(member);
            }
            _ => self.field = Field::Other,
        }
        self.key = self.key << 8 | u32::from(byte);
        match self.key {
            TFD => {
                self.number = 0;
                self.field = Field::Number;
            }
            INO => {
                self.inode = 0;
                self.field = Field::Inode;
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_from_the_kernels_text() {
        let text = b"pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1038\n\
            tfd:       34 events: 80002019 data:                0  pos:0 ino:40e sdev:10\n\
            tfd:        0 events:       19 data: ffffffffffffffff  pos:0 ino:15cc60 sdev:f\n";
        let mut members = Members::default();
        let found: Vec<_> = text
            .iter()
            .filter_map(|byte| members.take(*byte).break_value())
            .filter(|(_, inode)| *inode != 0)
            .collect();
        assert_eq!(found, [(34, 0x40e), (0, 0x15_cc60)]);
    }

    #[test]
    fn a_path_names_the_number() {
        for (number, path) in [
            (0, "/proc/self/fdinfo/0"),
            (35, "/proc/self/fdinfo/35"),
            (RawFd::MAX, "/proc/self/fdinfo/2147483647"),
        ] {
            let made = Path::of(number);
            let end = made.0.iter().position(|byte| *byte == 0).unwrap();
            assert_eq!(&made.0[..end], path.as_bytes());
        }
    }

    #[test]
    fn a_registration_ends_with_its_value() {
        let file = tempfile::tempfile().unwrap();
        let number = usize::try_from(file.as_raw_fd()).unwrap();
        let registration = registered(&file);
        assert_ne!(TABLE[number].load(Ordering::Relaxed), 0);
        drop(registration);
        assert_eq!(TABLE[number].load(Ordering::Relaxed), 0);
    }
}
