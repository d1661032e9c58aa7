//! The one-heir protocol under every interleaving that loom finds: no job is left behind while all threads sleep.
//!
//! `src/pool/wakeup.rs` is compiled here as it is, against loom's primitives instead of the standard library's. The
//! job queue is a plain one, but what the pool threads and the producer do with it is what `src/pool/queue.rs` does.

#![allow(
    dead_code,
    reason = "the model uses the part of the protocol that sleeps and wakes"
)]

#[path = "../../src/pool/wakeup.rs"]
mod wakeup;

mod sync {
    //! loom's primitives in the shape of `src/pool/sync.rs`.

    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering, fence};
    use loom::sync::{Condvar, Mutex as LoomMutex, MutexGuard};

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
}

use std::sync::Arc;

use loom::sync::Mutex as LoomMutex;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use wakeup::WakeupToken;

/// The pool of `src/pool/queue.rs`, reduced to counting: jobs have no content.
struct Pool {
    /// Jobs in the queue. A counter that is looked at without a lock, as the real queue is.
    queued: AtomicUsize,
    done: AtomicUsize,
    closed: AtomicBool,
    wakeup: WakeupToken,
    /// The GIL.
    gil: LoomMutex<()>,
    /// Jobs are fast: a thread that is awake is trusted to come back for the next one.
    fast: bool,
}

impl Pool {
    fn push(&self) {
        self.queued.fetch_add(1, Ordering::Release);
        if !(self.fast && self.wakeup.is_anyone_awake()) {
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

    /// The life of the thread at `seat`.
    fn run(&self, seat: usize) {
        let mut gil = self.gil.lock().expect("not poisoned");
        loop {
            if self.pop() {
                if !self.fast && self.queued.load(Ordering::Acquire) > 0 {
                    self.wakeup.notify_one();
                }
                self.done.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            self.wakeup.park(seat);
            if self.has_work() {
                self.wakeup.cancel_park(seat);
                continue;
            }
            drop(gil);
            self.wakeup.wait(seat);
            gil = self.gil.lock().expect("not poisoned");
            self.wakeup.wakeup_done();
        }
    }
}

/// `threads` threads and `jobs` jobs: all jobs are done, and everybody leaves. A lost wake-up is a deadlock, which
/// loom reports.
fn every_job_is_done(threads: usize, jobs: usize, preemptions: usize, fast: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let pool = Arc::new(Pool {
            queued: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            wakeup: WakeupToken::new(threads),
            gil: LoomMutex::new(()),
            fast,
        });
        let runners: Vec<_> = (0..threads)
            .map(|seat| {
                let pool = pool.clone();
                loom::thread::spawn(move || pool.run(seat))
            })
            .collect();
        for _ in 0..jobs {
            pool.push();
        }
        // The producer waits for the jobs without helping: closing would wake the sleepers and hide a lost wake-up.
        while pool.done.load(Ordering::Relaxed) < jobs {
            loom::thread::yield_now();
        }
        pool.closed.store(true, Ordering::SeqCst);
        pool.wakeup.wake_all();
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
