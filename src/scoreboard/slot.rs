//! One worker's part of the scoreboard: what it is doing, its counters, its threads.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use super::histogram::{Histogram, HistogramData};
use super::http2_guard::{HTTP2_GUARDS, Http2Guard};
use super::retirement::RetirementData;
use super::running::{Running, ThreadData, ThreadSlot};
use super::slot_state::SlotState;
use super::vitals::VitalsData;

/// One worker's view of the scoreboard. `Copy`, so it can be taken wherever it is needed.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    pub(super) data: &'a SlotData,
    pub(super) vitals: &'a VitalsData,
    threads: &'a [ThreadData],
}

impl<'a> Slot<'a> {
    pub(super) fn new(
        data: &'a SlotData,
        vitals: &'a VitalsData,
        threads: &'a [ThreadData],
    ) -> Self {
        Self {
            data,
            vitals,
            threads,
        }
    }

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

    /// As peers see it; the arbiter goes by `reported_state`.
    #[must_use]
    pub fn state(self) -> SlotState {
        SlotState::of(self.data.state.load(Ordering::Relaxed))
    }

    pub fn set_state(self, state: SlotState) {
        self.data.state.store(state as u32, Ordering::Relaxed);
        self.vitals.set_state(state);
    }

    /// The event loop has completed an iteration. At least once a second, also while draining.
    pub fn loop_heartbeat(self, now_ms: u64) {
        self.data.loop_heartbeat.store(now_ms, Ordering::Relaxed);
        self.vitals.set_loop_heartbeat(now_ms);
    }

    /// As peers see it; the arbiter goes by `reported_loop_heartbeat`.
    #[must_use]
    pub fn loop_heartbeat_at(self) -> u64 {
        self.data.loop_heartbeat.load(Ordering::Relaxed)
    }

    pub fn set_connections(self, open: u32, idle: u32) {
        self.data.connections_open.store(open, Ordering::Relaxed);
        self.data.connections_idle.store(idle, Ordering::Relaxed);
    }

    /// Only the open ones.
    pub fn set_connections_open(self, open: u32) {
        self.data.connections_open.store(open, Ordering::Relaxed);
    }

    /// From the whole head to the last byte handed to the kernel.
    #[must_use]
    pub fn latency(self) -> Histogram<'a> {
        Histogram(&self.data.latency)
    }

    /// Time that complete requests waited for a pool thread.
    #[must_use]
    pub fn queue_time(self) -> Histogram<'a> {
        Histogram(&self.data.queue_time)
    }

    /// Of that, what woken threads waited for the GIL. Requests that found a thread with the GIL are not in it.
    #[must_use]
    pub fn gil_wait(self) -> Histogram<'a> {
        Histogram(&self.data.gil_wait)
    }

    /// What pool thread `index` is running.
    ///
    /// # Panics
    /// When the scoreboard was made for fewer threads; the arbiter makes one with room for the `threads` setting.
    #[must_use]
    pub fn thread(self, index: usize) -> ThreadSlot<'a> {
        ThreadSlot::new(&self.threads[index])
    }

    /// The request that pool thread `index` runs now.
    #[must_use]
    pub fn running_on(self, index: usize) -> Option<Running> {
        self.threads
            .get(index)
            .and_then(|thread| ThreadSlot::new(thread).read())
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
        self.vitals.wipe();
        let gauges = [
            &data.connections_open,
            &data.connections_idle,
            &data.queue_length,
            &data.unsent_bytes,
            &data.load,
            &data.reserved_transfers,
            &data.threads_count,
        ];
        for gauge in gauges {
            gauge.store(0, Ordering::Relaxed);
        }
        let counters = [
            &data.loop_heartbeat,
            &data.requests,
            &data.bytes_out,
            &data.errors,
            &data.shed,
            &data.timed_out,
            &data.passed_on,
            &data.log_lines_dropped,
            &data.tls_handshakes,
            &data.tls_resumed,
            &data.tls_failed,
            &data.tls_alpn_http1,
            &data.tls_alpn_h2,
        ];
        for counter in counters.into_iter().chain(&data.http2_ended) {
            counter.store(0, Ordering::Relaxed);
        }
        data.latency.wipe();
        data.queue_time.wipe();
        data.gil_wait.wipe();
        data.retirement.wipe();
        for thread in self.threads {
            thread.wipe();
        }
    }
}

