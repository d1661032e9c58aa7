//! The way back: a queue of replies, and the event loop that takes them.

use std::time::Duration;

use crossbeam::queue::SegQueue;

use super::job::Reply;
use super::loop_park::LoopPark;
use super::policy::SleepMode;

/// Replies on their way to the event loop.
pub(super) struct Replies {
    queue: SegQueue<Reply>,
    park: LoopPark,
}

impl std::fmt::Debug for Replies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replies")
            .field("len", &self.queue.len())
            .field("park", &self.park)
            .finish()
    }
}

impl Replies {
    pub(super) fn new(wake_poll: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            queue: SegQueue::new(),
            park: LoopPark::new(wake_poll),
        }
    }

    /// Send a reply. Wakes the loop if it must be woken.
    #[inline]
    pub(super) fn send(&self, reply: Reply, more_to_come: bool) {
        self.queue.push(reply);
        self.park.reply_pushed(more_to_come);
    }

    /// Wake the loop if it sleeps.
    pub(super) fn wake_loop(&self) {
        self.park.wake();
    }

    #[inline]
    pub(super) fn receive(&self) -> Option<Reply> {
        self.queue.pop()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The loop is about to sleep. Returns false when a reply is waiting, or `must_not` it for another reason.
    #[inline]
    pub(super) fn park(&self, mode: SleepMode, must_not: impl FnOnce() -> bool) -> bool {
        self.park
            .park(mode, || !self.queue.is_empty() || must_not())
    }

    /// See [`LoopPark::sleep_as_thread`].
    pub(super) fn sleep_as_thread(&self, time: Duration) {
        self.park.sleep_as_thread(time);
    }

    /// The loop is awake again.
    #[inline]
    pub(super) fn unpark(&self) {
        self.park.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::conn_id::ConnId;
    use super::*;

    /// Replies, and how often the poll set was woken.
    fn replies() -> (Replies, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        let wake = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        (Replies::new(Box::new(wake)), woken)
    }

    fn reply() -> Reply {
        Reply::WantsBody(ConnId::new(0, 0))
    }

    #[test]
    fn a_loop_that_is_awake_is_not_woken_and_does_not_park_on_a_reply() {
        let (replies, woken) = replies();
        replies.send(reply(), false);
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        assert!(!replies.park(SleepMode::UntilWoken, || false));
        assert!(replies.receive().is_some() && replies.is_empty());
        assert!(replies.park(SleepMode::UntilWoken, || false));
    }

    #[test]
    fn a_parked_loop_is_woken_once() {
        let (replies, woken) = replies();
        assert!(replies.park(SleepMode::UntilWoken, || false));
        replies.send(reply(), true);
        replies.send(reply(), false);
        assert_eq!(woken.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_timed_sleep_lasts_for_a_batch_that_is_still_growing() {
        let (replies, woken) = replies();
        assert!(replies.park(SleepMode::Timed, || false));
        while woken.load(Ordering::Relaxed) == 0 {
            replies.send(reply(), true);
        }
        let batch = std::iter::from_fn(|| replies.receive()).count();
        assert!(batch > 2, "a batch of {batch}");
        assert!(replies.park(SleepMode::Timed, || false));
        replies.send(reply(), false);
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_batching_sleep_ends_with_the_last_reply_of_the_batch() {
        let (replies, woken) = replies();
        assert!(replies.park(SleepMode::Batching, || false));
        for _ in 0..100 {
            replies.send(reply(), true);
        }
        replies.send(reply(), false);
        // The token of the unpark is there already: without it this would time out.
        let since = std::time::Instant::now();
        replies.sleep_as_thread(Duration::from_secs(60));
        assert!(since.elapsed() < Duration::from_secs(30));
        assert_eq!(woken.load(Ordering::Relaxed), 0, "it does not poll");
    }
}
