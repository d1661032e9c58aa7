//! What `workers = "auto"` means on this machine: a worker for each core that the process may keep busy.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sched::sched_getaffinity;
use nix::unistd::Pid;

/// A number of workers, and why it is that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AutoWorkers {
    pub(super) count: usize,
    pub(super) reason: String,
}

/// The interpreter has no GIL. It is the process's, so this is too.
static THREADS_ARE_PARALLEL: AtomicBool = AtomicBool::new(false);

/// The threads of one worker can keep all cores busy. To be said before settings are read.
pub fn note_parallel_threads() {
    THREADS_ARE_PARALLEL.store(true, Ordering::Relaxed);
}

/// Of this process, at this moment. The standard library reads the quotas of both cgroup versions; it rounds down,
/// because a worker more than the quota pays for is a worker that the kernel stops.
pub(super) fn workers() -> AutoWorkers {
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    if THREADS_ARE_PARALLEL.load(Ordering::Relaxed) {
        return one_for(count);
    }
    choose(count, cores())
}

/// How many cores the process may keep busy.
#[must_use]
pub fn usable_cores() -> u64 {
    thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

fn one_for(cores: usize) -> AutoWorkers {
    AutoWorkers {
        count: 1,
        reason: format!(
            "without a GIL the threads of one worker use all cores; see --threads {cores}"
        ),
    }
}

/// The cores that the scheduler may use for this process.
fn cores() -> Option<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let is_set = |core: &usize| set.is_set(*core).unwrap_or(false);
    Some((0..nix::sched::CpuSet::count()).filter(is_set).count())
}

fn choose(count: usize, cores: Option<usize>) -> AutoWorkers {
    let plural = |number: usize| if number == 1 { "" } else { "s" };
    let reason = match cores {
        Some(cores) if cores > count => {
            format!("the CPU quota of the cgroup allows {count} of {cores} cores")
        }
        _ => format!("this process may use {count} core{}", plural(count)),
    };
    AutoWorkers { count, reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_quota_is_named_where_it_decides() {
        let cases = [
            (
                2,
                Some(8),
                "the CPU quota of the cgroup allows 2 of 8 cores",
            ),
            (4, Some(4), "this process may use 4 cores"),
            (1, Some(1), "this process may use 1 core"),
            (3, None, "this process may use 3 cores"),
        ];
        for (count, cores, reason) in cases {
            let chosen = choose(count, cores);
            assert_eq!((chosen.count, chosen.reason.as_str()), (count, reason));
        }
    }

    #[test]
    fn one_worker_is_enough_without_a_gil() {
        let chosen = one_for(8);
        assert_eq!(chosen.count, 1);
        assert!(chosen.reason.ends_with("see --threads 8"), "{chosen:?}");
    }

    #[test]
    fn this_process_has_a_core() {
        let chosen = workers();
        assert!(chosen.count >= 1 && chosen.count <= cores().unwrap());
    }
}
