//! `Resolved` -> `Config`: each checked value in the type its readers want.

use super::check::split_statsd;
use super::resolved::Resolved;
use super::settings::workers;
use super::sources::RawSettings;
use super::value::Value;
use super::{Config, HeaderMap, LogLevel, ProxyHeaders, ProxyProtocol, ReloadEngine, WorkerClass};

/// A `Config` whose fields are read from the rows of the same name by the reader of their line;
/// the fields in braces are worked out one by one.
macro_rules! config_of {
    ($resolved:ident: $($reader:ident($($name:ident)+))+ { $($field:ident: $value:expr,)+ }) => {
        Config {
            $($($name: $resolved.$reader(stringify!($name)),)+)+
            $($field: $value,)+
        }
    };
}

pub(super) fn typed(resolved: Resolved, raw: &RawSettings, warnings: Vec<String>) -> Config {
    let r = &resolved;
    let wsgi_app = raw
        .app()
        .map(str::to_owned)
        .or_else(|| r.filled("wsgi_app"));
    let proc_name = r.filled("proc_name").or_else(|| wsgi_app.clone());
    config_of! { r:
        number(backlog workers worker_connections max_requests max_requests_jitter)
        seconds(timeout keepalive boot_timeout)
        time(request_timeout queue_timeout)
        number(max_queue)
        seconds(client_header_timeout client_body_timeout send_timeout)
        number(reload_surge max_retiring max_worker_memory max_worker_lifetime_jitter)
        seconds(max_worker_lifetime)
        number(limit_request_line limit_request_fields limit_request_field_size)
        number(limit_request_body body_buffer_size body_buffer_total)
        on(request_buffering reload spew check_config print_config preload_app reuse_port daemon)
        on(initgroups permit_obsolete_folding strip_header_spaces casefold_http_method)
        on(permit_unconventional_http_method permit_unconventional_http_version)
        on(capture_output syslog disable_redirect_access_to_syslog enable_stdio_inheritance)
        on(enable_backlog_metric handover)
        path(pidfile worker_tmp_dir tmp_upload_dir logconfig logconfig_json)
        number(proxy_headers_hops user group umask control_socket_mode)
        peers(forwarded_allow_ips proxy_allow_ips)
        texts(reload_extra_files forwarder_headers access_log_fields access_log_exclude)
        time(access_log_slow)
        filled(accesslog syslog_prefix health_path admin_bind)
        text(access_log_format syslog_addr syslog_facility statsd_prefix dogstatsd_tags)
        {
            bind: bind(r),
            worker_class: worker_class(r),
            threads: r.number::<usize>("threads").max(1),
            graceful_timeout: r.seconds("graceful_timeout").unwrap_or_default(),
            stop_delay: r.seconds("stop_delay").unwrap_or_default(),
            reload_engine: reload_engine(r),
            sendfile: r.value("sendfile").and_then(Value::as_bool).unwrap_or(true),
            chdir: r.path("chdir").unwrap_or_default(),
            raw_env: raw_env(r),
            secure_scheme_headers: secure_scheme_headers(r),
            pythonpath: pythonpath(r),
            proxy_protocol: proxy_protocol(r),
            proxy_headers: proxy_headers(r),
            header_map: header_map(r),
            server_header: r.value("server_header").and_then(Value::as_str).map(str::to_owned),
            access_log_min_status: u16::try_from(r.number::<u32>("access_log_min_status")).unwrap_or(u16::MAX),
            errorlog: r.filled("errorlog").unwrap_or_else(|| "-".to_owned()),
            loglevel: LogLevel::from_name(&r.text("loglevel")),
            logger_class: logger_class(r),
            logconfig_dict: r.value("logconfig_dict").cloned().unwrap_or(Value::None),
            statsd_host: r.filled("statsd_host").and_then(|address| split_statsd(&address)),
            proc_name: proc_name.unwrap_or_else(|| r.text("default_proc_name")),
            wsgi_app: wsgi_app,
            control_socket: r.path("control_socket").filter(|_| !r.on("control_socket_disable")),
            warnings: warnings,
            resolved: resolved,
        }
    }
}

/// An empty list would be a server nobody can reach.
fn bind(r: &Resolved) -> Vec<String> {
    let bind = r.texts("bind");
    if bind.is_empty() {
        vec!["127.0.0.1:8000".to_owned()]
    } else {
        bind
    }
}

fn worker_class(r: &Resolved) -> WorkerClass {
    let class = r
        .value("worker_class")
        .map(Value::to_string)
        .unwrap_or_default();
    let is_sync = class.ends_with("sync") || class.contains(workers::SYNC_PATH);
    if is_sync && r.number::<usize>("threads") <= 1 {
        WorkerClass::Sync
    } else {
        WorkerClass::Gthread
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
