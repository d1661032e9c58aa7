//! `gunicorn.socket`: the client's socket of a request that asks for an upgrade, as a Python `socket.socket`.
//!
//! The application hijacks the connection by using it. The object and its moment of change are in
//! `ferricorn/_hijack.py`; this file joins it to the request.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::start_response::StartResponse;

/// A socket that the application may hijack until its request is over.
#[derive(Debug)]
pub(super) struct HijackableSocket<'py> {
    socket: Bound<'py, PyAny>,
}

impl<'py> HijackableSocket<'py> {
    /// Put the socket over `descriptor` into `environ`.
    ///
    /// # Errors
    /// The interpreter's, when it has no memory or no `socket` module.
    pub(super) fn offer(
        environ: &Bound<'py, PyDict>,
        start: &Bound<'py, StartResponse>,
        descriptor: OwnedFd,
    ) -> PyResult<Self> {
        let py = environ.py();
        let offer = module(py)?.getattr(intern!(py, "offer"))?;
        let hijack = start.getattr(intern!(py, "hijack"))?;
        // Over TLS the environ has what answers for the connection.
        let key = intern!(py, "gunicorn.socket");
        let connection = environ.get_item(key)?;
        let socket = offer.call1((descriptor.as_raw_fd(), hijack, connection))?;
        // The Python object owns the descriptor from here on.
        let _ = descriptor.into_raw_fd();
        environ.set_item(key, &socket)?;
        Ok(Self { socket })
    }

    /// The request is over. A socket that the application did not use is closed, and the connection of one that it has
    /// used ends if the application has failed.
    pub(super) fn withdraw(self, has_failed: bool) {
        let py = self.socket.py();
        let arguments = (self.socket, has_failed);
        let withdrawn =
            module(py).and_then(|module| module.call_method1(intern!(py, "withdraw"), arguments));
        if let Err(error) = withdrawn {
            log::error!("A client's socket could not be withdrawn: {error}");
        }
    }
}

fn module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "ferricorn._hijack"))
}
