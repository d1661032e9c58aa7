//! `Resolved` -> `Config`: gives each checked value its type.

use super::check::split_statsd;
use super::choices::{
    ClientCertificates, HeaderMap, Http2Cleartext, HttpProtocol, LogLevel, Password, Protocol,
    ProxyHeaders, ProxyProtocol, ReloadEngine, TlsVersion,
};
use super::cpus;
use super::resolved::Resolved;
use super::sections::{
    AccessLog, App, Config, Control, Debugging, Http, Http2, Lifecycle, Logging, Process, Proxy,
    RequestLimits, Socket, Statsd, Syslog, Tls, Workers,
};
use super::settings::workers;
use super::sources::RawSettings;
use super::value::Value;

use std::path::{Path, PathBuf};

/// A section. Its fields are read from the rows of the same name, by the reader before them; the fields in
/// braces have expressions of their own.
macro_rules! section {
    ($section:ident of $resolved:ident:
        $($reader:ident($($name:ident)+))* { $($field:ident: $value:expr,)* }) => {
        $section {
            $($($name: $resolved.$reader(stringify!($name)),)+)*
            $($field: $value,)*
        }
    };
}

pub(super) fn typed(resolved: Resolved, raw: &RawSettings, warnings: Vec<String>) -> Config {
    let r = &resolved;
    let app = app(r, raw);
    Config {
        socket: section! { Socket of r: number(backlog) on(reuse_port) { bind: bind(r), } },
        workers: workers(r, raw),
        lifecycle: lifecycle(r),
        http: http(r),
        http2: http2(r),
        limits: section! { RequestLimits of r:
            number(limit_request_line limit_request_fields limit_request_field_size)
            number(limit_request_body body_buffer_size body_buffer_total response_buffer_total)
            on(request_buffering)
            {}
        },
        proxy: proxy(r),
        debugging: section! { Debugging of r:
            on(reload spew check_config print_config) texts(reload_extra_files)
            { reload_engine: reload_engine(r), }
        },
        process: section! { Process of r:
            on(daemon initgroups) path(pidfile) number(user group umask)
            { proc_name: proc_name(r, &app), }
        },
        logging: logging(r),
        access_log: access_log(r),
        syslog: section! { Syslog of r:
            on(syslog disable_redirect_access_to_syslog)
            text(syslog_addr syslog_facility) filled(syslog_prefix)
            {}
        },
        statsd: section! { Statsd of r:
            text(statsd_prefix dogstatsd_tags) on(enable_backlog_metric)
            { statsd_host: r.filled("statsd_host").and_then(|address| split_statsd(&address)), }
        },
        control: control(r, &app.chdir),
        tls: tls(r, &app.chdir),
        app,
        warnings,
        resolved,
    }
}

fn app(r: &Resolved, raw: &RawSettings) -> App {
    let named = raw.app().map(str::to_owned);
    section! { App of r: on(preload_app) {
        wsgi_app: named.or_else(|| r.filled("wsgi_app")),
        chdir: r.path("chdir").unwrap_or_default(),
        raw_env: raw_env(r),
        pythonpath: pythonpath(r),
    } }
}

fn workers(r: &Resolved, raw: &RawSettings) -> Workers {
    let class = workers::class(r.value("worker_class"));
    // A greenlet per request, as many as there may be connections.
    let concurrency = match class.library() {
        None => "threads",
        Some(_) => "worker_connections",
    };
    let is_auto = raw.get("workers").and_then(Value::as_str) == Some("auto");
    section! { Workers of r:
        number(workers worker_connections max_queue) on(handover)
        seconds(timeout boot_timeout) time(request_timeout queue_timeout) path(worker_tmp_dir)
        {
            auto: is_auto.then(|| cpus::workers().reason),
            worker_class: class,
            threads: r.number::<usize>(concurrency).max(1),
            graceful_timeout: r.seconds("graceful_timeout").unwrap_or_default(),
        }
    }
}

