//! The config file: runs it as gunicorn does and turns its names into settings and hooks.
//!
//! Called by the launcher, at start and on a reload, in the arbiter's only thread. A file is run
//! under the name `__config__` each time; a `python:` module is imported, hence only once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFrozenSet, PyInt, PyList, PyModule, PySet, PyString, PyTuple};

use super::fork_guard::end_child;
use super::hooks::{Hooks, ValueError, python_str};
use super::traceback;
use crate::config::settings::{self, Kind, Setting};
use crate::config::value::repr_str;
use crate::config::{self, RawSettings, Source, Value, suggest};

/// Why the config file cannot be used; the server leaves with 1.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    #[error("{} doesn't exist", repr_str(.0))]
    Missing(String),
    /// Its code raised; the traceback follows the line.
    #[error("Failed to read config file: {location}\n{traceback}")]
    Failed { location: String, traceback: String },
    #[error(transparent)]
    Setting(#[from] config::Error),
}

/// The file used when none was asked for: in the start directory, ours before gunicorn's.
pub fn default_location() -> Option<PathBuf> {
    let directory = std::env::current_dir().ok()?;
    let candidates = ["ferricorn.conf.py", "gunicorn.conf.py"];
    candidates
        .iter()
        .map(|name| directory.join(name))
        .find(|path| path.exists())
}

/// Reads `PATH`, `file:PATH` or `python:MODULE`. Names that look like mistyped settings come back
/// as warnings of the `RawSettings`.
pub fn load(py: Python<'_>, location: &str) -> Result<(RawSettings, Hooks), ConfigFileError> {
    let failed = |error: PyErr| ConfigFileError::Failed {
        location: location.to_owned(),
        traceback: traceback::format(py, &error),
    };
    let module = match location.strip_prefix("python:") {
        Some(name) => py.import(name),
        None => {
            let path = existing(location.strip_prefix("file:").unwrap_or(location))?;
            run(py, &path)
        }
    };
    end_child(py, module.as_ref().err());
    let module = module.map_err(failed)?;
    let names = module.dict();
    let mut raw = RawSettings::default();
    let mut hooks = Hooks::default();
    for (name, value) in names.iter() {
        let Some(setting) = name
            .extract::<String>()
            .ok()
            .and_then(|name| settings::find(&name))
        else {
            continue;
        };
        keep(setting, &value, location, &mut raw, &mut hooks)?;
    }
    // A hint that cannot be worked out, for want of the source, is no reason to stop.
    for line in hints(py, location, &module).unwrap_or_default() {
        raw.warn(line);
    }
    Ok((raw, hooks))
}

/// Old articles say `-c myconfig` for `myconfig.py`.
fn existing(name: &str) -> Result<String, ConfigFileError> {
    let with_extension = format!("{name}.py");
    if Path::new(name).is_file() {
        Ok(name.to_owned())
    } else if Path::new(&with_extension).is_file() {
        Ok(with_extension)
    } else if Path::new(name).exists() {
        Ok(name.to_owned())
    } else {
        Err(ConfigFileError::Missing(name.to_owned()))
    }
}

/// Runs a file as the module `__config__`, with `__file__` and the like set by Python's importer.
fn run<'py>(py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyModule>> {
    let util = py.import("importlib.util")?;
    let spec = if path.ends_with(".py") || path.ends_with(".pyc") {
        util.call_method1("spec_from_file_location", (MODULE, path))?
    } else {
        eprintln!(
            "!!!\n!!! WARNING: configuration file should have a valid Python extension.\n!!!"
        );
        let machinery = py.import("importlib.machinery")?;
        let loader = machinery.call_method1("SourceFileLoader", (MODULE, path))?;
        let named = PyDict::new(py);
        named.set_item("loader", loader)?;
        util.call_method("spec_from_file_location", (MODULE, path), Some(&named))?
    };
    let module = util.call_method1("module_from_spec", (&spec,))?;
    py.import("sys")?
        .getattr("modules")?
        .set_item(MODULE, &module)?;
    spec.getattr("loader")?
        .call_method1("exec_module", (&module,))?;
    Ok(module.cast_into::<PyModule>()?)
}

