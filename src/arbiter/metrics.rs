//! The scoreboard as Prometheus reads it: the whole server's figures, and each worker's.
//!
//! Counters of the whole server go on growing when workers come and go: what a worker had is added to [`Totals`] when
//! it is buried. A worker is named by its slot, so that a replacement goes on with the same series.

use std::fmt::Write as _;

use super::Arbiter;
use super::admin::Answer;
use super::workers::Stage;
use crate::http::Status;
use crate::scoreboard::{HISTOGRAM_BUCKETS, HistogramSnapshot, Slot, Unready};

/// What has been counted, in one worker or in all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    requests: u64,
    bytes_out: u64,
    errors: u64,
    shed: u64,
    timed_out: u64,
    passed_on: u64,
    latency: HistogramSnapshot,
    queue_time: HistogramSnapshot,
}

impl Totals {
    /// Adds what a worker has counted.
    pub(super) fn add(&mut self, slot: Slot<'_>) {
        self.requests += slot.requests();
        self.bytes_out += slot.bytes_out();
        self.errors += slot.errors();
        self.shed += slot.shed();
        self.timed_out += slot.timed_out();
        self.passed_on += slot.passed_on();
        self.latency.add(&slot.latency().snapshot());
        self.queue_time.add(&slot.queue_time().snapshot());
    }
}

/// A living worker.
struct Figures<'a> {
    name: String,
    stage: Stage,
    slot: Slot<'a>,
}

type Count = (&'static str, &'static str, fn(&Totals) -> u64);
type Gauge = (&'static str, &'static str, fn(Slot<'_>) -> u32);

const COUNTS: [Count; 6] = [
    (
        "requests_total",
        "Requests answered, refused or cut.",
        |t| t.requests,
    ),
    (
        "errors_total",
        "Requests on which the application failed.",
        |t| t.errors,
    ),
    (
        "shed_total",
        "Requests answered with 503 (queue_timeout, max_queue).",
        |t| t.shed,
    ),
    (
        "request_timeouts_total",
        "Requests that ran longer than request_timeout.",
        |t| t.timed_out,
    ),
    (
        "connections_passed_on_total",
        "Connections that went to another worker.",
        |t| t.passed_on,
    ),
    (
        "response_body_bytes_total",
        "Bytes of response bodies.",
        |t| t.bytes_out,
    ),
];

const GAUGES: [Gauge; 5] = [
    ("threads", "Application threads.", |slot| {
        slot.threads_count()
    }),
    (
        "threads_busy",
        "Application threads that run a request.",
        |slot| slot.threads_busy(),
    ),
    ("queue_length", "Requests that wait for a thread.", |slot| {
        slot.queue_length()
    }),
    ("connections_open", "Client connections.", |slot| {
        slot.connections_open()
    }),
    (
        "connections_idle",
        "Client connections between requests.",
        |slot| slot.connections_idle(),
    ),
];

impl Arbiter<'_> {
    /// Tends `admin_bind`, if there is one.
    pub(super) fn tend_admin(&mut self) {
        let Some(mut admin) = self.admin.take() else {
            return;
        };
        let now = crate::scoreboard::monotonic_ms();
        admin.turn(now, &|path| self.tell(path));
        self.admin = Some(admin);
    }

    fn tell(&self, path: &[u8]) -> Answer {
        match path {
            b"/live" => Answer::text(Status::OK, "alive\n"),
            b"/ready" => match self.readiness() {
                Ok(()) => Answer::text(Status::OK, "ready\n"),
                Err(reason) => Answer::text(
                    Status::SERVICE_UNAVAILABLE,
                    format!("not ready: {reason}\n"),
                ),
            },
            b"/metrics" => Answer {
                status: Status::OK,
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                body: self.metrics(),
            },
            _ => Answer::text(NOT_FOUND, "/live, /ready or /metrics\n"),
        }
    }

    fn readiness(&self) -> Result<(), &'static str> {
        if self.stopping {
            return Err("the server stops");
        }
        let mut why_not = Unready::NobodyServes;
        // The slot knows of the end of its boot before we hear of it.
        let stays = |stage| matches!(stage, Stage::Booting | Stage::Serving);
        for worker in self.workers.iter().filter(|worker| stays(worker.stage)) {
            match worker.slot().readiness(self.config.workers.max_queue) {
                Ok(()) => return Ok(()),
                Err(why) => why_not = why,
            }
        }
        Err(why_not.reason())
    }

    fn metrics(&self) -> String {
        let name = |slot: usize, is_current: bool| match is_current {
            true => slot.to_string(),
            false => format!("{slot}-old"),
        };
        let workers: Vec<_> = self
            .workers
            .iter()
            .map(|worker| Figures {
                name: name(
                    worker.slot,
                    std::sync::Arc::ptr_eq(&worker.board, &self.board),
                ),
                stage: worker.stage,
                slot: worker.slot(),
            })
            .collect();
        render(&workers, &self.totals, self.num_workers)
    }
}