fn lifecycle(r: &Resolved) -> Lifecycle {
    section! { Lifecycle of r:
        number(max_requests max_requests_jitter reload_surge max_retiring)
        number(max_worker_memory max_worker_lifetime_jitter) seconds(max_worker_lifetime)
        { stop_delay: r.seconds("stop_delay").unwrap_or_default(), }
    }
}

fn http(r: &Resolved) -> Http {
    let server_header = r.value("server_header").and_then(Value::as_str);
    section! { Http of r:
        seconds(keepalive client_header_timeout client_body_timeout send_timeout)
        on(permit_obsolete_folding strip_header_spaces casefold_http_method)
        on(permit_unconventional_http_method permit_unconventional_http_version)
        number(client_body_min_rate send_min_rate)
        {
            sendfile: r.value("sendfile").and_then(Value::as_bool).unwrap_or(true),
            server_header: server_header.map(str::to_owned),
            header_map: header_map(r),
        }
    }
}

fn http_protocols(r: &Resolved) -> Vec<HttpProtocol> {
    let protocol = |name: String| match name.as_str() {
        "h2" => HttpProtocol::H2,
        _ => HttpProtocol::H1,
    };
    r.texts("http_protocols")
        .into_iter()
        .map(protocol)
        .collect()
}

fn http2(r: &Resolved) -> Http2 {
    section! { Http2 of r:
        number(http2_max_concurrent_streams http2_initial_window_size)
        number(http2_max_frame_size http2_max_header_list_size)
        {
            http_protocols: http_protocols(r),
            http2_cleartext: match r.text("http2_cleartext").as_str() {
                "prior-knowledge" => Http2Cleartext::PriorKnowledge,
                "upgrade" => Http2Cleartext::Upgrade,
                "both" => Http2Cleartext::Both,
                _ => Http2Cleartext::Off,
            },
        }
    }
}

fn proxy(r: &Resolved) -> Proxy {
    section! { Proxy of r:
        peers(forwarded_allow_ips proxy_allow_ips uwsgi_allow_ips) texts(forwarder_headers)
        number(proxy_headers_hops)
        {
            secure_scheme_headers: secure_scheme_headers(r),
            proxy_protocol: proxy_protocol(r),
            protocol: match r.text("protocol").as_str() {
                "uwsgi" => Protocol::Uwsgi,
                _ => Protocol::Http,
            },
            proxy_headers: proxy_headers(r),
        }
    }
}

fn logging(r: &Resolved) -> Logging {
    section! { Logging of r:
        on(capture_output enable_stdio_inheritance) path(logconfig logconfig_json)
        {
            errorlog: r.filled("errorlog").unwrap_or_else(|| "-".to_owned()),
            loglevel: LogLevel::from_name(&r.text("loglevel")),
            logger_class: logger_class(r),
            logconfig_dict: r.value("logconfig_dict").cloned().unwrap_or(Value::None),
        }
    }
}

fn access_log(r: &Resolved) -> AccessLog {
    let min_status = u16::try_from(r.number::<u32>("access_log_min_status"));
    section! { AccessLog of r:
        filled(accesslog) text(access_log_format)
        texts(access_log_fields access_log_exclude) time(access_log_slow)
        { access_log_min_status: min_status.unwrap_or(u16::MAX), }
    }
}

fn control(r: &Resolved, chdir: &Path) -> Control {
    let is_disabled = r.on("control_socket_disable");
    section! { Control of r:
        number(control_socket_mode) filled(admin_bind health_path)
        {
            control_socket: r.path("control_socket").filter(|_| !is_disabled),
            admin_token: r.filled("admin_token").map(|text| secret(&text, chdir)),
        }
    }
}

fn secret(text: &str, chdir: &Path) -> Password {
    match Password::from_setting(text) {
        Password::File(path) => Password::File(chdir.join(path)),
        other => other,
    }
}

