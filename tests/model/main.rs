//! The protocols that park and wake threads, under every interleaving that loom finds: no job is left behind while all
//! pool threads are parked, no reply while the event loop is, and no greenlet that is due while its hub polls. An event loop that
//! is delegated is run by one thread at a time, and comes back.
//!
//! `src/pool/wakeup.rs`, `loop_park.rs`, `loop_role.rs`, `hub_wakeup.rs` and `busy_threads.rs` are compiled here as they are, against loom's primitives instead of
//! the standard library's. The queues are plain ones, but what the threads and the loop do with them is what
//! `src/pool/thread.rs`, `thread_pool.rs` and `replies.rs` do.

#![allow(
    dead_code,
    reason = "the model uses the part of the protocols that sleeps and wakes"
)]

#[path = "../../src/pool/busy_threads.rs"]
mod busy_threads;
#[allow(unreachable_pub, reason = "it is public in the crate")]
#[path = "../../src/pool/delegation.rs"]
mod delegation;
#[allow(unreachable_pub, reason = "it is public in the crate")]
#[path = "../../src/pool/hub_wakeup.rs"]
mod hub_wakeup;
#[path = "../../src/pool/loop_park.rs"]
mod loop_park;
#[allow(unreachable_pub, reason = "it is public in the crate")]
#[path = "../../src/pool/loop_role.rs"]
mod loop_role;
#[path = "../../src/pool/wakeup.rs"]
mod wakeup;

mod sync {
    //! loom's primitives in the shape of `src/pool/sync.rs`.

    use std::cell::Cell;
    use std::sync::{Arc, OnceLock};
    use std::time::{Duration, Instant};

    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
    use loom::sync::{Condvar, Mutex as LoomMutex, MutexGuard};
    use loom::thread::{self, Thread};

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(LoomMutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(LoomMutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("loom's mutexes are not poisoned")
        }
    }

    /// An atomic whose stores are swaps. To loom, a plain store and a swap of another thread have no order, even when the
    /// swap has read what the store replaced: a third thread could then swap with either. A swap is atomic, so memory
    /// does have an order there.
    #[derive(Debug)]
    pub(crate) struct AtomicU8(loom::sync::atomic::AtomicU8);

    impl AtomicU8 {
        pub(crate) fn new(value: u8) -> Self {
            Self(loom::sync::atomic::AtomicU8::new(value))
        }

        pub(crate) fn load(&self, ordering: Ordering) -> u8 {
            self.0.load(ordering)
        }

        pub(crate) fn store(&self, value: u8, ordering: Ordering) {
            self.0.swap(value, ordering);
        }

        pub(crate) fn swap(&self, value: u8, ordering: Ordering) -> u8 {
            self.0.swap(value, ordering)
        }
    }

    /// The same for a flag.
    #[derive(Debug)]
    pub(crate) struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub(crate) fn new(value: bool) -> Self {
            Self(loom::sync::atomic::AtomicBool::new(value))
        }

        pub(crate) fn load(&self, ordering: Ordering) -> bool {
            self.0.load(ordering)
        }

        pub(crate) fn store(&self, value: bool, ordering: Ordering) {
            self.0.swap(value, ordering);
        }

