//! The memory of greenlets' Python frames, kept for the next greenlet.
//!
//! From CPython 3.11 on each greenlet that runs Python code maps 16 KiB for its frames and unmaps them when it ends. With
//! the page fault of the first frame that was 7 of the 26 µs of a brief request. So pieces that were unmapped are kept,
//! [`KEPT_MAX`] at most, and the one kept last, whose page is in the processor's caches, is used first.
//!
//! The interpreter calls this on any thread, attached or not. Nothing waits: where another thread has the lock, the
//! interpreter's own functions do the work.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::{Mutex, OnceLock};

use pyo3::Python;
use pyo3::ffi::{PyObject_GetArenaAllocator, PyObject_SetArenaAllocator, PyObjectArenaAllocator};

/// CPython's `DATA_STACK_CHUNK_SIZE`. Memory of another size, such as the arenas of objects, is not kept.
const PIECE_BYTES: usize = 16 * 1024;
/// As many requests may end before one begins. Of most pieces one page was touched, so that they hold 1 MiB.
const KEPT_MAX: usize = 256;

/// Pieces that are free.
#[derive(Debug, Default)]
struct Kept(Mutex<Vec<AtomicPtr<c_void>>>);

impl Kept {
    /// A piece of `bytes`, if there is one.
    fn take(&self, bytes: usize) -> Option<*mut c_void> {
        if bytes != PIECE_BYTES {
            return None;
        }
        let piece = self.0.try_lock().ok()?.pop()?;
        Some(piece.into_inner())
    }

    /// Keep a piece of `bytes`. False: it is to be unmapped.
    fn keep(&self, piece: *mut c_void, bytes: usize) -> bool {
        if bytes != PIECE_BYTES || piece.is_null() {
            return false;
        }
        let Ok(mut pieces) = self.0.try_lock() else {
            return false;
        };
        let has_room = pieces.len() < KEPT_MAX;
        if has_room {
            pieces.push(AtomicPtr::new(piece));
        }
        has_room
    }
}

/// The interpreter's own functions.
#[derive(Debug)]
struct Mapping {
    context: AtomicPtr<c_void>,
    map: extern "C" fn(*mut c_void, usize) -> *mut c_void,
    unmap: extern "C" fn(*mut c_void, *mut c_void, usize),
}

static MAPPING: OnceLock<Mapping> = OnceLock::new();
static KEPT: Kept = Kept(Mutex::new(Vec::new()));

extern "C" fn map(_: *mut c_void, bytes: usize) -> *mut c_void {
    KEPT.take(bytes).unwrap_or_else(|| {
        MAPPING.get().map_or(ptr::null_mut(), |mapping| {
            (mapping.map)(context(mapping), bytes)
        })
    })
}

extern "C" fn unmap(_: *mut c_void, piece: *mut c_void, bytes: usize) {
    if !KEPT.keep(piece, bytes)
        && let Some(mapping) = MAPPING.get()
    {
        (mapping.unmap)(context(mapping), piece, bytes);
    }
}

fn context(mapping: &Mapping) -> *mut c_void {
    mapping.context.load(std::sync::atomic::Ordering::Relaxed)
}

/// From now on pieces are kept.
pub(super) fn keep(_: Python<'_>) {
    let mut own = PyObjectArenaAllocator {
        ctx: ptr::null_mut(),
        alloc: None,
        free: None,
    };
    // SAFETY: the caller is attached, and the structure is valid for the write.
    #[expect(unsafe_code, reason = "PyO3 wraps no allocators")]
    unsafe {
        PyObject_GetArenaAllocator(&raw mut own);
    }
    let (Some(map_own), Some(unmap_own)) = (own.alloc, own.free) else {
        return;
    };
    let mapping = Mapping {
        context: AtomicPtr::new(own.ctx),
        map: map_own,
        unmap: unmap_own,
    };
    if MAPPING.set(mapping).is_err() {
        return;
    }
    let mut keeping = PyObjectArenaAllocator {
        ctx: ptr::null_mut(),
        alloc: Some(map),
        free: Some(unmap),
    };
    // SAFETY: the caller is attached, and the structure, which is copied, is valid. Both functions live as long as the
    // process, answer on any thread, and give memory of the interpreter's own functions: what those have mapped may be
    // unmapped here and the other way round.
    #[expect(unsafe_code, reason = "PyO3 wraps no allocators")]
    unsafe {
        PyObject_SetArenaAllocator(&raw mut keeping);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_piece_that_was_kept_last_is_used_first_and_other_sizes_are_left_alone() {
        let kept = Kept::default();
        let mut memory = [0_u8; 3];
        let [first, second, other] = memory.each_mut().map(|byte| ptr::from_mut(byte).cast());
        assert!(kept.keep(first, PIECE_BYTES) && kept.keep(second, PIECE_BYTES));
        assert!(!kept.keep(other, 1 << 20));
        assert_eq!(kept.take(1 << 20), None);
        assert_eq!(kept.take(PIECE_BYTES), Some(second));
        assert_eq!(kept.take(PIECE_BYTES), Some(first));
        assert_eq!(kept.take(PIECE_BYTES), None);
    }

    #[test]
    fn no_more_than_some_are_kept_and_a_lock_is_not_waited_for() {
        let kept = Kept::default();
        let mut byte = 0_u8;
        let piece = ptr::from_mut(&mut byte).cast();
        assert!(!kept.keep(ptr::null_mut(), PIECE_BYTES));
        let count = (0..2 * KEPT_MAX).filter(|_| kept.keep(piece, PIECE_BYTES));
        assert_eq!(count.count(), KEPT_MAX);
        let _locked = kept.0.lock().unwrap();
        assert_eq!(kept.take(PIECE_BYTES), None);
        assert!(!kept.keep(piece, PIECE_BYTES));
    }
}
