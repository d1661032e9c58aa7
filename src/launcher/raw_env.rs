//! `raw_env`: environment variables that are set, and what they were before.

use pyo3::prelude::*;

/// The environment variables that a setting has set, and what they were before.
#[derive(Debug, Default)]
pub(super) struct RawEnv {
    before: Vec<(String, Option<String>)>,
}

impl RawEnv {
    /// Through `os.environ`, which the application sees and which sets the process's own too.
    pub(super) fn apply(&mut self, py: Python<'_>, variables: &[(String, String)]) -> PyResult<()> {
        let environ = py.import("os")?.getattr("environ")?;
        for (name, value) in variables {
            let before = environ.call_method1("get", (name,))?.extract()?;
            self.before.push((name.clone(), before));
            environ.set_item(name, value)?;
        }
        Ok(())
    }

    pub(super) fn restore(&mut self, py: Python<'_>) -> PyResult<()> {
        let environ = py.import("os")?.getattr("environ")?;
        // Backwards, so that a variable given twice ends as it began.
        for (name, before) in self.before.drain(..).rev() {
            match before {
                Some(value) => environ.set_item(name, value)?,
                None => {
                    environ.call_method1("pop", (name, py.None()))?;
                }
            }
        }
        Ok(())
    }
}
