//! What the arbiter imports so that its workers share it (`ferricorn/_shared_modules.py`).

use pyo3::prelude::*;

use super::greenlets;
use crate::config::Config;
use crate::python::traceback::format as traceback;

/// Before the first fork, where several workers will import the same modules each for itself. Where requests are greenlets
/// what is to be patched may not be there before; a fork server shares the whole application.
pub(super) fn import(py: Python<'_>, config: &Config) {
    let is_shared = config.workers.workers > 1
        && greenlets::library(config).is_none()
        && !config.app.preload_app;
    if !is_shared {
        return;
    }
    let imported = py
        .import("ferricorn._shared_modules")
        .and_then(|module| module.call_method0("load"));
    if let Err(error) = imported {
        log::debug!("modules to be shared: {}", traceback(py, &error));
    }
}
