//! Load shedding: which requests the event loop answers with 503 because no thread will run them in time.
//!
//! Two bounds: a request has waited too long for a thread (`queue_timeout`), or too many wait already (`max_queue`). Both
//! are off by default and then cost a branch on the way of a request. The job is filled with its answer as if a pool
//! thread had done it, so the connection stays open as the client asked for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::http::{Status, error_page};
use crate::pool::{Job, Pool};

/// Refusals with less than this between them are one entry in the log.
const COALESCING_QUIET: Duration = Duration::from_secs(5);
/// When a refused client may come again, in seconds, unless `queue_timeout` asks for more.
const RETRY_AFTER_MIN_S: u64 = 1;

/// Why a request is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shed {
    /// It has waited longer than `queue_timeout`.
    Waited,
    /// As many as `max_queue` wait already.
    QueueFull,
}

impl Shed {
    fn message(self) -> &'static str {
        match self {
            Self::Waited => "The request waited too long for a thread",
            Self::QueueFull => "Too many requests wait for a thread",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Waited => "queue_timeout",
            Self::QueueFull => "max_queue",
        }
    }
}

/// Refusals in close succession, for log coalescing.
#[derive(Clone, Copy, Debug)]
struct Series {
    began: Instant,
    last: Instant,
    count: u64,
}

/// The bounds, and the refusals that are not yet logged.
#[derive(Debug)]
pub(super) struct LoadShedding {
    queue_timeout: Option<Duration>,
    /// Jobs that may be with the pool, running and waiting; `None` is no limit.
    jobs_max: Option<usize>,
    /// When the jobs in the queue arrived, the oldest first. Kept for `queue_timeout` only.
    arrivals: VecDeque<Instant>,
    series: Option<Series>,
}

impl LoadShedding {
    /// `None` when both bounds are off.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let workers = &config.workers;
        let is_on = workers.queue_timeout.is_some() || workers.max_queue > 0;
        is_on.then(|| Self {
            queue_timeout: workers.queue_timeout,
            jobs_max: (workers.max_queue > 0)
                .then(|| workers.max_queue.saturating_add(workers.threads)),
            arrivals: VecDeque::new(),
            series: None,
        })
    }

    /// Whether `max_queue` is reached.
    pub(super) fn is_full(&self, pool: &Pool) -> bool {
        self.jobs_max
            .is_some_and(|max| pool.queue_length() + pool.busy() >= max)
    }

    /// A job is queued.
    pub(super) fn note_queued(&mut self, arrived: Instant) {
        if self.queue_timeout.is_some() {
            self.arrivals.push_back(arrived);
        }
    }

    /// When the oldest job will have waited too long.
    pub(super) fn next_due(&mut self, pool: &Pool) -> Option<Instant> {
        let timeout = self.queue_timeout?;
        let waiting = pool.queue_length();
        // Threads take jobs in the order of their arrival, so the entries of those that are gone are in front.
        while self.arrivals.len() > waiting {
            self.arrivals.pop_front();
        }
        self.arrivals.front().map(|arrived| *arrived + timeout)
    }

    /// Fill `job` with its refusal. The first of a series is logged at once, the others in
    /// [`LoadShedding::end_series`].
    pub(super) fn refuse(&mut self, job: &mut Job, shed: Shed, pool: &Pool, now: Instant) {
        let status = Status::SERVICE_UNAVAILABLE;
        let retry_after = self
            .queue_timeout
            .map_or(0, |timeout| timeout.as_secs())
            .max(RETRY_AFTER_MIN_S);
        fill(
            job,
            status,
            &retry_after.to_string(),
            &error_page(status, shed.message()),
        );
        job.refusal = shed.setting();
        if let Some(series) = &mut self.series {
            series.last = now;
            series.count += 1;
            return;
        }
        self.series = Some(Series {
            began: now,
            last: now,
            count: 1,
        });
        log::warn!(
            "Answering requests with 503: {} ({}; {} waiting, {} running).",
            shed.message().to_lowercase(),
            shed.setting(),
            pool.queue_length(),
            pool.busy()
        );
    }

    /// Log how many refusals a series had, when it is over or the worker stops.
    pub(super) fn end_series(&mut self, now: Instant, worker_stops: bool) {
        let is_over = |series: &mut Series| {
            worker_stops || now.saturating_duration_since(series.last) >= COALESCING_QUIET
        };
        if let Some(series) = self.series.take_if(is_over) {
            log::warn!(
                "{} request(s) were answered with 503 within {:.1?}.",
                series.count,
                series.last.saturating_duration_since(series.began)
            );
        }
    }
}

/// Fill `job` with the refusal of a worker that is stopped because a request runs too long.
pub(super) fn refuse_stopped(job: &mut Job) {
    let status = Status::SERVICE_UNAVAILABLE;
    let page = error_page(status, "The worker was stopped before it ran the request");
    fill(job, status, &RETRY_AFTER_MIN_S.to_string(), &page);
    job.refusal = "timeout";
}

fn fill(job: &mut Job, status: Status, retry_after: &str, page: &str) {
    job.socket = None;
    let line = format!("{} {}", status.code, status.reason);
    // These are constants of this program, and valid.
    let _ = job.response.set_status(line.as_bytes());
    let _ = job.response.push(b"Retry-After", retry_after.as_bytes());
    let _ = job.response.push(b"Content-Type", b"text/html");
    job.response_body.bytes.extend_from_slice(page.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_again_and_a_series_ends_after_a_quiet_time() {
        let mut config = Config::default();
        config.workers.queue_timeout = Some(Duration::from_secs(7));
        let mut shedding = LoadShedding::new(&config).expect("a bound is set");
        let (pool, now) = (Pool::new(1, 1, Box::new(|| {})), Instant::now());
        let mut job = Job::new(now);
        shedding.refuse(&mut job, Shed::Waited, &pool, now);
        assert_eq!(
            (job.response.status_code(), job.refusal),
            (503, "queue_timeout")
        );
        shedding.end_series(now + COALESCING_QUIET / 2, false);
        assert!(shedding.series.is_some());
        shedding.end_series(now + COALESCING_QUIET, false);
        assert!(shedding.series.is_none());
    }

    #[test]
    fn the_oldest_job_that_still_waits_is_due_first() {
        let mut config = Config::default();
        config.workers.queue_timeout = Some(Duration::from_secs(1));
        let mut shedding = LoadShedding::new(&config).expect("a bound is set");
        let (pool, now) = (Pool::new(1, 4, Box::new(|| {})), Instant::now());
        let later = now + Duration::from_millis(10);
        for arrived in [now, later] {
            assert!(pool.push(Box::new(Job::new(arrived))).is_ok());
            shedding.note_queued(arrived);
        }
        assert_eq!(shedding.next_due(&pool), Some(now + Duration::from_secs(1)));
        drop(pool.pop_front());
        assert_eq!(
            shedding.next_due(&pool),
            Some(later + Duration::from_secs(1))
        );
        drop(pool.pop_front());
        assert_eq!(shedding.next_due(&pool), None);
    }
}
