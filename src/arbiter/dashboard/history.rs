//! The figures of the last ten minutes: a ring with a sample for each second.

use std::collections::VecDeque;

use nix::unistd::Pid;
use serde_json::{Value, json};

use super::timeline::unix_ms;
use crate::arbiter::children::Children;
use crate::arbiter::metrics::Counters;
use crate::arbiter::wear::{TICKS_PER_SECOND, cpu_ticks, resident_kib};
use crate::config::usable_cores;
use crate::control::Load;
use crate::scoreboard::{HISTOGRAM_BUCKETS, HistogramSnapshot};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    /// How many samples have left the ring.
    dropped: u64,
    /// The last sample's counters, and when it was taken in monotonic milliseconds.
    before: Option<(Counters, u64)>,
    /// The processor time of each worker at the last sample, in ticks.
    ticks: Vec<(Pid, u64)>,
}

/// What happened since the sample before, and how things stood at its end. Times are in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// Unix time in milliseconds.
    at: u64,
    /// Its length in milliseconds.
    length: u64,
    requests: u64,
    errors: u64,
    pub(super) shed: u64,
    pub(super) timed_out: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    queue_p50: u64,
    queue_p99: u64,
    gil_p50: u64,
    gil_p99: u64,
    threads: u64,
    threads_busy: u64,
    queue_length: u64,
    connections: u64,
    workers: u64,
    memory: u64,
    memory_max: u64,
    /// Sums over the requests that have finished, and over the workers.
    finished: u64,
    latency_sum: u64,
    queue_sum: u64,
    gil_sum: u64,
    cpu: u64,
}

type Column = (&'static str, fn(&Sample) -> u64);

const COLUMNS: [Column; 20] = [
    ("at", |s| s.at),
    ("length", |s| s.length),
    ("requests", |s| s.requests),
    ("errors", |s| s.errors),
    ("shed", |s| s.shed),
    ("timed_out", |s| s.timed_out),
    ("p50", |s| s.p50),
    ("p90", |s| s.p90),
    ("p99", |s| s.p99),
    ("queue_p50", |s| s.queue_p50),
    ("queue_p99", |s| s.queue_p99),
    ("gil_p50", |s| s.gil_p50),
    ("gil_p99", |s| s.gil_p99),
    ("threads", |s| s.threads),
    ("threads_busy", |s| s.threads_busy),
    ("queue_length", |s| s.queue_length),
    ("connections", |s| s.connections),
    ("workers", |s| s.workers),
    ("memory", |s| s.memory),
    ("memory_max", |s| s.memory_max),
];

impl History {
    /// Milliseconds until the next sample.
    pub(super) fn patience(&self, now: u64) -> u64 {
        let due = self.before.as_ref().map_or(0, |(_, at)| at + PERIOD_MS);
        due.saturating_sub(now)
    }

    /// Takes a sample when it is time for one, and returns it with the one before.
    pub(super) fn record(&mut self, children: &Children, now: u64) -> Option<(Sample, Sample)> {
        if self.patience(now) > 0 {
            return None;
        }
        let counters = children.all_counters();
        let (before, at) = self.before.replace((counters, now))?;
        let mut sample = grown(&before, &counters);
        sample.at = unix_ms();
        sample.length = now.saturating_sub(at);
        let ticks = std::mem::take(&mut self.ticks);
        for worker in children.iter() {
            let used = cpu_ticks(worker.pid()).unwrap_or(0);
            let before = ticks.iter().find(|(pid, _)| *pid == worker.pid());
            let used_before = before.map_or(used, |(_, before)| *before);
            let grown = used.saturating_sub(used_before);
            sample.cpu += grown.saturating_mul(1_000_000) / TICKS_PER_SECOND;
            self.ticks.push((worker.pid(), used));
            let slot = worker.slot();
            let memory = resident_kib(worker.pid()).unwrap_or(0) * 1024;
            sample.workers += 1;
            sample.memory += memory;
            sample.memory_max = sample.memory_max.max(memory);
            sample.threads += u64::from(slot.threads_count());
            sample.threads_busy += u64::from(slot.threads_busy());
            sample.queue_length += u64::from(slot.queue_length());
            sample.connections += u64::from(slot.connections_open());
        }
        let last = self.samples.back().copied().unwrap_or_default();
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
            self.dropped += 1;
        }
        self.samples.push_back(sample);
        Some((last, sample))
    }

    /// What the advice of the dashboard rests on: the last minute.
    pub(super) fn load(&self) -> Load {
        let skipped = self.samples.len().saturating_sub(ADVICE_SAMPLES);
        let last = self.samples.iter().skip(skipped);
        // A worker may write any number.
        let sum = |of: fn(&Sample) -> u64| last.clone().map(of).fold(0, u64::saturating_add);
        let seconds = |of: fn(&Sample) -> u64| sum(of) as f64 / 1e6;
        let now = self.samples.back().copied().unwrap_or_default();
        let queue_s = seconds(|s| s.queue_sum);
        Load {
            seconds: sum(|s| s.length) as f64 / 1e3,
            cores: usable_cores(),
            workers: now.workers.max(1),
            threads: (now.threads / now.workers.max(1)).max(1),
            requests: sum(|s| s.finished),
            queue_s,
            gil_s: seconds(|s| s.gil_sum),
            service_s: (seconds(|s| s.latency_sum) - queue_s).max(1e-9),
            cpu_s: seconds(|s| s.cpu),
        }
    }

    /// The last `count` samples, a column for each figure; `first` is the number of the first.
    pub(super) fn to_json(&self, count: usize) -> Value {
        let skipped = self.samples.len().saturating_sub(count);
        let mut table = json!({"first": self.dropped + skipped as u64});
        for (name, of) in COLUMNS {
            let values = self.samples.iter().skip(skipped).map(of);
            table[name] = values.collect();
        }
        table
    }
}

