//! The scoreboard as Prometheus reads it: the whole server's figures, and each worker's.
//!
//! Counters of the whole server go on growing when workers come and go: what a worker had is added to [`Counters`] when
//! it is reaped. A worker is named by its slot, so that a replacement goes on with the same series.

use std::fmt::Write as _;

use super::supervision::Stage;
use crate::scoreboard::{HISTOGRAM_BUCKETS, HTTP2_GUARDS, HistogramSnapshot, Slot};

/// What has been counted, in one worker or in all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    requests: u64,
    bytes_out: u64,
    errors: u64,
    shed: u64,
    timed_out: u64,
    passed_on: u64,
    log_lines_dropped: u64,
    tls_handshakes: u64,
    tls_resumed: u64,
    tls_failed: u64,
    tls_alpn_http1: u64,
    tls_alpn_h2: u64,
    http2_ended: [u64; HTTP2_GUARDS.len()],
    latency: HistogramSnapshot,
    queue_time: HistogramSnapshot,
    gil_wait: HistogramSnapshot,
}

impl Counters {
    /// Adds what a worker has counted. A worker may write any number.
    pub(super) fn add(&mut self, slot: Slot<'_>) {
        self.requests = self.requests.saturating_add(slot.requests());
        self.bytes_out = self.bytes_out.saturating_add(slot.bytes_out());
        self.errors = self.errors.saturating_add(slot.errors());
        self.shed = self.shed.saturating_add(slot.shed());
        self.timed_out = self.timed_out.saturating_add(slot.timed_out());
        self.passed_on = self.passed_on.saturating_add(slot.passed_on());
        self.log_lines_dropped = self
            .log_lines_dropped
            .saturating_add(slot.log_lines_dropped());
        self.tls_handshakes = self.tls_handshakes.saturating_add(slot.tls_handshakes());
        self.tls_resumed = self.tls_resumed.saturating_add(slot.tls_resumed());
        self.tls_failed = self.tls_failed.saturating_add(slot.tls_failed());
        self.tls_alpn_http1 = self.tls_alpn_http1.saturating_add(slot.tls_alpn_http1());
        self.tls_alpn_h2 = self.tls_alpn_h2.saturating_add(slot.tls_alpn_h2());
        for (ended, more) in self.http2_ended.iter_mut().zip(slot.http2_ended()) {
            *ended = ended.saturating_add(more);
        }
        self.latency.add(&slot.latency().snapshot());
        self.queue_time.add(&slot.queue_time().snapshot());
        self.gil_wait.add(&slot.gil_wait().snapshot());
    }

    /// Each counter with its name; `dropped` as in [`render`].
    pub(super) fn named(mut self, dropped: u64) -> impl Iterator<Item = (&'static str, u64)> {
        self.log_lines_dropped = self.log_lines_dropped.saturating_add(dropped);
        COUNTS.iter().map(move |(name, _, of)| (*name, of(&self)))
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors
    }

    pub(super) fn shed(&self) -> u64 {
        self.shed
    }

    pub(super) fn timed_out(&self) -> u64 {
        self.timed_out
    }

    pub(super) fn latency(&self) -> &HistogramSnapshot {
        &self.latency
    }

    pub(super) fn queue_time(&self) -> &HistogramSnapshot {
        &self.queue_time
    }

    pub(super) fn gil_wait(&self) -> &HistogramSnapshot {
        &self.gil_wait
    }
}

/// A living worker.
pub(super) struct WorkerFigures<'a> {
    pub(super) name: String,
    pub(super) stage: Stage,
    pub(super) slot: Slot<'a>,
}

/// How the figures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' own, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0: a counter's family has no `_total`, and the end is said.
    OpenMetrics,
}