/// gunicorn's `is_ssl`: TLS is for all addresses or for none.
fn tls(r: &Resolved, chdir: &Path) -> Option<Tls> {
    let paths = |name: &str| -> Vec<PathBuf> {
        let texts = r.paths(name).into_iter();
        texts.map(|text| chdir.join(text)).collect()
    };
    let path = |name: &str| r.path(name).map(|path| chdir.join(path));
    let (certfile, keyfile) = (paths("certfile"), paths("keyfile"));
    if certfile.is_empty() && keyfile.is_empty() {
        return None;
    }
    let password = r.filled("keyfile_password");
    Some(Tls {
        certfile,
        keyfile,
        keyfile_password: password.map(|text| secret(&text, chdir)),
        ca_certs: path("ca_certs").into_iter().collect(),
        cert_reqs: ClientCertificates::from_number(r.number::<u32>("cert_reqs").into())
            .unwrap_or(ClientCertificates::Required),
        ssl_crl: path("ssl_crl"),
        ciphers: r.filled("ciphers"),
        ssl_minimum_version: match r.text("ssl_minimum_version").ends_with('3') {
            true => TlsVersion::Tls13,
            false => TlsVersion::Tls12,
        },
        http_protocols: http_protocols(r),
    })
}

/// The name as given, else the application's.
fn proc_name(r: &Resolved, app: &App) -> String {
    r.filled("proc_name")
        .or_else(|| app.wsgi_app.clone())
        .unwrap_or_else(|| r.text("default_proc_name"))
}

/// With an empty list the server could not be reached.
fn bind(r: &Resolved) -> Vec<String> {
    let bind = r.texts("bind");
    if bind.is_empty() {
        vec!["127.0.0.1:8000".to_owned()]
    } else {
        bind
    }
}

fn reload_engine(r: &Resolved) -> ReloadEngine {
    match r.text("reload_engine").as_str() {
        "poll" => ReloadEngine::Poll,
        "inotify" => ReloadEngine::Inotify,
        _ => ReloadEngine::Auto,
    }
}

fn proxy_protocol(r: &Resolved) -> ProxyProtocol {
    match r.text("proxy_protocol").as_str() {
        "v1" => ProxyProtocol::V1,
        "v2" => ProxyProtocol::V2,
        "auto" => ProxyProtocol::Auto,
        _ => ProxyProtocol::Off,
    }
}

fn proxy_headers(r: &Resolved) -> ProxyHeaders {
    match r.text("proxy_headers").as_str() {
        "x-forwarded-for" => ProxyHeaders::XForwardedFor,
        "forwarded" => ProxyHeaders::Forwarded,
        _ => ProxyHeaders::Off,
    }
}

fn header_map(r: &Resolved) -> HeaderMap {
    match r.text("header_map").as_str() {
        "refuse" => HeaderMap::Refuse,
        "dangerous" => HeaderMap::Dangerous,
        _ => HeaderMap::Drop,
    }
}

fn logger_class(r: &Resolved) -> Option<String> {
    let class = r
        .value("logger_class")
        .map(Value::to_string)
        .unwrap_or_default();
    // The metrics of the last one are sent by the server itself.
    let built_in = [
        "None",
        "",
        "simple",
        "gunicorn.glogging.Logger",
        "gunicorn.instrument.statsd.Statsd",
    ];
    // A class object arrives as Python's repr of it.
    let path = class
        .strip_prefix("<class '")
        .and_then(|rest| rest.strip_suffix("'>"))
        .unwrap_or(&class);
    (!built_in.contains(&path)).then_some(class)
}

fn raw_env(r: &Resolved) -> Vec<(String, String)> {
    let entries = r.texts("raw_env");
    let pairs = entries.iter().filter_map(|entry| entry.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn secure_scheme_headers(r: &Resolved) -> Vec<(String, String)> {
    let pairs = r
        .value("secure_scheme_headers")
        .and_then(Value::as_dict)
        .unwrap_or_default();
    let texts = pairs
        .iter()
        .filter_map(|(name, value)| Some((name.as_str()?, value.as_str()?)));
    texts
        .map(|(name, value)| (name.to_ascii_uppercase(), value.to_owned()))
        .collect()
}

fn pythonpath(r: &Resolved) -> Vec<String> {
    r.text("pythonpath")
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}
