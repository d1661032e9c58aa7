//! A worker's access log, as the settings want it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use super::python_logs;
use super::python_runtime::Inherited;
use super::relay;
use crate::config::Config;
use crate::logging::access::{AccessFilter, AccessFormat, FormatError};
use crate::python::wsgi::{Admits, ListenerAddress, WsgiSettings};
use crate::worker::{AccessLines, AccessLog, LoggedWorker};

/// The log of worker `number`, if there is to be one. The environ keys that it needs go into `settings`.
pub(super) fn make(
    py: Python<'_>,
    config: &Config,
    settings: &mut WsgiSettings,
    number: u64,
    inherited: &Inherited,
    is_python: &Arc<AtomicBool>,
) -> Result<Option<AccessLog>, FormatError> {
    if !config.logging.is_built_in() {
        let relay = relay::access(inherited.log.clone_ref(py));
        let Some(admits) = admits(config) else {
            return Ok(Some(AccessLog::Relay(relay)));
        };
        return Ok(Some(AccessLog::Relay(Box::new(
            move |job, status, bytes, duration| {
                if admits(job.head.path(), status, duration) {
                    relay(job, status, bytes, duration);
                }
            },
        ))));
    }
    if !logs_access(config) {
        return Ok(None);
    }
    let format = AccessFormat::with_fields(
        &config.access_log.access_log_format,
        &config.access_log.access_log_fields,
    )?;
    let info = logged_worker(number, settings);
    settings.noted_keys = format.environ_keys().to_vec();
    settings.request_id_seed = format.shows_request_id().then_some(info.request_id_seed);
    let filter = filter(config);
    let logs = inherited.logs;
    let is_python = Arc::clone(is_python);
    let log = Arc::new(inherited.log.clone_ref(py));
    let write = move |lines: &[u8]| match is_python.load(Ordering::Relaxed) {
        false => logs.write_access(lines),
        // What no thread has logged, such as refusals.
        true => python_logs::write_access(&log, lines),
    };
    let log = AccessLines::new(format, Box::new(write))
        .filtered(filter)
        .of_worker(info);
    Ok(Some(log.into()))
}

fn filter(config: &Config) -> AccessFilter {
    let log = &config.access_log;
    AccessFilter::new(
        &log.access_log_exclude,
        log.access_log_min_status,
        log.access_log_slow,
    )
}

/// The filter for lines that Python writes, if the settings ask for one.
pub(super) fn admits(config: &Config) -> Option<Admits> {
    let log = &config.access_log;
    let is_asked_for = !log.access_log_exclude.is_empty()
        || log.access_log_min_status > 0
        || log.access_log_slow.is_some();
    let filter = is_asked_for.then(|| filter(config))?;
    Some(Box::new(move |path, status, duration| {
        filter.admits(path, status, duration)
    }))
}

/// Whether there is an access log to write to.
pub(super) fn logs_access(config: &Config) -> bool {
    config.access_log.accesslog.is_some()
        || config.syslog.syslog && !config.syslog.disable_redirect_access_to_syslog
}

/// What access log lines show of this worker.
fn logged_worker(number: u64, settings: &WsgiSettings) -> LoggedWorker {
    let listeners = settings.listeners.iter().map(|listener| match listener {
        ListenerAddress::Tcp { name, port } => (name.clone(), port.to_string()),
        ListenerAddress::Unix { .. } => (String::new(), String::new()),
    });
    LoggedWorker {
        number,
        listeners: listeners.collect(),
        script_name: settings.script_name.clone().into_bytes(),
        request_id_seed: random(),
    }
}

/// The standard library's hash seeds come from the system's random numbers, and are anew in each process only when it
/// has not asked before: the process's number and the time keep workers of one arbiter apart.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    let time = std::time::SystemTime::now();
    RandomState::new().hash_one((std::process::id(), time))
}