        pub(crate) fn swap(&self, value: bool, ordering: Ordering) -> bool {
            self.0.swap(value, ordering)
        }
    }

    /// A queue reduced to counting, which is looked at without a lock, as the real one is.
    #[derive(Debug)]
    pub(crate) struct Queue<T>(AtomicUsize, std::marker::PhantomData<T>);

    impl<T: Default> Queue<T> {
        pub(crate) fn new() -> Self {
            Self(AtomicUsize::new(0), std::marker::PhantomData)
        }

        pub(crate) fn push(&self, _: T) {
            self.0.fetch_add(1, Ordering::Release);
        }

        pub(crate) fn pop(&self) -> Option<T> {
            let mut count = self.0.load(Ordering::Acquire);
            while count > 0 {
                match self
                    .0
                    .compare_exchange(count, count - 1, Ordering::AcqRel, Ordering::Acquire)
                {
                    Ok(_) => return Some(T::default()),
                    Err(now) => count = now,
                }
            }
            None
        }
    }

    /// An eventfd, and the poll of the one thread that watches it.
    #[derive(Debug)]
    pub(crate) struct WakeDescriptor {
        signals: LoomMutex<u64>,
        readable: Condvar,
    }

    impl WakeDescriptor {
        pub(crate) fn new() -> std::io::Result<Self> {
            Ok(Self {
                signals: LoomMutex::new(0),
                readable: Condvar::new(),
            })
        }

        pub(crate) fn is_lost(&self) -> bool {
            false
        }

        pub(crate) fn look(&self) {}

        pub(crate) fn raw(&self) -> i32 {
            self.poll();
            0
        }

        /// Until it is readable. Nothing else wakes it.
        fn poll(&self) {
            let mut signals = self.signals.lock().expect("not poisoned");
            while *signals == 0 {
                signals = self.readable.wait(signals).expect("not poisoned");
            }
        }

        pub(crate) fn signal(&self) {
            *self.signals.lock().expect("not poisoned") += 1;
            self.readable.notify_one();
        }

        pub(crate) fn drain(&self) -> u64 {
            std::mem::take(&mut *self.signals.lock().expect("not poisoned"))
        }
    }

    #[derive(Debug, Default)]
    struct Bell {
        has_rung: LoomMutex<bool>,
        rings: Condvar,
    }

    loom::thread_local! {
        static BELL: Arc<Bell> = Arc::default();
        /// Whether a time that is asked for is over: not at the first look, and then it is.
        static IS_OVER: Cell<bool> = Cell::new(false);
        /// How often a thread has asked for an alarm's age, which is another one each time.
        static AGES: Cell<usize> = Cell::new(0);
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) enum AlarmAge {
        FarOff,
        Near,
        Over,
    }

    /// An alarm that rings as soon as it is set, which may be before or after anything else.
    pub(crate) struct Alarm(Arc<Bell>);

    impl Alarm {
        pub(crate) fn of_this_thread() -> std::io::Result<Self> {
            Ok(Self(BELL.with(Arc::clone)))
        }

        #[allow(clippy::needless_pass_by_ref_mut, reason = "as the real one")]
        pub(crate) fn ring_in(&mut self, _: Duration) {
            *self.0.has_rung.lock().expect("not poisoned") = true;
            self.0.rings.notify_one();
        }

        #[allow(clippy::needless_pass_by_ref_mut, reason = "as the real one")]
        pub(crate) fn silence(&mut self) {
            *self.0.has_rung.lock().expect("not poisoned") = false;
        }

        pub(crate) fn age(_: Instant, _: Instant, _: Duration) -> AlarmAge {
            let ages = [AlarmAge::Over, AlarmAge::FarOff, AlarmAge::Near];
            ages[AGES.with(|count| count.replace(count.get() + 1)) % ages.len()]
        }

        pub(crate) fn expect() -> Expected {
            Expected(BELL.with(Arc::clone))
        }

        pub(crate) fn left(_: Instant, time: Duration) -> Option<Duration> {
            IS_OVER.with(|is_over| (!is_over.replace(!is_over.get())).then_some(time))
        }
    }

    pub(crate) struct Expected(Arc<Bell>);

    impl Expected {
        pub(crate) fn wait(&self) {
            let mut has_rung = self.0.has_rung.lock().expect("not poisoned");
            while !*has_rung {
                has_rung = self.0.rings.wait(has_rung).expect("not poisoned");
            }
            *has_rung = false;
        }
    }

    #[derive(Debug)]
    pub(crate) struct Parker {
        token: LoomMutex<bool>,
        given: Condvar,
    }

    impl Parker {
        pub(crate) fn new() -> Self {
            Self {
                token: LoomMutex::new(false),
                given: Condvar::new(),
            }
        }

        pub(crate) fn park(&self) {
            let mut token = self.token.lock().expect("not poisoned");
            while !*token {
                token = self.given.wait(token).expect("not poisoned");
            }
            *token = false;
        }

        pub(crate) fn unpark(&self) {
            *self.token.lock().expect("not poisoned") = true;
            self.given.notify_one();
        }
    }

    /// A thread that must be known before it is unparked. No time wakes it.
    #[derive(Debug)]
    pub(crate) struct NamedThread {
        /// Relaxed: that it is seen is for the protocol's own orderings.
        is_known: AtomicU8,
        thread: OnceLock<Thread>,
    }

    impl Default for NamedThread {
        fn default() -> Self {
            Self {
                is_known: AtomicU8::new(0),
                thread: OnceLock::new(),
            }
        }
    }

    impl NamedThread {
        pub(crate) fn is_this(&self) {
            self.thread.get_or_init(thread::current);
            self.is_known.store(1, Ordering::Relaxed);
        }

        pub(crate) fn unpark(&self) {
            assert_eq!(self.is_known.load(Ordering::Relaxed), 1, "it is known");
            self.thread.get().expect("it is known").unpark();
        }

        pub(crate) fn park(&self, _: Duration) {
            thread::park();
        }
    }
}

