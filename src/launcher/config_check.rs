//! What is wrong with the settings, all of it in one run, and `--check-config`, which says so without serving.

use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};

use pyo3::prelude::*;

use super::ending::{Ending, complain, error_line, print};
use crate::arbiter::{check_token, unix_now};
use crate::config::validate::build;
use crate::config::{Config, Error, LogLevel, RawSettings, StatsdAddress, Value};
use crate::logging::access::AccessFormat;
use crate::net::BindAddress;
use crate::python::hooks::{self, Hooks};
use crate::python::loader::{self, AppLoadError};
use crate::tls;

/// All mistakes, and the configuration that is left without them.
pub(super) struct Mistakes {
    lines: Vec<String>,
    rest: Option<Box<Config>>,
}

/// Checks the settings to the end: one mistake does not hide another.
///
/// # Errors
/// There are mistakes.
pub(super) fn validated(mut raw: RawSettings) -> Result<Config, Mistakes> {
    let mut lines: Vec<String> = Vec::new();
    let config = loop {
        let errors = match build(raw.clone()) {
            Ok(config) => break config,
            Err(errors) => errors,
        };
        lines.extend(errors.iter().map(Error::to_string));
        if !raw.remove(errors.iter().filter_map(Error::setting)) {
            return Err(Mistakes { lines, rest: None });
        }
    };
    if config.app.wsgi_app.is_none() {
        lines.push(Error::NoApplication.to_string());
    }
    let log = &config.access_log;
    if let Err(error) = AccessFormat::with_fields(&log.access_log_format, &log.access_log_fields) {
        lines.push(error.to_string());
    }
    lines.extend(bad_addresses(&config));
    lines.extend(check_token(&config).err().map(|error| error.to_string()));
    if lines.is_empty() {
        return Ok(config);
    }
    let rest = Some(Box::new(config));
    Err(Mistakes { lines, rest })
}

fn bad_addresses(config: &Config) -> impl Iterator<Item = String> {
    let sockets = config.socket.bind.iter().map(|address| ("bind", address));
    let own = config.control.admin_bind.iter();
    let all = sockets.chain(own.map(|address| ("admin_bind", address)));
    all.filter_map(|(name, address)| {
        let error = address.parse::<BindAddress>().err()?;
        let source = config.resolved.source(name)?;
        Some(format!(
            "Invalid value for {name}: {address} ({source}): {error}"
        ))
    })
}

/// Reads the files of TLS, which are read again later.
///
/// # Errors
/// They cannot be used.
pub(super) fn with_tls(mut config: Config) -> Result<Config, Mistakes> {
    let Some(tls) = &config.tls else {
        return Ok(config);
    };
    match tls::load(tls, unix_now()) {
        Ok(loaded) => {
            let warnings = loaded.warnings.iter().map(ToString::to_string);
            config.warnings.extend(warnings);
            Ok(config)
        }
        Err(error) => {
            config.tls = None;
            let lines = vec![error.to_string()];
            let rest = Some(Box::new(config));
            Err(Mistakes { lines, rest })
        }
    }
}

/// The end of a server whose settings are wrong. `--check-config` tries the application all the same.
pub(super) fn refused(
    py: Python<'_>,
    mistakes: &Mistakes,
    load_app: impl FnOnce(&Config) -> Result<Py<PyAny>, AppLoadError>,
) -> Ending {
    let mut message: String = mistakes.lines.iter().map(|line| error_line(line)).collect();
    let is_checked =
        |config: &&Config| config.debugging.check_config || config.debugging.print_config;
    if let Some(config) = mistakes.rest.as_deref().filter(is_checked) {
        report(config);
        let tls = config.tls.as_ref().map(|tls| tls::load(tls, unix_now()));
        let unusable = tls.and_then(Result::err);
        message.extend(unusable.map(|error| error_line(&error.to_string())));
        message.extend(unresolvable(config).map(|line| error_line(&line)));
        if config.app.wsgi_app.is_some() {
            let entered = loader::enter(py, config);
            let loaded = entered.is_ok().then(|| load_app(config));
            message.extend(
                loaded
                    .and_then(Result::err)
                    .map(|error| load_failed(&error)),
            );
        }
    }
    let message = Some(message);
    Ending { code: 1, message }
}

/// `--print-config` and `--check-config`: 0 when the application can be loaded and no name or value is in doubt.
pub(super) fn run(
    py: Python<'_>,
    config: &Config,
    hooks: &Hooks,
    hints: &[String],
    load_app: impl FnOnce() -> Result<Py<PyAny>, AppLoadError>,
) -> Ending {
    if config.debugging.print_config {
        print(&config.resolved.print());
    }
    report(config);
    let mut message = String::new();
    message.extend(unresolvable(config).map(|line| error_line(&line)));
    message.extend(bad_logger(py, config, hooks));
    if let Err(error) = load_app() {
        message.push_str(&load_failed(&error));
    }
    if !message.is_empty() {
        let message = Some(message);
        return Ending { code: 1, message };
    }
    let is_sound = hints.is_empty() && is_level(config);
    if is_sound && !config.debugging.print_config {
        print(&summary(config));
    }
    Ending {
        code: i32::from(!is_sound),
        message: None,
    }
}

