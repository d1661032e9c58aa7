//! What the operator's code does with each request: `pre_request`, `post_request`, and an access log of a custom logger.
//!
//! Without any of them there are no [`RequestHooks`], and a request costs one test of an `Option`. With them, `req` is
//! made before the application is called and `resp` afterwards, with gunicorn's attributes. All of it runs on the pool
//! thread, in gunicorn's order: `pre_request`, the application and its result, the access log, the result's `close()`,
//! `post_request`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyDelta, PyDict, PyList, PyString};

use crate::http::{ProxyHeader, ProxyRoute};
use crate::pool::{Job, Peer};
use crate::python::hooks::{Hook, HookError, Hooks, store};
use crate::python::text::latin1;
use crate::python::traceback;

use super::start_response::{Recorded, StartResponse};

/// A logger that writes the access log, in Python.
pub struct PythonAccessLog {
    pub logger: Py<PyAny>,
    /// Whether a path (as sent), a status and a time get a line. `None`: all do.
    pub admits: Option<Admits>,
}

/// See [`PythonAccessLog`].
pub type Admits = Box<dyn Fn(&[u8], u16, Duration) -> bool + Send + Sync>;

impl std::fmt::Debug for PythonAccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PythonAccessLog").finish_non_exhaustive()
    }
}

/// The hooks and the logger that see each request, and what their arguments are made with.
#[derive(Debug)]
pub struct RequestHooks {
    hooks: Arc<Hooks>,
    worker: Py<PyAny>,
    access_log: Option<PythonAccessLog>,
    request_class: Py<PyAny>,
    response_class: Py<PyAny>,
    /// `ferricorn._objects`
    objects: Py<PyModule>,
    /// Without a GIL threads raise `worker.nr` at the same time.
    counting: Mutex<()>,
}

