//! `load_app`: from `MODULE`, `MODULE:ATTRIBUTE` or `MODULE:FACTORY(literals)` to the callable.
//!
//! gunicorn's syntax, rules and messages; one thing more: attributes may be dotted. It runs in the
//! worker's main thread (in the fork server with `preload_app`), which is where user code may set
//! signal handlers.

use std::path::Path;

use pyo3::exceptions::{
    PyAttributeError, PyImportError, PySyntaxError, PySystemExit, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::fork_guard::end_child;
use super::{app_hint, asgi, traceback};
use crate::config::Config;
use crate::config::value::repr_str;

/// Why there is no application.
#[derive(Debug, thiserror::Error)]
pub enum AppLoadError {
    /// The application's code raised. Shown as its traceback; the worker leaves with 3.
    #[error("{traceback}")]
    Import { traceback: String, raised: PyErr },
    /// The module is there, the application is not in it. One line; the worker leaves with 4.
    #[error("{0}")]
    Load(String),
    /// There is an application, but of a kind that cannot be served. One line; worker and server leave with 4.
    #[error("{0}")]
    Refused(String),
    /// The application's code has ended the process (`sys.exit`): that is its exit code.
    #[error("The application ended the process with exit code {code}.")]
    Exit { code: i32, raised: PyErr },
}

impl AppLoadError {
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Import { .. } => 3,
            Self::Load(_) | Self::Refused(_) => 4,
            Self::Exit { code, .. } => *code,
        }
    }

    fn raised(py: Python<'_>, error: &PyErr) -> Self {
        if error.is_instance_of::<PySystemExit>(py) {
            let (code, raised) = (traceback::exit_code(py, error), error.clone_ref(py));
            return Self::Exit { code, raised };
        }
        Self::Import {
            traceback: traceback::format(py, error),
            raised: error.clone_ref(py),
        }
    }

    fn exception(&self) -> Option<&PyErr> {
        match self {
            Self::Import { raised, .. } | Self::Exit { raised, .. } => Some(raised),
            Self::Load(_) | Self::Refused(_) => None,
        }
    }

    /// As the exception that gunicorn's own functions raise.
    pub fn into_exception(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Import { raised, .. } | Self::Exit { raised, .. } => raised,
            Self::Refused(message) => {
                let class = errors(py).and_then(|errors| errors.getattr("NotWSGIError"));
                let raised = class.and_then(|class| class.call1((message,)));
                raised.map_or_else(|error| error, PyErr::from_value)
            }
            Self::Load(message) => match app_import_error(py) {
                Ok(class) => PyErr::from_type(class, (message,)),
                Err(error) => error,
            },
        }
    }
}

/// Changes to `chdir` and puts it, then each of `pythonpath`, in front of Python's path.
pub fn enter(py: Python<'_>, config: &Config) -> PyResult<()> {
    enter_directory(py, &config.app.chdir)?;
    let path = py.import("sys")?.getattr("path")?;
    for directory in &config.app.pythonpath {
        let directory = py
            .import("os.path")?
            .call_method1("abspath", (directory,))?;
        if !path.contains(&directory)? {
            path.call_method1("insert", (0, directory))?;
        }
    }
    Ok(())
}

/// Changes to a directory and makes its modules importable, as before the config file is read.
pub fn enter_directory(py: Python<'_>, directory: &Path) -> PyResult<()> {
    py.import("os")?.call_method1("chdir", (directory,))?;
    let path = py.import("sys")?.getattr("path")?;
    let directory = directory.as_os_str();
    if !path.contains(directory)? {
        path.call_method1("insert", (0, directory))?;
    }
    Ok(())
}

/// Imports the module and finds, or makes, the application.
pub fn load_app(py: Python<'_>, uri: &str) -> Result<Py<PyAny>, AppLoadError> {
    let loaded = find_app(py, uri);
    end_child(py, loaded.as_ref().err().and_then(AppLoadError::exception));
    loaded
}

fn find_app(py: Python<'_>, uri: &str) -> Result<Py<PyAny>, AppLoadError> {
    let (module_name, target) = uri.split_once(':').unwrap_or((uri, DEFAULT_VARIABLE));
    let module = import(py, module_name, target)?;
    let target_parsed = Target::parse(py, target)?;
    let mut object = module.clone().into_any();
    for name in &target_parsed.names {
        object = object.getattr(name.as_str()).map_err(|error| {
            if error.is_instance_of::<PyAttributeError>(py) {
                let names = target_parsed.names.join(".");
                let hint = app_hint::for_attribute(&module, module_name, &names);
                let (names, named) = (repr_str(&names), repr_str(module_name));
                AppLoadError::Load(format!(
                    "Failed to find attribute {names} in {named}.{hint}"
                ))
            } else {
                AppLoadError::raised(py, &error)
            }
        })?;
    }
    if let Some((positional, named)) = &target_parsed.arguments {
        object = object
            .call(positional, Some(named))
            .map_err(|error| call_failed(py, &error))?;
        refuse_coroutine(&object)?;
    }
    if object.is_none() {
        let target = repr_str(target);
        return Err(AppLoadError::Load(format!(
            "Failed to find application object: {target}"
        )));
    }
    callable(object)
}