fn grown(before: &Counters, after: &Counters) -> Sample {
    // A worker may write any number.
    let more = |of: fn(&Counters) -> u64| of(after).saturating_sub(of(before));
    let latency = delta(before.latency(), after.latency());
    let queue = delta(before.queue_time(), after.queue_time());
    let gil = delta(before.gil_wait(), after.gil_wait());
    Sample {
        requests: more(Counters::requests),
        errors: more(Counters::errors),
        shed: more(Counters::shed),
        timed_out: more(Counters::timed_out),
        p50: quantile(&latency, 50),
        p90: quantile(&latency, 90),
        p99: quantile(&latency, 99),
        queue_p50: quantile(&queue, 50),
        queue_p99: quantile(&queue, 99),
        gil_p50: quantile(&gil, 50),
        gil_p99: quantile(&gil, 99),
        finished: latency.iter().copied().fold(0, u64::saturating_add),
        latency_sum: more(|c| c.latency().micros),
        queue_sum: more(|c| c.queue_time().micros),
        gil_sum: more(|c| c.gil_wait().micros),
        ..Sample::default()
    }
}

fn delta(before: &HistogramSnapshot, after: &HistogramSnapshot) -> [u64; HISTOGRAM_BUCKETS] {
    std::array::from_fn(|at| after.counts[at].saturating_sub(before.counts[at]))
}

/// Microseconds below which `percent` of 100 are, by a straight line within the bucket, as Prometheus estimates it.
fn quantile(counts: &[u64; HISTOGRAM_BUCKETS], percent: u64) -> u64 {
    let total = counts
        .iter()
        .fold(0, |sum: u64, one| sum.saturating_add(*one));
    let rank = total as f64 * percent as f64 / 100.0;
    let mut below = 0.0;
    for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = *count as f64;
        if below + count >= rank {
            let start = if bucket == 0 {
                0.0
            } else {
                (1_u64 << (bucket - 1)) as f64
            };
            let end = (1_u64 << bucket) as f64;
            return (start + (end - start) * (rank - below) / count) as u64;
        }
        below += count;
    }
    0
}

const PERIOD_MS: u64 = 1000;
/// Ten minutes, some 117 KiB.
const SAMPLES_MAX: usize = 600;

/// Long enough that a burst is not the rule, short enough that a change shows.
const ADVICE_SAMPLES: usize = 60;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::arbiter::worker_handle::tests::on_paper;
    use crate::scoreboard::Scoreboard;

    #[test]
    fn a_sample_is_what_happened_since_the_one_before() {
        let scoreboard = Arc::new(Scoreboard::new(1, 1).unwrap());
        let (mut children, mut history) = (Children::new().unwrap(), History::default());
        children.add(on_paper(&scoreboard, 0));
        let slot = scoreboard.slot(0);
        slot.add_requests(100);
        assert!(history.record(&children, 5000).is_none(), "the first look");
        slot.add_requests(7);
        slot.latency().record(Duration::from_micros(1000));
        slot.set_connections(3, 1);
        assert!(history.record(&children, 5999).is_none(), "too early");
        let (_, sample) = history.record(&children, 6100).unwrap();
        assert_eq!((sample.requests, sample.length), (7, 1100));
        assert_eq!((sample.connections, sample.workers), (3, 1));
        assert!((512..=1024).contains(&sample.p50) && sample.p50 < sample.p99);
        assert!(sample.memory > 100_000);
        let load = history.load();
        assert_eq!((load.requests, load.workers, load.threads), (1, 1, 1));
        assert!((load.seconds - 1.1).abs() < 1e-9 && (load.service_s - 0.001).abs() < 1e-9);
        assert!(load.cores >= 1);
        let (_, sample) = history.record(&children, 7100).unwrap();
        assert_eq!((sample.requests, sample.p99), (0, 0));
        assert_eq!(history.to_json(1)["requests"], json!([0]));
    }

    #[test]
    fn the_ring_keeps_ten_minutes() {
        let (children, mut history) = (Children::new().unwrap(), History::default());
        for second in 1..=SAMPLES_MAX as u64 + 11 {
            history.record(&children, second * 1000);
        }
        assert_eq!(history.samples.len(), SAMPLES_MAX);
        let table = history.to_json(usize::MAX);
        assert_eq!(table["first"], 10);
        assert_eq!(table["at"].as_array().unwrap().len(), SAMPLES_MAX);
        assert_eq!(history.to_json(10)["first"], 10 + 590);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut counts = [0; HISTOGRAM_BUCKETS];
        assert_eq!(quantile(&counts, 99), 0);
        counts[5] = 100;
        assert_eq!(quantile(&counts, 50), 24);
        counts[31] = u64::MAX;
        assert!(quantile(&counts, 99) > 1 << 30, "any number is taken");
    }
}