impl RequestHooks {
    /// `None` when there is nothing to call.
    ///
    /// # Errors
    /// The package is not whole.
    pub fn new(
        py: Python<'_>,
        hooks: Arc<Hooks>,
        worker: Py<PyAny>,
        access_log: Option<PythonAccessLog>,
    ) -> PyResult<Option<Self>> {
        let is_hooked = hooks.is_set(Hook::PreRequest) || hooks.is_set(Hook::PostRequest);
        if access_log.is_none() && !is_hooked {
            return Ok(None);
        }
        let class = |module: &str, name: &str| py.import(module)?.getattr(name);
        Ok(Some(Self {
            hooks,
            worker,
            access_log,
            request_class: class("ferricorn._gunicorn.http.message", "Request")?.unbind(),
            response_class: class("ferricorn._gunicorn.http.wsgi", "Response")?.unbind(),
            objects: py.import("ferricorn._objects")?.unbind(),
            counting: Mutex::default(),
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
    ) -> PyResult<HookedRequest<'_, 'py>> {
        let py = environ.py();
        let worker = self.worker.bind(py);
        Ok(HookedRequest {
            request: self.request(environ, job)?,
            cfg: worker.getattr(intern!(py, "cfg"))?,
            worker: worker.clone(),
            environ: environ.clone(),
            path: match &self.access_log {
                Some(PythonAccessLog {
                    admits: Some(_), ..
                }) => job.head.path().to_vec(),
                _ => Vec::new(),
            },
            started: Instant::now(),
            hooks: self,
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

fn time_delta(py: Python<'_>, elapsed: Duration) -> PyResult<Bound<'_, PyDelta>> {
    let seconds = i32::try_from(elapsed.as_secs()).unwrap_or(i32::MAX);
    let micros = i32::try_from(elapsed.subsec_micros()).unwrap_or(0);
    PyDelta::new(py, 0, seconds, micros, true)
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

/// One request, with what its hooks are handed.
pub(super) struct HookedRequest<'a, 'py> {
    hooks: &'a RequestHooks,
    worker: Bound<'py, PyAny>,
    cfg: Bound<'py, PyAny>,
    request: Bound<'py, PyAny>,
    environ: Bound<'py, PyDict>,
    /// As it was sent, where the access log asks for it.
    path: Vec<u8>,
    started: Instant,
}

impl<'py> HookedRequest<'_, 'py> {
    fn py(&self) -> Python<'py> {
        self.worker.py()
    }

    /// Calls `pre_request`. What it changed of the request goes into the environ.
    ///
    /// # Errors
    /// The hook raised: the request fails.
    pub(super) fn pre_request(&mut self) -> Result<(), HookError> {
        let py = self.py();
        let raised = |error: PyErr| HookError::new(py, Hook::PreRequest, &error);
        if self.hooks.hooks.is_set(Hook::PreRequest) {
            let objects = self.hooks.objects.bind(py);
            let seen = objects
                .call_method1(intern!(py, "seen"), (&self.request,))
                .map_err(raised)?;
            let arguments = (&self.worker, &self.request);
            self.hooks.hooks.call(py, Hook::PreRequest, arguments)?;
            objects
                .call_method1(
                    intern!(py, "rewrite"),
                    (&self.environ, &self.request, &seen),
                )
                .map_err(raised)?;
        }
        self.started = Instant::now();
        self.count().map_err(raised)
    }

    fn count(&self) -> PyResult<()> {
        let _alone = (self.hooks.counting)
            .lock_py_attached(self.py())
            .unwrap_or_else(PoisonError::into_inner);
        let handled: u64 = self.worker.getattr(intern!(self.py(), "nr"))?.extract()?;
        store(&self.worker, "nr", handled + 1)
    }

    /// The access log, once the response is sent.
    pub(super) fn log_access(&self, start: &StartResponse) {
        let Some(log) = &self.hooks.access_log else {
            return;
        };
        let elapsed = self.started.elapsed();
        if let Some(admits) = &log.admits {
            // Where nothing was sent the answer is the server's.
            let status = match start.has_begun() {
                true => start.recorded().head.status_code(),
                false => 500,
            };
            if !admits(&self.path, status, elapsed) {
                return;
            }
        }
        let logged = self.response(start).and_then(|response| {
            if !start.has_begun() {
                // Nothing was sent, so the answer is the server's.
                response.setattr("status", "500 Internal Server Error")?;
                response.setattr("status_code", 500)?;
                response.setattr("headers", PyList::empty(self.py()))?;
            }
            let duration = time_delta(self.py(), elapsed)?;
            let arguments = (response, &self.request, &self.environ, duration);
            log.logger
                .call_method1(self.py(), intern!(self.py(), "access"), arguments)
        });
        if let Err(error) = logged {
            let trace = traceback::format(self.py(), &error);
            log::error!("The access log failed\n{trace}");
        }
    }

    /// Calls `post_request`, after everything else. `None`: the application was not called.
    pub(super) fn post_request(&self, start: Option<&StartResponse>) {
        let py = self.py();
        if !self.hooks.hooks.is_set(Hook::PostRequest) {
            return;
        }
        let called = match start.map(|start| self.response(start)).transpose() {
            Ok(Some(response)) => {
                let arguments = (&self.worker, &self.request, &self.environ, response);
                self.hooks.hooks.call(py, Hook::PostRequest, arguments)
            }
            Ok(None) => {
                let arguments = (&self.worker, &self.request, PyDict::new(py), py.None());
                self.hooks.hooks.call(py, Hook::PostRequest, arguments)
            }
            Err(error) => Err(HookError::new(py, Hook::PostRequest, &error)),
        };
        if let Err(error) = called {
            log::error!("{error}");
        }
    }

    /// The `resp`, as far as it has come.
    fn response(&self, start: &StartResponse) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        let class = self.hooks.response_class.bind(py);
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
        let has_body = has_body(code, method.eq("HEAD")?);
        let sent = sent_bytes(has_body, declared, body_bytes);
        let is_chunked = declared.is_none() && has_body;
        response.setattr(intern!(py, "chunked"), is_chunked)?;
        response
            .setattr(intern!(py, "sent"), sent)
            .map(|()| response)
    }
}

/// Whether a response carries the body that the application gave (RFC 9110 section 6.4.1).
fn has_body(status: u16, is_head: bool) -> bool {
    !matches!(status, 100..=199 | 204 | 304) && !is_head
}

/// How many bytes of the body the client is sent.
fn sent_bytes(has_body: bool, declared: Option<u64>, given: u64) -> u64 {
    match has_body {
        true => declared.map_or(given, |declared| declared.min(given)),
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_the_status_or_the_method_forbids_counts_as_nothing() {
        assert!(has_body(200, false));
        assert!(!has_body(200, true));
        for status in [100, 103, 204, 304] {
            assert!(!has_body(status, false), "{status}");
        }
        assert_eq!(sent_bytes(false, Some(5), 5), 0);
    }

    #[test]
    fn no_more_is_sent_than_was_declared() {
        assert_eq!(sent_bytes(true, Some(5), 9), 5);
        assert_eq!(sent_bytes(true, Some(9), 5), 5);
        assert_eq!(sent_bytes(true, None, 7), 7);
    }
}
