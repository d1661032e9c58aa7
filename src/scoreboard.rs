//! The scoreboard: one shared mapping of counters that the arbiter and all workers see.
//!
//! The arbiter makes it before the first fork; it is anonymous memory, so it has no name, touches no disk
//! and disappears with the last process. Every worker has one fixed slot.
//!
//! Invariants:
//! - Nothing but atomics lives in it, so a reader can never see a value that no one wrote, only values
//!   that do not belong to the same moment. There are no locks; sums are allowed to be torn.
//! - A slot's fields (`scoreboard/slot.rs`) are written by its worker only, except `claim` and `release`, which the arbiter calls
//!   before the fork and after the worker is reaped: at both moments the slot has no other writer.
//! - The calls on the path of a request are a few plain stores or adds: no lock, no system call, no
//!   allocation. Relaxed ordering is enough everywhere but in `ThreadSlot`, whose text is guarded by a
//!   sequence counter.
//!
//! - Every worker can write every slot: what is read there is for balance, logs and figures. What the arbiter acts on
//!   stands in `vitals`, of which a worker can write only its own page.
//!
//! Times are milliseconds of the monotonic clock, which all processes of a machine share; 0 means never.
#![expect(
    unsafe_code,
    reason = "a mapping shared between processes is reached through raw pointers"
)]

mod histogram;
mod http2_guard;
mod readiness;
mod reports;
mod retirement;
mod running;
mod slot;
mod slot_state;
mod vitals;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::time::Duration;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::time::{ClockId, clock_gettime};

use crate::fork_guard;

pub use self::histogram::{HISTOGRAM_BUCKETS, Histogram, HistogramSnapshot};
pub use self::http2_guard::{HTTP2_GUARDS, Http2Guard};
pub use self::readiness::Unready;
use self::running::ThreadData;
pub use self::running::{Running, ThreadSlot};
pub use self::slot::Slot;
use self::slot::SlotData;
pub use self::slot_state::SlotState;
use self::vitals::Vitals;

/// Milliseconds of the monotonic clock: the time base of every heartbeat and start on the scoreboard.
#[must_use]
pub fn monotonic_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Owner of the mapping. Share it as `Arc<Scoreboard>`; a forked child keeps using the inherited mapping.
pub struct Scoreboard {
    base: NonNull<u8>,
    bytes: NonZeroUsize,
    slots: usize,
    threads: usize,
    vitals: Vitals,
}

// SAFETY: the mapping holds only atomics and stays mapped until `drop`, so it may be dropped on any thread.
unsafe impl Send for Scoreboard {}
// SAFETY: `&Scoreboard` only gives out references to atomics.
unsafe impl Sync for Scoreboard {}

impl Scoreboard {
    /// Maps room for `slots` workers with up to `threads` pool threads each. The pages are zero, and cost
    /// nothing until a worker first writes to them, so callers may be generous.
    ///
    /// # Errors
    /// When the kernel refuses the mapping or the size overflows.
    pub fn new(slots: usize, threads: usize) -> io::Result<Self> {
        let (slots, threads) = (slots.max(1), threads.max(1));
        let bytes = Self::stride(threads)
            .and_then(|stride| stride.checked_mul(slots))
            .and_then(NonZeroUsize::new)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let vitals = Vitals::new(NonZeroUsize::new(slots).ok_or(io::ErrorKind::InvalidInput)?)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address the kernel chooses overlaps nothing we own.
        let base = unsafe { mmap_anonymous(None, bytes, protection, MapFlags::MAP_SHARED) }?;
        fork_guard::register_mapping(base.as_ptr() as usize, bytes.get());
        Ok(Self {
            base: base.cast(),
            bytes,
            slots,
            threads,
            vitals,
        })
    }