/// Counters that only grow while a worker lives: `add` and its reading.
macro_rules! counters {
    ($($(#[$doc:meta])* $add:ident $name:ident;)+) => {
        impl Slot<'_> {
            $($(#[$doc])*
            pub fn $add(self, count: u64) {
                self.data.$name.fetch_add(count, Ordering::Relaxed);
            }

            #[must_use]
            pub fn $name(self) -> u64 {
                self.data.$name.load(Ordering::Relaxed)
            })+
        }
    };
}

counters! {
    /// Requests that have left a line in the access log, or would have.
    add_requests requests;
    /// Bytes of response bodies.
    add_bytes_out bytes_out;
    /// Requests on which the application failed.
    add_errors errors;
    /// Requests that were answered with 503 because they waited, or would have had to (`queue_timeout`, `max_queue`).
    add_shed shed;
    /// Requests that ran longer than `request_timeout`.
    add_timed_out timed_out;
    /// Connections that were passed on to another worker, new ones and such with a request that waited.
    add_passed_on passed_on;
    /// TLS handshakes that were completed.
    add_tls_handshakes tls_handshakes;
    /// Of these, how many resumed a session.
    add_tls_resumed tls_resumed;
    /// TLS handshakes that failed, or took too long.
    add_tls_failed tls_failed;
    /// Handshakes that chose HTTP/1.1 by ALPN.
    add_tls_alpn_http1 tls_alpn_http1;
    /// Handshakes that chose HTTP/2 by ALPN.
    add_tls_alpn_h2 tls_alpn_h2;
}

impl Slot<'_> {
    /// A connection of HTTP/2 was ended.
    pub fn add_http2_ended(self, guard: Http2Guard) {
        self.data.http2_ended[guard as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// In the order of [`HTTP2_GUARDS`].
    #[must_use]
    pub fn http2_ended(self) -> [u64; HTTP2_GUARDS.len()] {
        std::array::from_fn(|at| self.data.http2_ended[at].load(Ordering::Relaxed))
    }

    /// Lines that the worker's logs have dropped, as of the last heartbeat.
    pub fn set_log_lines_dropped(self, lines: u64) {
        self.data.log_lines_dropped.store(lines, Ordering::Relaxed);
    }

    #[must_use]
    pub fn log_lines_dropped(self) -> u64 {
        self.data.log_lines_dropped.load(Ordering::Relaxed)
    }
}

/// Numbers that go up and down: `set` and its reading.
macro_rules! gauges {
    ($($(#[$doc:meta])* $set:ident $name:ident;)+) => {
        impl Slot<'_> {
            $($(#[$doc])*
            pub fn $set(self, value: u32) {
                self.data.$name.store(value, Ordering::Relaxed);
            }

            #[must_use]
            pub fn $name(self) -> u32 {
                self.data.$name.load(Ordering::Relaxed)
            })+
        }
    };
}

gauges! {
    /// Requests that wait for a thread, as of the last heartbeat.
    set_queue_length queue_length;
    /// Bytes of whole responses that wait for their clients.
    set_unsent_bytes unsent_bytes;
    /// Requests that wait or run, and new connections that will bring one, as of the last iteration of the loop.
    /// Kept for workers that have peers.
    set_load load;
    /// Threads that the worker has.
    set_threads_count threads_count;
}

impl Slot<'_> {
    #[must_use]
    pub fn connections_open(self) -> u32 {
        self.data.connections_open.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn connections_idle(self) -> u32 {
        self.data.connections_idle.load(Ordering::Relaxed)
    }

    /// A peer is about to transfer a connection to this worker.
    pub fn reserve_transfer(self) {
        self.data.reserved_transfers.fetch_add(1, Ordering::Relaxed);
    }

    /// It has come, or will not.
    pub fn release_transfer(self) {
        let less = |count: u32| count.checked_sub(1);
        // What was reserved at an earlier worker of this slot was wiped with it.
        let _ =
            self.data
                .reserved_transfers
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Connections that are on their way from peers.
    #[must_use]
    pub fn reserved_transfers(self) -> u32 {
        self.data.reserved_transfers.load(Ordering::Relaxed)
    }
}

/// What the event loop writes comes first, what the pool threads write starts on a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct SlotData {
    pid: AtomicI32,
    generation: AtomicU32,
    state: AtomicU32,
    connections_open: AtomicU32,
    connections_idle: AtomicU32,
    queue_length: AtomicU32,
    unsent_bytes: AtomicU32,
    load: AtomicU32,
    threads_count: AtomicU32,
    reserved_transfers: AtomicU32,
    loop_heartbeat: AtomicU64,
    requests: AtomicU64,
    bytes_out: AtomicU64,
    errors: AtomicU64,
    shed: AtomicU64,
    timed_out: AtomicU64,
    passed_on: AtomicU64,
    log_lines_dropped: AtomicU64,
    tls_handshakes: AtomicU64,
    tls_resumed: AtomicU64,
    tls_failed: AtomicU64,
    tls_alpn_http1: AtomicU64,
    tls_alpn_h2: AtomicU64,
    http2_ended: [AtomicU64; HTTP2_GUARDS.len()],
    latency: HistogramData,
    gil_wait: HistogramData,
    of_threads: OfThreads,
    queue_time: HistogramData,
    pub(super) retirement: RetirementData,
}

/// Where the part that the pool threads write begins.
#[derive(Debug)]
#[repr(C, align(64))]
struct OfThreads;

const _: () = assert!(size_of::<SlotData>() % 64 == 0);
const _: () = assert!(std::mem::offset_of!(SlotData, queue_time) % 64 == 0);
