//! What the access log shows of an environ, beside the request: the keys that its format names (`%({key}e)s`).

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// Values of the environ as text. Names are taken as written, else in any case, as gunicorn takes them.
pub(super) fn note(environ: &Bound<'_, PyDict>, keys: &[String]) -> Vec<Option<Box<[u8]>>> {
    let in_any_case = |key: &String| {
        let found = environ.iter().find(|(name, _)| {
            let name = name
                .cast::<PyString>()
                .ok()
                .and_then(|name| name.to_str().ok());
            name.is_some_and(|name| name.eq_ignore_ascii_case(key))
        });
        found.map(|(_, value)| value)
    };
    keys.iter()
        .map(|key| {
            let exact = environ.get_item(key).ok().flatten();
            let value = exact.or_else(|| in_any_case(key))?;
            // A value whose `str` raises is left out: a log line is no reason to fail a request.
            let text = value.str().ok()?.to_string_lossy().into_owned();
            Some(text.into_bytes().into())
        })
        .collect()
}
