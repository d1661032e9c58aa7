//! `Hooks`: the Python objects of a config file (callables, classes, dicts) by setting name.
//!
//! A callable is checked when it is stored, so that a wrong number of parameters stops the start
//! and not the first request. A hook that was not set costs one lookup. Hooks run attached: in the
//! arbiter, in a worker's main thread, or (`pre_request`, `post_request`) in a pool thread.

mod objects;

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

pub use objects::{
    application, arbiter, cfg, leaving, listeners, logger, reopen_files, store, to_python, worker,
};

use super::fork_guard::end_child;
use super::traceback;
use crate::config::settings::{Kind, Setting};

/// A moment at which the operator's code is called. The names are those of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    OnStarting,
    OnReload,
    WhenReady,
    PreFork,
    PostFork,
    PostWorkerInit,
    WorkerInt,
    WorkerAbort,
    PreExec,
    PreRequest,
    PostRequest,
    ChildExit,
    WorkerExit,
    NworkersChanged,
    OnExit,
}

impl Hook {
    /// The setting's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OnStarting => "on_starting",
            Self::OnReload => "on_reload",
            Self::WhenReady => "when_ready",
            Self::PreFork => "pre_fork",
            Self::PostFork => "post_fork",
            Self::PostWorkerInit => "post_worker_init",
            Self::WorkerInt => "worker_int",
            Self::WorkerAbort => "worker_abort",
            Self::PreExec => "pre_exec",
            Self::PreRequest => "pre_request",
            Self::PostRequest => "post_request",
            Self::ChildExit => "child_exit",
            Self::WorkerExit => "worker_exit",
            Self::NworkersChanged => "nworkers_changed",
            Self::OnExit => "on_exit",
        }
    }
}

/// A hook raised.
#[derive(Debug, thiserror::Error)]
#[error("Exception in {} hook\n{traceback}", .hook.name())]
pub struct HookError {
    hook: Hook,
    traceback: String,
}

impl HookError {
    pub(super) fn new(py: Python<'_>, hook: Hook, error: &PyErr) -> Self {
        Self {
            hook,
            traceback: traceback::format(py, error),
        }
    }
}

/// Why a value cannot be kept. The messages of hooks are gunicorn's.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    #[error("Value is not callable: {0}")]
    NotCallable(String),
    #[error("Value '{0}' is not import string. Format: module[.submodules...].object")]
    NotAPath(String),
    #[error("Can not load '{name}' from '{module}'")]
    NotInModule { name: String, module: String },
    #[error("Value must have an arity of: {0}")]
    Arity(usize),
    /// The value's own code raised; the text of its exception.
    #[error("{0}")]
    Raised(String),
}

impl ValueError {
    pub(super) fn raised(py: Python<'_>, error: &PyErr) -> Self {
        Self::Raised(error.value(py).to_string())
    }
}

/// Python objects that settings were set to.
#[derive(Debug, Default)]
pub struct Hooks {
    callables: BTreeMap<&'static str, Callable>,
    objects: BTreeMap<&'static str, Py<PyAny>>,
}

#[derive(Debug)]
struct Callable {
    object: Py<PyAny>,
    /// How many of the arguments it takes.
    arity: usize,
}

impl Hooks {
    /// Keeps a hook.
    ///
    /// # Errors
    /// The value is no callable with the right number of parameters.
    pub fn set(&mut self, setting: &Setting, value: &Bound<'_, PyAny>) -> Result<(), ValueError> {
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
            return Err(ValueError::Arity(arity));
        }
        self.callables.insert(
            setting.name,
            Callable {
                object: callable.unbind(),
                arity: wanted,
            },
        );
        Ok(())
    }

    /// Keeps a class or a dict, which a `Value` cannot hold.
    pub fn keep(&mut self, setting: &Setting, value: &Bound<'_, PyAny>) {
        self.objects.insert(setting.name, value.clone().unbind());
    }

    #[must_use]
    pub fn is_set(&self, hook: Hook) -> bool {
        self.callables.contains_key(hook.name())
    }

    /// The Python object a setting was set to, hook or not.
    pub fn object(&self, name: &str) -> Option<&Py<PyAny>> {
        self.callables
            .get(name)
            .map(|callable| &callable.object)
            .or_else(|| self.objects.get(name))
    }

    /// Calls the hook, if it is set.
    ///
    /// # Errors
    /// The hook raised.
    pub fn call<'py>(
        &self,
        py: Python<'py>,
        hook: Hook,
        arguments: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
    ) -> Result<(), HookError> {
        let Some(callable) = self.callables.get(hook.name()) else {
            return Ok(());
        };
        let called = arguments
            .into_pyobject(py)
            .map(|all| {
                if all.len() > callable.arity {
                    all.get_slice(0, callable.arity)
                } else {
                    all
                }
            })
            .and_then(|wanted| callable.object.bind(py).call1(wanted));
        end_child(py, called.as_ref().err());
        called
            .map(drop)
            .map_err(|error| HookError::new(py, hook, &error))
    }
}

