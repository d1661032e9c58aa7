//! Requests that somebody watches: `pre_request`, `post_request`, and an access log of the operator's own.
//!
//! Without any of them there is no [`Watch`], and a request costs one look at that. With one, `req` is made before the
//! application is called and `resp` afterwards, with gunicorn's attributes; all on the pool thread, in gunicorn's order:
//! `pre_request`, the application and its result, the access log, the result's `close()`, `post_request`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDelta, PyDict, PyList, PyString};

use crate::http::{ProxyHeader, ProxyRoute};
use crate::pool::{Job, Peer};
use crate::python::hooks::Hooks;
use crate::python::text::latin1;

use super::start_response::{Recorded, StartResponse};

/// Who watches, and what they are handed.
#[derive(Debug)]
pub struct Watch {
    hooks: Arc<Hooks>,
    worker: Py<PyAny>,
    /// The logger of the operator's own, when it writes an access log.
    access_log: Option<Py<PyAny>>,
    request_class: Py<PyAny>,
    response_class: Py<PyAny>,
    /// `ferricorn._host`
    host: Py<PyModule>,
}

impl Watch {
    /// `None` when nobody watches.
    ///
    /// # Errors
    /// The package is not whole.
    pub fn new(
        py: Python<'_>,
        hooks: Arc<Hooks>,
        worker: Py<PyAny>,
        access_log: Option<Py<PyAny>>,
    ) -> PyResult<Option<Self>> {
        if access_log.is_none() && !hooks.is_set("pre_request") && !hooks.is_set("post_request") {
            return Ok(None);
        }
        let class = |module: &str, name: &str| py.import(module)?.getattr(name);
        Ok(Some(Self {
            hooks,
            worker,
            access_log,
            request_class: class("ferricorn._gunicorn.http.message", "Request")?.unbind(),
            response_class: class("ferricorn._gunicorn.http.wsgi", "Response")?.unbind(),
            host: py.import("ferricorn._host")?.unbind(),
        }))
    }

    /// Whether the thread writes the access log's lines.
    pub(super) fn logs_access(&self) -> bool {
        self.access_log.is_some()
    }

    /// A request begins. Its body is in `environ` already.
    pub(super) fn begin<'py>(
        &self,
        environ: &Bound<'py, PyDict>,
        job: &Job,
    ) -> PyResult<Watched<'_, 'py>> {
        let py = environ.py();
        let worker = self.worker.bind(py);
        Ok(Watched {
            request: self.request(environ, job)?,
            cfg: worker.getattr(intern!(py, "cfg"))?,
            worker: worker.clone(),
            environ: environ.clone(),
            started: Instant::now(),
            watch: self,
        })
    }

    fn request<'py>(&self, environ: &Bound<'py, PyDict>, job: &Job) -> PyResult<Bound<'py, PyAny>> {
        let py = environ.py();
        let head = &job.head;
        let version = head.version();
        let first_line = (
            environ.get_item(intern!(py, "REQUEST_METHOD"))?,
            environ.get_item(intern!(py, "RAW_URI"))?,
            latin1(py, head.path())?,
            environ.get_item(intern!(py, "QUERY_STRING"))?,
            (version.major(), version.minor()),
        );
        let headers = PyList::empty(py);
        for (name, value) in head.fields() {
            let name = latin1(py, &name.to_ascii_uppercase())?;
            headers.append((name, latin1(py, value)?))?;
        }
        let peer = match job.peer {
            Peer::Tcp(address) => address_tuple(py, address)?,
            Peer::Ip(ip) => (ip.to_string(), py.None()).into_pyobject(py)?.into_any(),
            Peer::Unix => PyString::new(py, "").into_any(),
        };
        let proxy = job.proxy.map(|header| proxy_info(py, header)).transpose()?;
        self.request_class.bind(py).call1((
            self.worker.getattr(py, intern!(py, "cfg"))?,
            peer,
            first_line,
            headers,
            environ.get_item(intern!(py, "wsgi.url_scheme"))?,
            environ.get_item(intern!(py, "wsgi.input"))?,
            proxy.flatten(),
        ))
    }
}

