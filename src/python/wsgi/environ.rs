//! A request as a WSGI environ: a copy of the listener's base environ, and what this request adds.
//!
//! PEP 3333, "environ Variables"; the keys and their order of precedence are gunicorn's.

use std::net::IpAddr;
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::http::{ProxyHeader, ProxyRoute, RequestHead, Version, percent_decode};
use crate::pool::{Job, Peer};
use crate::python::text::latin1;

use super::errors::Errors;
use super::file_wrapper::FileWrapper;
use super::headers::HeaderKeys;
use super::input::Input;
use super::tls_environ::set_tls;
use super::wsgi_settings::{ListenerAddress, WsgiSettings};

/// Makes the environs of one pool thread.
#[derive(Debug)]
pub(super) struct EnvironMaker {
    settings: Arc<WsgiSettings>,
    /// Per listener, what all of its requests have in common.
    base_environs: Vec<Py<PyDict>>,
    keys: HeaderKeys,
    /// `wsgi.input` of requests without a body.
    no_input: Py<Input>,
    /// The last peer's address. Successive requests often share it: of one client, or of one proxy.
    ip: Option<(Option<IpAddr>, Py<PyString>)>,
    /// Reused for the decoded path.
    path: Vec<u8>,
}

impl EnvironMaker {
    pub(super) fn new(py: Python<'_>, settings: Arc<WsgiSettings>) -> PyResult<Self> {
        let base_environs = settings
            .listeners
            .iter()
            .map(|address| Ok(base_environ(py, &settings, address)?.unbind()))
            .collect::<PyResult<_>>()?;
        Ok(Self {
            base_environs,
            keys: HeaderKeys::default(),
            no_input: Py::new(py, Input::new(crate::pool::RequestBody::Empty))?,
            ip: None,
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
        let environ = self.base_environs[job.listener].bind(py).copy()?;
        let head = &job.head;
        environ.set_item(intern!(py, "REQUEST_METHOD"), method(py, head.method())?)?;
        let target = latin1(py, head.target())?;
        environ.set_item(intern!(py, "RAW_URI"), &target)?;
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
        for (index, (name, value)) in job.head.fields().enumerate() {
            let (key, known) = (self.keys.get(py, name), environ.len());
            environ.set_item(&key, latin1(py, value)?)?;
            if environ.len() == known {
                environ.set_item(&key, self.join_repeated(py, &key, &job.head, index)?)?;
            }
        }
        if let Some(tls) = &job.tls {
            set_tls(&environ, tls)?;
        }
        if let Some(is_https) = job.forwarded.is_https {
            let scheme = match is_https {
                true => intern!(py, "https"),
                false => intern!(py, "http"),
            };
            environ.set_item(intern!(py, "wsgi.url_scheme"), scheme)?;
        }
        self.set_path(py, &environ, job, target)?;
        if let ListenerAddress::Unix { path } = &self.settings.listeners[job.listener] {
            set_server_of_unix(py, &environ, path, job.head.field(b"host"), job.is_https())?;
        }
        Ok(environ)
    }

    /// The values of the fields up to `last` whose key is `key`, joined with commas (RFC 9110 section 5.3).
    fn join_repeated<'py>(
        &mut self,
        py: Python<'py>,
        key: &Bound<'py, PyString>,
        head: &RequestHead,
        last: usize,
    ) -> PyResult<Bound<'py, PyString>> {
        let mut joined = Vec::new();
        for (name, value) in head.fields().take(last + 1) {
            // Keys are interned, so the same key is the same object.
            if self.keys.get(py, name).is(key) {
                joined.extend_from_slice(value);
                joined.push(b',');
            }
        }
        joined.pop();
        latin1(py, &joined)
    }

    fn set_peer(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        peer: Peer,
    ) -> PyResult<()> {
        let (ip, port) = match peer {
            Peer::Tcp(address) => (Some(address.ip()), Some(address.port())),
            // The proxy's port would be wrong, so there is none.
            Peer::Ip(ip) => (Some(ip), None),
            Peer::Unix => (None, None),
        };
        if self.ip.as_ref().is_none_or(|(known, _)| *known != ip) {
            let text = ip.map_or_else(String::new, |ip| ip.to_string());
            self.ip = Some((ip, PyString::new(py, &text).unbind()));
        }
        let (_, text) = self.ip.as_ref().expect("the address was just set");
        environ.set_item(intern!(py, "REMOTE_ADDR"), text)?;
        match port {
            Some(port) => {
                environ.set_item(intern!(py, "REMOTE_PORT"), itoa::Buffer::new().format(port))
            }
            None => environ.del_item(intern!(py, "REMOTE_PORT")),
        }
    }