/// The application of an object that brings its own server along: what its `wsgi()` returns.
///
/// # Errors
/// It raised, or returned no application.
pub fn load_embedded(application: &Bound<'_, PyAny>) -> Result<Py<PyAny>, AppLoadError> {
    let py = application.py();
    let agents = py.import("ferricorn._agents");
    refine(
        py,
        agents.and_then(|agents| agents.call_method1("wsgi", (application,))),
    )
}

/// Has the worker's object load the application, by the methods that gunicorn has for it.
///
/// # Errors
/// It raised, or there is no application afterwards.
pub fn load_into_worker(worker: &Bound<'_, PyAny>) -> Result<(), AppLoadError> {
    let loaded = worker.call_method0("load_wsgi");
    refine(worker.py(), loaded.and_then(|_| worker.getattr("wsgi"))).map(drop)
}

/// An exception as what it means.
fn refine(py: Python<'_>, loaded: PyResult<Bound<'_, PyAny>>) -> Result<Py<PyAny>, AppLoadError> {
    let is_refusal = |error: &PyErr| {
        let class = errors(py).and_then(|errors| errors.getattr("NotWSGIError"));
        class.is_ok_and(|class| error.is_instance(py, &class))
    };
    end_child(py, loaded.as_ref().err());
    match loaded {
        Ok(object) => callable(object),
        Err(error) if is_refusal(&error) => Err(AppLoadError::Refused(error.value(py).to_string())),
        Err(error) if app_import_error(py).is_ok_and(|class| error.is_instance(py, &class)) => {
            Err(AppLoadError::Load(error.value(py).to_string()))
        }
        Err(error) => Err(AppLoadError::raised(py, &error)),
    }
}

fn callable(object: Bound<'_, PyAny>) -> Result<Py<PyAny>, AppLoadError> {
    if !object.is_callable() {
        return Err(AppLoadError::Load(
            "Application object must be callable.".to_owned(),
        ));
    }
    if asgi::is_application(&object).unwrap_or(false) {
        let class = object.get_type().fully_qualified_name();
        let class = class.map_or_else(|_| "object".to_owned(), |name| name.to_string());
        return Err(AppLoadError::Refused(format!(
            "The application ({class}) is ASGI, and ferricorn serves WSGI: run it with an ASGI server, or wrap it in an \
             adapter such as a2wsgi.ASGIMiddleware."
        )));
    }
    Ok(object.unbind())
}

/// A factory that is a coroutine function returns no application but what would make one.
fn refuse_coroutine(object: &Bound<'_, PyAny>) -> Result<(), AppLoadError> {
    let py = object.py();
    let is_coroutine = || -> PyResult<bool> {
        let is_coroutine = object.is_instance(&py.import("types")?.getattr("CoroutineType")?)?;
        if is_coroutine {
            // Nothing awaits it, which the interpreter would complain about.
            object.call_method0("close")?;
        }
        Ok(is_coroutine)
    };
    if is_coroutine().unwrap_or(false) {
        return Err(AppLoadError::Refused(
            "The application factory is a coroutine function: ferricorn serves WSGI, and its factories are called, not \
             awaited."
                .to_owned(),
        ));
    }
    Ok(())
}

fn app_import_error(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let class = errors(py)?.getattr("AppImportError")?;
    Ok(class.cast_into::<PyType>()?)
}

fn errors(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("ferricorn._gunicorn.errors")
}

fn import<'py>(
    py: Python<'py>,
    name: &str,
    target: &str,
) -> Result<Bound<'py, PyModule>, AppLoadError> {
    py.import(name).map_err(|error| {
        let is_missing = error.is_instance_of::<PyImportError>(py);
        let meant = is_missing.then(|| app_hint::for_file(py, name, target));
        AppLoadError::raised(py, &meant.flatten().unwrap_or(error))
    })
}

/// A factory that was called wrongly gets Python's one line; one that raised, its traceback.
fn call_failed(py: Python<'_>, error: &PyErr) -> AppLoadError {
    // Without a traceback no line of Python ran: the arguments did not fit.
    if error.is_instance_of::<PyTypeError>(py) && error.traceback(py).is_none() {
        AppLoadError::Load(traceback::format(py, error))
    } else {
        AppLoadError::raised(py, error)
    }
}

/// What follows the colon.
struct Target<'py> {
    names: Vec<String>,
    /// Of a factory call.
    arguments: Option<(Bound<'py, PyTuple>, Bound<'py, PyDict>)>,
}

