//! What `show` shows, as gunicornc expects it and with more columns: the arbiter's state as JSON.
//!
//! The names that gunicorn has keep its meaning; the others are ours.

use serde_json::{Map, Value, json};

use crate::config::{self, Config};
use crate::scoreboard::{Running, Slot, SlotState};

use super::command::{COMMANDS, Topic};

/// The arbiter's state at one moment.
#[derive(Debug)]
pub struct View<'a> {
    pub pid: i32,
    /// Milliseconds of the monotonic clock, like all times here.
    pub now: u64,
    pub started_at: u64,
    pub stopping: bool,
    pub config: &'a Config,
    /// How many workers there shall be.
    pub target: usize,
    pub spawned: u64,
    pub killed: u64,
    pub reloads: u64,
    pub workers: Vec<WorkerView<'a>>,
    pub listeners: Vec<ListenerView>,
}

/// One worker.
#[derive(Debug)]
pub struct WorkerView<'a> {
    pub pid: i32,
    pub age: u64,
    pub generation: u32,
    pub forked_at: u64,
    pub booted: bool,
    /// It was silent too long and is being killed.
    pub aborted: bool,
    /// It was asked to stop.
    pub retiring: bool,
    pub slot: Slot<'a>,
}

/// One listening socket.
#[derive(Debug)]
pub struct ListenerView {
    pub address: String,
    pub fd: i32,
    pub is_unix: bool,
    pub is_ipv6: bool,
}

/// The data of `show TOPIC`.
#[must_use]
pub fn answer(topic: Topic, view: &View<'_>) -> Value {
    match topic {
        Topic::All => all(view),
        Topic::Workers => {
            let workers: Vec<_> = view.workers.iter().map(|one| worker(one, view)).collect();
            json!({"count": workers.len(), "workers": workers})
        }
        Topic::Requests => requests(view),
        Topic::Histograms => histograms(view),
        Topic::Config => settings(view.config),
        Topic::Stats => stats(view),
        Topic::Listeners => listeners(view),
        Topic::Dirty => json!({"enabled": false, "pid": null, "workers": [], "apps": []}),
    }
}

/// The data of `help`.
#[must_use]
pub fn help() -> Value {
    let commands: Map<String, Value> = COMMANDS
        .iter()
        .map(|(usage, description)| ((*usage).to_owned(), Value::from(*description)))
        .collect();
    json!({"commands": commands})
}

fn all(view: &View<'_>) -> Value {
    let workers: Vec<_> = view
        .workers
        .iter()
        .map(|one| {
            let mut row = worker(one, view);
            row["type"] = Value::from("web");
            row
        })
        .collect();
    json!({
        "arbiter": {"pid": view.pid, "type": "arbiter", "role": "master"},
        "web_worker_count": workers.len(),
        "web_workers": workers,
        "dirty_arbiter": null,
        "dirty_workers": [],
        "dirty_worker_count": 0,
    })
}

fn worker(worker: &WorkerView<'_>, view: &View<'_>) -> Value {
    let slot = worker.slot;
    // Until its first heartbeat a worker that serves is as fresh as its birth.
    let since = |at: u64| {
        let at = if worker.booted {
            at.max(worker.forked_at)
        } else {
            at
        };
        (at != 0).then(|| seconds(view.now.saturating_sub(at)))
    };
    let latency = slot.latency().snapshot();
    json!({
        "pid": worker.pid,
        "age": worker.age,
        "booted": worker.booted,
        "aborted": worker.aborted,
        "last_heartbeat": since(slot.reported_loop_heartbeat()),
        "python_heartbeat": since(slot.python_heartbeat_at()),
        "state": state(worker),
        "generation": worker.generation,
        "uptime": seconds(view.now.saturating_sub(worker.forked_at)),
        "threads": view.config.workers.threads,
        "threads_busy": slot.threads_busy(),
        "queue": slot.queue_length(),
        "connections": slot.connections_open(),
        "connections_idle": slot.connections_idle(),
        "requests": slot.requests(),
        "errors": slot.errors(),
        "bytes_out": slot.bytes_out(),
        "finished": latency.counts.iter().sum::<u64>(),
        "request_seconds": latency.micros as f64 / 1e6,
        "queue_seconds": slot.queue_time().snapshot().micros as f64 / 1e6,
        "gil_seconds": slot.gil_wait().snapshot().micros as f64 / 1e6,
        "rss": resident_bytes(worker.pid),
    })
}

