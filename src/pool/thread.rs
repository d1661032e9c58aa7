//! A pool thread's side of the pool: it takes jobs, one after another, and parks when there is none.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::busy_threads::BusySince;
use super::convoy::Sample;
use super::job::{Job, Reply};
use super::policy::{self, Crowd, Reason};
use super::thread_pool::Pool;
use super::wait_sampler::WaitSampler;

/// What a greenlet's hub finds when it looks for a job.
#[derive(Debug)]
pub enum NextJob {
    /// To be run by the place that has asked.
    Job(Box<Job>),
    /// There is none now.
    Nothing,
    /// There will be none any more.
    Closed,
}

/// A thread that was parked just now and has the GIL again: the clock need not be read once more for its first job.
#[derive(Default)]
struct Awake {
    now: Option<Instant>,
    waited_for_gil: Duration,
}

impl Awake {
    fn since(woken: Option<&Instant>) -> Self {
        woken.map_or_else(Self::default, |woken| {
            let now = Instant::now();
            Self {
                now: Some(now),
                waited_for_gil: now.saturating_duration_since(*woken),
            }
        })
    }
}

/// One thread of the pool, or the place of one greenlet.
#[derive(Debug)]
pub struct PoolThread {
    pool: Arc<Pool>,
    index: usize,
    /// When the job that it runs was taken.
    running_since: Cell<Option<Instant>>,
    /// Set while a job is with the caller, and not over.
    busy: Cell<Option<BusySince>>,
    sampler: WaitSampler,
}

impl PoolThread {
    /// A thread joins the pool. Panics when more threads come than the pool was made for.
    pub fn register(pool: &Arc<Pool>) -> Self {
        Self {
            index: pool.register_thread(),
            pool: pool.clone(),
            running_since: Cell::new(None),
            busy: Cell::new(None),
            sampler: WaitSampler::default(),
        }
    }

