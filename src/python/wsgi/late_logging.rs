//! A logger that takes over while requests run: the application has changed one of the server's.
//!
//! Set once each, by any thread; a request that has begun goes on without.

use std::sync::OnceLock;

use pyo3::prelude::*;

use super::request_hooks::RequestHooks;

/// See the module.
#[derive(Debug, Default)]
pub struct LateLogging {
    hooks: OnceLock<RequestHooks>,
    logger: OnceLock<Py<PyAny>>,
}

impl LateLogging {
    /// From now on requests are seen by these hooks. Only the first ones count.
    pub fn log_through(&self, hooks: RequestHooks) {
        let _ = self.hooks.set(hooks);
    }

    /// From now on exceptions are given to this logger.
    pub fn log_exceptions_through(&self, logger: Py<PyAny>) {
        let _ = self.logger.set(logger);
    }

    pub(super) fn hooks(&self) -> Option<&RequestHooks> {
        self.hooks.get()
    }

    pub(super) fn logger(&self) -> Option<&Py<PyAny>> {
        self.logger.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::with_interpreter;

    #[test]
    fn the_first_logger_stays() {
        with_interpreter(|py| {
            let late = LateLogging::default();
            assert!(late.logger().is_none() && late.hooks().is_none());
            late.log_exceptions_through(py.None());
            late.log_exceptions_through(py.Ellipsis());
            assert!(late.logger().is_some_and(|logger| logger.is_none(py)));
        });
    }
}