fn state(worker: &WorkerView<'_>) -> &'static str {
    let drains = worker.slot.reported_state() == SlotState::Draining;
    match (worker.aborted, worker.retiring || drains, worker.booted) {
        (true, ..) => "aborted",
        (_, true, _) => "stopping",
        (_, _, true) => "serving",
        _ => "booting",
    }
}

fn requests(view: &View<'_>) -> Value {
    let mut rows = Vec::new();
    for worker in &view.workers {
        for (thread, request) in worker.slot.running_threads() {
            let mut row = running(&request, view.now);
            row["worker"] = Value::from(worker.pid);
            row["thread"] = Value::from(thread);
            row["state"] = Value::from(match state(worker) {
                "serving" => "running",
                other => other,
            });
            rows.push((request.since_ms, row));
        }
    }
    rows.sort_by_key(|(since, _)| *since);
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    let queued: u64 = view
        .workers
        .iter()
        .map(|worker| u64::from(worker.slot.queue_length()))
        .sum();
    json!({"count": rows.len(), "requests": rows, "queued": queued})
}

/// How many requests took how long, waited how long for a thread, and of that for the GIL. Bucket 0 is below 1 microsecond, each next one ends
/// at twice the time.
fn histograms(view: &View<'_>) -> Value {
    let rows: Vec<_> = view
        .workers
        .iter()
        .map(|worker| {
            json!({
                "pid": worker.pid,
                "requests": worker.slot.latency().snapshot().counts,
                "queue": worker.slot.queue_time().snapshot().counts,
                "gil": worker.slot.gil_wait().snapshot().counts,
            })
        })
        .collect();
    json!({"count": rows.len(), "workers": rows})
}

/// A request that a thread runs.
#[must_use]
pub fn running(request: &Running, now: u64) -> Value {
    json!({
        "method": String::from_utf8_lossy(&request.method),
        "path": String::from_utf8_lossy(&request.path),
        "age": seconds(now.saturating_sub(request.since_ms)),
        "peer": request.client.map(|client| client.to_string()),
    })
}

fn stats(view: &View<'_>) -> Value {
    let sum = |value: fn(&Slot<'_>) -> u64| -> u64 {
        view.workers.iter().map(|worker| value(&worker.slot)).sum()
    };
    json!({
        "uptime": seconds(view.now.saturating_sub(view.started_at)),
        "pid": view.pid,
        "workers_current": view.workers.len(),
        "workers_target": view.target,
        "workers_spawned": view.spawned,
        "workers_killed": view.killed,
        "reloads": view.reloads,
        "dirty_arbiter_pid": null,
        "version": config::VERSION,
        "stopping": view.stopping,
        "threads_busy": sum(|slot| u64::from(slot.threads_busy())),
        "queue": sum(|slot| u64::from(slot.queue_length())),
        "connections": sum(|slot| u64::from(slot.connections_open())),
        "requests": sum(|slot| slot.requests()),
        "errors": sum(|slot| slot.errors()),
        "bytes_out": sum(|slot| slot.bytes_out()),
    })
}

fn listeners(view: &View<'_>) -> Value {
    let rows: Vec<_> = view
        .listeners
        .iter()
        .map(|listener| {
            let kind = match listener {
                ListenerView { is_unix: true, .. } => "unix",
                ListenerView { is_ipv6: true, .. } => "tcp6",
                _ => "tcp",
            };
            json!({"address": listener.address, "fd": listener.fd, "type": kind})
        })
        .collect();
    json!({"count": rows.len(), "listeners": rows})
}

/// Every setting by its name. What `raw_env` puts into the environment is often secret: only its names are shown.
fn settings(config: &Config) -> Value {
    let rows = config.resolved.iter();
    let shown = rows.map(|(setting, value, _)| {
        let value = match setting.name {
            "raw_env" => Value::from_iter(
                config
                    .app
                    .raw_env
                    .iter()
                    .map(|(name, _)| Value::from(format!("{name}=..."))),
            ),
            _ if matches!(setting.kind, config::settings::Kind::Secret)
                && value.as_str().is_some() =>
            {
                Value::from(setting.shown(value))
            }
            _ => to_json(value),
        };
        (setting.name.to_owned(), value)
    });
    Value::Object(shown.collect())
}

fn to_json(value: &config::Value) -> Value {
    match value {
        config::Value::None => Value::Null,
        config::Value::Bool(on) => Value::from(*on),
        config::Value::Int(number) => Value::from(*number),
        config::Value::Str(text) | config::Value::Opaque(text) => Value::from(text.as_str()),
        config::Value::List(items) => items.iter().map(to_json).collect(),
        config::Value::Dict(pairs) => {
            let pairs = pairs.iter();
            Value::Object(
                pairs
                    .map(|(key, value)| (key.to_string(), to_json(value)))
                    .collect(),
            )
        }
    }
}

/// With two digits, as gunicorn gives them.
fn seconds(milliseconds: u64) -> f64 {
    (milliseconds / 10) as f64 / 100.0
}

/// Memory that the process has in RAM. `None` where there is no `/proc`.
fn resident_bytes(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{RawSettings, Source};
    use crate::scoreboard::Scoreboard;

    #[test]
    fn tables_have_gunicorns_columns_and_ours() {
        let scoreboard = Scoreboard::new(1, 2).unwrap();
        let slot = scoreboard.slot(0);
        slot.loop_heartbeat(9_000);
        slot.add_requests(5);
        slot.thread(1)
            .begin(8_500, "192.0.2.1".parse().ok(), b"GET", b"/slow\x1b[2J");
        let config = Config::default();
        let view = View {
            pid: 10,
            now: 10_000,
            started_at: 0,
            stopping: false,
            config: &config,
            target: 1,
            spawned: 1,
            killed: 0,
            reloads: 0,
            workers: vec![WorkerView {
                pid: i32::try_from(std::process::id()).unwrap(),
                age: 1,
                generation: 1,
                forked_at: 5_000,
                booted: true,
                aborted: false,
                retiring: false,
                slot,
            }],
            listeners: vec![],
        };
        let workers = answer(Topic::Workers, &view);
        let row = &workers["workers"][0];
        assert_eq!(workers["count"], 1);
        assert_eq!(
            (&row["booted"], &row["last_heartbeat"]),
            (&json!(true), &json!(1.0))
        );
        assert_eq!(row["python_heartbeat"], json!(5.0), "none since its birth");
        assert_eq!((&row["uptime"], &row["requests"]), (&json!(5.0), &json!(5)));
        assert!(row["rss"].as_u64().unwrap() > 100_000);
        let requests = answer(Topic::Requests, &view);
        let row = &requests["requests"][0];
        assert_eq!((&row["age"], &row["thread"]), (&json!(1.5), &json!(1)));
        assert_eq!(row["peer"], "192.0.2.1");
        slot.latency().record(std::time::Duration::from_micros(3));
        let histograms = answer(Topic::Histograms, &view);
        let row = &histograms["workers"][0];
        assert_eq!(
            (&row["requests"][2], &row["queue"][2]),
            (&json!(1), &json!(0))
        );
        assert_eq!(answer(Topic::Stats, &view)["uptime"], json!(10.0));
        assert_eq!(answer(Topic::All, &view)["web_worker_count"], 1);
    }

    #[test]
    fn secrets_of_the_environment_are_not_shown() {
        let mut raw = RawSettings::default();
        raw.set_app("app:app");
        let setting = config::settings::find("raw_env").unwrap();
        let secret = config::Value::List(vec![config::Value::str("KEY=hunter2")]);
        raw.set(setting, secret, Source::CommandLine);
        let config = config::validate(raw).unwrap();
        let shown = settings(&config);
        assert_eq!(shown["raw_env"], json!(["KEY=..."]));
        assert_eq!(shown["workers"], 1);
        assert!(!shown.to_string().contains("hunter2"));
    }
}
