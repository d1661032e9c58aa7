//! What a worker logs when it is aborted or crashes: the Python stack of each of its threads, in the error log.
//!
//! The interpreter's own fault handler writes it, without the GIL and without memory, from within the signal. It then
//! passes the signal on to the handler before it: to ours, which lets the worker end in order, or to the system.
//! A worker that does not get through its boot is watched too. An application that has enabled the handler itself
//! keeps it, with its file.

use std::cell::RefCell;

use pyo3::prelude::*;

use crate::logging::Log;

/// Whether the fault handler is ours.
#[derive(Debug)]
pub(super) struct Faults {
    logs: Log,
    /// A weak reference to the file that it was given: it lives until another one is given.
    file: RefCell<Option<Py<PyAny>>>,
}

impl Faults {
    /// From here on in this process, unless it is enabled already.
    pub(super) fn watch(py: Python<'_>, logs: Log) -> Self {
        let file = match enabled(py) {
            Ok(false) => enable(py, logs),
            Ok(true) => {
                return Self {
                    logs,
                    file: RefCell::default(),
                };
            }
            Err(error) => Err(error),
        };
        // Without it a worker works as well.
        let file = file.map_err(|error| log::debug!("no fault handler: {error}"));
        Self {
            logs,
            file: RefCell::new(file.ok()),
        }
    }

    /// Whether the application has enabled it, before us or after.
    pub(super) fn are_the_applications(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(enabled(py)? && !self.are_ours(py)?)
    }

    fn are_ours(&self, py: Python<'_>) -> PyResult<bool> {
        match &*self.file.borrow() {
            Some(file) => Ok(!file.call0(py)?.is_none(py)),
            None => Ok(false),
        }
    }

    /// Installs signal handlers below the fault handler's own.
    pub(super) fn around<T>(
        &self,
        py: Python<'_>,
        install: impl FnOnce() -> PyResult<T>,
    ) -> PyResult<T> {
        if !self.are_ours(py)? {
            return install();
        }
        py.import("faulthandler")?.call_method0("disable")?;
        let installed = install()?;
        let file = enable(py, self.logs)?;
        self.file.replace(Some(file));
        Ok(installed)
    }
}

fn enabled(py: Python<'_>) -> PyResult<bool> {
    py.import("faulthandler")?
        .call_method0("is_enabled")?
        .extract()
}

/// Returns a weak reference to the file.
fn enable(py: Python<'_>, logs: Log) -> PyResult<Py<PyAny>> {
    // The number stays the error log's when that is opened anew; it is not closed with the object.
    let arguments = (logs.error_log_fd(), "w", false);
    let file = py.import("io")?.call_method1("FileIO", arguments)?;
    py.import("faulthandler")?
        .call_method1("enable", (&file, true))?;
    let reference = py.import("weakref")?.call_method1("ref", (file,))?;
    py.import("ferricorn._fork_guard")?
        .setattr("fault_file", &reference)?;
    Ok(reference.unbind())
}
