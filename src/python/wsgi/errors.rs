//! `wsgi.errors`: text goes to the error log as it is, each write at once.

use pyo3::prelude::*;

/// Records with this target are written without a prefix.
pub(super) const TARGET: &str = "wsgi.errors";

/// The stream of PEP 3333, "Input and Error Streams". Stateless, so one object serves all requests.
#[pyclass(frozen, module = "ferricorn", name = "Errors")]
#[derive(Debug)]
pub(super) struct Errors;

#[pymethods]
impl Errors {
    #[expect(clippy::unused_self, reason = "a method of a Python object")]
    fn write(&self, text: &str) -> usize {
        log::error!(target: TARGET, "{text}");
        text.chars().count()
    }

    fn writelines(&self, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            self.write(line?.extract()?);
        }
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "a method of a Python object")]
    fn flush(&self) {}
}
