//! When the event loop is lent to a pool thread (`loop_role.rs`): pure rules over counters.
//!
//! Lent, requests are run by the thread that has read them: no switch between threads, and nothing else moves meanwhile. That
//! pays while they come a few at a time and are over in a moment. With many at once the switch is shared by all of them, and
//! the loop and a thread work side by side.

use std::time::Duration;

use super::loop_role::INLINE_MAX;

/// So many iterations in a row that fit are awaited before the loop is lent.
const CALM_MIN: u32 = 8;
/// A loan of fewer requests than that was not worth it and doubles it, up to this; another one halves it.
const CALM_MAX: u32 = CALM_MIN << 10;
/// A sleep of the poll set that is over sooner was none: something was there already.
const SLEEP_MIN: Duration = Duration::from_micros(3);
/// After so many iterations in a row that found requests without a sleep, the loop and a thread are better off side by side.
const BUSY_MAX: u32 = 8;
/// More requests than this at once are worth a switch.
const JOBS_MAX: usize = 4;

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
    /// They are run where they were found, when the loop is lent ([`super::Pool::fit_lent_loop`]).
    pub do_fit: bool,
    /// How long the loop slept before.
    pub slept: Duration,
}

/// What is known of the last iterations and loans.
#[derive(Clone, Copy, Debug)]
pub struct Lending {
    /// Of the last iteration that found requests.
    last_fits: bool,
    /// Iterations in a row that found requests without a sleep.
    busy: u32,
    /// Iterations in a row whose jobs fit.
    calm: u32,
    /// How many it takes.
    needed: u32,
}

impl Default for Lending {
    fn default() -> Self {
        Self {
            last_fits: true,
            busy: 0,
            calm: 0,
            needed: CALM_MIN,
        }
    }
}

impl Lending {
    /// An iteration is over, on the monitor or a thread.
    #[inline]
    pub fn note(&mut self, found: Found) {
        if found.jobs == 0 {
            return;
        }
        self.last_fits = found.do_fit;
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
    pub fn stays_lent(&self) -> bool {
        self.last_fits && self.busy < BUSY_MAX
    }

    /// Whether the last iterations let expect that the next fits too.
    #[inline]
    pub fn is_calm(&self) -> bool {
        self.calm >= self.needed
    }

    /// The loop is back after so many jobs.
    pub fn note_loan(&mut self, jobs: u64) {
        self.calm = 0;
        self.busy = 0;
        self.needed = match jobs < u64::from(self.needed) {
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
    fn a_loop_that_never_sleeps_is_not_lent_and_is_given_back() {
        let mut lending = Lending::default();
        let busy = Found {
            slept: Duration::ZERO,
            ..found(1, true)
        };
        for _ in 1..BUSY_MAX {
            lending.note(busy);
        }
        assert!(lending.stays_lent());
        lending.note(busy);
        assert!(!lending.stays_lent() && !lending.is_calm());
        lending.note(found(1, true));
        assert!(lending.stays_lent());
        lending.note(found(9, false));
        assert!(!lending.stays_lent());
    }

    #[test]
    fn the_loop_is_lent_after_some_calm_and_iterations_without_jobs_do_not_count() {
        let mut lending = Lending::default();
        for _ in 1..CALM_MIN {
            lending.note(found(1, true));
            lending.note(found(0, true));
        }
        assert!(!lending.is_calm());
        lending.note(found(1, true));
        assert!(lending.is_calm());
        lending.note(found(9, false));
        assert!(!lending.is_calm());
    }

    #[test]
    fn loans_that_end_soon_are_made_more_and_more_seldom() {
        let mut lending = Lending::default();
        let calm_needed = |lending: &Lending| {
            let mut lending = *lending;
            (1..).find(|_| {
                lending.note(found(1, true));
                lending.is_calm()
            })
        };
        for doubled in [2, 4, 8] {
            lending.note_loan(1);
            assert_eq!(calm_needed(&lending), Some(CALM_MIN * doubled));
        }
        lending.note_loan(u64::from(CALM_MIN) * 8);
        assert_eq!(calm_needed(&lending), Some(CALM_MIN * 4));
        for _ in 0..20 {
            lending.note_loan(0);
        }
        assert_eq!(calm_needed(&lending), Some(CALM_MAX));
        for _ in 0..20 {
            lending.note_loan(u64::MAX);
        }
        assert_eq!(calm_needed(&lending), Some(CALM_MIN));
    }
}
