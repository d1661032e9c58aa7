//! PEP 3333, paragraph by paragraph.
//!
//! | PEP 3333 | file |
//! | --- | --- |
//! | The Server/Gateway Side, Error Handling, Thread Support | `app.rs` |
//! | `environ` Variables, URL Reconstruction | `environ.rs`, `headers.rs` |
//! | Input and Error Streams | `input.rs`, `errors.rs` |
//! | The `start_response()` Callable, The `write()` Callable | `start_response.rs`, `response_head.rs` |
//! | Buffering and Streaming, Handling the Content-Length Header | `body.rs`, `stream.rs`, `response_spool.rs` |
//! | (not of PEP 3333) `gunicorn.socket` | `hijack.rs` |
//! | (not of PEP 3333) `pre_request`, `post_request`, custom loggers | `request_hooks.rs` |
//! | (not of PEP 3333) environ keys in the access log | `noted_keys.rs` |
//! | Optional Platform-Specific File Handling | `file_wrapper.rs` |

mod app;
mod body;
mod environ;
mod errors;
mod file_wrapper;
mod green_requests;
mod headers;
mod hijack;
mod http2_environ;
mod input;
mod late_logging;
mod noted_keys;
mod request_hooks;
mod response_head;
mod response_spool;
mod scoreboard_clock;
mod start_response;
mod stream;
mod tls_environ;
mod wsgi_settings;

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::pool::Job;

pub use app::WsgiApp;
pub use green_requests::GreenRequests;
pub use request_hooks::{Admits, PythonAccessLog, RequestHooks};
pub use wsgi_settings::{ListenerAddress, WsgiSettings};

/// Requests to environs, for `benches/environ.rs` alone: the maker itself stays in this module.
#[doc(hidden)]
#[derive(Debug)]
pub struct Environs(environ::EnvironMaker);

impl Environs {
    /// What a pool thread makes when it starts.
    ///
    /// # Errors
    /// The interpreter had no memory.
    pub fn new(py: Python<'_>, settings: Arc<WsgiSettings>) -> PyResult<Self> {
        environ::EnvironMaker::new(py, settings).map(Self)
    }

    /// What a pool thread makes of each request.
    ///
    /// # Errors
    /// As in a pool thread.
    pub fn make<'py>(&mut self, py: Python<'py>, job: &mut Job) -> PyResult<Bound<'py, PyDict>> {
        self.0.make(py, job)
    }
}