/// A callable, or the import path of one.
fn resolve<'py>(value: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, ValueError> {
    let Ok(path) = value.extract::<String>() else {
        if value.is_callable() {
            return Ok(value.clone());
        }
        return Err(ValueError::NotCallable(python_str(value)));
    };
    let Some((module, name)) = path.rsplit_once('.') else {
        return Err(ValueError::NotAPath(path));
    };
    let module_object = value
        .py()
        .import(module)
        .map_err(|error| ValueError::raised(value.py(), &error))?;
    let callable = module_object
        .getattr(name)
        .map_err(|_| ValueError::NotInModule {
            name: name.to_owned(),
            module: module.to_owned(),
        })?;
    if callable.is_callable() {
        Ok(callable)
    } else {
        Err(ValueError::NotCallable(python_str(&callable)))
    }
}

/// How many positional parameters a callable has.
fn arity_of(callable: &Bound<'_, PyAny>) -> Result<usize, ValueError> {
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
    count().map_err(|error| ValueError::raised(callable.py(), &error))
}

/// `str()` of an object, and gunicorn's `<name()>` for functions.
pub(super) fn python_str(object: &Bound<'_, PyAny>) -> String {
    let is_class = object.is_instance_of::<pyo3::types::PyType>();
    if object.is_callable() && !is_class {
        if let Ok(name) = object
            .getattr("__qualname__")
            .and_then(|name| name.extract::<String>())
        {
            return format!("<{name}()>");
        }
    }
    object
        .str()
        .map(|text| text.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{self, find};
    use crate::python::with_interpreter;

    const ALL: [Hook; 15] = [
        Hook::OnStarting,
        Hook::OnReload,
        Hook::WhenReady,
        Hook::PreFork,
        Hook::PostFork,
        Hook::PostWorkerInit,
        Hook::WorkerInt,
        Hook::WorkerAbort,
        Hook::PreExec,
        Hook::PreRequest,
        Hook::PostRequest,
        Hook::ChildExit,
        Hook::WorkerExit,
        Hook::NworkersChanged,
        Hook::OnExit,
    ];

    #[test]
    fn every_hook_is_a_setting_that_takes_a_callable() {
        for hook in ALL {
            let takes_callable = find(hook.name()).is_some_and(|setting| setting.kind.is_hook());
            assert!(takes_callable, "{}", hook.name());
        }
    }

    #[test]
    fn every_setting_of_that_kind_that_has_an_effect_is_a_hook() {
        let names: Vec<_> = ALL.map(Hook::name).to_vec();
        let rows = settings::all().iter().filter(|row| row.kind.is_hook());
        // `python/ssl_context.rs` calls it, once, before the hooks' arbiter exists.
        let rows = rows.filter(|row| row.name != "ssl_context");
        for row in rows.filter(|row| matches!(row.verdict, settings::Verdict::Works)) {
            assert!(names.contains(&row.name), "{}", row.name);
        }
    }

    fn set(py: Python<'_>, name: &str, code: &std::ffi::CStr) -> Result<Hooks, String> {
        let mut hooks = Hooks::default();
        let value = py.eval(code, None, None).expect("the test's code is valid");
        let setting = find(name).expect("a setting");
        match hooks.set(setting, &value) {
            Ok(()) => Ok(hooks),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_is_no_hook_is_refused_with_gunicorns_message() {
        with_interpreter(|py| {
            for (code, message) in [
                (c"7", "Value is not callable: 7"),
                (c"lambda: None", "Value must have an arity of: 1"),
                (
                    c"'name'",
                    "Value 'name' is not import string. Format: module[.submodules...].object",
                ),
                (c"'os.nothing'", "Can not load 'nothing' from 'os'"),
                (c"'os.sep'", "Value is not callable: /"),
                (c"'no_such_module.name'", "No module named 'no_such_module'"),
            ] {
                let refused = set(py, "on_exit", code).expect_err("no hook");
                assert_eq!(refused, message);
            }
        });
    }

    #[test]
    fn post_request_is_called_with_as_many_arguments_as_it_takes() {
        with_interpreter(|py| {
            for code in [c"lambda a, b: None", c"lambda a, b, c, d: None"] {
                let hooks = set(py, "post_request", code).expect("a hook");
                hooks
                    .call(py, Hook::PostRequest, (1, 2, 3, 4))
                    .expect("it takes what it gets");
            }
            assert!(set(py, "post_request", c"lambda a: None").is_err());
        });
    }

    #[test]
    fn an_exception_names_its_hook() {
        with_interpreter(|py| {
            let hooks = set(py, "on_exit", c"lambda server: 1 / 0").expect("a hook");
            let error = hooks.call(py, Hook::OnExit, (1,)).unwrap_err().to_string();
            assert!(
                error.starts_with("Exception in on_exit hook\nTraceback"),
                "{error}"
            );
            assert!(!hooks.is_set(Hook::OnReload));
            hooks
                .call(py, Hook::OnReload, (1,))
                .expect("a hook that is not set does nothing");
        });
    }
}
