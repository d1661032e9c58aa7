//! From the event loop to a pool thread and back, with an application in Rust: what the pool itself costs.
//!
//! The bench's thread stands for the event loop: it pushes jobs, sleeps when there is nothing to do, and takes the
//! replies. `cargo bench --no-default-features --bench dispatch`

use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ferricorn::pool::{Job, Pool, PoolThread, Reason, Reply, SleepMode};

/// A pool whose threads send every job straight back, and jobs to send.
struct Loop {
    pool: Arc<Pool>,
    #[expect(
        clippy::vec_box,
        reason = "jobs travel boxed, and come back in their boxes"
    )]
    jobs: Vec<Box<Job>>,
}

impl Loop {
    fn start(threads: usize, jobs: usize) -> Self {
        let sleeper = std::thread::current();
        let pool = Arc::new(Pool::new(threads, jobs, Box::new(move || sleeper.unpark())));
        for _ in 0..threads {
            let thread = PoolThread::register(&pool);
            std::thread::spawn(move || {
                while let Some(job) = thread.next_job(|sleep| sleep()) {
                    thread.pool().send(Reply::Whole(job));
                }
            });
        }
        let now = Instant::now();
        Self {
            pool,
            jobs: (0..jobs).map(|_| Box::new(Job::new(now))).collect(),
        }
    }

    /// Every job goes to the pool and comes back.
    fn turn(&mut self) {
        let count = self.jobs.len();
        for job in self.jobs.drain(..) {
            assert!(self.pool.push(job).is_ok(), "there is room for every job");
        }
        self.pool.notify_one(Reason::JobsQueued);
        while self.jobs.len() < count {
            match self.pool.receive() {
                Some(Reply::Whole(job)) => self.jobs.push(job),
                Some(_) => unreachable!("the application answers whole"),
                None => {
                    if self.pool.park(SleepMode::UntilWoken) {
                        std::thread::park();
                    }
                    self.pool.unpark();
                }
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.pool.close();
        while self.pool.live_threads() > 0 {
            std::thread::yield_now();
        }
    }
}

fn dispatch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dispatch");
    for (threads, jobs) in [(1, 1), (2, 1), (1, 16), (2, 16)] {
        group.throughput(Throughput::Elements(jobs as u64));
        group.bench_function(
            format!("{threads} thread(s)/{jobs} job(s) at a time"),
            |bencher| {
                let mut event_loop = Loop::start(threads, jobs);
                bencher.iter(|| event_loop.turn());
            },
        );
    }
    group.finish();
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
