//! The rule of `ferricornc advise` and of the dashboard: what figures say about workers and threads, in plain words.
//!
//! A pure function of one [`Load`]. The dashboard gives it the last minute, `ferricornc` two looks of its own.

/// What the workers did for a while. Times of requests are sums over those that finished, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub seconds: f64,
    pub cores: u64,
    pub workers: u64,
    /// Of each worker.
    pub threads: u64,
    pub requests: u64,
    /// Waiting for a thread; and of that, woken threads for the GIL.
    pub queue_s: f64,
    pub gil_s: f64,
    /// From the thread to the last byte.
    pub service_s: f64,
    /// Of all workers, in Python and outside.
    pub cpu_s: f64,
    /// What a worker has in RAM, on average. With `preload_app` part of that is shared. 0 where it is not known.
    pub worker_bytes: u64,
    /// What the machine and its cgroups have left for more of them.
    pub memory_left: u64,
}

/// One paragraph.
#[must_use]
pub fn advice(load: &Load) -> String {
    if load.requests < REQUESTS_MIN {
        let longer = (load.seconds * 10.0).round().max(60.0);
        return format!(
            "{} requests have finished in {:.0} s, too few for advice. `advise {longer}` watches for {longer} s.",
            load.requests, load.seconds
        );
    }
    let wait = load.queue_s / load.requests as f64;
    let busy = load.service_s / load.seconds / (load.workers * load.threads) as f64;
    let python = load.cpu_s / load.seconds / load.workers as f64;
    let seen = format!(
        "threads are busy {} of the time, each worker uses {} of a core",
        percent(busy.min(1.0)),
        percent(python)
    );
    if wait < WAIT_GOOD_S {
        return format!("Leave it: requests wait {} for a thread, {seen}.", ms(wait));
    }
    if python >= PYTHON_FULL {
        return more_workers(load, wait, &seen);
    }
    if load.gil_s > load.queue_s / 2.0 {
        return format!(
            "Requests wait {} for a thread, most of it for the GIL, while {seen}: some code keeps the interpreter \
             while it waits, so more workers would help and more threads would not. `stack PID` says which.{}",
            ms(wait),
            cost(load, 1)
        );
    }
    more_threads(load, wait, &seen, python)
}

fn more_threads(load: &Load, wait: f64, seen: &str, python: f64) -> String {
    let threads = threads(load);
    let said = format!("Requests wait {} for a thread while {seen}", ms(wait));
    if threads <= load.threads {
        return format!(
            "{said}: they come in bursts, and on average the threads are enough. Leave it, or see `show requests`."
        );
    }
    if threads > THREADS_MAX {
        return format!(
            "{said}: it would take {threads} threads in each worker, so what the views wait for is too slow. \
             `show requests` and `stack PID` say what that is."
        );
    }
    let later = python * threads as f64 / load.threads as f64;
    let note = if later >= PYTHON_FULL && load.workers < load.cores {
        let later = percent(later.min(1.0));
        format!(" Each worker may then use {later} of a core: if it does, add a worker as well.")
    } else {
        String::new()
    };
    format!(
        "{said}: {threads} threads instead of {} would cut the wait to under {}.{note}",
        load.threads,
        ms(WAIT_GOOD_S)
    )
}

fn more_workers(load: &Load, wait: f64, seen: &str) -> String {
    let said = format!("Requests wait {} for a thread, and {seen}", ms(wait));
    let used = load.cpu_s / load.seconds;
    // What waits now would run as well.
    let demand = used * (load.queue_s + load.service_s) / load.service_s;
    let wanted = (demand / PYTHON_FULL).ceil() as u64;
    let workers = wanted.max(load.workers + 1).min(load.cores);
    if load.workers >= load.cores || used > 0.9 * load.cores as f64 {
        return format!(
            "{said}: the {} cores are what is missing, and neither threads nor workers are more of them. \
             A faster view or another machine would help.",
            load.cores
        );
    }
    let more = workers - load.workers;
    let fit = load.memory_left / load.worker_bytes.max(1);
    if fit == 0 {
        return format!(
            "{said}: one interpreter runs Python on one core at a time, so another worker would help, but there is \
             no memory for it.{}",
            cost(load, 1)
        );
    }
    format!(
        "{said}: one interpreter runs Python on one core at a time, so {} workers instead of {} \
         would help, and more threads would not.{}",
        load.workers + more.min(fit),
        load.workers,
        cost(load, more)
    )
}

/// What more workers take of the memory.
fn cost(load: &Load, more: u64) -> String {
    if load.worker_bytes == 0 {
        return String::new();
    }
    let said = format!(
        " A worker takes up to {}, and {} are left",
        mb(load.worker_bytes),
        mb(load.memory_left)
    );
    if load.memory_left / load.worker_bytes >= more {
        format!("{said}.")
    } else {
        format!(
            "{said}: memory is the limit. `--preload` lets workers share what the application loads."
        )
    }
}

/// The fewest threads of a worker with which a request hardly waits.
fn threads(load: &Load) -> u64 {
    let of_each = load.seconds * load.workers as f64;
    let rate = load.requests as f64 / of_each;
    let service = load.service_s / load.requests as f64;
    // Clients that wait for their answers ask more often once they get them: those present now must find a thread each.
    let present = (load.queue_s + load.service_s) / of_each;
    let mut threads = (present - 0.05).ceil().max(1.0) as u64;
    while threads <= THREADS_MAX && mean_wait(rate, service, threads) >= WAIT_GOOD_S {
        threads += 1;
    }
    threads
}

/// Erlang's C formula: requests at random times, service times that vary as much as their mean.
fn mean_wait(rate: f64, service: f64, threads: u64) -> f64 {
    let load = rate * service;
    let spare = threads as f64 - load;
    if spare <= 0.0 {
        return f64::INFINITY;
    }
    let blocked = (1..=threads).fold(1.0, |blocked, count| {
        load * blocked / (count as f64 + load * blocked)
    });
    let waits = blocked / (1.0 - (load / threads as f64) * (1.0 - blocked));
    waits * service / spare
}

fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}

fn mb(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

fn ms(seconds: f64) -> String {
    if seconds < 10.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.0} s")
    }
}

/// Below this a wait for a thread is not worth a change.
const WAIT_GOOD_S: f64 = 0.005;
/// An interpreter that runs more of the time than this makes its threads wait for each other.
const PYTHON_FULL: f64 = 0.7;
/// Fewer finished requests than this say nothing.
const REQUESTS_MIN: u64 = 30;
/// More threads than this hide a slow neighbour rather than serve.
const THREADS_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// With one thread the wait is `rho / (1 - rho)` services.
    #[test]
    fn the_formula_of_queues_has_its_known_values() {
        for (rate, threads, wait) in [(0.5, 1, 1.0), (0.9, 1, 9.0), (1.5, 2, 9.0 / 7.0)] {
            assert!((mean_wait(rate, 1.0, threads) - wait).abs() < 1e-9);
        }
        assert!(mean_wait(2.0, 1.0, 2).is_infinite());
    }

    #[test]
    fn any_figures_give_a_sentence() {
        for value in [0.0, 1e-9, 1.0, 1e18, f64::INFINITY, f64::NAN] {
            let load = Load {
                seconds: value,
                cores: 0,
                workers: 0,
                threads: 0,
                requests: u64::MAX,
                queue_s: value,
                gil_s: value,
                service_s: value,
                cpu_s: value,
                worker_bytes: value as u64,
                memory_left: value as u64,
            };
            assert!(advice(&load).ends_with('.'));
        }
    }
}