use std::sync::Arc;
use std::time::Duration;

use loom::sync::Mutex as LoomMutex;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use busy_threads::BusyThreads;
use ferricorn::pool::policy;
use hub_wakeup::HubWakeup;
use loop_park::LoopPark;
use loop_role::{DelegableLoop, LoopRole, NextHolder, Served};
use policy::SleepMode;
use wakeup::WakeupToken;

/// The pool of `src/pool/thread_pool.rs`, reduced to counting: jobs have no content.
struct Pool {
    /// Jobs in the queue. A counter that is looked at without a lock, as the real queue is.
    queued: AtomicUsize,
    done: AtomicUsize,
    closed: AtomicBool,
    busy: BusyThreads,
    wakeup: WakeupToken,
    /// The GIL.
    gil: LoomMutex<()>,
    /// Jobs are fast: a thread that is awake is trusted to come back for the next one.
    fast: bool,
}

impl Pool {
    fn push(&self) {
        self.queued.fetch_add(1, Ordering::Release);
        if !(self.fast && self.wakeup.is_any_coming(self.busy.held_up())) {
            self.wakeup.notify_one();
        }
    }

    fn pop(&self) -> bool {
        let mut queued = self.queued.load(Ordering::Acquire);
        while queued > 0 {
            match self.queued.compare_exchange(
                queued,
                queued - 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => queued = now,
            }
        }
        false
    }

    fn has_work(&self) -> bool {
        self.queued.load(Ordering::Acquire) > 0 || self.closed.load(Ordering::Relaxed)
    }

    /// The life of the thread at `thread`.
    fn run(&self, thread: usize) {
        let mut gil = self.gil.lock().expect("not poisoned");
        loop {
            if self.pop() {
                if !self.fast && self.queued.load(Ordering::Acquire) > 0 {
                    self.wakeup.notify_one();
                }
                let since = self.busy.begin();
                self.done.fetch_add(1, Ordering::Relaxed);
                self.busy.end(since);
                continue;
            }
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            self.wakeup.park(thread);
            if self.has_work() {
                self.wakeup.cancel_park(thread);
                continue;
            }
            drop(gil);
            self.wakeup.wait(thread);
            gil = self.gil.lock().expect("not poisoned");
            self.wakeup.wakeup_done();
        }
    }
}

impl Pool {
    fn new(threads: usize, fast: bool) -> Self {
        Self {
            queued: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            busy: BusyThreads::new(),
            wakeup: WakeupToken::new(threads),
            gil: LoomMutex::new(()),
            fast,
        }
    }

    /// Without help: closing the pool would wake the sleepers and hide a lost wake-up.
    fn await_done(&self, jobs: usize) {
        while self.done.load(Ordering::Relaxed) < jobs {
            loom::thread::yield_now();
        }
    }
}

/// `threads` threads and `jobs` jobs: all jobs are done, and everybody leaves. A lost wake-up is a deadlock, which
/// loom reports.
fn every_job_is_done(threads: usize, jobs: usize, preemptions: usize, fast: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let pool = Arc::new(Pool::new(threads, fast));
        let runners: Vec<_> = (0..threads)
            .map(|thread| {
                let pool = pool.clone();
                loom::thread::spawn(move || pool.run(thread))
            })
            .collect();
        for _ in 0..jobs {
            pool.push();
        }
        pool.await_done(jobs);
        pool.closed.store(true, Ordering::SeqCst);
        pool.wakeup.notify_all();
        for runner in runners {
            runner.join().expect("a pool thread does not panic");
        }
        assert_eq!(pool.done.load(Ordering::Relaxed), jobs);
    });
}

#[test]
fn one_thread_is_woken_for_every_job() {
    every_job_is_done(1, 2, 3, false);
}

#[test]
fn two_threads_share_two_jobs() {
    every_job_is_done(2, 2, 2, false);
}

#[test]
fn more_jobs_than_threads() {
    every_job_is_done(2, 3, 2, false);
}

#[test]
fn fast_jobs_are_left_to_a_thread_that_is_awake() {
    every_job_is_done(1, 2, 3, true);
    every_job_is_done(2, 2, 2, true);
}

