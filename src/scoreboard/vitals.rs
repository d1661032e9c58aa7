//! What a worker reports of itself and the arbiter acts on: its state, its heartbeats, that it wants a successor. And
//! what the arbiter tells it beside signals: that it is to stop.
//!
//! A page of its own for each slot. A worker keeps its own and gives up the others ([`Vitals::keep_only`]), so that it can
//! neither have another worker killed as silent nor have it believed to serve. There is no way back: the memory has no
//! name by which it could be mapped again.
#![expect(
    unsafe_code,
    reason = "a mapping shared between processes is reached through raw pointers"
)]

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::unistd::{SysconfVar, sysconf};

use super::slot_state::SlotState;
use crate::fork_guard;

/// The pages of all slots.
pub(super) struct Vitals {
    base: NonNull<u8>,
    page: NonZeroUsize,
    slots: NonZeroUsize,
}

/// One slot's page. Zeroes are the state of a slot without a worker.
#[derive(Debug)]
#[repr(C)]
pub(super) struct VitalsData {
    state: AtomicU32,
    asks_to_go: AtomicU32,
    wants_replacement: AtomicU32,
    stop_signal: AtomicU32,
    accepts_no_more: AtomicU32,
    threads_busy: AtomicU32,
    queue_length: AtomicU32,
    server_stops: AtomicU32,
    /// [`ENDS_LISTENERS`], or not.
    ends_listeners: AtomicU64,
    stop_asked_ms: AtomicU64,
    loop_heartbeat: AtomicU64,
    python_heartbeat: AtomicU64,
}

impl Vitals {
    pub(super) fn new(slots: NonZeroUsize) -> io::Result<Self> {
        let page = sysconf(SysconfVar::PAGE_SIZE)?
            .and_then(|bytes| NonZeroUsize::new(usize::try_from(bytes).ok()?))
            .ok_or(io::ErrorKind::Unsupported)?;
        let bytes = page.checked_mul(slots).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new anonymous mapping at an address the kernel chooses overlaps nothing of this process.
        let base = unsafe { mmap_anonymous(None, bytes, PROTECTION, MapFlags::MAP_SHARED) }?;
        fork_guard::register_mapping(base.as_ptr() as usize, bytes.get());
        let base = base.cast();
        Ok(Self { base, page, slots })
    }

    /// # Panics
    /// When there is no such slot.
    pub(super) fn slot(&self, index: usize) -> &VitalsData {
        assert!(index < self.slots.get(), "slot {index} out of range");
        // SAFETY: index < slots, so the page lies inside the mapping.
        let page = unsafe { self.base.add(index * self.page.get()) };
        // SAFETY: the mapping lives as long as `self`; the page is aligned, and zeroed or written only through the same
        // atomics.
        unsafe { page.cast::<VitalsData>().as_ref() }
    }

    /// In a worker, before any code of the application runs: the pages of other slots are memory of this process alone
    /// from now on.
    pub(super) fn keep_only(&self, index: usize) -> io::Result<()> {
        let others = [(0, index), (index + 1, self.slots.get())];
        for (first, end) in others {
            let count = end.saturating_sub(first);
            let Some(bytes) = NonZeroUsize::new(count * self.page.get()) else {
                continue;
            };
            // SAFETY: first + count <= slots, so the address lies inside the mapping.
            let start = unsafe { self.base.add(first * self.page.get()) };
            let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED;
            // SAFETY: whole pages of this mapping are replaced by zeroed ones. References to them stay valid, because
            // they are only of atomics, for which zero is a value like any other.
            unsafe { mmap_anonymous(Some(start.addr()), bytes, PROTECTION, flags) }?;
        }
        Ok(())
    }
}

impl Drop for Vitals {
    fn drop(&mut self) {
        let bytes = self.page.get() * self.slots.get();
        fork_guard::unregister_mapping(self.base.as_ptr() as usize);
        // SAFETY: base and length are those of this mapping, and no reference outlives `self`.
        let unmapped = unsafe { munmap(self.base.cast(), bytes) };
        debug_assert!(unmapped.is_ok(), "the pages were mapped by new()");
    }
}

