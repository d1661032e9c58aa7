//! `worker_class = gevent` or `eventlet`: whether it is chosen, whether this interpreter can serve it, and the patches that
//! come first.

use pyo3::prelude::*;

use super::ending::Ending;
use crate::config::{Config, GreenLibrary, WorkerClass};
use crate::python::green;

/// Whose greenlets the worker's requests are, if they are greenlets.
pub(super) fn library(config: &Config) -> Option<GreenLibrary> {
    config.workers.worker_class.library()
}

/// Refuses settings that this interpreter cannot serve.
pub(super) fn check(py: Python<'_>, config: &Config) -> Result<(), Ending> {
    let Some(library) = library(config) else {
        return Ok(());
    };
    let has_websockets = config.workers.worker_class == WorkerClass::GeventWebSocket;
    match green::obstacle(py, library, has_websockets) {
        Ok(None) => Ok(()),
        Ok(Some(reason)) => {
            let name = library.name();
            Err(Ending::refused(format!("worker_class = {name}: {reason}")))
        }
        Err(error) => Err(Ending::raised(py, &error)),
    }
}

/// Before code of the application runs in this process. The class of a `worker` may patch in its own way.
pub(super) fn patch(
    py: Python<'_>,
    config: &Config,
    worker: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    library(config).map_or(Ok(()), |library| green::patch(py, library, worker))
}