fn address_tuple(py: Python<'_>, address: SocketAddr) -> PyResult<Bound<'_, PyAny>> {
    let pair = (address.ip().to_string(), address.port());
    Ok(pair.into_pyobject(py)?.into_any())
}

fn proxy_info(py: Python<'_>, header: ProxyHeader) -> PyResult<Option<Bound<'_, PyDict>>> {
    let ProxyRoute::Ip { client, proxy } = header.route else {
        return Ok(None);
    };
    let info = PyDict::new(py);
    info.set_item("proxy_protocol", header.protocol)?;
    info.set_item("client_addr", client.ip().to_string())?;
    info.set_item("client_port", client.port())?;
    info.set_item("proxy_addr", proxy.ip().to_string())?;
    info.set_item("proxy_port", proxy.port())?;
    Ok(Some(info))
}

/// One request that is watched.
pub(super) struct Watched<'a, 'py> {
    watch: &'a Watch,
    worker: Bound<'py, PyAny>,
    cfg: Bound<'py, PyAny>,
    request: Bound<'py, PyAny>,
    environ: Bound<'py, PyDict>,
    started: Instant,
}

impl<'py> Watched<'_, 'py> {
    fn py(&self) -> Python<'py> {
        self.worker.py()
    }

    /// `pre_request`; what it changed of the request goes into the environ. The error is for the log: the request fails.
    pub(super) fn before(&mut self) -> Result<(), String> {
        let py = self.py();
        let raised = |error: PyErr| crate::python::hooks::traceback(py, &error);
        if self.watch.hooks.is_set("pre_request") {
            let host = self.watch.host.bind(py);
            let seen = host
                .call_method1(intern!(py, "seen"), (&self.request,))
                .map_err(raised)?;
            let arguments = (&self.worker, &self.request);
            self.watch.hooks.call(py, "pre_request", arguments)?;
            host.call_method1(
                intern!(py, "rewrite"),
                (&self.environ, &self.request, &seen),
            )
            .map_err(raised)?;
        }
        self.started = Instant::now();
        self.count().map_err(raised)
    }

    fn count(&self) -> PyResult<()> {
        let name = intern!(self.py(), "nr");
        let handled: u64 = self.worker.getattr(name)?.extract()?;
        self.worker.setattr(name, handled + 1)
    }

    /// The access log, once the response is handed over.
    pub(super) fn log_access(&self, start: &StartResponse) {
        let Some(log) = &self.watch.access_log else {
            return;
        };
        let logged = self.response(start).and_then(|response| {
            if !start.has_begun() {
                // Nothing was sent, so the answer is the server's.
                response.setattr("status", "500 Internal Server Error")?;
                response.setattr("status_code", 500)?;
                response.setattr("headers", PyList::empty(self.py()))?;
            }
            let elapsed = self.started.elapsed();
            let (seconds, micros) = (elapsed.as_secs(), elapsed.subsec_micros());
            let duration = PyDelta::new(
                self.py(),
                0,
                i32::try_from(seconds).unwrap_or(i32::MAX),
                i32::try_from(micros).unwrap_or(0),
                true,
            )?;
            let arguments = (response, &self.request, &self.environ, duration);
            log.call_method1(self.py(), intern!(self.py(), "access"), arguments)
        });
        if let Err(error) = logged {
            let trace = crate::python::hooks::traceback(self.py(), &error);
            log::error!("The access log failed\n{trace}");
        }
    }

    /// `post_request`, when all is done. `None`: the application was not called.
    pub(super) fn after(&self, start: Option<&StartResponse>) {
        let py = self.py();
        if !self.watch.hooks.is_set("post_request") {
            return;
        }
        let called = match start.map(|start| self.response(start)).transpose() {
            Ok(Some(response)) => {
                let arguments = (&self.worker, &self.request, &self.environ, response);
                self.watch.hooks.call(py, "post_request", arguments)
            }
            Ok(None) => {
                let arguments = (&self.worker, &self.request, PyDict::new(py), py.None());
                self.watch.hooks.call(py, "post_request", arguments)
            }
            Err(error) => Err(crate::python::hooks::traceback(py, &error)),
        };
        if let Err(reason) = called {
            log::error!("Exception in post_request hook\n{reason}");
        }
    }

    /// The `resp`, as far as it has come.
    fn response(&self, start: &StartResponse) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        let class = self.watch.response_class.bind(py);
        let response = class.call1((&self.request, py.None(), &self.cfg))?;
        let Recorded { head, body_bytes } = start.recorded();
        let has_begun = start.has_begun();
        response.setattr(intern!(py, "headers_sent"), has_begun)?;
        if !head.is_set() {
            return Ok(response);
        }
        let code = head.status_code();
        response.setattr(intern!(py, "status"), latin1(py, head.status())?)?;
        response.setattr(intern!(py, "status_code"), code)?;
        let headers = PyList::empty(py);
        for (name, value) in head.fields() {
            headers.append((latin1(py, name)?, latin1(py, value)?))?;
        }
        response.setattr(intern!(py, "headers"), headers)?;
        let declared = head.content_length();
        response.setattr(intern!(py, "response_length"), declared)?;
        let method = self.request.getattr(intern!(py, "method"))?;
        let has_no_body = matches!(code, 100..=199 | 204 | 304) || method.eq("HEAD")?;
        let sent = if has_no_body {
            0
        } else {
            declared.map_or(body_bytes, |declared| declared.min(body_bytes))
        };
        let is_chunked = declared.is_none() && !has_no_body;
        response.setattr(intern!(py, "chunked"), is_chunked)?;
        response
            .setattr(intern!(py, "sent"), sent)
            .map(|()| response)
    }
}