impl VitalsData {
    pub(super) fn wipe(&self) {
        for flag in [
            &self.state,
            &self.asks_to_go,
            &self.wants_replacement,
            &self.stop_signal,
            &self.accepts_no_more,
            &self.threads_busy,
            &self.queue_length,
            &self.server_stops,
        ] {
            flag.store(0, Ordering::Relaxed);
        }
        for time in [
            &self.loop_heartbeat,
            &self.python_heartbeat,
            &self.ends_listeners,
            &self.stop_asked_ms,
        ] {
            time.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn set_state(&self, state: SlotState) {
        self.state.store(state as u32, Ordering::Relaxed);
    }

    pub(super) fn set_loop_heartbeat(&self, now_ms: u64) {
        self.loop_heartbeat.store(now_ms, Ordering::Relaxed);
    }

    pub(super) fn reported_state(&self) -> SlotState {
        SlotState::of(self.state.load(Ordering::Relaxed))
    }

    pub(super) fn reported_loop_heartbeat(&self) -> u64 {
        self.loop_heartbeat.load(Ordering::Relaxed)
    }

    pub(super) fn python_heartbeat(&self, now_ms: u64) {
        self.python_heartbeat.store(now_ms, Ordering::Relaxed);
    }

    pub(super) fn python_heartbeat_at(&self) -> u64 {
        self.python_heartbeat.load(Ordering::Relaxed)
    }

    pub(super) fn ask_to_stop(&self, signal: i32, now_ms: u64) {
        let signal = u32::try_from(signal).unwrap_or(0);
        self.stop_asked_ms.store(now_ms, Ordering::Relaxed);
        self.stop_signal.store(signal, Ordering::Release);
    }

    pub(super) fn stop_signal(&self) -> Option<i32> {
        let signal = self.stop_signal.load(Ordering::Acquire);
        i32::try_from(signal).ok().filter(|signal| *signal != 0)
    }

    pub(super) fn stop_asked_ms(&self) -> Option<u64> {
        self.stop_signal()
            .map(|_| self.stop_asked_ms.load(Ordering::Relaxed))
    }

    pub(super) fn thread_busy(&self) {
        self.threads_busy.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn thread_idle(&self) {
        self.threads_busy.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn threads_busy(&self) -> u32 {
        self.threads_busy.load(Ordering::Relaxed)
    }

    pub(super) fn set_queue_length(&self, requests: u32) {
        self.queue_length.store(requests, Ordering::Relaxed);
    }

    pub(super) fn queue_length(&self) -> u32 {
        self.queue_length.load(Ordering::Relaxed)
    }

    pub(super) fn announce_stop(&self) {
        self.server_stops.store(1, Ordering::Relaxed);
    }

    pub(super) fn server_stops(&self) -> bool {
        self.server_stops.load(Ordering::Relaxed) != 0
    }

    pub(super) fn ask_to_go(&self) {
        self.asks_to_go.store(1, Ordering::Relaxed);
    }

    pub(super) fn asks_to_go(&self) -> bool {
        self.asks_to_go.load(Ordering::Relaxed) != 0
    }

    pub(super) fn set_accepts_no_more(&self) {
        self.accepts_no_more.store(1, Ordering::Relaxed);
    }

    pub(super) fn accepts_no_more(&self) -> bool {
        self.accepts_no_more.load(Ordering::Relaxed) != 0
    }

    pub(super) fn set_ends_listeners(&self) {
        self.ends_listeners.store(ENDS_LISTENERS, Ordering::Relaxed);
    }

    pub(super) fn ends_listeners(&self) -> bool {
        self.ends_listeners.load(Ordering::Relaxed) == ENDS_LISTENERS
    }

    pub(super) fn set_wants_replacement(&self) {
        self.wants_replacement.store(1, Ordering::Relaxed);
    }

    pub(super) fn wants_replacement(&self) -> bool {
        self.wants_replacement.load(Ordering::Relaxed) != 0
    }
}

/// The worker ends what all workers accept from, so its own memory must not say that by chance: a random number.
const ENDS_LISTENERS: u64 = 0x9b1f_63d4_2ac8_e507;

const PROTECTION: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use crate::scoreboard::{Scoreboard, SlotState};

    #[test]
    fn a_worker_cannot_write_what_others_report() {
        // Two mappings stand for two processes: what is private is private to the one that gave the pages up.
        let scoreboard = Scoreboard::new(3, 1).unwrap();
        for slot in scoreboard.iter() {
            slot.claim(1);
            slot.loop_heartbeat(7);
        }
        scoreboard.keep_only(1).unwrap();
        let heartbeats: Vec<_> = scoreboard
            .iter()
            .map(|slot| slot.reported_loop_heartbeat())
            .collect();
        assert_eq!(heartbeats, [0, 7, 0], "only its own page is still shared");
        scoreboard.slot(0).set_state(SlotState::Draining);
        scoreboard.slot(1).set_state(SlotState::Serving);
        assert_eq!(scoreboard.slot(1).reported_state(), SlotState::Serving);
        assert_eq!(scoreboard.slot(0).state(), SlotState::Draining, "for peers");
    }

    #[test]
    fn garbage_does_not_end_the_listeners_of_all() {
        let scoreboard = Scoreboard::new(1, 1).unwrap();
        let slot = scoreboard.slot(0);
        for garbage in [1, u64::MAX, u64::from(u32::MAX), 0x0101_0101_0101_0101] {
            slot.vitals.ends_listeners.store(garbage, Ordering::Relaxed);
            assert!(!slot.ends_listeners());
        }
        slot.set_ends_listeners();
        assert!(slot.ends_listeners());
        slot.claim(1);
        assert!(!slot.ends_listeners());
    }

    #[test]
    fn the_first_and_the_last_slot_can_be_kept() {
        for kept in [0, 2] {
            let scoreboard = Scoreboard::new(3, 1).unwrap();
            scoreboard.slot(kept).python_heartbeat(9);
            scoreboard.slot(1).python_heartbeat(9);
            scoreboard.keep_only(kept).unwrap();
            assert_eq!(scoreboard.slot(kept).python_heartbeat_at(), 9);
            assert_eq!(scoreboard.slot(1).python_heartbeat_at(), 0);
        }
    }
}