/// What an application that brings its own configuration (`cfg`, a `ferricorn._gunicorn.config.Config`) has set.
///
/// # Errors
/// A value cannot be used.
pub fn of_application(cfg: &Bound<'_, PyAny>) -> Result<(RawSettings, Hooks), ConfigFileError> {
    let location = "the application";
    let failed = |error: PyErr| ConfigFileError::Failed {
        location: location.to_owned(),
        traceback: traceback::format(cfg.py(), &error),
    };
    let mut raw = RawSettings::default();
    let mut hooks = Hooks::default();
    let rows = cfg
        .getattr("settings")
        .and_then(|rows| rows.call_method0("values"))
        .and_then(|rows| rows.try_iter())
        .map_err(failed)?;
    for row in rows {
        let (name, value, is_given) = row.and_then(|row| given(&row)).map_err(failed)?;
        if let Some(setting) = settings::find(&name).filter(|_| is_given) {
            keep(setting, &value, location, &mut raw, &mut hooks)?;
        }
    }
    Ok((raw, hooks))
}

fn given<'py>(row: &Bound<'py, PyAny>) -> PyResult<(String, Bound<'py, PyAny>, bool)> {
    Ok((
        row.getattr("name")?.extract()?,
        row.getattr("given")?,
        row.getattr("is_given")?.is_truthy()?,
    ))
}

fn keep(
    setting: &'static Setting,
    value: &Bound<'_, PyAny>,
    location: &str,
    raw: &mut RawSettings,
    hooks: &mut Hooks,
) -> Result<(), ConfigFileError> {
    let source = Source::File(location.to_owned());
    let read = read(setting, value, hooks).map_err(|error| config::Error::Invalid {
        name: setting.name,
        value: python_str(value),
        origin: source.clone(),
        reason: config::BadValue::Python(error.to_string()),
    })?;
    raw.set(setting, read, source);
    Ok(())
}

/// A name's value; what only Python can hold goes to the hooks as well.
///
/// # Errors
/// A hook or a class cannot be what it was set to.
pub fn read(
    setting: &Setting,
    value: &Bound<'_, PyAny>,
    hooks: &mut Hooks,
) -> Result<Value, ValueError> {
    match setting.kind {
        Kind::Hook { .. } | Kind::PostRequest => {
            hooks.set(setting, value)?;
            Ok(Value::Opaque(python_str(value)))
        }
        Kind::Class => {
            let is_class = value.is_instance_of::<pyo3::types::PyType>();
            let class = if value.is_callable() && !is_class {
                value
                    .call0()
                    .map_err(|error| ValueError::raised(value.py(), &error))?
            } else {
                value.clone()
            };
            hooks.keep(setting, &class);
            Ok(to_value(&class))
        }
        Kind::Mapping => {
            hooks.keep(setting, value);
            Ok(to_value(value))
        }
        _ => Ok(to_value(value)),
    }
}

/// A Python object as a `Value`; what has no counterpart keeps only its text.
pub fn to_value(object: &Bound<'_, PyAny>) -> Value {
    let items = |items: &Bound<'_, PyAny>| -> PyResult<Value> {
        let items = items.try_iter()?.map(|item| Ok(to_value(&item?)));
        Ok(Value::List(items.collect::<PyResult<_>>()?))
    };
    let opaque = || Value::Opaque(python_str(object));
    if object.is_none() {
        Value::None
    } else if let Ok(on) = object.cast::<PyBool>() {
        // Before int, which bool is a kind of.
        Value::Bool(on.is_true())
    } else if object.is_instance_of::<PyInt>() {
        object.extract().map_or_else(|_| opaque(), Value::Int)
    } else if object.is_instance_of::<PyString>() {
        object.extract().map_or_else(|_| opaque(), Value::Str)
    } else if object.is_instance_of::<PyList>()
        || object.is_instance_of::<PyTuple>()
        || object.is_instance_of::<PySet>()
        || object.is_instance_of::<PyFrozenSet>()
    {
        items(object).unwrap_or_else(|_| opaque())
    } else if let Ok(dict) = object.cast::<PyDict>() {
        Value::Dict(
            dict.iter()
                .map(|(key, value)| (to_value(&key), to_value(&value)))
                .collect(),
        )
    } else {
        opaque()
    }
}

