//! Memory that the arbiter writes and workers can only read, however hard they try.
//!
//! The arbiter's own mapping is not inherited by forks. What workers inherit is a second mapping of the same memory, made
//! when the memory was already sealed against new writers, so that it can never become writable. No descriptor of it is left open.
//! Both mappings reach it as atomic words: a reader sees words that were written, though perhaps not at the same moment.
#![expect(
    unsafe_code,
    reason = "a mapping shared between processes is reached through raw pointers"
)]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::unistd::{Pid, ftruncate, getpid};

use crate::fork_guard;

/// One mapping of the memory.
#[derive(Debug)]
pub(super) struct SharedRegion {
    base: NonNull<u8>,
    bytes: NonZeroUsize,
    /// The only process that has the mapping; `None`: all that are forked from here.
    owner: Option<Pid>,
}

// SAFETY: the mapping holds only atomics and stays mapped until `drop`, so it may be dropped on any thread.
unsafe impl Send for SharedRegion {}
// SAFETY: `&SharedRegion` only gives out references to atomics.
unsafe impl Sync for SharedRegion {}

/// The arbiter's mapping, and the one for workers. Pages cost nothing until they are written to.
pub(super) fn create(bytes: NonZeroUsize) -> io::Result<(SharedRegion, SharedRegion)> {
    let file = memfd_create(
        "ferricorn-tls",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?;
    let length = i64::try_from(bytes.get()).map_err(|_| io::ErrorKind::InvalidInput)?;
    ftruncate(&file, length)?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let mut writable = SharedRegion::map(&file, bytes, protection)?;
    writable.owner = Some(getpid());
    // SAFETY: the range is this mapping's; the advice changes only what forks and core dumps copy.
    unsafe { madvise(writable.base.cast(), bytes.get(), MmapAdvise::MADV_DONTFORK) }?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    let seals = seals | SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL;
    let file = match fcntl(&file, FcntlArg::F_ADD_SEALS(seals)) {
        Ok(_) => file,
        // An older kernel. A mapping of a descriptor that cannot write cannot become writable either.
        Err(Errno::EINVAL) => {
            let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
            OwnedFd::from(std::fs::File::open(path)?)
        }
        Err(errno) => return Err(errno.into()),
    };
    let readable = SharedRegion::map(&file, bytes, ProtFlags::PROT_READ)?;
    fork_guard::register_mapping(readable.base.as_ptr() as usize, bytes.get());
    Ok((writable, readable))
}

impl SharedRegion {
    fn map(file: &OwnedFd, bytes: NonZeroUsize, protection: ProtFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at an address the kernel chooses overlaps nothing of this process.
        let base = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, file, 0) }?;
        // SAFETY: the range is this mapping's; keys do not belong into core dumps.
        unsafe { madvise(base, bytes.get(), MmapAdvise::MADV_DONTDUMP) }?;
        let base = base.cast();
        Ok(Self {
            base,
            bytes,
            owner: None,
        })
    }

    fn is_mapped_here(&self) -> bool {
        self.owner.is_none_or(|owner| owner == getpid())
    }

    /// All of it. Only the arbiter's mapping may be stored to.
    ///
    /// # Panics
    /// In a child of the arbiter, for the arbiter's own mapping.
    pub(super) fn words(&self) -> &[AtomicU64] {
        assert!(self.is_mapped_here(), "the mapping is the arbiter's own");
        let count = self.bytes.get() / size_of::<AtomicU64>();
        // SAFETY: the pages are aligned, zeroed or written only through the same atomics, and mapped for as long as
        // `self` lives.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), count) }
    }
}

impl Drop for SharedRegion {
    fn drop(&mut self) {
        // In a child something else may have been mapped at the address.
        if !self.is_mapped_here() {
            return;
        }
        fork_guard::unregister_mapping(self.base.as_ptr() as usize);
        // SAFETY: base and length are those of this mapping, and no reference outlives `self`.
        let unmapped = unsafe { munmap(self.base.cast(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "the region was mapped by create()");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::mman::mprotect;
    use std::sync::atomic::Ordering;

    const BYTES: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();

    #[test]
    fn what_the_arbiter_writes_can_be_read() {
        let (writable, readable) = create(BYTES).unwrap();
        writable.words()[8191].store(7, Ordering::Relaxed);
        assert_eq!(readable.words()[8191].load(Ordering::Relaxed), 7);
        assert_eq!(readable.words().len(), 8192);
    }

    #[test]
    fn what_workers_have_cannot_be_made_writable() {
        let (_writable, readable) = create(BYTES).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the range is the mapping's, and only its protection would change.
        let result = unsafe { mprotect(readable.base.cast(), BYTES.get(), protection) };
        assert_eq!(result, Err(Errno::EACCES));
    }
}
