//! `RawSettings` -> `Config`: every row checked, all mistakes reported at once.

use super::bad_value::BadValue;
use super::check::check;
use super::choices::{LogLevel, Password, WorkerClass};
use super::resolved::Resolved;
use super::sections::Config;
use super::setting_error::Error;
use super::settings::{self, Setting, Verdict, workers};
use super::sources::{RawSettings, Source};
use super::typed::typed;
use super::value::Value;

/// The settings of a server that is to serve: also asks for an application.
pub fn validate(raw: RawSettings) -> Result<Config, Vec<Error>> {
    let config = build(raw)?;
    if config.app.wsgi_app.is_none() {
        Err(vec![Error::NoApplication])
    } else {
        Ok(config)
    }
}

/// As `validate`, but the application may be missing.
pub fn build(raw: RawSettings) -> Result<Config, Vec<Error>> {
    let mut errors = Vec::new();
    let mut warnings = raw.warnings().to_vec();
    let mut resolved = Resolved::default();
    for setting in settings::all() {
        match resolve(setting, &raw) {
            Ok((value, source)) => {
                warnings.extend(warning(setting, &value, &source));
                errors.extend(refusal(setting, &value, &source));
                resolved.push(setting, value, source);
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        errors.extend(across(&resolved));
    }
    if is_http2_idle(&resolved) {
        warnings.push(HTTP2_IDLE.to_owned());
    }
    if let Some(name) = setting_without_tls(&resolved) {
        warnings.push(format!("{name} is set, but neither certfile nor keyfile is: there is no TLS, and no client is asked for a certificate."));
    }
    if workers::class(resolved.value("worker_class")) == WorkerClass::Eventlet {
        warnings.push(EVENTLET.to_owned());
    }
    if errors.is_empty() {
        Ok(typed(resolved, &raw, warnings))
    } else {
        Err(errors)
    }
}

/// The defaults, without an application. Tests start from these.
impl Default for Config {
    fn default() -> Self {
        build(RawSettings::default()).expect("the table's own defaults are valid")
    }
}

const EVENTLET: &str = "eventlet itself asks its users to move on, and gunicorn 26 has removed its worker: -k gevent does the same.";
const HTTP2_IDLE: &str = "http_protocols includes h2 but there is no TLS and http2_cleartext is off, so HTTP/2 will never be negotiated.";

/// No client can find out that HTTP/2 is spoken.
fn is_http2_idle(resolved: &Resolved) -> bool {
    resolved
        .texts("http_protocols")
        .iter()
        .any(|protocol| protocol == "h2")
        && resolved.text("http2_cleartext") == "off"
        && !has_tls(resolved)
}

fn has_tls(resolved: &Resolved) -> bool {
    ["certfile", "keyfile"]
        .iter()
        .any(|name| !resolved.paths(name).is_empty())
}

/// What an operator sets who wants clients to be verified, which TLS alone does. gunicorn starts too, without a word.
fn setting_without_tls(resolved: &Resolved) -> Option<&'static str> {
    if has_tls(resolved) {
        return None;
    }
    let has_file = |name: &&str| resolved.filled(name).is_some();
    match ["ca_certs", "ssl_crl"].into_iter().find(has_file) {
        None if resolved.number::<u32>("cert_reqs") != 0 => Some("cert_reqs"),
        found => found,
    }
}

fn resolve(setting: &Setting, raw: &RawSettings) -> Result<(Value, Source), Error> {
    let source = raw.source(setting.name).cloned().unwrap_or(Source::Default);
    let given = raw
        .get(setting.name)
        .cloned()
        .unwrap_or_else(|| setting.default_value());
    match check(setting, &given) {
        Ok(value) => Ok((value, source)),
        Err(reason) => Err(Error::Invalid {
            name: setting.name,
            value: setting.shown(&given),
            origin: source,
            reason,
        }),
    }
}

/// Warns of a setting that was changed and has no effect here, of a level that gunicorn takes for info, and of no workers.
fn warning(setting: &Setting, value: &Value, source: &Source) -> Option<String> {
    if setting.name == "loglevel" && !value.as_str().is_none_or(LogLevel::is_name) {
        let (name, levels) = (setting.name, "debug, info, warning, error, critical");
        return Some(format!(
            "{name} = {value} ({source}) is none of {levels}: info is used."
        ));
    }
    if setting.name == "workers" && value.as_int() == Some(0) {
        return Some(format!(
            "workers = 0 ({source}): nothing is answered until a worker is added (SIGTTIN)."
        ));
    }
    let why = match setting.verdict {
        Verdict::NoEffect(why) => why,
        Verdict::Works | Verdict::Refused { .. } => return None,
    };
    let default = check(setting, &setting.default_value()).ok();
    if *source == Source::Default || default.as_ref() == Some(value) {
        return None;
    }
    if setting.name == "ssl_version" {
        return Some(SSL_VERSION.to_owned());
    }
    let shown = setting.shown(value);
    Some(format!(
        "{} = {shown} ({source}) has no effect: {why}.",
        setting.name
    ))
}

/// gunicorn's words.
const SSL_VERSION: &str =
    "option `ssl_version` is deprecated and it is ignored. Use ssl_context instead.";

/// Stops a value that must not be ignored in silence.
fn refusal(setting: &Setting, value: &Value, source: &Source) -> Option<Error> {
    let message = match setting.verdict {
        Verdict::Refused { allowed, message } if !allowed.contains(&value.to_string().as_str()) => {
            message.to_owned()
        }
        _ if setting.name == "worker_class" => workers::refusal(&value.to_string())?,
        _ => return None,
    };
    let name = setting.name;
    Some(Error::Refused {
        name,
        value: value.to_string(),
        origin: source.clone(),
        message,
    })
}

/// Rules that need more than the value of one row.
fn across(resolved: &Resolved) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut invalid = |name, reason| {
        let value = resolved
            .value(name)
            .zip(settings::find(name))
            .map(|(value, setting)| setting.shown(value))
            .unwrap_or_default();
        let origin = resolved.source(name).cloned().unwrap_or(Source::Default);
        errors.push(Error::Invalid {
            name,
            value,
            origin,
            reason,
        });
    };
    let is_typed = resolved.source("admin_token") == Some(&Source::CommandLine);
    let token = resolved.filled("admin_token").filter(|_| is_typed);
    if token.is_some_and(|text| matches!(Password::from_setting(&text), Password::Text(_))) {
        invalid("admin_token", BadValue::SecretInSight);
    }
    for entry in resolved.texts("raw_env") {
        if !entry.contains('=') {
            invalid("raw_env", BadValue::NotAssignment(entry));
        }
    }
    if let Some(directory) = resolved.path("worker_tmp_dir") {
        // The server has changed to `chdir` by the time the directory is used.
        let base = resolved.path("chdir").unwrap_or_default();
        if !base.join(&directory).is_dir() {
            invalid("worker_tmp_dir", BadValue::NoTemporaryDirectory(directory));
        }
    }
    let headers = resolved
        .value("secure_scheme_headers")
        .and_then(Value::as_dict);
    for (name, value) in headers.unwrap_or_default() {
        if name.as_str().is_none() || value.as_str().is_none() {
            let odd = if name.as_str().is_none() { name } else { value };
            invalid("secure_scheme_headers", BadValue::NotText(odd.clone()));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::HttpProtocol;
    use std::time::Duration;

    fn given(pairs: &[(&str, Value)]) -> RawSettings {
        let mut raw = RawSettings::default();
        for (name, value) in pairs {
            let setting = settings::find(name).unwrap();
            raw.set(
                setting,
                value.clone(),
                Source::File("gunicorn.conf.py".to_owned()),
            );
        }
        raw
    }

    fn built(pairs: &[(&str, Value)]) -> Config {
        build(given(pairs)).unwrap()
    }

    /// The one message that a value gets.
    fn complaint(name: &str, value: Value) -> String {
        let errors = build(given(&[(name, value)])).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        match &errors[0] {
            Error::Invalid { reason, .. } => reason.to_string(),
            Error::Refused { message, .. } => message.clone(),
            Error::NoApplication => errors[0].to_string(),
        }
    }

    #[test]
    fn defaults_are_those_of_gunicorn_but_for_keepalive() {
        let config = Config::default();
        assert_eq!(config.socket.bind, ["127.0.0.1:8000"]);
        assert_eq!(
            (
                config.workers.workers,
                config.workers.threads,
                config.socket.backlog
            ),
            (1, 1, 2048)
        );
        assert_eq!(config.workers.timeout, Some(Duration::from_secs(30)));
        assert_eq!(config.http.keepalive, Some(Duration::from_secs(65)));
        assert_eq!(config.limits.limit_request_line, 4094);
        assert_eq!(config.workers.request_timeout, None);
        assert!(config.limits.request_buffering && config.http.sendfile && !config.app.preload_app);
        assert_eq!(config.logging.errorlog, "-");
        assert_eq!(config.access_log.accesslog, None);
        assert!(config.app.chdir.is_absolute());
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        assert!(
            config
                .proxy
                .forwarded_allow_ips
                .contains("::1".parse().unwrap())
        );
        assert_eq!(
            validate(RawSettings::default()).unwrap_err(),
            [Error::NoApplication]
        );
    }

    #[test]
    fn takes_what_config_files_hold() {
        let config = built(&[
            ("bind", Value::str("unix:/x")),
            ("workers", Value::str("0x10")),
            ("threads", Value::Int(0)),
            ("timeout", Value::Int(0)),
            ("reload", Value::str("True")),
            ("raw_env", Value::List(vec![Value::str("A=b=c")])),
            ("pythonpath", Value::str("/a, b")),
            ("sendfile", Value::Bool(true)),
            ("loglevel", Value::str("WARNING")),
            (
                "worker_class",
                Value::Opaque("<class 'gunicorn.workers.gthread.ThreadWorker'>".to_owned()),
            ),
            ("statsd_host", Value::str("LOCALHOST")),
            ("user", Value::None),
        ]);
        assert_eq!(config.socket.bind, ["unix:/x"]);
        assert_eq!(
            (
                config.workers.workers,
                config.workers.threads,
                config.workers.timeout
            ),
            (16, 1, None)
        );
        assert!(config.debugging.reload && config.http.sendfile);
        assert_eq!(config.app.raw_env, [("A".to_owned(), "b=c".to_owned())]);
        assert_eq!(config.app.pythonpath, ["/a", "b"]);
        assert_eq!(config.logging.loglevel, LogLevel::Warning);
        let statsd = crate::config::StatsdAddress::Udp {
            host: "localhost".to_owned(),
            port: 8125,
        };
        assert_eq!(config.statsd.statsd_host, Some(statsd));
        assert_eq!(config.process.user, nix::unistd::geteuid().as_raw());
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn complains_as_gunicorn() {
        let text = Value::str;
        for (name, value, message) in [
            ("workers", Value::Int(-1), "Value must be positive: -1"),
            (
                "workers",
                text("abc"),
                "invalid literal for int() with base 0: 'abc'",
            ),
            (
                "workers",
                Value::Opaque("1.5".to_owned()),
                "int() can't convert non-string with explicit base",
            ),
            ("reload", text("x"), "Invalid boolean: x"),
            ("reload", Value::Int(1), "Invalid type for casting: 1"),
            (
                "secure_scheme_headers",
                text("x"),
                "Value is not a dictionary: x",
            ),
            ("pidfile", Value::Int(1), "Not a string: 1"),
            (
                "reload_extra_files",
                text("/no/file"),
                "File /no/file does not exists.",
            ),
            (
                "user",
                text("nobody-by-that-name"),
                "No such user: 'nobody-by-that-name'",
            ),
            (
                "group",
                text("nobody-by-that-name"),
                "No such group: 'nobody-by-that-name'",
            ),
            ("chdir", text("/no/dir"), "can't chdir to '/no/dir'"),
            (
                "statsd_host",
                text("a:b"),
                "Value must be one of ('host:port', 'unix://PATH')",
            ),
            ("reload_engine", text("x"), "Invalid reload_engine: 'x'"),
            ("header_map", text("x"), "Invalid header map behaviour: x"),
            (
                "forwarded_allow_ips",
                text("10.0.0.1/8"),
                "10.0.0.1/8 has host bits set",
            ),
            (
                "proxy_protocol",
                text("v3"),
                "proxy_protocol must be: off, v1, v2, or auto",
            ),
            (
                "http_protocols",
                text("h3"),
                "Invalid protocol 'h3'. Valid protocols: h1, h2",
            ),
            (
                "http_protocols",
                text("h1,h1"),
                "Duplicate protocols specified",
            ),
            (
                "http_parser",
                text("x"),
                "http_parser must be one of: auto, fast, python",
            ),
            (
                "raw_env",
                Value::List(vec![text("FOO")]),
                "environment setting 'FOO' invalid",
            ),
            (
                "worker_tmp_dir",
                text("/no/dir"),
                "/no/dir doesn't exist. Can't create workertmp.",
            ),
            (
                "http2_max_concurrent_streams",
                Value::Int(0),
                "HTTP/2 max concurrent streams must be at least 1: 0",
            ),
        ] {
            assert_eq!(complaint(name, value), message, "{name}");
        }
    }

    #[test]
    fn reports_all_mistakes_at_once_and_names_the_setting() {
        let errors = build(given(&[
            ("workers", Value::Int(-1)),
            ("reload", Value::Int(1)),
        ]))
        .unwrap_err();
        assert_eq!(errors.len(), 2);
        let line =
            "Invalid value for workers: -1 (from gunicorn.conf.py): Value must be positive: -1";
        assert_eq!(errors[0].to_string(), line);
    }

    #[test]
    fn refuses_what_must_not_be_ignored() {
        for (name, value, hint) in [
            (
                "worker_class",
                Value::str("my.EventletWorker"),
                "use -k gevent, or -k eventlet",
            ),
            (
                "worker_class",
                Value::str("my.GeventWorker"),
                "use -k gevent, or the class of gevent-websocket",
            ),
            (
                "worker_class",
                Value::str("uvicorn.workers.UvicornWorker"),
                "ASGI",
            ),
            ("worker_class", Value::str("tornado"), "Tornado"),
            (
                "worker_class",
                Value::str("my.Worker"),
                "custom worker classes",
            ),
            ("dirty_workers", Value::Int(1), "dirty arbiter"),
            ("paste", Value::str("x.ini"), "PasteDeploy"),
        ] {
            let message = complaint(name, value);
            assert!(message.contains(hint), "{name}: {message}");
        }
        for class in [
            "sync",
            "gthread",
            "gunicorn.workers.sync.SyncWorker",
            "egg:gunicorn#gthread",
            "gevent",
            "gevent_pywsgi",
            "gunicorn.workers.ggevent.GeventWorker",
            "geventwebsocket.gunicorn.workers.GeventWebSocketWorker",
            "eventlet",
            "gunicorn.workers.geventlet.EventletWorker",
        ] {
            built(&[("worker_class", Value::str(class))]);
        }
    }

    #[test]
    fn never_shows_a_password() {
        let config = built(&[("keyfile_password", Value::str("hunter2"))]);
        assert!(!format!("{:?}", config.tls).contains("hunter2"));
        let printed = config.resolved.print();
        assert!(!printed.contains("hunter2") && printed.contains("= ***  # from"));
        let location = built(&[("keyfile_password", Value::str("env:NAME"))]);
        assert!(location.resolved.print().contains("= env:NAME  # from"));
        let wrong = Value::List(vec![Value::str("hunter2")]);
        assert_eq!(complaint("keyfile_password", wrong), "Not a string: ***");
    }

    #[test]
    fn checks_the_settings_of_tls() {
        for (name, value, message) in [
            ("cert_reqs", Value::Int(-1), "Value must be positive: -1"),
            (
                "cert_reqs",
                Value::Int(7),
                "cert_reqs must be 0 (none), 1 (optional) or 2 (required): 7",
            ),
            (
                "ssl_minimum_version",
                Value::str("TLSv1.1"),
                "ssl_minimum_version must be TLSv1.2 or TLSv1.3; there is nothing older: TLSv1.1",
            ),
            ("ca_certs", Value::Int(1), "Not a string: 1"),
        ] {
            assert_eq!(complaint(name, value), message, "{name}");
        }
        let config = built(&[("ssl_version", Value::Int(5))]);
        assert_eq!(
            config.warnings,
            ["option `ssl_version` is deprecated and it is ignored. Use ssl_context instead."]
        );
    }

    #[test]
    fn warns_of_settings_without_effect() {
        let config = built(&[
            ("asgi_loop", Value::str("uvloop")),
            ("asgi_lifespan", Value::str("auto")),
        ]);
        let line =
            "asgi_loop = uvloop (from gunicorn.conf.py) has no effect: only ASGI workers use it.";
        assert_eq!(config.warnings, [line]);
    }

    #[test]
    fn http2_is_typed_and_warned_of_when_no_client_can_negotiate_it() {
        let offered = ("http_protocols", Value::str("h2,h1"));
        let config = built(&[offered.clone(), ("http2_cleartext", Value::Bool(true))]);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        assert_eq!(
            config.http2.http_protocols,
            [HttpProtocol::H2, HttpProtocol::H1]
        );
        assert!(config.http2.http2_cleartext.allows_prior_knowledge());
        assert!(!config.http2.http2_cleartext.allows_upgrade());
        assert_eq!(config.http2.http2_max_header_list_size, 65_536);
        let certificates = Value::List(vec![Value::str("a.pem")]);
        let encrypted = built(&[offered.clone(), ("certfile", certificates)]);
        assert!(encrypted.warnings.is_empty(), "{:?}", encrypted.warnings);
        assert_eq!(built(&[offered]).warnings, [HTTP2_IDLE]);
        assert!(Config::default().warnings.is_empty());
    }

    #[test]
    fn clients_cannot_be_verified_without_tls_and_the_operator_is_warned() {
        for (name, value) in [
            ("ca_certs", Value::str("ca.pem")),
            ("ssl_crl", Value::str("crl.pem")),
            ("cert_reqs", Value::Int(2)),
        ] {
            let warnings = built(&[(name, value.clone())]).warnings;
            assert!(
                matches!(&warnings[..], [only] if only.starts_with(name)),
                "{warnings:?}"
            );
            let encrypted = built(&[(name, value), ("certfile", Value::str("a.pem"))]);
            assert!(encrypted.warnings.is_empty(), "{:?}", encrypted.warnings);
        }
    }

    #[test]
    fn prints_every_row_and_where_it_came_from() {
        let printed = built(&[("workers", Value::Int(3))]).resolved.print();
        assert_eq!(printed.lines().count(), settings::all().len());
        assert!(printed.lines().is_sorted());
        let line = printed
            .lines()
            .find(|line| line.starts_with("workers "))
            .unwrap();
        assert!(line.ends_with(" = 3  # from gunicorn.conf.py"), "{line}");
        assert!(printed.contains("bind ") && printed.contains("= ['127.0.0.1:8000']"));
    }
}
