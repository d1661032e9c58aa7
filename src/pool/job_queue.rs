//! The queue of jobs, with a push_front slot: a job that the loop has taken back and returned goes first.
//!
//! The loop is the only producer. The jobs that a connection may have with the pool are bounded (over HTTP/1 it is one), and the
//! queue has room for those of as many connections as there may be (`jobs_max` in `worker/mod.rs`): it cannot overflow.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use super::job::Job;

/// See the module.
#[derive(Debug)]
pub(super) struct JobQueue {
    jobs: ArrayQueue<Box<Job>>,
    /// The push_front slot.
    front: ArrayQueue<Box<Job>>,
    /// The loop may take jobs back. If not, threads need not look at the slot.
    has_take_back: bool,
    closed: AtomicBool,
}

impl JobQueue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            jobs: ArrayQueue::new(capacity.max(1)),
            front: ArrayQueue::new(1),
            has_take_back: false,
            closed: AtomicBool::new(false),
        }
    }

    /// The loop will take jobs back.
    pub(super) fn allow_take_back(&mut self) {
        self.has_take_back = true;
    }

    /// How many jobs wait (a hint).
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.jobs.len() + self.front.len()
    }

    /// Whether no job waits (a hint).
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && !self.has_front()
    }

    #[inline]
    fn has_front(&self) -> bool {
        self.has_take_back && !self.front.is_empty()
    }

    /// The loop queues a job.
    ///
    /// # Errors
    /// The job itself when the queue is full or closed.
    #[inline]
    pub(super) fn push(&self, job: Box<Job>) -> Result<(), Box<Job>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(job);
        }
        self.jobs.push(job)
    }

    /// A thread takes the next job.
    #[inline]
    pub(super) fn pop(&self) -> Option<Box<Job>> {
        (self.has_front().then(|| self.front.pop()).flatten()).or_else(|| self.jobs.pop())
    }

    /// The loop takes back the job that has waited longest.
    pub(super) fn pop_front(&self) -> Option<Box<Job>> {
        self.front.pop().or_else(|| self.jobs.pop())
    }

    /// The loop puts back what it has taken, before all others; at most once for each.
    pub(super) fn push_front(&self, job: Box<Job>) {
        debug_assert!(self.has_take_back, "threads do not look for it");
        if let Err(job) = self.front.push(job) {
            debug_assert!(false, "only the loop uses the slot, for one job at a time");
            // In production it loses its place and no more.
            drop(self.jobs.push(job));
        }
    }

    /// No more jobs will come.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether no more jobs will come. A thread that sees this and then finds the queue empty has seen its end.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use super::*;

    fn job(serial: u64) -> Box<Job> {
        let mut job = Job::new(Instant::now());
        job.serial = serial;
        Box::new(job)
    }

    #[test]
    fn a_job_that_was_put_back_goes_first() {
        let mut queue = JobQueue::new(3);
        queue.allow_take_back();
        for serial in 0..3 {
            queue.push(job(serial)).unwrap();
        }
        assert!(queue.push(job(9)).is_err(), "it is full");
        let first = queue.pop_front().unwrap();
        queue.push_front(first);
        assert_eq!(queue.len(), 3);
        let order: Vec<u64> = std::iter::from_fn(|| queue.pop())
            .map(|job| job.serial)
            .collect();
        assert_eq!(order, [0, 1, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_gives_what_it_has() {
        let queue = JobQueue::new(2);
        queue.push(job(1)).unwrap();
        queue.close();
        assert!(queue.is_closed() && queue.push(job(2)).is_err());
        assert_eq!(queue.pop_front().unwrap().serial, 1);
        assert!(queue.pop_front().is_none());
    }
}
