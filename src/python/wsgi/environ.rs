//! A request as a WSGI environ: a copy of the listener's template, and what this request adds.
//!
//! PEP 3333, "environ Variables"; the keys and their order of precedence are gunicorn's.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::http::{ProxyHeader, ProxyRoute, RequestHead, percent_decode};
use crate::pool::{Job, Peer};
use crate::python::text::latin1;

use super::app::{ListenerFace, WsgiSettings};
use super::errors::Errors;
use super::file_wrapper::FileWrapper;
use super::headers::HeaderKeys;
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
    peer: Option<(Peer, Py<PyString>, Option<Py<PyString>>)>,
    /// Reused for the decoded path.
    path: Vec<u8>,
}

impl EnvironMaker {
    pub(super) fn new(py: Python<'_>, settings: Arc<WsgiSettings>) -> PyResult<Self> {
        let templates = settings
            .listeners
            .iter()
            .map(|face| Ok(template(py, &settings, face)?.unbind()))
            .collect::<PyResult<_>>()?;
        Ok(Self {
            templates,
            keys: HeaderKeys::default(),
            no_input: Py::new(py, Input::new(crate::pool::RequestBody::Empty))?,
            peer: None,
            path: Vec::new(),
            settings,
        })
    }

    /// The environ of `job`'s request. Takes the body out of the job.
    ///
    /// # Errors
    /// `MemoryError`.
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
        if let Some(header) = job.proxy {
            set_proxy(&environ, header)?;
        }
        for (name, value) in job.head.fields() {
            set_header(&environ, &self.keys.get(py, name), latin1(py, value)?)?;
        }
        if let Some(is_https) = job.forwarded.is_https {
            let scheme = match is_https {
                true => intern!(py, "https"),
                false => intern!(py, "http"),
            };
            environ.set_item(intern!(py, "wsgi.url_scheme"), scheme)?;
        }
        self.set_path(py, &environ, job)?;
        if let ListenerFace::Unix { path } = &self.settings.listeners[job.listener] {
            set_server_of_unix(
                py,
                &environ,
                path,
                job.head.field(b"host"),
                job.forwarded.is_https == Some(true),
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
        if self.peer.as_ref().is_none_or(|(known, ..)| *known != peer) {
            let text = |text: &str| PyString::new(py, text).unbind();
            let (ip, port) = match peer {
                Peer::Tcp(address) => (
                    text(&address.ip().to_string()),
                    Some(text(itoa::Buffer::new().format(address.port()))),
                ),
                // Another port than the client's own would be worse than none.
                Peer::Ip(ip) => (text(&ip.to_string()), None),
                Peer::Unix => (text(""), None),
            };
            self.peer = Some((peer, ip, port));
        }
        let (_, ip, port) = self.peer.as_ref().expect("the peer was just set");
        environ.set_item(intern!(py, "REMOTE_ADDR"), ip)?;
        match port {
            Some(port) => environ.set_item(intern!(py, "REMOTE_PORT"), port),
            None => Ok(()),
        }
    }

    /// The path was held against `SCRIPT_NAME` before the request was dispatched.
    fn set_path(&mut self, py: Python<'_>, environ: &Bound<'_, PyDict>, job: &Job) -> PyResult<()> {
        let script_name = match job.forwarded.has_script_name {
            true => job.head.field(b"script_name").unwrap_or_default(),
            false => self.settings.script_name.as_bytes(),
        };
        let mut path = job.head.path();
        if !script_name.is_empty() {
            path = path.strip_prefix(script_name).unwrap_or(path);
            environ.set_item(intern!(py, "SCRIPT_NAME"), latin1(py, script_name)?)?;
        }
        self.path.clear();
        percent_decode(path, &mut self.path);
        environ.set_item(intern!(py, "PATH_INFO"), latin1(py, &self.path)?)
    }
}

/// The proxy's end of the connection that it passes on; the client's end is in `REMOTE_ADDR`.
fn set_proxy(environ: &Bound<'_, PyDict>, header: ProxyHeader) -> PyResult<()> {
    let py = environ.py();
    environ.set_item(intern!(py, "PROXY_PROTOCOL"), header.protocol)?;
    if let ProxyRoute::Ip { proxy, .. } = header.route {
        environ.set_item(intern!(py, "PROXY_ADDR"), proxy.ip().to_string())?;
        environ.set_item(intern!(py, "PROXY_PORT"), proxy.port().to_string())?;
    }
    Ok(())
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
    is_https: bool,
) -> PyResult<()> {
    let default_port = if is_https { "443" } else { "80" };
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
