//! Whether a job has waited for something: a database, another service, a lock.
//!
//! How long a job lasts does not tell. But a thread that waits gives up its processor of its own accord, which the
//! system counts; it is asked about one job in [`SAMPLED`], since asking costs half a microsecond.

use std::cell::Cell;

const SAMPLED: u32 = 16;

/// One thread's samples.
#[derive(Debug, Default)]
pub(super) struct WaitSampler {
    jobs: Cell<u32>,
    /// How often the thread had waited when the job began, if the job is a sample.
    before: Cell<Option<i64>>,
}

impl WaitSampler {
    /// The thread begins a job. `samples_all`: it is a sample, whatever is next.
    #[inline]
    pub(super) fn begin(&self, samples_all: bool) {
        let jobs = self.jobs.replace(self.jobs.get().wrapping_add(1));
        if samples_all || jobs % SAMPLED == 0 {
            self.before.set(voluntary_switches());
        }
    }

    /// It has ended the job. Returns how often the job has waited, if it was a sample.
    #[inline]
    pub(super) fn end(&self) -> Option<u32> {
        let before = self.before.take()?;
        u32::try_from(voluntary_switches()? - before).ok()
    }
}

/// How often the calling thread has waited so far.
#[cfg(target_os = "linux")]
fn voluntary_switches() -> Option<i64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
    Some(usage.voluntary_context_switches())
}

/// Not every UNIX counts them for a thread. Jobs then pass for jobs that do not wait.
#[cfg(not(target_os = "linux"))]
fn voluntary_switches() -> Option<i64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_job_that_gives_the_processor_up_has_waited() {
        let sampler = WaitSampler::default();
        let samples: Vec<u32> = (0..SAMPLED * 3)
            .filter_map(|_| {
                sampler.begin(false);
                std::thread::sleep(std::time::Duration::from_millis(1));
                sampler.end()
            })
            .collect();
        assert_eq!(samples.len(), 3, "one job in {SAMPLED} is a sample");
        assert!(samples.iter().all(|waits| *waits >= 1), "{samples:?}");
    }
}