/// Of two threads a stall has found one held up. Fast jobs are left to the other, which is woken for them, and then to both.
#[test]
fn fast_jobs_are_not_left_to_a_thread_that_is_held_up() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let pool = Arc::new(Pool::new(2, true));
        let spawn = |thread: usize| {
            let pool = pool.clone();
            loom::thread::spawn(move || pool.run(thread))
        };
        let held_up = pool.busy.begin();
        pool.busy.note_stall();
        let other = spawn(0);
        pool.push();
        pool.await_done(1);
        let back = loom::thread::spawn({
            let pool = pool.clone();
            move || {
                pool.busy.end(held_up);
                pool.run(1);
            }
        });
        pool.push();
        pool.await_done(2);
        pool.closed.store(true, Ordering::SeqCst);
        pool.wakeup.notify_all();
        for runner in [other, back] {
            runner.join().expect("a pool thread does not panic");
        }
        assert_eq!((pool.busy.count(), pool.busy.held_up()), (0, 0));
    });
}

/// Stalls are found while jobs begin and end: in the end no thread is counted.
#[test]
fn a_thread_is_held_up_for_one_job_at_most() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let busy = Arc::new(BusyThreads::new());
        let threads = [(); 2].map(|()| {
            let busy = busy.clone();
            loom::thread::spawn(move || busy.end(busy.begin()))
        });
        busy.note_stall();
        for thread in threads {
            thread.join().expect("it does not panic");
        }
        assert_eq!((busy.count(), busy.held_up()), (0, 0));
    });
}

/// The only thread that is not held up parks as an idle extra one, while the loop, which has seen none parked, is about to sleep until
/// it is woken. The job that is left is done: a loop that sleeps on is a deadlock, which loom reports.
#[test]
fn a_job_that_an_idle_extra_thread_leaves_is_looked_after() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let poll = loom::thread::current();
        let park = Arc::new(LoopPark::new(Box::new(move || poll.unpark())));
        let queued = Arc::new(AtomicUsize::new(1));
        let wakeup = Arc::new(WakeupToken::new(2));
        loom::thread::spawn({
            let (park, queued, wakeup) = (park.clone(), queued.clone(), wakeup.clone());
            move || {
                wakeup.park(0);
                if queued.load(Ordering::Acquire) > 0 {
                    park.wake();
                }
                wakeup.wait(0);
                wakeup.wakeup_done();
                queued.store(0, Ordering::Release);
                park.reply_pushed(false);
            }
        });
        let has_jobs = || queued.load(Ordering::Acquire) > 0;
        let has_parked = || wakeup.parked() > 0;
        // No job left is a reply.
        while has_jobs() {
            if has_parked() {
                // It sleeps briefly, and then finds the stall.
                wakeup.notify_one();
                loom::thread::yield_now();
            } else if park.park(SleepMode::UntilWoken, || !has_jobs() || has_parked()) {
                loom::thread::park();
            }
            park.unpark();
        }
    });
}

/// Threads send `replies`, each with whether its thread has more to send; the loop parks as `mode` says, and never wakes
/// by itself. All replies arrive: a lost wake-up is a deadlock, which loom reports.
fn every_reply_arrives(mode: SleepMode, threads: &'static [&'static [bool]]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        // A wake-up of the poll set is remembered until the next sleep, as an unpark is.
        let poll = loom::thread::current();
        let park = Arc::new(LoopPark::new(Box::new(move || poll.unpark())));
        // A counter that is looked at without a lock, as the real queue is.
        let queued = Arc::new(AtomicUsize::new(0));
        // They are not joined: a late wake-up of the loop would disturb loom's join.
        for replies in threads {
            let (park, queued) = (park.clone(), queued.clone());
            loom::thread::spawn(move || {
                for more_to_come in *replies {
                    queued.fetch_add(1, Ordering::Release);
                    park.reply_pushed(*more_to_come);
                }
            });
        }
        let mut missing = threads.iter().map(|replies| replies.len()).sum::<usize>();
        loop {
            missing -= queued.swap(0, Ordering::Acquire);
            if missing == 0 {
                break;
            }
            if park.park(mode, || queued.load(Ordering::Acquire) > 0) {
                match mode {
                    SleepMode::Batching => park.sleep_as_thread(Duration::ZERO),
                    SleepMode::Timed | SleepMode::UntilWoken => loom::thread::park(),
                }
            }
            park.unpark();
        }
    });
}

const MODES: [SleepMode; 3] = [SleepMode::Timed, SleepMode::UntilWoken, SleepMode::Batching];

#[test]
fn two_threads_wake_the_loop() {
    for mode in MODES {
        every_reply_arrives(mode, &[&[false], &[false]]);
    }
}

#[test]
fn a_batch_ends_with_a_reply_that_wakes_the_loop() {
    for mode in MODES {
        every_reply_arrives(mode, &[&[true, true, false]]);
    }
}

