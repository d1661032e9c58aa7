//! An exception of Python code as an error of this module.

use pyo3::prelude::*;

use crate::python::traceback;

/// Its text is the whole traceback.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(String);

impl Raised {
    pub(super) fn new(py: Python<'_>, error: &PyErr) -> Self {
        Self(traceback::format(py, error))
    }
}
