//! A request as a WSGI environ: a copy of the listener's template, and what this request adds.
//!
//! PEP 3333, "environ Variables"; the keys and their order of precedence are gunicorn's.

use std::net::SocketAddr;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::http::{RequestHead, percent_decode};
use crate::pool::{Job, Peer};
use crate::python::text::latin1;

use super::app::{ListenerFace, WsgiSettings};
use super::errors::Errors;
use super::file_wrapper::FileWrapper;
use super::headers::{From, HeaderKeys, HeaderRules};
use super::input::Input;

/// One thread's maker of environs.
#[derive(Debug)]
pub(super) struct EnvironMaker {
    settings: Arc<WsgiSettings>,
    /// What every request through one listener has in common.
    templates: Vec<Py<PyDict>>,
    keys: HeaderKeys,
    /// `wsgi.input` of requests without a body.
    no_input: Py<Input>,
    /// The last peer's address, which many requests of a keep-alive connection share.
    peer: Option<(SocketAddr, Py<PyString>, Py<PyString>)>,
    /// Reused for the decoded path.
    path: Vec<u8>,
}

impl EnvironMaker {
    pub(super) fn new(py: Python<'_>, settings: Arc<WsgiSettings>) -> PyResult<Self> {
        let rules = HeaderRules {
            secure_scheme: settings.secure_scheme_headers.clone(),
            forwarder: settings.forwarder_headers.clone(),
            dangerous: settings.dangerous_header_map,
        };
        let templates = settings
            .listeners
            .iter()
            .map(|face| Ok(template(py, &settings, face)?.unbind()))
            .collect::<PyResult<_>>()?;
        Ok(Self {
            templates,
            keys: HeaderKeys::new(Arc::new(rules)),
            no_input: Py::new(py, Input::new(crate::pool::RequestBody::Empty))?,
            peer: None,
            path: Vec::new(),
            settings,
        })
    }

    /// The environ of `job`'s request. Takes the body out of the job.
    ///
    /// # Errors
    /// `MemoryError`; `ValueError` when the path does not start with `SCRIPT_NAME`.
    pub(super) fn make<'py>(
        &mut self,
        py: Python<'py>,
        job: &mut Job,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.templates[job.listener].bind(py).copy()?;
        let head = &job.head;
        environ.set_item(intern!(py, "REQUEST_METHOD"), method(py, head.method())?)?;
        environ.set_item(intern!(py, "RAW_URI"), latin1(py, head.target())?)?;
        environ.set_item(intern!(py, "QUERY_STRING"), latin1(py, head.query())?)?;
        environ.set_item(intern!(py, "SERVER_PROTOCOL"), protocol(py, head)?)?;
        let body = std::mem::take(&mut job.body);
        if body.is_empty() {
            environ.set_item(intern!(py, "wsgi.input"), &self.no_input)?;
        } else {
            environ.set_item(intern!(py, "wsgi.input"), Bound::new(py, Input::new(body))?)?;
        }
        self.set_peer(py, &environ, job.peer)?;
        let forwarded = self.set_headers(py, &environ, job)?;
        if let Some(scheme) = forwarded.scheme {
            environ.set_item(intern!(py, "wsgi.url_scheme"), scheme)?;
        }
        self.set_path(py, &environ, &job.head, forwarded.script_name)?;
        if let ListenerFace::Unix { path } = &self.settings.listeners[job.listener] {
            set_server_of_unix(
                py,
                &environ,
                path,
                job.head.field(b"host"),
                forwarded.scheme,
            )?;
        }
        Ok(environ)
    }

    fn set_peer(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        peer: Peer,
    ) -> PyResult<()> {
        let Peer::Tcp(address) = peer else {
            return environ.set_item(intern!(py, "REMOTE_ADDR"), intern!(py, ""));
        };
        if self
            .peer
            .as_ref()
            .is_none_or(|(known, ..)| *known != address)
        {
            let ip = PyString::new(py, &address.ip().to_string()).unbind();
            let port = PyString::new(py, itoa::Buffer::new().format(address.port())).unbind();
            self.peer = Some((address, ip, port));
        }
        let (_, ip, port) = self.peer.as_ref().expect("the peer was just set");
        environ.set_item(intern!(py, "REMOTE_ADDR"), ip)?;
        environ.set_item(intern!(py, "REMOTE_PORT"), port)
    }

    fn set_headers<'a>(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        job: &'a Job,
    ) -> PyResult<Forwarded<'a>> {
        let mut forwarded = Forwarded {
            scheme: None,
            script_name: None,
        };
        for (name, value) in job.head.fields() {
            let key = self.keys.get(py, name);
            if key.from == From::Nobody || key.from == From::Trusted && !job.trusted {
                continue;
            }
            if job.trusted {
                if let Some(secure) = &key.secure_value {
                    forwarded.scheme = Some(if value == &secure[..] {
                        "https"
                    } else {
                        "http"
                    });
                }
                if key.is_script_name {
                    forwarded.script_name = Some(value);
                }
            }
            set_header(environ, key.key.bind(py), latin1(py, value)?)?;
        }
        Ok(forwarded)
    }

    fn set_path(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        head: &RequestHead,
        script_name: Option<&[u8]>,
    ) -> PyResult<()> {
        let script_name = script_name.unwrap_or(self.settings.script_name.as_bytes());
        let mut path = head.path();
        if !script_name.is_empty() {
            path = path.strip_prefix(script_name).ok_or_else(|| {
                PyValueError::new_err(format!(
                    "Configuration problem: Request path {:?} does not start with SCRIPT_NAME {:?}",
                    String::from_utf8_lossy(path),
                    String::from_utf8_lossy(script_name)
                ))
            })?;
            environ.set_item(intern!(py, "SCRIPT_NAME"), latin1(py, script_name)?)?;
        }
        self.path.clear();
        percent_decode(path, &mut self.path);
        environ.set_item(intern!(py, "PATH_INFO"), latin1(py, &self.path)?)
    }
}

