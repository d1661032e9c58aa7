//! Whether an object is an ASGI application, which this server refuses.
//!
//! Called by the loader.

use pyo3::prelude::*;
use pyo3::types::PyType;

/// An ASGI application is a coroutine function, or an object whose `__call__` is one (ASGI 3.0, "Applications").
pub(super) fn is_application(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let mut function = object.clone();
    // Behind a decorator, and behind `functools.partial`, is the function itself.
    for _ in 0..WRAPPERS_MAX {
        let inner = match function.getattr_opt("__wrapped__") {
            Ok(None) if function.get_type().name()? == "partial" => function.getattr_opt("func")?,
            Ok(inner) => inner,
            // Some proxies refuse every name but their own.
            Err(_) => None,
        };
        if is_coroutine_function(&function)? {
            return Ok(true);
        }
        match inner {
            Some(inner) => function = inner,
            None => break,
        }
    }
    if function.is_instance_of::<PyType>() {
        return Ok(false);
    }
    match function.get_type().getattr_opt("__call__")? {
        Some(call) => is_coroutine_function(&call),
        None => Ok(false),
    }
}

/// `inspect.iscoroutinefunction`. Importing `inspect` costs every process 1 MiB. Where nothing has imported it, no
/// function carries its mark either, and the code's flag (`inspect.CO_COROUTINE`) tells.
fn is_coroutine_function(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    let modules = py.import("sys")?.getattr("modules")?;
    if let Ok(inspect) = modules.get_item("inspect") {
        return inspect
            .call_method1("iscoroutinefunction", (object,))?
            .is_truthy();
    }
    let flags = object
        .getattr("__code__")
        .and_then(|code| code.getattr("co_flags"))
        .and_then(|flags| flags.extract::<u32>());
    Ok(flags.is_ok_and(|flags| flags & CO_COROUTINE != 0))
}

/// Decorators and partials around one function; more is a loop.
const WRAPPERS_MAX: usize = 100;
/// `inspect.CO_COROUTINE`.
const CO_COROUTINE: u32 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::with_interpreter;
    use pyo3::types::PyDict;

    #[test]
    fn coroutine_functions_are_found_behind_their_wrappers() {
        with_interpreter(|py| {
            let names = PyDict::new(py);
            let code = c"import functools\nasync def a(x): pass\ndef w(x): pass\np = functools.partial(a, 1)\n";
            py.run(code, Some(&names), None).expect("it runs");
            for (name, is_found) in [("a", true), ("w", false), ("p", true)] {
                let object = names.get_item(name).ok().flatten().expect(name);
                assert_eq!(is_application(&object).ok(), Some(is_found), "{name}");
            }
        });
    }
}
