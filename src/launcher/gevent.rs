//! `worker_class = gevent`: whether it is chosen, whether this interpreter can serve it, and the patches that come first.

use pyo3::prelude::*;

use super::ending::Ending;
use crate::config::{Config, WorkerClass};
use crate::python::green;

/// Whether the worker's requests are greenlets.
pub(super) fn is_green(config: &Config) -> bool {
    config.workers.worker_class.is_green()
}

/// Refuses settings that this interpreter cannot serve.
pub(super) fn check(py: Python<'_>, config: &Config) -> Result<(), Ending> {
    if !is_green(config) {
        return Ok(());
    }
    let has_websockets = config.workers.worker_class == WorkerClass::GeventWebSocket;
    match green::obstacle(py, has_websockets) {
        Ok(None) => Ok(()),
        Ok(Some(reason)) => Err(Ending::refused(format!("worker_class = gevent: {reason}"))),
        Err(error) => Err(Ending::raised(py, &error)),
    }
}

/// Before code of the application runs in this process.
pub(super) fn patch(py: Python<'_>, config: &Config) -> PyResult<()> {
    match is_green(config) {
        true => green::patch(py),
        false => Ok(()),
    }
}