/// Names assigned in the file that are nearly, but not quite, those of settings.
fn hints(py: Python<'_>, location: &str, module: &Bound<'_, PyModule>) -> PyResult<Vec<String>> {
    let mut lines = Vec::new();
    let names = module.dict();
    for name in assigned(py, module)? {
        let Some(value) = names.get_item(&name)? else {
            continue;
        };
        let is_plain = !name.starts_with('_') && !name.contains(char::is_uppercase);
        let is_class = value.is_instance_of::<pyo3::types::PyType>();
        if !is_plain
            || settings::find(&name).is_some()
            || is_class
            || value.is_instance_of::<PyModule>()
        {
            continue;
        }
        // A function can only have been meant as a hook, and nothing else can.
        let is_function = value.is_callable();
        let candidates = settings::all()
            .iter()
            .filter(|row| row.kind.is_hook() == is_function);
        let Some(meant) = suggest::closest(&name, candidates.map(|row| row.name)) else {
            continue;
        };
        // With the right name there as well, the other is a helper of the file's own.
        if !names.contains(meant)? {
            lines.push(format!(
                "Unknown setting {name} in {location}: did you mean {meant}?"
            ));
        }
    }
    Ok(lines)
}

/// The names a module's source assigns or defines, as opposed to imports.
fn assigned(py: Python<'_>, module: &Bound<'_, PyModule>) -> PyResult<BTreeSet<String>> {
    let ast = py.import("ast")?;
    let source = py.import("inspect")?.call_method1("getsource", (module,))?;
    let tree = ast.call_method1("parse", (source,))?;
    let mut names = BTreeSet::new();
    for node in ast.call_method1("walk", (tree,))?.try_iter()? {
        let node = node?;
        match node.get_type().name()?.to_str()? {
            "Name" if node.getattr("ctx")?.is_instance(&ast.getattr("Store")?)? => {
                names.insert(node.getattr("id")?.extract()?);
            }
            "FunctionDef" => {
                names.insert(node.getattr("name")?.extract()?);
            }
            _ => {}
        }
    }
    Ok(names)
}

const MODULE: &str = "__config__";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::with_interpreter;

    fn load_text(py: Python<'_>, text: &str) -> Result<(RawSettings, Hooks), ConfigFileError> {
        let mut file = tempfile::Builder::new().suffix(".py").tempfile().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        load(py, &file.path().display().to_string())
    }

    #[test]
    fn a_name_that_is_nearly_a_setting_is_hinted_at() {
        with_interpreter(|py| {
            let (raw, _) = load_text(py, "worker = 3\ntimeouts = 5\nimport os\n").unwrap();
            let hints = raw.warnings().join("\n");
            assert!(hints.contains("Unknown setting worker "), "{hints}");
            assert!(hints.contains("did you mean timeout?"), "{hints}");
            let (raw, _) = load_text(py, "timeout = 5\ntimeouts = 5\n").unwrap();
            assert!(raw.warnings().is_empty(), "the file has both names");
        });
    }

    #[test]
    fn a_file_that_raises_has_its_traceback() {
        with_interpreter(|py| {
            let error = load_text(py, "1 / 0\n").unwrap_err().to_string();
            assert!(error.starts_with("Failed to read config file: "), "{error}");
            assert!(error.contains("ZeroDivisionError"), "{error}");
        });
    }

    #[test]
    fn a_file_may_be_named_without_its_extension() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("conf.py");
        std::fs::write(&path, "").unwrap();
        let stem = directory.path().join("conf").display().to_string();
        assert_eq!(existing(&stem).unwrap(), format!("{stem}.py"));
        let missing = existing("no/such/file").unwrap_err();
        assert_eq!(missing.to_string(), "'no/such/file' doesn't exist");
    }

    #[test]
    fn an_object_without_a_counterpart_keeps_its_text() {
        with_interpreter(|py| {
            let value = |code| to_value(&py.eval(code, None, None).unwrap());
            assert_eq!(value(c"1.5"), Value::Opaque("1.5".to_owned()));
            assert_eq!(value(c"True"), Value::Bool(true));
            assert_eq!(value(c"2 ** 80"), Value::Opaque((1_i128 << 80).to_string()));
            assert_eq!(value(c"(1,)"), Value::List(vec![Value::Int(1)]));
            assert_eq!(
                value(c"lambda: 1"),
                Value::Opaque("<<lambda>()>".to_owned())
            );
        });
    }
}