fn render(workers: &[Figures<'_>], buried: &Totals, wanted: usize) -> String {
    let mut text = String::with_capacity(4096 + workers.len() * 6144);
    let own = |worker: &Figures<'_>| {
        let mut totals = Totals::default();
        totals.add(worker.slot);
        totals
    };
    let each: Vec<(&str, Totals)> = workers
        .iter()
        .map(|worker| (worker.name.as_str(), own(worker)))
        .collect();
    let mut all = *buried;
    workers.iter().for_each(|worker| all.add(worker.slot));
    write_workers(&mut text, workers, wanted);
    for (name, help, of) in COUNTS {
        header(&mut text, name, help, "counter");
        line(&mut text, name, "", of(&all));
        header(&mut text, &worker_name(name), help, "counter");
        for (worker, totals) in &each {
            line(&mut text, &worker_name(name), &label(worker), of(totals));
        }
    }
    for (name, help, of) in GAUGES {
        header(&mut text, name, help, "gauge");
        let sum = workers.iter().map(|worker| u64::from(of(worker.slot)));
        line(&mut text, name, "", sum.sum());
        header(&mut text, &worker_name(name), help, "gauge");
        for worker in workers {
            let value = u64::from(of(worker.slot));
            line(&mut text, &worker_name(name), &label(&worker.name), value);
        }
    }
    type OfTotals = fn(&Totals) -> &HistogramSnapshot;
    let histograms: [(&str, &str, OfTotals); 2] = [
        (
            "request_duration_seconds",
            "From the whole request to the last byte handed to the kernel.",
            |t| &t.latency,
        ),
        (
            "queue_time_seconds",
            "Time that whole requests waited for a thread.",
            |t| &t.queue_time,
        ),
    ];
    for (name, help, of) in histograms {
        header(&mut text, name, help, "histogram");
        write_histogram(&mut text, name, "", of(&all));
        header(&mut text, &worker_name(name), help, "histogram");
        for (worker, totals) in &each {
            write_histogram(&mut text, &worker_name(name), &label(worker), of(totals));
        }
    }
    text
}

fn write_workers(text: &mut String, workers: &[Figures<'_>], wanted: usize) {
    header(text, "workers_wanted", "Workers asked for.", "gauge");
    line(text, "workers_wanted", "", wanted as u64);
    header(text, "workers", "Workers by what they are doing.", "gauge");
    for (state, of_state) in [
        ("booting", Stage::Booting),
        ("serving", Stage::Serving),
        ("retiring", Stage::Retiring),
    ] {
        let count = workers.iter().filter(|worker| worker.stage == of_state);
        let label = format!("state=\"{state}\"");
        line(text, "workers", &label, count.count() as u64);
    }
}

fn worker_name(name: &str) -> String {
    format!("worker_{name}")
}

fn label(worker: &str) -> String {
    format!("worker=\"{worker}\"")
}

// Writing to a String cannot fail.

fn header(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP ferricorn_{name} {help}");
    let _ = writeln!(text, "# TYPE ferricorn_{name} {kind}");
}

fn line(text: &mut String, name: &str, label: &str, value: u64) {
    let _ = match label {
        "" => writeln!(text, "ferricorn_{name} {value}"),
        label => writeln!(text, "ferricorn_{name}{{{label}}} {value}"),
    };
}

/// Cumulative counts at powers of two of a microsecond, from 64 µs to 134 s.
fn write_histogram(text: &mut String, name: &str, label: &str, snapshot: &HistogramSnapshot) {
    let comma = if label.is_empty() { "" } else { "," };
    let mut below = 0;
    for bucket in 0..HISTOGRAM_BUCKETS {
        below += snapshot.counts[bucket];
        if (FIRST_BUCKET..=LAST_BUCKET).contains(&bucket) {
            let bound = (1_u64 << bucket) as f64 / 1e6;
            let _ = writeln!(
                text,
                "ferricorn_{name}_bucket{{{label}{comma}le=\"{bound}\"}} {below}"
            );
        }
    }
    let _ = writeln!(
        text,
        "ferricorn_{name}_bucket{{{label}{comma}le=\"+Inf\"}} {below}"
    );
    let braces = match label {
        "" => String::new(),
        label => format!("{{{label}}}"),
    };
    let seconds = snapshot.micros as f64 / 1e6;
    let _ = writeln!(text, "ferricorn_{name}_sum{braces} {seconds}");
    let _ = writeln!(text, "ferricorn_{name}_count{braces} {below}");
}

const FIRST_BUCKET: usize = 6;
const LAST_BUCKET: usize = 27;
const NOT_FOUND: Status = Status {
    code: 404,
    reason: "Not Found",
};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scoreboard::Scoreboard;

    #[test]
    fn sums_are_of_the_living_and_the_buried() {
        let board = Scoreboard::new(2, 1).unwrap();
        let mut buried = Totals::default();
        for (index, requests) in [(0, 3), (1, 4)] {
            board.slot(index).add_requests(requests);
            board.slot(index).set_connections(5, 1);
        }
        let latency = board.slot(0).latency();
        latency.record_alone(Duration::from_micros(100));
        latency.record_alone(Duration::from_secs(1));
        buried.add(board.slot(0));
        let workers: Vec<_> = board
            .iter()
            .enumerate()
            .map(|(index, slot)| Figures {
                name: index.to_string(),
                stage: Stage::Serving,
                slot,
            })
            .collect();
        let text = render(&workers, &buried, 2);
        for expected in [
            "ferricorn_workers{state=\"serving\"} 2",
            "ferricorn_requests_total 10",
            "ferricorn_worker_requests_total{worker=\"1\"} 4",
            "ferricorn_connections_open 10",
            "ferricorn_worker_connections_idle{worker=\"0\"} 1",
            "ferricorn_request_duration_seconds_bucket{le=\"0.000064\"} 0",
            "ferricorn_request_duration_seconds_bucket{le=\"0.000128\"} 2",
            "ferricorn_request_duration_seconds_bucket{le=\"1.048576\"} 4",
            "ferricorn_request_duration_seconds_count 4",
            "ferricorn_request_duration_seconds_sum 2.0002",
            "ferricorn_worker_request_duration_seconds_bucket{worker=\"0\",le=\"+Inf\"} 2",
        ] {
            assert!(
                text.lines().any(|line| line == expected),
                "{expected} in:\n{text}"
            );
        }
    }
}