    /// The loop has checked that the path begins with `SCRIPT_NAME`.
    fn set_path<'py>(
        &mut self,
        py: Python<'py>,
        environ: &Bound<'py, PyDict>,
        job: &Job,
        target: Bound<'py, PyString>,
    ) -> PyResult<()> {
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
        let path_info = match self.path == job.head.target() {
            true => target,
            false => latin1(py, &self.path)?,
        };
        environ.set_item(intern!(py, "PATH_INFO"), path_info)
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
    match head.version() {
        Version::HTTP_11 => Ok(intern!(py, "HTTP/1.1").clone()),
        Version::HTTP_10 => Ok(intern!(py, "HTTP/1.0").clone()),
        other => latin1(py, other.as_str().as_bytes()),
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

fn base_environ<'py>(
    py: Python<'py>,
    settings: &WsgiSettings,
    address: &ListenerAddress,
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
    if let ListenerAddress::Tcp { name, port } = address {
        environ.set_item(intern!(py, "SERVER_NAME"), name)?;
        environ.set_item(intern!(py, "SERVER_PORT"), port.to_string())?;
    }
    // The keys that each request sets: a copy has a slot for them, and is large enough for a browser's fields.
    for key in [
        intern!(py, "REQUEST_METHOD"),
        intern!(py, "RAW_URI"),
        intern!(py, "QUERY_STRING"),
        intern!(py, "SERVER_PROTOCOL"),
        intern!(py, "wsgi.input"),
        intern!(py, "REMOTE_ADDR"),
        intern!(py, "REMOTE_PORT"),
        intern!(py, "PATH_INFO"),
        intern!(py, "wsgi.early_hints"),
        intern!(py, "ferricorn.client_disconnected"),
    ] {
        environ.set_item(key, py.None())?;
    }
    Ok(environ)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadScan, Limits, parse_head};
    use crate::python::with_interpreter;
    use std::time::Instant;

    fn settings(address: ListenerAddress, script_name: &str) -> Arc<WsgiSettings> {
        Arc::new(WsgiSettings {
            multithread: true,
            multiprocess: false,
            server_software: "ferricorn".to_owned(),
            script_name: script_name.to_owned(),
            sendfile: true,
            listeners: vec![address],
            noted_keys: Vec::new(),
            request_id_seed: None,
        })
    }

    fn tcp() -> ListenerAddress {
        ListenerAddress::Tcp {
            name: "127.0.0.1".to_owned(),
            port: 8000,
        }
    }

    fn unix() -> ListenerAddress {
        ListenerAddress::Unix {
            path: "/run/app.sock".to_owned(),
        }
    }

    fn job(head: &str) -> Job {
        let mut job = Job::new(Instant::now());
        let parsed = parse_head(
            head.as_bytes(),
            &mut HeadScan::default(),
            &Limits::default(),
            &mut job.head,
        );
        assert!(parsed.is_ok_and(|end| end.is_some()), "the head is whole");
        job.peer = Peer::Tcp(([192, 0, 2, 1], 50_000).into());
        job
    }

    fn shown(settings: Arc<WsgiSettings>, head: &str, keys: &[&str]) -> Vec<String> {
        with_interpreter(|py| {
            let mut maker = EnvironMaker::new(py, settings).unwrap();
            let environ = maker.make(py, &mut job(head)).unwrap();
            let value = |key: &&str| {
                let value = environ.get_item(key).unwrap();
                value.map_or_else(|| "(none)".to_owned(), |value| value.to_string())
            };
            keys.iter().map(value).collect()
        })
    }

    #[test]
    fn a_target_is_shown_raw_and_decoded() {
        let head = "GET /a%20b/%E9?q=%20 HTTP/1.1\r\nHost: x\r\n\r\n";
        let keys = ["REQUEST_METHOD", "RAW_URI", "PATH_INFO", "QUERY_STRING"];
        assert_eq!(
            shown(settings(tcp(), ""), head, &keys),
            ["GET", "/a%20b/%E9?q=%20", "/a b/\u{e9}", "q=%20"]
        );
    }

    #[test]
    fn a_mount_point_is_taken_off_the_path() {
        let head = "GET /site/page HTTP/1.1\r\nHost: x\r\n\r\n";
        let keys = ["SCRIPT_NAME", "PATH_INFO"];
        assert_eq!(
            shown(settings(tcp(), "/site"), head, &keys),
            ["/site", "/page"]
        );
    }

    #[test]
    fn repeated_fields_are_joined_in_their_order() {
        let head = "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nAccept: */*\r\nx-a: 2\r\n\r\n";
        let keys = ["HTTP_X_A", "HTTP_ACCEPT", "HTTP_X_B"];
        assert_eq!(
            shown(settings(tcp(), ""), head, &keys),
            ["1,2", "*/*", "(none)"]
        );
    }

    #[test]
    fn on_a_unix_socket_the_host_field_names_the_server() {
        let keys = ["SERVER_NAME", "SERVER_PORT"];
        for (host, expected) in [
            ("Host: example.org:8080\r\n", ["example.org", "8080"]),
            ("Host: example.org\r\n", ["example.org", "80"]),
            ("Host: [2001:db8::1]\r\n", ["[2001:db8::1]", "80"]),
            ("Host: [2001:db8::1]:81\r\n", ["[2001:db8::1]", "81"]),
            ("Host:\r\n", ["/run/app.sock", ""]),
        ] {
            let head = format!("GET / HTTP/1.1\r\n{host}\r\n");
            assert_eq!(
                shown(settings(unix(), ""), &head, &keys),
                expected,
                "{host}"
            );
        }
    }

    #[test]
    fn the_peer_is_the_connections() {
        let head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let keys = ["REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT"];
        assert_eq!(
            shown(settings(tcp(), ""), head, &keys),
            ["192.0.2.1", "50000", "127.0.0.1", "8000"]
        );
    }
}