/// What the thread does that is the pool's and runs a delegated loop: `PoolThread::next_job`.
struct Delegating {
    pool: Pool,
    role: LoopRole,
    /// A thread runs the loop.
    is_run: AtomicBool,
    iterations: AtomicUsize,
}

impl Delegating {
    fn run_thread(&self, thread: usize) {
        let pool = &self.pool;
        loop {
            if pool.pop() {
                pool.done.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if pool.closed.load(Ordering::SeqCst) {
                return;
            }
            if self.role.is_aside() {
                self.role.run(|| pool.has_work());
                continue;
            }
            pool.wakeup.park(thread);
            if pool.has_work() || self.role.is_aside() {
                pool.wakeup.cancel_park(thread);
                continue;
            }
            pool.wakeup.wait(thread);
            pool.wakeup.wakeup_done();
        }
    }
}

/// Each iteration but the last finds a job.
struct LoopOfTurns(Arc<Delegating>);

impl DelegableLoop for LoopOfTurns {
    fn serve(&mut self) -> std::io::Result<Served> {
        Ok(Served::Calm)
    }

    fn run_once(&mut self) -> std::io::Result<NextHolder> {
        let delegating = &self.0;
        assert!(
            !delegating.is_run.swap(true, Ordering::AcqRel),
            "one at a time"
        );
        let left = delegating.iterations.load(Ordering::Relaxed);
        if left > 0 {
            delegating.iterations.store(left - 1, Ordering::Relaxed);
            delegating.pool.push();
        }
        delegating.is_run.store(false, Ordering::Release);
        Ok(if left > 0 {
            NextHolder::Same
        } else {
            NextHolder::Monitor
        })
    }
}

/// The monitor delegates its loop until all its iterations are over, and all jobs are done: a loop that is lost is a deadlock.
fn a_delegated_loop_comes_back(threads: usize, jobs: usize, preemptions: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let delegating = Arc::new(Delegating {
            pool: Pool::new(threads, true),
            role: LoopRole::new(),
            is_run: AtomicBool::new(false),
            iterations: AtomicUsize::new(jobs),
        });
        let runners: Vec<_> = (0..threads)
            .map(|thread| {
                let delegating = delegating.clone();
                loom::thread::spawn(move || delegating.run_thread(thread))
            })
            .collect();
        assert!(delegating.role.prepare());
        let announce = || {
            if !delegating.pool.wakeup.is_any_coming(0) {
                delegating.pool.wakeup.notify_one();
            }
        };
        let event_loop = Box::new(LoopOfTurns(delegating.clone()));
        let (mut event_loop, end) = delegating.role.delegate(event_loop, announce);
        end.expect("the loop does not fail");
        // What is left of it the monitor runs itself.
        while event_loop.run_once().expect("nor here") == NextHolder::Same {}
        drop(event_loop);
        delegating.pool.await_done(jobs);
        delegating.pool.closed.store(true, Ordering::SeqCst);
        delegating.pool.wakeup.notify_all();
        for runner in runners {
            runner.join().expect("a pool thread does not panic");
        }
    });
}

#[test]
fn a_loop_that_is_delegated_is_run_by_one_thread_and_comes_back() {
    a_delegated_loop_comes_back(1, 1, 3);
    a_delegated_loop_comes_back(2, 1, 2);
}

/// Threads call up greenlets, one each time that `wakes` says; the hub polls, and its look number `raises` raises before it
/// has seen anything. All greenlets are called up: a lost wake-up is a deadlock, which loom reports.
fn every_greenlet_is_called_up(wakes: &'static [usize], raises: Option<usize>) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let hub = Arc::new(HubWakeup::new().expect("it needs no system"));
        for count in wakes {
            let hub = hub.clone();
            loom::thread::spawn(move || (0..*count).for_each(|_| hub.ticket().call_up()));
        }
        let mut missing = wakes.iter().sum::<usize>();
        let mut looks = 0;
        while missing > 0 {
            // The hub's poll of the descriptor.
            hub.descriptor();
            hub.begin_look();
            if raises == Some(looks) {
                hub.wake();
            } else {
                while hub.next_due().is_some() {
                    missing -= 1;
                }
            }
            looks += 1;
        }
    });
}

#[test]
fn two_threads_wake_the_hub() {
    every_greenlet_is_called_up(&[1, 1], None);
    every_greenlet_is_called_up(&[2, 1], None);
}

#[test]
fn a_look_that_raises_is_followed_by_another() {
    every_greenlet_is_called_up(&[1, 1], Some(0));
    every_greenlet_is_called_up(&[2], Some(1));
}
