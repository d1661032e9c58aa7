//! Whether jobs wait for something: a database, another service, a lock.
//!
//! How long a job lasts does not tell. But a thread that waits gives up its processor of its own accord, which the
//! system counts; it is asked about one job in [`SAMPLED`], since asking costs half a microsecond.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

const SAMPLED: u32 = 16;
/// Shares are counted in parts of this.
const ALL: u32 = 1024;
/// A sample moves the share by this part of its difference.
const WEIGHT: u32 = 16;
/// Up to this share jobs do not wait: some always do, for a lock or for the GIL.
const SMALL: u32 = ALL / 8;

/// The share of the last jobs that waited, of all threads.
#[derive(Debug, Default)]
pub(super) struct WaitingShare(AtomicU32);

impl WaitingShare {
    pub(super) fn note(&self, has_waited: bool) {
        let share = self.0.load(Ordering::Relaxed);
        let added = if has_waited { ALL / WEIGHT } else { 0 };
        // Threads may overwrite each other's note: it is a share, not an account.
        self.0
            .store(share - share / WEIGHT + added, Ordering::Relaxed);
    }

    pub(super) fn is_small(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= SMALL
    }
}

/// One thread's samples.
#[derive(Debug, Default)]
pub(super) struct Samples {
    jobs: Cell<u32>,
    /// How often the thread had waited when the job in hand began, if that is a sample.
    before: Cell<Option<i64>>,
}

impl Samples {
    /// The thread begins a job.
    pub(super) fn begin(&self) {
        let jobs = self.jobs.replace(self.jobs.get().wrapping_add(1));
        if jobs % SAMPLED == 0 {
            self.before.set(waits());
        }
    }

    /// It has ended it.
    pub(super) fn end(&self, share: &WaitingShare) {
        if let Some(before) = self.before.take()
            && let Some(after) = waits()
        {
            share.note(after > before);
        }
    }
}

/// How often the calling thread has waited so far, where the system tells.
#[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "openbsd"))]
fn waits() -> Option<i64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
    Some(usage.voluntary_context_switches())
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "openbsd")))]
fn waits() -> Option<i64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_small_until_one_in_eight_waits_and_again_when_none_does() {
        let share = WaitingShare::default();
        assert!(share.is_small(), "nothing is known");
        share.note(true);
        assert!(share.is_small(), "one is none");
        for number in 0..1000 {
            share.note(number % 4 == 0);
        }
        assert!(!share.is_small());
        for _ in 0..100 {
            share.note(false);
        }
        assert!(share.is_small());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_job_that_sleeps_has_waited() {
        let (share, samples) = (WaitingShare::default(), Samples::default());
        for _ in 0..SAMPLED * 10 {
            samples.begin();
            std::thread::sleep(std::time::Duration::from_micros(1));
            samples.end(&share);
        }
        assert!(!share.is_small());
    }
}
