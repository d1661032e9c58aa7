//! What hooks are handed: `arbiter`, `worker`, their `.cfg` and their `.log`.
//!
//! They are ordinary Python objects (`ferricorn/_gunicorn`) with gunicorn's attributes, made here and brought up to date
//! by the launcher before a call. Hooks may hang attributes of their own on them, which last as long as the process.

use std::os::fd::RawFd;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::super::traceback;
use super::Hooks;
use crate::config::{Config, Value};

/// The `.cfg` of arbiter and worker: every setting of the table, plus what gunicorn derives.
pub fn cfg(py: Python<'_>, config: &Config, hooks: &Hooks) -> PyResult<Py<PyAny>> {
    let values = PyDict::new(py);
    for (setting, value, _) in config.resolved.iter() {
        let object = match hooks.object(setting.name) {
            Some(object) => object.clone_ref(py).into_bound(py),
            None => to_python(py, value)?,
        };
        values.set_item(setting.name, object)?;
    }
    values.set_item("default_proc_name", &config.process.proc_name)?;
    values.set_item("bind", &config.socket.bind)?;
    values.set_item("sendfile", config.http.sendfile)?;
    package_module(py)?
        .call_method1("config", (values,))
        .map(Bound::unbind)
}

/// `logging.getLogger("gunicorn.error")` and `"gunicorn.access"` as the settings want them, and gunicorn's logger
/// object over them, which is `.log`.
pub fn logger(py: Python<'_>, cfg: &Py<PyAny>, is_built_in: bool) -> PyResult<Py<PyAny>> {
    package_module(py)?
        .call_method1("logger", (cfg, is_built_in))
        .map(Bound::unbind)
}

/// The files that Python's loggers write, opened anew; those of the built-in logs are the server's own.
pub fn reopen_files(py: Python<'_>, log: &Py<PyAny>) {
    let log = log.bind(py);
    let reopened = match log.getattr_opt("reopen_other_files") {
        Ok(Some(method)) => method.call0(),
        Ok(None) | Err(_) => log.call_method0("reopen_files"),
    };
    if let Err(error) = reopened {
        log::error!(
            "Log files could not be reopened\n{}",
            traceback::format(py, &error)
        );
    }
}

/// The `.app` of an application that the command line names.
pub fn application(py: Python<'_>, cfg: &Py<PyAny>, uri: Option<&str>) -> PyResult<Py<PyAny>> {
    package_module(py)?
        .call_method1("application", (cfg, uri))
        .map(Bound::unbind)
}

/// The `arbiter` (or `server`) argument.
pub fn arbiter(
    py: Python<'_>,
    app: &Py<PyAny>,
    cfg: &Py<PyAny>,
    log: &Py<PyAny>,
) -> PyResult<Py<PyAny>> {
    package_module(py)?
        .call_method1("arbiter", (app, cfg, log))
        .map(Bound::unbind)
}

/// The `worker` argument: the worker numbered `age`, not forked yet.
pub fn worker(py: Python<'_>, arbiter: &Py<PyAny>, age: u64) -> PyResult<Py<PyAny>> {
    package_module(py)?
        .call_method1(intern!(py, "worker"), (arbiter, age))
        .map(Bound::unbind)
}

/// The worker is on its way out, after `max_requests` requests.
pub fn leaving(py: Python<'_>, worker: &Py<PyAny>, requests: u64) {
    let worker = worker.bind(py);
    let set = store(worker, "alive", false).and_then(|()| store(worker, "nr", requests));
    if let Err(error) = set {
        log::error!("{}", traceback::format(py, &error));
    }
}

/// Brings an attribute of arbiter or worker up to date. What code of the operator's sets goes through the object, which
/// honours or refuses it.
pub fn store<'py>(
    object: &Bound<'py, PyAny>,
    name: &str,
    value: impl IntoPyObject<'py>,
) -> PyResult<()> {
    let attributes = object.getattr(intern!(object.py(), "__dict__"))?;
    attributes.set_item(name, value)
}

/// The `.LISTENERS`.
pub fn listeners<'py>(py: Python<'py>, sockets: &[(RawFd, String)]) -> PyResult<Bound<'py, PyAny>> {
    let pairs = sockets
        .iter()
        .map(|(descriptor, name)| (*descriptor, name.as_str()));
    package_module(py)?.call_method1("listeners", (PyList::new(py, pairs.collect::<Vec<_>>())?,))
}

fn package_module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "ferricorn._objects"))
}

/// A setting's value as Python's configuration files write it.
pub fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::None => py.None().into_bound(py),
        Value::Bool(on) => on.into_pyobject(py)?.to_owned().into_any(),
        Value::Int(number) => number.into_pyobject(py)?.into_any(),
        Value::Str(text) | Value::Opaque(text) => text.into_pyobject(py)?.into_any(),
        Value::List(items) => {
            let items = items.iter().map(|item| to_python(py, item));
            PyList::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any()
        }
        Value::Dict(pairs) => {
            let dict = PyDict::new(py);
            for (key, value) in pairs {
                dict.set_item(to_python(py, key)?, to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::config_file::to_value;
    use crate::python::with_interpreter;

    #[test]
    fn a_value_comes_back_as_it_went() {
        with_interpreter(|py| {
            let values = [
                Value::None,
                Value::Bool(true),
                Value::Int(-7),
                Value::Str("text".to_owned()),
                Value::List(vec![Value::Int(1), Value::List(Vec::new())]),
                Value::Dict(vec![(Value::Str("key".to_owned()), Value::Bool(false))]),
            ];
            for value in values {
                assert_eq!(to_value(&to_python(py, &value).unwrap()), value);
            }
        });
    }
}
