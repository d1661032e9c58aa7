//! The shared mapping that a child must not write to.
#![expect(unsafe_code, reason = "a mapping is replaced in place")]

use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc;

static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// In a child the mapping at `address` is private memory of zeros. There is one: a second replaces the first.
pub fn register_mapping(address: usize, length: usize) {
    LENGTH.store(length, Ordering::Relaxed);
    ADDRESS.store(address, Ordering::Relaxed);
}

/// The mapping at `address` is about to end.
pub fn unregister_mapping(address: usize) {
    let _ = ADDRESS.compare_exchange(address, 0, Ordering::Relaxed, Ordering::Relaxed);
}

/// Not unmapped: code of the server that runs in the child by mistake then changes private bytes, and does not crash.
pub(super) fn replace() {
    let address = ADDRESS.swap(0, Ordering::Relaxed);
    if address == 0 {
        return;
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the range is a mapping of the server's, registered for its life; other threads, which might use it, do not
    // exist in this process.
    let _ = unsafe {
        libc::mmap(
            address as *mut libc::c_void,
            LENGTH.load(Ordering::Relaxed),
            protection,
            flags,
            -1,
            0,
        )
    };
}
