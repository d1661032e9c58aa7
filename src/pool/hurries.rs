//! Threads that wait for the clients of streams, and which of them is to wait no longer because a request waits for a thread.
//!
//! The event loop hurries those that have waited for a while, when all threads wait and there are requests for them
//! ([`Hurries::hurry`]): what their streams produce then goes to a file. Where one hurry follows another, patience becomes
//! shorter. A thread that begins to wait looks after it by itself whether others wait ([`Hurries::patience`]): with hundreds
//! of slow clients the loop's look, 20 times a second, would come too late. A second without hurries ends the series.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A client that is near needs less.
const PATIENCE_MAX: Duration = Duration::from_millis(100);
/// What a client needs that is in the same data centre.
const PATIENCE_MIN: Duration = Duration::from_millis(5);
/// Hurries further apart than this are no series.
const QUIET: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hurries {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those whose streams can go to a file.
    waiters: Vec<Waiter>,
    /// How many there were.
    count: u64,
    series: Series,
}

struct Waiter {
    number: u64,
    since: Instant,
    hurry: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter")
            .field("number", &self.number)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

impl Hurries {
    /// A thread begins to wait, and no longer when `hurry` is called. Returns its number.
    pub(super) fn begin(&self, hurry: Arc<dyn Fn() + Send + Sync>, now: Instant) -> u64 {
        let mut state = self.lock();
        state.count += 1;
        let number = state.count;
        state.waiters.push(Waiter {
            number,
            since: now,
            hurry,
        });
        number
    }

    /// It waits no longer.
    pub(super) fn end(&self, number: u64) {
        let mut state = self.lock();
        let is_it = |waiter: &Waiter| waiter.number == number;
        let place = state.waiters.iter().position(is_it);
        let ended = place.map(|at| state.waiters.swap_remove(at));
        // What it refers to may end with it: not under the lock.
        drop(state);
        drop(ended);
    }

    /// Event loop: requests wait, and all threads for clients. Hurry those that have waited for long enough. Returns whether
    /// there is a thread that was hurried, or can be later.
    pub(super) fn hurry(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let patience = state.series.patience(now);
        let is_due = |waiter: &&Waiter| now.saturating_duration_since(waiter.since) >= patience;
        let due = state.waiters.iter().filter(is_due);
        let due: Vec<_> = due.map(|waiter| waiter.hurry.clone()).collect();
        if !due.is_empty() {
            state.series.note(now);
        }
        let has_any = !state.waiters.is_empty();
        drop(state);
        due.iter().for_each(|hurry| hurry());
        has_any
    }

    /// How long a thread that begins to wait does so before it looks itself, and whether that is in a series.
    pub(super) fn patience(&self, now: Instant) -> (Duration, bool) {
        let state = self.lock();
        (state.series.patience(now), state.series.is_on(now))
    }

    /// A thread has looked itself, and waits no longer.
    pub(super) fn note(&self, now: Instant) {
        self.lock().series.note(now);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hurries that follow one another.
#[derive(Clone, Copy, Debug, Default)]
struct Series {
    /// The last one, and how long its threads had to have waited.
    last: Option<(Instant, Duration)>,
}

impl Series {
    fn is_on(self, now: Instant) -> bool {
        self.last
            .is_some_and(|(at, _)| now.saturating_duration_since(at) <= QUIET)
    }

    fn patience(self, now: Instant) -> Duration {
        match self.last {
            Some((_, patience)) if self.is_on(now) => (patience / 2).max(PATIENCE_MIN),
            _ => PATIENCE_MAX,
        }
    }

    fn note(&mut self, now: Instant) {
        self.last = Some((now, self.patience(now)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn patience_becomes_shorter_in_a_series_and_a_quiet_second_ends_it() {
        let (mut series, now) = (Series::default(), Instant::now());
        assert!(!series.is_on(now) && series.patience(now) == PATIENCE_MAX);
        series.note(now);
        assert_eq!(series.patience(now), PATIENCE_MAX / 2);
        for _ in 0..10 {
            series.note(now);
        }
        assert_eq!(series.patience(now + QUIET), PATIENCE_MIN);
        let later = now + QUIET + Duration::from_millis(1);
        assert!(!series.is_on(later));
        assert_eq!(series.patience(later), PATIENCE_MAX);
    }

    #[test]
    fn who_has_waited_for_long_enough_is_hurried() {
        let (hurries, now) = (Hurries::default(), Instant::now());
        let hurried = Arc::new(AtomicUsize::new(0));
        let count = hurried.clone();
        assert!(!hurries.hurry(now), "nobody waits");
        let count = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let number = hurries.begin(Arc::new(count), now);
        assert!(hurries.hurry(now));
        assert!(!hurries.patience(now).1, "nobody was due");
        let later = now + PATIENCE_MAX;
        assert!(hurries.hurry(later));
        assert_eq!(hurried.load(Ordering::Relaxed), 1);
        assert_eq!(hurries.patience(later), (PATIENCE_MAX / 2, true));
        hurries.end(number);
        assert!(!hurries.hurry(later));
    }
}