    /// The thread's number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Tells the request that the thread runs from its other requests; 0 when requests are not timed.
    pub fn token(&self) -> u64 {
        let in_flight = self.pool.in_flight_table();
        in_flight.map_or(0, |in_flight| in_flight.token(self.index))
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The next job whose client is still there, or `None` when the pool is closed and empty.
    ///
    /// The caller holds the GIL. `idle` is called with a function that parks the thread; it releases the GIL around that and has
    /// it again when it returns (see `wakeup.rs`).
    pub fn next_job(&self, mut idle: impl FnMut(&(dyn Fn() + Sync))) -> Option<Box<Job>> {
        let (pool, index) = (&*self.pool, self.index);
        self.end_in_flight();
        let mut awake = Awake::default();
        loop {
            pool.drop_deferred();
            // Before the look at the queue: what was queued before it closed is still run.
            let is_closed = pool.is_closed();
            let is_idle_extra = self.is_idle_extra(is_closed);
            if !is_idle_extra && let Some(job) = pool.pop() {
                match self.begin(job, std::mem::take(&mut awake)) {
                    Some(job) => return Some(job),
                    None => continue,
                }
            }
            self.end_running(Instant::now());
            if is_closed {
                return None;
            }
            if !is_idle_extra && pool.has_loop() {
                let found = OnceLock::new();
                idle(&|| {
                    if let Some(now) = pool.run_loop() {
                        found.get_or_init(|| now);
                    }
                });
                awake = Awake::since(found.get());
                continue;
            }
            pool.wakeup().park(index);
            let is_needed = match is_idle_extra {
                // Of two threads that park as idle extra threads one sees here that the other has. And the job that is over only now may
                // have shown that all are needed.
                true => !pool.is_any_coming() || !pool.stats().is_one_enough() || pool.is_closed(),
                false => pool.has_work() || pool.has_loop(),
            };
            if is_needed {
                pool.wakeup().cancel_park(index);
                continue;
            }
            if is_idle_extra {
                pool.leave_jobs_to_others();
            }
            let woken = OnceLock::new();
            idle(&|| {
                pool.wakeup().wait(index);
                woken.get_or_init(Instant::now);
            });
            awake = Awake::since(woken.get());
            pool.wakeup().wakeup_done();
        }
    }

    /// The next job whose client is still there, for a place of a hub, which never parks. It is over with
    /// [`Self::end_job`].
    pub fn try_next_job(&self) -> NextJob {
        loop {
            // Before the look at the queue: what was queued before it closed is still run.
            let is_closed = self.pool.is_closed();
            match self.pool.pop() {
                Some(job) => {
                    if let Some(job) = self.begin(job, Awake::default()) {
                        return NextJob::Job(job);
                    }
                }
                None if is_closed => return NextJob::Closed,
                None => return NextJob::Nothing,
            }
        }
    }

    /// The job that came by [`Self::try_next_job`] is over.
    pub fn end_job(&self) {
        self.end_in_flight();
        self.end_running(Instant::now());
    }

    #[inline]
    fn end_in_flight(&self) {
        self.note_free();
        if let Some(in_flight) = self.pool.in_flight_table() {
            in_flight.end(self.index);
        }
    }

    /// Whether the thread is better parked although jobs wait ([`policy::is_idle_extra`]).
    #[inline]
    fn is_idle_extra(&self, is_closed: bool) -> bool {
        let pool = &*self.pool;
        policy::is_idle_extra(pool.stats().is_one_enough(), || Crowd {
            jobs_since_stall: pool.stats().taken_since_stall(),
            is_another_coming: pool.is_another_coming(),
            is_closed,
        })
    }

    /// Run `job` from now on, unless its client need not wait for it: then it goes back to the loop.
    #[inline]
    fn begin(&self, mut job: Box<Job>, awake: Awake) -> Option<Box<Job>> {
        let pool = &*self.pool;
        job.gil_wait = awake.waited_for_gil;
        // It may have come after the thread awoke.
        job.started = (awake.now).map_or_else(Instant::now, |now| now.max(job.arrived));
        self.end_running(job.started);
        self.running_since.set(Some(job.started));
        pool.stats().note_taken();
        if pool.has_jobs() {
            pool.notify_one(Reason::JobsLeft);
        }
        if pool.is_overdue(&job, job.started) {
            pool.send(Reply::Overdue(job));
            return None;
        }
        if pool.is_gone(job.conn) {
            // No client would read the answer: the loop takes note and the application never sees the request.
            pool.send(Reply::Abort(job));
            return None;
        }
        if let Some(in_flight) = pool.in_flight_table() {
            in_flight.begin(self.index, job.conn, job.started);
        }
        self.sampler.begin(pool.stats().samples_all());
        debug_assert!(self.busy.get().is_none(), "one job at a time");
        self.busy.set(Some(pool.stats().note_busy()));
        Some(job)
    }

    #[inline]
    fn note_free(&self) {
        if let Some(since) = self.busy.take() {
            self.pool.stats().note_free(since);
        }
    }

    /// Note how long the job has lasted that the thread has run until now.
    #[inline]
    fn end_running(&self, now: Instant) {
        if let Some(since) = self.running_since.take() {
            let stats = self.pool.stats();
            let lasted = now.saturating_duration_since(since);
            stats.note_service(lasted);
            if let Some(waits) = self.sampler.end() {
                let sample = Sample {
                    waits,
                    lasted,
                    ended: now,
                };
                stats.note_sample(sample, || self.pool.wakeup().is_another_awake());
            }
        }
    }
}

impl Drop for PoolThread {
    fn drop(&mut self) {
        self.note_free();
        self.pool.thread_left();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::conn_id::ConnId;
    use super::super::policy::SleepMode;
    use super::*;

    const CONN: ConnId = ConnId::new(0, 5);

    fn pool(options: impl FnOnce(Pool) -> Pool) -> (Arc<Pool>, PoolThread) {
        let pool = Arc::new(options(Pool::new(1, 4, Box::new(|| {}))));
        pool.connection_opened(CONN);
        let thread = PoolThread::register(&pool);
        (pool, thread)
    }

    fn push(pool: &Pool, conn: ConnId, arrived: Instant) {
        let mut job = Job::new(arrived);
        job.conn = conn;
        assert!(pool.push(Box::new(job)).is_ok());
    }

    fn pool_of_fast_jobs(options: impl FnOnce(Pool) -> Pool) -> (Arc<Pool>, PoolThread) {
        let pool = Arc::new(options(Pool::new(2, 8, Box::new(|| {}))));
        for _ in 0..100 {
            pool.stats().note_service(Duration::from_micros(50));
        }
        let thread = PoolThread::register(&pool);
        (pool, thread)
    }

    #[test]
    fn of_threads_that_are_awake_for_fast_jobs_one_is_enough_unless_the_pool_stood_still() {
        let (_, thread) = self::pool(|pool| pool);
        assert!(!thread.is_idle_extra(false), "jobs may be slow");
        let (pool, thread) = pool_of_fast_jobs(|pool| pool);
        assert!(pool.is_fast() && thread.is_idle_extra(false));
        pool.wakeup().park(1);
        assert!(!thread.is_idle_extra(false), "no other thread is awake");
        pool.notify_stall(Duration::from_millis(1), Instant::now());
        assert!(
            !thread.is_idle_extra(false),
            "the other thread may be held up"
        );
        for _ in 0..1000 {
            pool.stats().note_taken();
        }
        assert!(thread.is_idle_extra(false));
        assert!(!thread.is_idle_extra(true), "all help to finish");
    }

    #[test]
    fn a_thread_that_parks_although_jobs_wait_leaves_them_to_a_loop_that_is_awake() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let woken = wakes.clone();
        let wake_poll = move || {
            woken.fetch_add(1, Ordering::Relaxed);
        };
        let (pool, thread) = pool_of_fast_jobs(|_| Pool::new(2, 8, Box::new(wake_poll)));
        pool.connection_opened(CONN);
        push(&pool, CONN, Instant::now());
        assert!(pool.park(SleepMode::UntilWoken), "no thread is parked");
        let job = thread.next_job(|park| {
            assert_eq!(wakes.load(Ordering::Relaxed), 1);
            pool.unpark();
            assert!(!pool.park(SleepMode::UntilWoken), "it looks after the job");
            assert!(pool.park(SleepMode::Timed));
            pool.unpark();
            pool.notify_stall(Duration::from_millis(1), Instant::now());
            park();
        });
        assert_eq!(job.unwrap().conn, CONN);
    }

