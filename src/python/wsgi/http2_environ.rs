//! What the environ has of a request over HTTP/2, as gunicorn's has it: `gunicorn.http2.send_trailers`, the stream's priority, and
//! the version once more.

use std::sync::Arc;

use pyo3::exceptions::PyConnectionResetError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::response_head::push_all;
use crate::fork_guard::is_child;
use crate::http::ResponseHead;
use crate::pool::{ConnId, Job, Pool, Reply};

/// `gunicorn.http2.send_trailers`: called with a list of pairs, it says what is to follow the body of the response.
#[pyclass(frozen, module = "ferricorn", name = "SendTrailers")]
#[derive(Debug)]
struct SendTrailers {
    conn: ConnId,
    pool: Arc<Pool>,
}

#[pymethods]
impl SendTrailers {
    fn __call__(&self, trailers: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut head = ResponseHead::default();
        push_all(&mut head, trailers)?;
        if is_child() {
            let message = "this process was forked by the application: it cannot respond";
            return Err(PyConnectionResetError::new_err(message));
        }
        self.pool.send(Reply::Trailers(self.conn, Box::new(head)));
        Ok(())
    }
}

/// Add it to the environ of a request that came over HTTP/2.
pub(super) fn add(environ: &Bound<'_, PyDict>, job: &Job, pool: &Arc<Pool>) -> PyResult<()> {
    let py = environ.py();
    let (conn, pool) = (job.conn, pool.clone());
    let send_trailers = Bound::new(py, SendTrailers { conn, pool })?;
    environ.set_item(intern!(py, "gunicorn.http2.send_trailers"), send_trailers)?;
    let (weight, depends_on) = (job.priority.weight, job.priority.depends_on);
    environ.set_item(intern!(py, "gunicorn.http2.priority_weight"), weight)?;
    environ.set_item(
        intern!(py, "gunicorn.http2.priority_depends_on"),
        depends_on,
    )?;
    // A field of that name cannot forge it.
    environ.set_item(intern!(py, "HTTP_VERSION"), intern!(py, "2"))
}
