//! When the event loop is delegated to a pool thread (`loop_role.rs`): pure rules over counters.
//!
//! Delegated, requests are run by the thread that has read them: no switch between threads, and nothing else moves meanwhile. That
//! pays while they come a few at a time and are over in a moment. With many at once the switch is shared by all of them, and
//! the loop and a thread work side by side.

use std::time::Duration;

/// A delegated loop is aside for so long at most, while Python runs.
pub(crate) const INLINE_MAX: Duration = Duration::from_micros(500);
/// How many iterations in a row that fit are awaited before the loop is delegated, at first,
const CALM_FIRST: u32 = 8;
/// and at least and at most.
const CALM_MIN: u32 = 1;
const CALM_MAX: u32 = 8192;
/// Moving the loop there and back costs as much as the switches of so many iterations: a delegation of fewer that fit was not
/// worth it, and doubles how many are awaited; another one halves it.
const WORTH: u32 = 4;
/// The same of a delegation that ended because a single request lasted too long. The switches of that one are spared by no
/// way of serving it, and it says nothing of how many come at once.
const WORTH_ALONE: u32 = 1;
/// A sleep of the poll set that is over sooner was none: something was there already.
const SLEEP_MIN: Duration = Duration::from_micros(3);
/// After so many iterations in a row that found requests without a sleep, the loop and a thread are better off side by side.
const BUSY_MAX: u32 = 8;
/// More requests than this at once are worth a switch.
const JOBS_MAX: usize = 16;

/// Whether the jobs that one iteration has found are run where they were found.
#[inline]
pub(super) fn fit(jobs: usize, mean_micros: u32) -> bool {
    let time = Duration::from_micros(u64::from(mean_micros));
    jobs <= JOBS_MAX && (jobs <= 1 || time * (jobs as u32) <= INLINE_MAX / 2)
}

/// What an iteration of the loop has found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Requests for the pool.
    pub jobs: usize,
    /// They are run where they were found, when the loop is delegated ([`super::Pool::fit_delegated_loop`]).
    pub do_fit: bool,
    /// How long the loop slept before.
    pub slept: Duration,
}

/// What is known of the last iterations and delegations.
#[derive(Clone, Copy, Debug)]
pub struct Delegation {
    /// Of the last iteration that found requests.
    last_fits: bool,
    /// Iterations in a row that found requests without a sleep.
    busy: u32,
    /// Iterations in a row whose jobs fit.
    calm: u32,
    /// How many it takes.
    needed: u32,
    /// Iterations whose jobs fit since the loop was delegated.
    served: u32,
}

impl Default for Delegation {
    fn default() -> Self {
        Self {
            last_fits: true,
            busy: 0,
            calm: 0,
            needed: CALM_FIRST,
            served: 0,
        }
    }
}

impl Delegation {
    /// An iteration is over, on the monitor or a thread.
    #[inline]
    pub fn note(&mut self, found: Found) {
        if found.jobs == 0 {
            return;
        }
        self.last_fits = found.do_fit;
        self.served = self.served.saturating_add(u32::from(found.do_fit));
        self.busy = match found.slept < SLEEP_MIN {
            true => self.busy.saturating_add(1),
            false => 0,
        };
        self.calm = match found.do_fit && self.busy == 0 {
            true => self.calm.saturating_add(1),
            false => 0,
        };
    }

    /// Whether a thread that runs the loop goes on with it.
    #[inline]
    pub fn stays_delegated(&self) -> bool {
        self.last_fits && self.busy < BUSY_MAX
    }

    /// Whether the last iterations let expect that the next fits too.
    #[inline]
    pub fn is_calm(&self) -> bool {
        self.calm >= self.needed
    }

    /// The loop is delegated.
    pub fn note_delegated(&mut self) {
        self.served = 0;
    }

    /// It is back.
    pub fn note_return(&mut self) {
        let worth = match self.stays_delegated() {
            true => WORTH_ALONE,
            false => WORTH,
        };
        self.calm = 0;
        self.busy = 0;
        self.needed = match self.served < worth {
            true => (self.needed * 2).min(CALM_MAX),
            false => (self.needed / 2).max(CALM_MIN),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_brief_jobs_fit_and_a_single_one_whatever_it_lasts() {
        for (jobs, mean_micros, expected) in [
            (0, 400, true),
            (1, 499, true),
            (2, 100, true),
            (2, 200, false),
            (JOBS_MAX, 10, true),
            (JOBS_MAX + 1, 10, false),
        ] {
            assert_eq!(
                fit(jobs, mean_micros),
                expected,
                "{jobs} of {mean_micros} us"
            );
        }
    }

    const fn found(jobs: usize, do_fit: bool) -> Found {
        Found {
            jobs,
            do_fit,
            slept: SLEEP_MIN,
        }
    }

    #[test]
    fn a_loop_that_never_sleeps_is_not_delegated_and_is_given_back() {
        let mut delegation = Delegation::default();
        let busy = Found {
            slept: Duration::ZERO,
            ..found(1, true)
        };
        for _ in 1..BUSY_MAX {
            delegation.note(busy);
        }
        assert!(delegation.stays_delegated());
        delegation.note(busy);
        assert!(!delegation.stays_delegated() && !delegation.is_calm());
        delegation.note(found(1, true));
        assert!(delegation.stays_delegated());
        delegation.note(found(9, false));
        assert!(!delegation.stays_delegated());
    }

    #[test]
    fn the_loop_is_delegated_after_some_calm_and_iterations_without_jobs_do_not_count() {
        let mut delegation = Delegation::default();
        for _ in 1..CALM_FIRST {
            delegation.note(found(1, true));
            delegation.note(found(0, true));
        }
        assert!(!delegation.is_calm());
        delegation.note(found(1, true));
        assert!(delegation.is_calm());
        delegation.note(found(9, false));
        assert!(!delegation.is_calm());
    }

    #[test]
    fn delegations_that_end_soon_are_made_more_and_more_seldom() {
        let calm_needed = |delegation: &Delegation| {
            let mut delegation = *delegation;
            (1..).find(|_| {
                delegation.note(found(1, true));
                delegation.is_calm()
            })
        };
        let delegate = |delegation: &mut Delegation, iterations| {
            delegation.note_delegated();
            for _ in 0..iterations {
                delegation.note(found(1, true));
            }
            delegation.note(found(9, false));
            delegation.note_return();
        };
        let mut delegation = Delegation::default();
        for doubled in [2, 4, 8] {
            delegate(&mut delegation, WORTH - 1);
            assert_eq!(calm_needed(&delegation), Some(CALM_FIRST * doubled));
        }
        delegate(&mut delegation, WORTH);
        assert_eq!(calm_needed(&delegation), Some(CALM_FIRST * 4));
        for _ in 0..20 {
            delegate(&mut delegation, 0);
        }
        assert_eq!(calm_needed(&delegation), Some(CALM_MAX));
        for _ in 0..20 {
            delegate(&mut delegation, WORTH * 2);
        }
        assert_eq!(calm_needed(&delegation), Some(CALM_MIN));
    }

    #[test]
    fn a_single_request_that_lasts_too_long_makes_delegations_no_rarer_unless_it_is_the_first() {
        let mut delegation = Delegation::default();
        let needed = delegation.needed;
        for (iterations, expected) in [(1, needed / 2), (0, needed)] {
            delegation.note_delegated();
            for _ in 0..iterations {
                delegation.note(found(1, true));
            }
            delegation.note_return();
            assert_eq!(delegation.needed, expected);
        }
    }
}
