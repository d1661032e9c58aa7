//! What the application's environ and the server's name are made of: settings, listeners and the process's environment.

use pyo3::prelude::*;

use crate::config::{Config, VERSION};
use crate::net::Listener;
use crate::python::wsgi::{ListenerAddress, WsgiSettings};

pub(super) fn wsgi_settings(
    py: Python<'_>,
    config: &Config,
    listeners: &[Listener],
) -> WsgiSettings {
    WsgiSettings {
        multithread: config.workers.threads > 1,
        multiprocess: config.workers.workers > 1,
        server_software: of_gunicorn(py, "SERVER_SOFTWARE")
            .unwrap_or_else(|| format!("ferricorn/{VERSION}")),
        script_name: environment(py, "SCRIPT_NAME"),
        sendfile: config.http.sendfile,
        listeners: listeners.iter().map(address_of).collect(),
        noted_keys: Vec::new(),
        request_id_seed: None,
    }
}

/// The `Server` field's value; empty for none.
pub(super) fn server_header(py: Python<'_>, config: &Config) -> Vec<u8> {
    let text = config.http.server_header.clone();
    let text = text.or_else(|| of_gunicorn(py, "SERVER"));
    let text = text.unwrap_or_else(|| "ferricorn".to_owned());
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.into_bytes();
    }
    log::error!(
        "gunicorn.SERVER is not a valid header value, so no Server header is sent: {text:?}"
    );
    Vec::new()
}

/// Configuration files change gunicorn's name through its module; with the module installed that goes on to work.
fn of_gunicorn(py: Python<'_>, constant: &str) -> Option<String> {
    let modules = py.import("sys").and_then(|sys| sys.getattr("modules"));
    let module = modules.ok()?.get_item("gunicorn").ok()?;
    let value: String = module.getattr(constant).ok()?.extract().ok()?;
    let is_untouched = value == "gunicorn" || value.starts_with("gunicorn/");
    (!is_untouched).then_some(value)
}

/// As the application sees it: `raw_env` and `post_fork` may have changed it.
fn environment(py: Python<'_>, name: &str) -> String {
    let value = py.import("os").and_then(|os| {
        os.getattr("environ")?
            .call_method1("get", (name, ""))?
            .extract()
    });
    value.unwrap_or_default()
}

fn address_of(listener: &Listener) -> ListenerAddress {
    match listener {
        Listener::Tcp(listener) => {
            let address = listener.local_addr().ok();
            ListenerAddress::Tcp {
                name: address
                    .map(|address| address.ip().to_string())
                    .unwrap_or_default(),
                port: address.map_or(0, |address| address.port()),
            }
        }
        Listener::Unix(listener) => {
            let path = listener
                .local_addr()
                .ok()
                .and_then(|address| Some(address.as_pathname()?.display().to_string()));
            ListenerAddress::Unix {
                path: path.unwrap_or_default(),
            }
        }
    }
}