    /// In worker `index`, before any code of the application runs: it can write its own reports to the arbiter, and no
    /// longer those of other workers.
    ///
    /// # Errors
    /// The kernel refuses the mapping.
    pub fn keep_only(&self, index: usize) -> io::Result<()> {
        self.vitals.keep_only(index)
    }

    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Pool threads that each slot has room for.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The slot of worker `index`; cheap enough to be called for every update.
    ///
    /// # Panics
    /// When `index` is not below `slots()`.
    #[must_use]
    pub fn slot(&self, index: usize) -> Slot<'_> {
        assert!(index < self.slots, "scoreboard slot {index} out of range");
        let stride = size_of::<SlotData>() + self.threads * size_of::<ThreadData>();
        // SAFETY: index < slots, so the result lies inside the mapping of slots * stride bytes.
        let start = unsafe { self.base.add(index * stride) };
        // SAFETY: `start` is aligned (page-aligned base plus multiples of 64), zeroed or written only through
        // the same atomics, and mapped for as long as `self` lives.
        let data = unsafe { start.cast::<SlotData>().as_ref() };
        // SAFETY: a slot's stride is its SlotData followed by its threads, so this stays inside the slot.
        let first = unsafe { start.add(size_of::<SlotData>()) }.cast::<ThreadData>();
        // SAFETY: `threads` ThreadData follow at `first`, aligned to 64 as above, atomics only.
        let threads = unsafe { std::slice::from_raw_parts(first.as_ptr(), self.threads) };
        Slot::new(data, self.vitals.slot(index), threads)
    }

    pub fn iter(&self) -> impl Iterator<Item = Slot<'_>> {
        (0..self.slots).map(|index| self.slot(index))
    }

    fn stride(threads: usize) -> Option<usize> {
        threads
            .checked_mul(size_of::<ThreadData>())?
            .checked_add(size_of::<SlotData>())
    }
}

impl Drop for Scoreboard {
    fn drop(&mut self) {
        fork_guard::unregister_mapping(self.base.as_ptr() as usize);
        // SAFETY: base and bytes are those of this mapping, and no reference outlives `self`.
        let unmapped = unsafe { munmap(self.base.cast(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "the scoreboard was mapped by new()");
    }
}

impl fmt::Debug for Scoreboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoreboard")
            .field("slots", &self.slots)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_overlap() {
        let scoreboard = Scoreboard::new(3, 5).unwrap();
        for (index, slot) in scoreboard.iter().enumerate() {
            slot.claim(7);
            slot.set_pid(index as i32 + 1);
            slot.thread(4)
                .begin(index as u64 + 1, None, b"GET", b"/last");
        }
        for (index, slot) in scoreboard.iter().enumerate() {
            assert_eq!(slot.pid(), index as i32 + 1);
            assert_eq!(slot.generation(), 7);
            assert_eq!(slot.state(), SlotState::Booting);
            assert_eq!(slot.running().len(), 1);
        }
        assert_eq!((scoreboard.slots(), scoreboard.threads()), (3, 5));
    }

    #[test]
    fn release_wipes_the_slot() {
        let scoreboard = Scoreboard::new(1, 1).unwrap();
        let slot = scoreboard.slot(0);
        slot.claim(1);
        slot.set_state(SlotState::Serving);
        slot.loop_heartbeat(5);
        slot.python_heartbeat(6);
        slot.set_connections(3, 2);
        slot.set_queue_length(4);
        slot.thread_busy();
        slot.latency().record(Duration::from_millis(1));
        slot.add_requests(2);
        assert_eq!(
            (
                slot.requests(),
                slot.connections_open(),
                slot.connections_idle()
            ),
            (2, 3, 2)
        );
        slot.thread(0).begin(1, None, b"GET", b"/");
        slot.release();
        assert_eq!(slot.state(), SlotState::Free);
        assert_eq!(
            (
                slot.loop_heartbeat_at(),
                slot.python_heartbeat_at(),
                slot.requests()
            ),
            (0, 0, 0)
        );
        assert_eq!((slot.threads_busy(), slot.queue_length()), (0, 0));
        assert_eq!(slot.latency().snapshot().counts.iter().sum::<u64>(), 0);
        assert!(slot.running().is_empty());
    }

    #[test]
    fn counters_add_up_across_threads() {
        let scoreboard = Scoreboard::new(1, 4).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        scoreboard.slot(0).thread_busy();
                        scoreboard.slot(0).add_requests(1);
                        scoreboard.slot(0).add_bytes_out(2);
                        scoreboard.slot(0).add_errors(1);
                        scoreboard.slot(0).thread_idle();
                    }
                });
            }
        });
        let slot = scoreboard.slot(0);
        assert_eq!(
            (slot.requests(), slot.bytes_out(), slot.errors()),
            (4000, 8000, 4000)
        );
        assert_eq!(slot.threads_busy(), 0);
    }
}