    #[test]
    fn a_thread_whose_job_has_shown_that_all_are_needed_goes_on() {
        let (pool, thread) = pool_of_fast_jobs(|pool| pool);
        pool.connection_opened(CONN);
        for _ in 0..2 {
            push(&pool, CONN, Instant::now());
        }
        assert!(thread.is_idle_extra(false));
        let job = thread.begin(pool.pop().unwrap(), Awake::default());
        assert!(job.is_some());
        // It has lasted for long.
        let long_ago = Instant::now().checked_sub(Duration::from_secs(1));
        thread.running_since.set(long_ago);
        assert!(thread.next_job(|_| unreachable!()).is_some());
    }

    #[test]
    fn a_thread_is_held_up_from_a_stall_until_its_own_job_is_over() {
        let (pool, held_up) = pool_of_fast_jobs(|pool| pool);
        let other = PoolThread::register(&pool);
        pool.connection_opened(CONN);
        let begin = |thread: &PoolThread| {
            push(&pool, CONN, Instant::now());
            assert!(matches!(thread.try_next_job(), NextJob::Job(_)));
        };
        let stall = || pool.notify_stall(Duration::from_millis(1), Instant::now());
        let counts = || (pool.busy(), pool.stats().held_up());
        begin(&held_up);
        stall();
        begin(&other);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(1));
        other.running_since.set(long_ago);
        other.end_job();
        assert_eq!(counts(), (1, 1), "it was the other one's");
        begin(&other);
        stall();
        other.end_job();
        assert_eq!(counts(), (1, 1), "it began as the stall was found");
        drop(held_up);
        assert_eq!(counts(), (0, 0));
    }

    #[test]
    fn threads_that_run_side_by_side_are_not_idle_extra_threads() {
        let (pool, thread) = pool_of_fast_jobs(|pool| pool.with_parallel_threads(true));
        assert!(!pool.is_fast() && !thread.is_idle_extra(false));
    }

    #[test]
    fn a_job_of_a_client_that_is_gone_goes_back_unrun() {
        let (pool, thread) = pool(|pool| pool);
        let gone = ConnId {
            generation: 4,
            ..CONN
        };
        push(&pool, gone, Instant::now());
        push(&pool, CONN, Instant::now());
        assert_eq!(thread.next_job(|_| unreachable!()).unwrap().conn, CONN);
        assert_eq!(pool.busy(), 1);
        assert!(matches!(pool.receive(), Some(Reply::Abort(job)) if job.conn == gone));
        assert_eq!(pool.jobs_taken(), 2);
    }

    #[test]
    fn an_overdue_job_goes_back_unrun_and_what_was_queued_is_still_run_at_the_end() {
        let timeout = Duration::from_secs(1);
        let (pool, thread) = pool(|pool| pool.with_queue_timeout(Some(timeout)));
        let now = Instant::now();
        if let Some(long_ago) = now.checked_sub(timeout * 2) {
            push(&pool, CONN, long_ago);
        }
        push(&pool, CONN, now);
        pool.close();
        assert_eq!(thread.next_job(|_| unreachable!()).unwrap().arrived, now);
        assert!(matches!(pool.receive(), Some(Reply::Overdue(_))));
        assert!(thread.next_job(|_| unreachable!()).is_none());
        assert_eq!(pool.busy(), 0);
        drop(thread);
        assert_eq!(pool.live_threads(), 0);
    }

    #[test]
    fn a_thread_parks_until_it_is_notified_and_tells_what_it_runs() {
        let (pool, thread) = pool(|pool| pool.with_in_flight(true));
        let mut parks = 0;
        let job = thread.next_job(|park| {
            parks += 1;
            assert!(pool.has_parked_threads());
            push(&pool, CONN, Instant::now());
            pool.notify_one(Reason::JobsQueued);
            park();
        });
        assert_eq!((parks, job.unwrap().conn), (1, CONN));
        let running = pool.in_flight().next().unwrap();
        assert_eq!((running.conn, running.token), (CONN, thread.token()));
        pool.close();
        assert!(thread.next_job(|_| unreachable!()).is_none());
        assert_eq!((pool.in_flight().count(), thread.token()), (0, 0));
    }
}
