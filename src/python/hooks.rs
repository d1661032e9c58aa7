//! `Hooks`: the Python objects of a config file (callables, classes, dicts) by setting name.
//!
//! A callable is checked when it is stored, so that a wrong number of parameters stops the start
//! and not the first request. A hook that was not set costs one lookup. Hooks run attached: in the
//! arbiter, in a worker's main thread, or (`pre_request`, `post_request`) in a pool thread.

mod objects;

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::{PyAnyMethods, PyString, PyTuple};

pub use objects::{
    application, arbiter, cfg, leaving, listeners, logger, reopen_files, to_python, worker,
};

use super::config_file::python_str;
use crate::config::settings::{Kind, Setting};

/// Python objects that settings were set to.
#[derive(Debug, Default)]
pub struct Hooks {
    callables: BTreeMap<&'static str, Hook>,
    objects: BTreeMap<&'static str, Py<PyAny>>,
}

#[derive(Debug)]
struct Hook {
    callable: Py<PyAny>,
    /// How many of the arguments it wants.
    arity: usize,
}

impl Hooks {
    /// Keeps a hook; the error is gunicorn's message.
    pub fn set(&mut self, setting: &Setting, value: &Bound<'_, PyAny>) -> Result<(), String> {
        let callable = resolve(value)?;
        let arity = match setting.kind {
            Kind::Hook { arity } => usize::from(arity),
            _ => 4,
        };
        let wanted = arity_of(&callable)?;
        // post_request grew parameters over time; older ones are still called with fewer.
        let fits = match setting.kind {
            Kind::PostRequest => (2..=4).contains(&wanted),
            _ => wanted == arity,
        };
        if !fits {
            return Err(format!("Value must have an arity of: {arity}"));
        }
        self.callables.insert(
            setting.name,
            Hook {
                callable: callable.unbind(),
                arity: wanted,
            },
        );
        Ok(())
    }

    /// Keeps a class or a dict, which a `Value` cannot hold.
    pub fn keep(&mut self, setting: &Setting, value: &Bound<'_, PyAny>) {
        self.objects.insert(setting.name, value.clone().unbind());
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.callables.contains_key(name)
    }

    /// The Python object a setting was set to, hook or not.
    pub fn object(&self, name: &str) -> Option<&Py<PyAny>> {
        self.callables
            .get(name)
            .map(|hook| &hook.callable)
            .or_else(|| self.objects.get(name))
    }

    /// Calls the hook of this name, if there is one. The error names it and holds the traceback.
    pub fn call<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        arguments: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
    ) -> Result<(), String> {
        let Some(hook) = self.callables.get(name) else {
            return Ok(());
        };
        let called = arguments
            .into_pyobject(py)
            .map(|all| {
                if all.len() > hook.arity {
                    all.get_slice(0, hook.arity)
                } else {
                    all
                }
            })
            .and_then(|wanted| hook.callable.bind(py).call1(wanted));
        match called {
            Ok(_) => Ok(()),
            Err(error) => Err(format!(
                "Exception in hook {name}\n{}",
                traceback(py, &error)
            )),
        }
    }
}

/// The whole traceback of an exception, as Python prints it, without the last line break.
pub fn traceback(py: Python<'_>, error: &PyErr) -> String {
    let formatted = || -> PyResult<String> {
        let arguments = (error.get_type(py), error.value(py), error.traceback(py));
        let lines = py
            .import("traceback")?
            .call_method1("format_exception", arguments)?;
        PyString::new(py, "")
            .call_method1("join", (lines,))?
            .extract()
    };
    // An exception whose own __str__ raises still deserves a line.
    formatted()
        .unwrap_or_else(|_| error.get_type(py).to_string())
        .trim_end()
        .to_owned()
}

/// A callable, or the import path of one.
fn resolve<'py>(value: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, String> {
    let Ok(path) = value.extract::<String>() else {
        if value.is_callable() {
            return Ok(value.clone());
        }
        return Err(format!("Value is not callable: {}", python_str(value)));
    };
    let Some((module, name)) = path.rsplit_once('.') else {
        return Err(format!(
            "Value '{path}' is not import string. Format: module[.submodules...].object"
        ));
    };
    let module_object = value
        .py()
        .import(module)
        .map_err(|error| error.value(value.py()).to_string())?;
    let callable = module_object
        .getattr(name)
        .map_err(|_| format!("Can not load '{name}' from '{module}'"))?;
    if callable.is_callable() {
        Ok(callable)
    } else {
        Err(format!("Value is not callable: {}", python_str(&callable)))
    }
}

/// How many positional parameters a callable has.
fn arity_of(callable: &Bound<'_, PyAny>) -> Result<usize, String> {
    let count = || -> PyResult<usize> {
        let inspect = callable.py().import("inspect")?;
        let parameters = inspect
            .call_method1("signature", (callable,))?
            .getattr("parameters")?;
        let mut positional = 0;
        for parameter in parameters.call_method0("values")?.try_iter()? {
            let kind: String = parameter?.getattr("kind")?.getattr("name")?.extract()?;
            positional += usize::from(kind == "POSITIONAL_ONLY" || kind == "POSITIONAL_OR_KEYWORD");
        }
        Ok(positional)
    };
    count().map_err(|error| error.value(callable.py()).to_string())
}
