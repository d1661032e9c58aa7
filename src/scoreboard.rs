//! The scoreboard: one shared mapping of counters that the arbiter and all workers see.
//!
//! The arbiter makes it before the first fork; it is anonymous memory, so it has no name, touches no disk
//! and disappears with the last process. Every worker has one fixed slot.
//!
//! Invariants:
//! - Nothing but atomics lives in it, so a reader can never see a value that no one wrote, only values
//!   that do not belong to the same moment. Nobody locks; sums are allowed to be torn.
//! - A slot's fields are written by its worker only, except `claim` and `release`, which the arbiter calls
//!   before the fork and after the worker is reaped: at both moments the slot has no other writer.
//! - The calls on the path of a request are a few plain stores or adds: no lock, no system call, no
//!   allocation. Relaxed ordering is enough everywhere but in `ThreadSlot`, whose text is guarded by a
//!   sequence counter.
//!
//! Times are milliseconds of the monotonic clock, which all processes of a machine share; 0 means never.
#![expect(
    unsafe_code,
    reason = "a mapping shared between processes is reached through raw pointers"
)]

mod histogram;
mod running;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::time::{ClockId, clock_gettime};

pub use self::histogram::{HISTOGRAM_BUCKETS, Histogram};
use self::running::ThreadData;
pub use self::running::{Running, ThreadSlot};

/// Milliseconds of the monotonic clock: the time base of every beat and start on the scoreboard.
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
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address the kernel chooses overlaps nothing we own.
        let base = unsafe { mmap_anonymous(None, bytes, protection, MapFlags::MAP_SHARED) }?;
        Ok(Self {
            base: base.cast(),
            bytes,
            slots,
            threads,
        })
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
        Slot { data, threads }
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
        // SAFETY: base and bytes are those of our own mapping, and no reference outlives `self`.
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

/// What the worker of a slot is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotState {
    #[default]
    Free,
    Booting,
    Serving,
    Draining,
}

/// One worker's view of the board. `Copy`, so it can be taken wherever it is needed.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    data: &'a SlotData,
    threads: &'a [ThreadData],
}

impl<'a> Slot<'a> {
    /// Arbiter, before the fork: wipes what the last worker left and marks the slot as booting.
    pub fn claim(self, generation: u32) {
        self.wipe();
        self.data.generation.store(generation, Ordering::Relaxed);
        self.set_state(SlotState::Booting);
    }

    /// Arbiter, after the worker was reaped.
    pub fn release(self) {
        self.wipe();
    }

    #[must_use]
    pub fn pid(self) -> i32 {
        self.data.pid.load(Ordering::Relaxed)
    }

    pub fn set_pid(self, pid: i32) {
        self.data.pid.store(pid, Ordering::Relaxed);
    }

