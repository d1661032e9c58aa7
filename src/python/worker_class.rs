//! A `worker_class` that is derived from one of gunicorn's: `ferricorn/_worker_class.py` says what it may override.
//!
//! Runs in the arbiter, attached, while the settings are read.

use pyo3::prelude::*;

use super::hooks::Hooks;
use crate::config::RawSettings;
use crate::config::settings;
use crate::config::value::Value;

const NAME: &str = "worker_class";

/// Has the class, if the setting names one, in the hooks, and what it is derived from in the settings. A class that is none
/// of that kind stays for the check of the settings, which refuses it.
///
/// # Errors
/// A `RuntimeError`, whose text says which method is overridden that is not called here; what the class's module has raised.
pub fn resolve(py: Python<'_>, raw: &mut RawSettings, hooks: &mut Hooks) -> PyResult<()> {
    let (Some(setting), Some(class)) = (settings::find(NAME), raw.get(NAME)) else {
        return Ok(());
    };
    let name = class.to_string();
    if settings::has_worker_class(&name) {
        return Ok(());
    }
    let kept = hooks.object(NAME).map(|object| object.clone_ref(py));
    let resolved = py
        .import("ferricorn._worker_class")?
        .call_method1("resolve", (name, kept, import_path(raw)))?;
    let resolved: Option<(String, Bound<'_, PyAny>)> = resolved.extract()?;
    if let (Some((base, class)), Some(source)) = (resolved, raw.source(NAME).cloned()) {
        raw.set(setting, Value::str(base), source);
        hooks.keep(setting, &class);
    }
    Ok(())
}

/// Where the application will be imported from.
fn import_path(raw: &RawSettings) -> Vec<String> {
    let text = |name| raw.get(name).map(Value::to_string);
    let mut path: Vec<String> = text("pythonpath")
        .iter()
        .flat_map(|paths| paths.split(','))
        .map(str::to_owned)
        .collect();
    path.push(text("chdir").unwrap_or_else(|| ".".to_owned()));
    path
}