/// What a trusted peer says about how the request came to it.
struct Forwarded<'a> {
    scheme: Option<&'static str>,
    script_name: Option<&'a [u8]>,
}

/// Set a header; values of a repeated one are joined with commas (RFC 9110 section 5.3).
fn set_header(
    environ: &Bound<'_, PyDict>,
    key: &Bound<'_, PyString>,
    value: Bound<'_, PyString>,
) -> PyResult<()> {
    match environ.get_item(key)? {
        None => environ.set_item(key, value),
        Some(first) => {
            let joined = format!(
                "{},{}",
                first.cast::<PyString>()?.to_str()?,
                value.to_str()?
            );
            environ.set_item(key, joined)
        }
    }
}

fn method<'py>(py: Python<'py>, method: &[u8]) -> PyResult<Bound<'py, PyString>> {
    Ok(match method {
        b"GET" => intern!(py, "GET").clone(),
        b"POST" => intern!(py, "POST").clone(),
        b"HEAD" => intern!(py, "HEAD").clone(),
        b"PUT" => intern!(py, "PUT").clone(),
        b"DELETE" => intern!(py, "DELETE").clone(),
        b"OPTIONS" => intern!(py, "OPTIONS").clone(),
        b"PATCH" => intern!(py, "PATCH").clone(),
        other => latin1(py, other)?,
    })
}

fn protocol<'py>(py: Python<'py>, head: &RequestHead) -> PyResult<Bound<'py, PyString>> {
    let version = head.version();
    match version.as_str() {
        "HTTP/1.1" => Ok(intern!(py, "HTTP/1.1").clone()),
        "HTTP/1.0" => Ok(intern!(py, "HTTP/1.0").clone()),
        other => latin1(py, other.as_bytes()),
    }
}

/// On a unix socket the client's `Host` is all that is known of the server's name.
fn set_server_of_unix(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    socket_path: &str,
    host: Option<&[u8]>,
    scheme: Option<&str>,
) -> PyResult<()> {
    let default_port = if scheme == Some("https") { "443" } else { "80" };
    let host = host.map(String::from_utf8_lossy);
    let (name, port) = match host.as_deref() {
        None | Some("") => (socket_path, ""),
        Some(host) => match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port),
            _ => (host, default_port),
        },
    };
    environ.set_item(intern!(py, "SERVER_NAME"), name)?;
    environ.set_item(intern!(py, "SERVER_PORT"), port)
}

fn template<'py>(
    py: Python<'py>,
    settings: &WsgiSettings,
    face: &ListenerFace,
) -> PyResult<Bound<'py, PyDict>> {
    let environ = PyDict::new(py);
    environ.set_item(intern!(py, "wsgi.version"), (1, 0))?;
    environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "http"))?;
    environ.set_item(intern!(py, "wsgi.errors"), Bound::new(py, Errors)?)?;
    environ.set_item(intern!(py, "wsgi.multithread"), settings.multithread)?;
    environ.set_item(intern!(py, "wsgi.multiprocess"), settings.multiprocess)?;
    environ.set_item(intern!(py, "wsgi.run_once"), false)?;
    environ.set_item(
        intern!(py, "wsgi.file_wrapper"),
        py.get_type::<FileWrapper>(),
    )?;
    environ.set_item(intern!(py, "wsgi.input_terminated"), true)?;
    environ.set_item(intern!(py, "SERVER_SOFTWARE"), &settings.server_software)?;
    environ.set_item(intern!(py, "SCRIPT_NAME"), intern!(py, ""))?;
    if let ListenerFace::Tcp { name, port } = face {
        environ.set_item(intern!(py, "SERVER_NAME"), name)?;
        environ.set_item(intern!(py, "SERVER_PORT"), port.to_string())?;
    }
    Ok(environ)
}