    #[must_use]
    pub fn generation(self) -> u32 {
        self.data.generation.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn state(self) -> SlotState {
        match self.data.state.load(Ordering::Relaxed) {
            1 => SlotState::Booting,
            2 => SlotState::Serving,
            3 => SlotState::Draining,
            _ => SlotState::Free,
        }
    }

    pub fn set_state(self, state: SlotState) {
        self.data.state.store(state as u32, Ordering::Relaxed);
    }

    /// The event loop turned. At least once a second, also while draining.
    pub fn loop_beat(self, now_ms: u64) {
        self.data.loop_beat.store(now_ms, Ordering::Relaxed);
    }

    #[must_use]
    pub fn loop_beat_at(self) -> u64 {
        self.data.loop_beat.load(Ordering::Relaxed)
    }

    /// Some thread held the GIL just now. A worker that never calls this is never judged by it.
    pub fn python_beat(self, now_ms: u64) {
        self.data.python_beat.store(now_ms, Ordering::Relaxed);
    }

    #[must_use]
    pub fn python_beat_at(self) -> u64 {
        self.data.python_beat.load(Ordering::Relaxed)
    }

    pub fn set_connections(self, open: u32, idle: u32) {
        self.data.connections_open.store(open, Ordering::Relaxed);
        self.data.connections_idle.store(idle, Ordering::Relaxed);
    }

    #[must_use]
    pub fn connections_open(self) -> u32 {
        self.data.connections_open.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn connections_idle(self) -> u32 {
        self.data.connections_idle.load(Ordering::Relaxed)
    }

    pub fn set_queue_length(self, jobs: u32) {
        self.data.queue_length.store(jobs, Ordering::Relaxed);
    }

    #[must_use]
    pub fn queue_length(self) -> u32 {
        self.data.queue_length.load(Ordering::Relaxed)
    }

    pub fn thread_busy(self) {
        self.data.threads_busy.fetch_add(1, Ordering::Relaxed);
    }

    pub fn thread_idle(self) {
        self.data.threads_busy.fetch_sub(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn threads_busy(self) -> u32 {
        self.data.threads_busy.load(Ordering::Relaxed)
    }

    /// Counts requests; returns how many the worker had before.
    pub fn add_requests(self, count: u64) -> u64 {
        self.data.requests.fetch_add(count, Ordering::Relaxed)
    }

    #[must_use]
    pub fn requests(self) -> u64 {
        self.data.requests.load(Ordering::Relaxed)
    }

    pub fn add_bytes_out(self, count: u64) {
        self.data.bytes_out.fetch_add(count, Ordering::Relaxed);
    }

    #[must_use]
    pub fn bytes_out(self) -> u64 {
        self.data.bytes_out.load(Ordering::Relaxed)
    }

    pub fn add_errors(self, count: u64) {
        self.data.errors.fetch_add(count, Ordering::Relaxed);
    }

    #[must_use]
    pub fn errors(self) -> u64 {
        self.data.errors.load(Ordering::Relaxed)
    }

    /// From the whole head to the last byte handed to the kernel.
    #[must_use]
    pub fn latency(self) -> Histogram<'a> {
        Histogram::new(&self.data.latency)
    }

    /// Time that complete requests waited for a pool thread.
    #[must_use]
    pub fn queue_time(self) -> Histogram<'a> {
        Histogram::new(&self.data.queue_time)
    }

    /// What pool thread `index` is running.
    ///
    /// # Panics
    /// When the board was made for fewer threads; the arbiter makes one with room for the `threads` setting.
    #[must_use]
    pub fn thread(self, index: usize) -> ThreadSlot<'a> {
        ThreadSlot::new(&self.threads[index])
    }

    /// The requests that run now, with the number of their thread.
    pub fn running_threads(self) -> impl Iterator<Item = (usize, Running)> {
        let threads = self.threads.iter().enumerate();
        threads.filter_map(|(index, thread)| Some((index, ThreadSlot::new(thread).read()?)))
    }

    /// The requests that run now, oldest first: for the log line of a worker that is killed.
    #[must_use]
    pub fn running(self) -> Vec<Running> {
        let mut running: Vec<_> = self
            .threads
            .iter()
            .filter_map(|thread| ThreadSlot::new(thread).read())
            .collect();
        running.sort_by_key(|request| request.since_ms);
        running
    }

    fn wipe(self) {
        let data = self.data;
        data.pid.store(0, Ordering::Relaxed);
        self.set_state(SlotState::Free);
        self.set_connections(0, 0);
        self.set_queue_length(0);
        data.threads_busy.store(0, Ordering::Relaxed);
        let counters = [
            &data.loop_beat,
            &data.python_beat,
            &data.requests,
            &data.bytes_out,
            &data.errors,
        ];
        for counter in counters
            .into_iter()
            .chain(&data.latency)
            .chain(&data.queue_time)
        {
            counter.store(0, Ordering::Relaxed);
        }
        for thread in self.threads {
            thread.wipe();
        }
    }
}

/// What the event loop writes comes first, what the pool threads write starts on a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
struct SlotData {
    pid: AtomicI32,
    generation: AtomicU32,
    state: AtomicU32,
    connections_open: AtomicU32,
    connections_idle: AtomicU32,
    queue_length: AtomicU32,
    loop_beat: AtomicU64,
    requests: AtomicU64,
    bytes_out: AtomicU64,
    errors: AtomicU64,
    latency: [AtomicU64; HISTOGRAM_BUCKETS],
    _line: [u64; 1],
    python_beat: AtomicU64,
    threads_busy: AtomicU32,
    queue_time: [AtomicU64; HISTOGRAM_BUCKETS],
}

const _: () = assert!(size_of::<SlotData>() % 64 == 0);
const _: () = assert!(std::mem::offset_of!(SlotData, python_beat) % 64 == 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_overlap() {
        let board = Scoreboard::new(3, 5).unwrap();
        for (index, slot) in board.iter().enumerate() {
            slot.claim(7);
            slot.set_pid(index as i32 + 1);
            slot.thread(4)
                .begin(index as u64 + 1, None, b"GET", b"/last");
        }
        for (index, slot) in board.iter().enumerate() {
            assert_eq!(slot.pid(), index as i32 + 1);
            assert_eq!(slot.generation(), 7);
            assert_eq!(slot.state(), SlotState::Booting);
            assert_eq!(slot.running().len(), 1);
        }
        assert_eq!((board.slots(), board.threads()), (3, 5));
    }

    #[test]
    fn release_wipes_the_slot() {
        let board = Scoreboard::new(1, 1).unwrap();
        let slot = board.slot(0);
        slot.claim(1);
        slot.set_state(SlotState::Serving);
        slot.loop_beat(5);
        slot.python_beat(6);
        slot.set_connections(3, 2);
        slot.set_queue_length(4);
        slot.thread_busy();
        slot.latency().record(Duration::from_millis(1));
        assert_eq!(slot.add_requests(2), 0);
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
            (slot.loop_beat_at(), slot.python_beat_at(), slot.requests()),
            (0, 0, 0)
        );
        assert_eq!((slot.threads_busy(), slot.queue_length()), (0, 0));
        assert_eq!(slot.latency().snapshot().iter().sum::<u64>(), 0);
        assert!(slot.running().is_empty());
    }

    #[test]
    fn counters_add_up_across_threads() {
        let board = Scoreboard::new(1, 4).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        board.slot(0).thread_busy();
                        board.slot(0).add_requests(1);
                        board.slot(0).add_bytes_out(2);
                        board.slot(0).add_errors(1);
                        board.slot(0).thread_idle();
                    }
                });
            }
        });
        let slot = board.slot(0);
        assert_eq!(
            (slot.requests(), slot.bytes_out(), slot.errors()),
            (4000, 8000, 4000)
        );
        assert_eq!(slot.threads_busy(), 0);
    }
}
