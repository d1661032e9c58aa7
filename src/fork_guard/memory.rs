//! Shared mappings that a child must not write to.
#![expect(unsafe_code, reason = "a mapping is replaced in place")]

use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc;

/// Address and length; an address of 0 is none. The scoreboard has two mappings, and an arbiter may have a few scoreboards.
static MAPPINGS: [(AtomicUsize, AtomicUsize); MAPPINGS_MAX] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; MAPPINGS_MAX];
const MAPPINGS_MAX: usize = 16;

/// In a child the mapping at `address` is private memory of zeros. Beyond sixteen it stays shared.
pub fn register_mapping(address: usize, length: usize) {
    let free = |(at, _): &&(AtomicUsize, AtomicUsize)| {
        at.compare_exchange(0, address, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    };
    if let Some((_, of_length)) = MAPPINGS.iter().find(free) {
        of_length.store(length, Ordering::Relaxed);
    }
}

/// The mapping at `address` is about to end.
pub fn unregister_mapping(address: usize) {
    for (at, length) in &MAPPINGS {
        if at.load(Ordering::Relaxed) == address {
            length.store(0, Ordering::Relaxed);
            at.store(0, Ordering::Relaxed);
        }
    }
}

/// Not unmapped: code of the server that runs in the child by mistake then changes private bytes, and does not crash.
pub(super) fn replace_all() {
    for (at, length) in &MAPPINGS {
        let (address, length) = (
            at.swap(0, Ordering::Relaxed),
            length.load(Ordering::Relaxed),
        );
        if address == 0 || length == 0 {
            continue;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let start = address as *mut libc::c_void;
        // SAFETY: the range is a mapping of the server's, registered for its life; other threads, which might use it, do
        // not exist in this process.
        let _ = unsafe { libc::mmap(start, length, protection, flags, -1, 0) };
    }
}