fn report(config: &Config) {
    for warning in config.warnings.iter().cloned().chain(missing(config)) {
        complain(&format!("Warning: {warning}\n"));
    }
    for note in config.resolved.notes() {
        complain(&format!("Note: {note}\n"));
    }
}

fn load_failed(error: &AppLoadError) -> String {
    format!("\nError while loading the application:\n\n{error}\n")
}

fn is_level(config: &Config) -> bool {
    let name = config.resolved.value("loglevel").and_then(Value::as_str);
    name.is_none_or(LogLevel::is_name)
}

/// A statsd that cannot be found loses every metric without a word, because nothing waits for it.
fn unresolvable(config: &Config) -> Option<String> {
    let Some(StatsdAddress::Udp { host, port }) = &config.statsd.statsd_host else {
        return None;
    };
    let error = (host.as_str(), *port).to_socket_addrs().err()?;
    Some(format!(
        "statsd_host = {host}:{port} cannot be resolved: {error}"
    ))
}

/// A class that does not exist; it is not made, which would open its files.
fn bad_logger(py: Python<'_>, config: &Config, hooks: &Hooks) -> Option<String> {
    config.logging.logger_class.as_ref()?;
    let class = hooks::cfg(py, config, hooks).and_then(|cfg| cfg.getattr(py, "logger_class"));
    class
        .err()
        .and_then(|error| Ending::raised(py, &error).message)
}

/// What a server started now would not find. The check may run elsewhere, where images are built, so it does not fail.
fn missing(config: &Config) -> impl Iterator<Item = String> {
    let files = [
        ("logconfig", config.logging.logconfig.clone()),
        ("logconfig_json", config.logging.logconfig_json.clone()),
    ];
    let files = files.into_iter().map(|(name, path)| (name, path, None));
    let log = |text: &str| Some(PathBuf::from(text));
    let created = [
        ("errorlog", log(&config.logging.errorlog)),
        (
            "accesslog",
            config.access_log.accesslog.as_deref().and_then(log),
        ),
        ("pidfile", config.process.pidfile.clone()),
    ];
    let sockets = config
        .socket
        .bind
        .iter()
        .filter_map(|text| match text.parse() {
            Ok(BindAddress::Unix(path)) => Some(("bind", Some(path))),
            _ => None,
        });
    let created = created.into_iter().chain(sockets).map(|(name, path)| {
        let directory = path.as_deref().and_then(Path::parent).map(PathBuf::from);
        (name, path, directory)
    });
    files.chain(created).filter_map(|(name, path, directory)| {
        let path = path?;
        let needed = directory.as_deref().unwrap_or(&path);
        // A relative one may begin in the start directory or in that of the application.
        let is_missing = !needed.exists() && !config.app.chdir.join(needed).exists();
        is_missing.then(|| {
            format!(
                "{name} = {}: {} does not exist",
                path.display(),
                needed.display()
            )
        })
    })
}

/// One line: how many settings were given, and which of them differ from gunicorn's.
fn summary(config: &Config) -> String {
    let given = config.resolved.given();
    let settings = if given == 1 { "setting" } else { "settings" };
    let differing = config.resolved.differing();
    let difference = match differing.len() {
        0 => "none differs from gunicorn".to_owned(),
        1 => format!("1 differs from gunicorn ({})", differing[0]),
        count => format!("{count} differ from gunicorn ({})", differing.join(", ")),
    };
    format!("OK: {given} {settings} given, {difference}; the application can be loaded.\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Source, settings};

    fn given(pairs: &[(&str, &str)]) -> RawSettings {
        let mut raw = RawSettings::default();
        for (name, value) in pairs {
            raw.set(
                settings::find(name).unwrap(),
                Value::str(*value),
                Source::CommandLine,
            );
        }
        raw.set_app("app:app");
        raw
    }

    #[test]
    fn every_mistake_is_found_in_one_run() {
        let raw = given(&[
            ("worker_class", "tornado"),
            ("workers", "many"),
            ("raw_env", "no-assignment"),
            ("access_log_format", "%(nothing"),
            ("bind", "127.0.0.1:port"),
        ]);
        let mistakes = validated(raw).err().unwrap();
        let text = mistakes.lines.join("\n");
        for part in [
            "Tornado",
            "'many'",
            "no-assignment",
            "access_log_format",
            "'port'",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(mistakes.lines.len(), 5, "{text}");
        assert!(mistakes.rest.is_some());
    }

    #[test]
    fn the_summary_names_what_differs() {
        let config = validated(given(&[("workers", "2"), ("worker_class", "gthread")]))
            .ok()
            .unwrap();
        assert_eq!(
            summary(&config),
            "OK: 2 settings given, 1 differs from gunicorn (worker_class); the application can be loaded.\n"
        );
    }

    #[test]
    fn an_unknown_level_and_a_lost_statsd_are_noticed() {
        let config = validated(given(&[
            ("loglevel", "chatty"),
            ("statsd_host", "statsd.invalid:8125"),
        ]));
        let config = config.ok().unwrap();
        assert!(!is_level(&config));
        assert!(
            config.warnings.iter().any(|line| line.contains("chatty")),
            "{:?}",
            config.warnings
        );
        assert!(
            unresolvable(&config)
                .unwrap()
                .starts_with("statsd_host = statsd.invalid:8125 cannot be resolved")
        );
        assert!(is_level(
            &validated(given(&[("loglevel", "WARNING")])).ok().unwrap()
        ));
    }
}