impl Format {
    /// What `Accept` asks for. Prometheus names OpenMetrics where it can read it.
    pub(super) fn accepted(accept: Option<&[u8]>) -> Self {
        let accept = String::from_utf8_lossy(accept.unwrap_or_default());
        let mut kinds = accept.split(',').filter_map(|kind| kind.split(';').next());
        match kinds.any(|kind| kind.trim() == "application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    fn counter(self, text: &mut String, name: &str, help: &str) {
        let family = match self {
            Self::Prometheus => name,
            Self::OpenMetrics => name.trim_end_matches("_total"),
        };
        header(text, family, help, "counter");
    }
}

type Count = (&'static str, &'static str, fn(&Counters) -> u64);
type Gauge = (&'static str, &'static str, fn(Slot<'_>) -> u32);

const COUNTS: [Count; 12] = [
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
    (
        "log_lines_dropped_total",
        "Lines that a log or syslog did not take.",
        |t| t.log_lines_dropped,
    ),
    (
        "tls_handshakes_total",
        "TLS handshakes that were completed.",
        |t| t.tls_handshakes,
    ),
    (
        "tls_resumed_total",
        "TLS handshakes that resumed a session.",
        |t| t.tls_resumed,
    ),
    (
        "tls_handshakes_failed_total",
        "TLS handshakes that failed or took too long.",
        |t| t.tls_failed,
    ),
    (
        "tls_alpn_http1_total",
        "TLS handshakes that chose HTTP/1.1 by ALPN.",
        |t| t.tls_alpn_http1,
    ),
    (
        "tls_alpn_h2_total",
        "TLS handshakes that chose HTTP/2 by ALPN.",
        |t| t.tls_alpn_h2,
    ),
];

const GAUGES: [Gauge; 6] = [
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
    (
        "unsent_response_bytes",
        "Bytes of whole responses that wait in memory for their clients.",
        |slot| slot.unsent_bytes(),
    ),
    ("connections_open", "Client connections.", |slot| {
        slot.connections_open()
    }),
    (
        "connections_idle",
        "Client connections between requests.",
        |slot| slot.connections_idle(),
    ),
];

fn write_http2_ended(text: &mut String, format: Format, all: &Counters) {
    let name = "http2_ended_total";
    let help = "HTTP/2 connections that were ended for what the client did, by limit.";
    format.counter(text, name, help);
    for (guard, ended) in HTTP2_GUARDS.into_iter().zip(all.http2_ended) {
        line(text, name, &format!("guard=\"{guard}\""), ended);
    }
}

/// `dropped` are the log lines that the arbiter itself has dropped; `certificate_end` is in Unix seconds.
pub(super) fn render(
    format: Format,
    (workers, wanted): (&[WorkerFigures<'_>], usize),
    reaped: &Counters,
    dropped: u64,
    certificate_end: Option<i64>,
) -> String {
    let mut text = String::with_capacity(4096 + workers.len() * 6144);
    let own = |worker: &WorkerFigures<'_>| {
        let mut counters = Counters::default();
        counters.add(worker.slot);
        counters
    };
    let each: Vec<(&str, Counters)> = workers
        .iter()
        .map(|worker| (worker.name.as_str(), own(worker)))
        .collect();
    let mut all = *reaped;
    workers.iter().for_each(|worker| all.add(worker.slot));
    all.log_lines_dropped = all.log_lines_dropped.saturating_add(dropped);
    write_workers(&mut text, workers, wanted);
    for (name, help, of) in COUNTS {
        format.counter(&mut text, name, help);
        line(&mut text, name, "", of(&all));
        format.counter(&mut text, &worker_name(name), help);
        for (worker, counters) in &each {
            line(&mut text, &worker_name(name), &label(worker), of(counters));
        }
    }
    write_http2_ended(&mut text, format, &all);
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
    if let Some(end) = certificate_end.and_then(|end| u64::try_from(end).ok()) {
        let name = "tls_certificate_not_after_seconds";
        let help = "When the first certificate expires, in Unix time.";
        header(&mut text, name, help, "gauge");
        line(&mut text, name, "", end);
    }
    type OfCounters = fn(&Counters) -> &HistogramSnapshot;
    let histograms: [(&str, &str, OfCounters); 2] = [
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
        for (worker, counters) in &each {
            write_histogram(&mut text, &worker_name(name), &label(worker), of(counters));
        }
    }
    // Of all workers only: each histogram of a worker is 2 KiB.
    let name = "gil_wait_seconds";
    let help = "Of that, what woken threads waited for the GIL.";
    header(&mut text, name, help, "histogram");
    write_histogram(&mut text, name, "", &all.gil_wait);
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn write_workers(text: &mut String, workers: &[WorkerFigures<'_>], wanted: usize) {
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
        below = u64::saturating_add(below, snapshot.counts[bucket]);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scoreboard::Scoreboard;

    #[test]
    fn open_metrics_are_for_those_that_ask_for_them() {
        for accept in [
            "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "text/plain, application/openmetrics-text",
        ] {
            let format = Format::accepted(Some(accept.as_bytes()));
            assert_eq!(format, Format::OpenMetrics);
        }
        for accept in [
            None,
            Some("*/*"),
            Some("text/plain"),
            Some("application/openmetrics-textile"),
        ] {
            let format = Format::accepted(accept.map(str::as_bytes));
            assert_eq!(format, Format::Prometheus);
        }
    }

    #[test]
    fn sums_are_of_the_living_and_the_reaped() {
        let scoreboard = Scoreboard::new(2, 1).unwrap();
        let mut reaped = Counters::default();
        for (index, requests) in [(0, 3), (1, 4)] {
            scoreboard.slot(index).add_requests(requests);
            scoreboard.slot(index).set_connections(5, 1);
            scoreboard.slot(index).set_log_lines_dropped(requests);
        }
        let latency = scoreboard.slot(0).latency();
        latency.record_alone(Duration::from_micros(100));
        latency.record_alone(Duration::from_secs(1));
        reaped.add(scoreboard.slot(0));
        let workers: Vec<_> = scoreboard
            .iter()
            .enumerate()
            .map(|(index, slot)| WorkerFigures {
                name: index.to_string(),
                stage: Stage::Serving,
                slot,
            })
            .collect();
        let end = Some(1_800_000_000);
        let text = render(Format::Prometheus, (&workers, 2), &reaped, 5, end);
        let open = render(Format::OpenMetrics, (&workers, 2), &reaped, 5, end);
        assert!(open.contains("# TYPE ferricorn_requests counter\nferricorn_requests_total 10\n"));
        assert!(open.ends_with("\n# EOF\n") && !text.contains("EOF"));
        for expected in [
            "ferricorn_workers{state=\"serving\"} 2",
            "ferricorn_tls_certificate_not_after_seconds 1800000000",
            "ferricorn_requests_total 10",
            "ferricorn_log_lines_dropped_total 15",
            "ferricorn_worker_log_lines_dropped_total{worker=\"0\"} 3",
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