impl<'py> Target<'py> {
    fn parse(py: Python<'py>, target: &str) -> Result<Self, AppLoadError> {
        let quoted = repr_str(target);
        let failed = || {
            let message =
                format!("Failed to parse {quoted} as an attribute name or function call.");
            AppLoadError::Load(message)
        };
        // What is no expression, and not a signal's exception that came meanwhile.
        let expression = parse_expression(py, target).map_err(|error| {
            let is_theirs = error.is_instance_of::<PySyntaxError>(py)
                || error.is_instance_of::<PyValueError>(py);
            if is_theirs {
                failed()
            } else {
                AppLoadError::raised(py, &error)
            }
        })?;
        if kind(&expression) != "Call" {
            let names = dotted(&expression).ok_or_else(failed)?;
            return Ok(Self {
                names,
                arguments: None,
            });
        }
        let function = expression.getattr("func").map_err(|_| failed())?;
        let Some(names) = dotted(&function) else {
            let message = format!("Function reference must be a simple name: {quoted}");
            return Err(AppLoadError::Load(message));
        };
        let arguments = literals(py, &expression).map_err(|_| {
            AppLoadError::Load(format!(
                "Failed to parse arguments as literal values: {quoted}"
            ))
        })?;
        Ok(Self {
            names,
            arguments: Some(arguments),
        })
    }
}

fn parse_expression<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    let mode = PyDict::new(py);
    mode.set_item("mode", "eval")?;
    py.import("ast")?
        .call_method("parse", (text,), Some(&mode))?
        .getattr("body")
}

/// The class of a syntax node.
fn kind(node: &Bound<'_, PyAny>) -> String {
    node.get_type()
        .name()
        .map(|name| name.to_string())
        .unwrap_or_default()
}

/// `a.b.c` as its names; `None` for any other expression.
fn dotted(node: &Bound<'_, PyAny>) -> Option<Vec<String>> {
    match kind(node).as_str() {
        "Name" => Some(vec![node.getattr("id").ok()?.extract().ok()?]),
        "Attribute" => {
            let mut names = dotted(&node.getattr("value").ok()?)?;
            names.push(node.getattr("attr").ok()?.extract().ok()?);
            Some(names)
        }
        _ => None,
    }
}

fn literals<'py>(
    py: Python<'py>,
    call: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
    let ast = py.import("ast")?;
    let literal = |node| ast.call_method1("literal_eval", (node,));
    let mut positional = Vec::new();
    for node in call.getattr("args")?.try_iter()? {
        positional.push(literal(node?)?);
    }
    let named = PyDict::new(py);
    for keyword in call.getattr("keywords")?.try_iter()? {
        let keyword = keyword?;
        // `**mapping` has no name; a string is asked for, so it fails here like other non-literals.
        let name: String = keyword.getattr("arg")?.extract()?;
        named.set_item(name, literal(keyword.getattr("value")?)?)?;
    }
    Ok((PyTuple::new(py, positional)?, named))
}

const DEFAULT_VARIABLE: &str = "application";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::with_interpreter;

    fn parsed(py: Python<'_>, text: &str) -> Result<(Vec<String>, Option<String>), String> {
        match Target::parse(py, text) {
            Ok(target) => {
                let arguments = target
                    .arguments
                    .map(|(positional, named)| format!("{positional} {named}"));
                Ok((target.names, arguments))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_target_is_a_dotted_name_or_a_call_with_literals() {
        with_interpreter(|py| {
            let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(parsed(py, "app"), Ok((names(&["app"]), None)));
            assert_eq!(parsed(py, "a.b.c"), Ok((names(&["a", "b", "c"]), None)));
            assert_eq!(
                parsed(py, "make('x', debug=True)"),
                Ok((names(&["make"]), Some("('x',) {'debug': True}".to_owned())))
            );
        });
    }

    #[test]
    fn other_expressions_are_refused() {
        with_interpreter(|py| {
            for (text, message) in [
                (
                    "1 + 1",
                    "Failed to parse '1 + 1' as an attribute name or function call.",
                ),
                (
                    "a b",
                    "Failed to parse 'a b' as an attribute name or function call.",
                ),
                ("a()()", "Function reference must be a simple name: 'a()()'"),
                (
                    "a(b)",
                    "Failed to parse arguments as literal values: 'a(b)'",
                ),
                (
                    "a(**{})",
                    "Failed to parse arguments as literal values: 'a(**{})'",
                ),
            ] {
                assert_eq!(parsed(py, text), Err(message.to_owned()));
            }
        });
    }

    #[test]
    fn only_a_callable_is_an_application() {
        with_interpreter(|py| {
            assert!(load_app(py, "builtins:print").is_ok());
            for (uri, code) in [
                ("sys:maxsize", 4),
                ("sys:nothing", 4),
                ("no_such_module", 3),
            ] {
                let error = load_app(py, uri).expect_err(uri);
                assert_eq!(error.exit_code(), code, "{uri}: {error}");
            }
        });
    }
}
