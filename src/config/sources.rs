//! `RawSettings`: values as they were given, each with the place it came from, and `combine`.
//!
//! Precedence, highest first: command line, `FERRICORN_CMD_ARGS`, `GUNICORN_CMD_ARGS`,
//! `FERRICORN_<SETTING>`, config file, gunicorn's own variables (`WEB_CONCURRENCY`, `PORT`, ..),
//! default. An empty variable counts as unset.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use super::settings::{self, Setting};
use super::suggest;
use super::value::Value;

/// Where a value came from. The order of the variants is the precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Default,
    /// A variable that gunicorn reads as the default of one setting.
    EnvDefault(&'static str),
    File(String),
    /// `FERRICORN_<SETTING>`.
    Env(String),
    GunicornCmdArgs,
    FerricornCmdArgs,
    CommandLine,
}

impl Source {
    fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::EnvDefault(_) => 1,
            Self::File(_) => 2,
            Self::Env(_) => 3,
            Self::GunicornCmdArgs => 4,
            Self::FerricornCmdArgs => 5,
            Self::CommandLine => 6,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::EnvDefault(variable) => write!(f, "from {variable}"),
            Self::File(location) => write!(f, "from {location}"),
            Self::Env(variable) => write!(f, "from {variable}"),
            Self::GunicornCmdArgs => f.write_str("from GUNICORN_CMD_ARGS"),
            Self::FerricornCmdArgs => f.write_str("from FERRICORN_CMD_ARGS"),
            Self::CommandLine => f.write_str("from the command line"),
        }
    }
}

/// Values by setting name, unchecked. Only names of the table get in.
#[derive(Clone, Debug, Default)]
pub struct RawSettings {
    entries: BTreeMap<&'static str, (Value, Source)>,
    app: Option<String>,
    warnings: Vec<String>,
}

impl RawSettings {
    /// Sets a row's value unless a place of higher precedence has set it already.
    pub fn set(&mut self, setting: &Setting, value: Value, source: Source) {
        let outranked = self
            .entries
            .get(setting.name)
            .is_some_and(|(_, held)| held.rank() > source.rank());
        if !outranked {
            self.entries.insert(setting.name, (value, source));
        }
    }

    /// Forgets the values of some settings. False if there were none.
    pub fn remove<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> bool {
        let before = self.entries.len();
        names.for_each(|name| drop(self.entries.remove(name)));
        self.entries.len() < before
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entries.get(name).map(|(value, _)| value)
    }

    pub fn source(&self, name: &str) -> Option<&Source> {
        self.entries.get(name).map(|(_, source)| source)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value, &Source)> {
        self.entries
            .iter()
            .map(|(name, (value, source))| (*name, value, source))
    }

    /// The application named on the command line.
    pub fn app(&self) -> Option<&str> {
        self.app.as_deref()
    }

    pub fn set_app(&mut self, uri: impl Into<String>) {
        self.app = Some(uri.into());
    }

    /// Warnings for the operator.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub fn warn(&mut self, line: impl Into<String>) {
        self.warnings.push(line.into());
    }

    /// The config file asked for with `-c` (or its variables); `None` means look for the default.
    pub fn config_location(&self) -> Option<&str> {
        match self.source("config") {
            // A file cannot name another one, as in gunicorn.
            Some(Source::File(_)) | None => None,
            Some(_) => self
                .get("config")
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty()),
        }
    }
}

/// One set out of many; each name keeps the value of the highest precedence.
pub fn combine(sources: impl IntoIterator<Item = RawSettings>) -> RawSettings {
    let mut all = RawSettings::default();
    for source in sources {
        for (name, (value, origin)) in source.entries {
            let setting = settings::find(name).expect("entries are keyed by names of the table");
            all.set(setting, value, origin);
        }
        all.app = all.app.or(source.app);
        all.warnings.extend(source.warnings);
    }
    all
}

/// A snapshot of the process environment, taken once so that a reload sees what the start saw.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Variables that are not UTF-8 cannot name or hold a setting and are left out.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let variables = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { variables }
    }

    pub fn of_process() -> Self {
        Self::new(std::env::vars_os())
    }

    /// An empty variable is an unset one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    /// `FERRICORN_<SETTING>` and the variables that stand for one setting's default.
    pub fn settings(&self) -> RawSettings {
        let mut raw = RawSettings::default();
        for setting in settings::all() {
            let Some((variable, read)) = setting.env else {
                continue;
            };
            if let Some(text) = self.get(variable) {
                raw.set(setting, read(text), Source::EnvDefault(variable));
            }
        }
        for (variable, text) in &self.variables {
            let Some(suffix) = variable.strip_prefix(PREFIX) else {
                continue;
            };
            if text.is_empty() || OWN_VARIABLES.contains(&variable.as_str()) {
                continue;
            }
            if self.is_service_link(variable, text) {
                continue;
            }
            let name = suffix.to_ascii_lowercase();
            if let Some(setting) = settings::find(&name) {
                raw.set(
                    setting,
                    setting.kind.read_variable(text),
                    Source::Env(variable.clone()),
                );
            } else if let Some(close) = suggest::closest(&name, settings::names()) {
                let close = close.to_ascii_uppercase();
                raw.warn(format!(
                    "Unknown variable {variable}: did you mean {PREFIX}{close}?"
                ));
            }
        }
        raw
    }
}

impl Environment {
    /// Kubernetes and `docker --link` describe each service to each container: `NAME_SERVICE_HOST`,
    /// `NAME_SERVICE_PORT[_PORT]`, `NAME_PORT` and `NAME_PORT_80_TCP[_PROTO|_PORT|_ADDR]`, `NAME_NAME`, `NAME_ENV_X`. A
    /// service may be called ferricorn, or ferricorn-workers, so such a variable is no setting.
    fn is_service_link(&self, variable: &str, text: &str) -> bool {
        let ends_in_port = |name: &str| {
            name.rsplit_once("_PORT_")
                .is_some_and(|(_, tail)| tail.starts_with(|first: char| first.is_ascii_digit()))
        };
        let is_link = |name: &str| {
            self.variables.contains_key(&format!("{name}_PORT"))
                && (self.variables.contains_key(&format!("{name}_NAME"))
                    || self.variables.contains_key(&format!("{name}_SERVICE_HOST")))
        };
        variable.ends_with("_SERVICE_HOST")
            || variable.contains("_SERVICE_PORT")
            || ends_in_port(variable)
            || (variable.ends_with("_PORT")
                && (text.contains("://") || text.parse::<u16>().is_ok()))
            || variable.strip_suffix("_NAME").is_some_and(is_link)
            || variable
                .split_once("_ENV_")
                .is_some_and(|(name, _)| is_link(name))
    }
}

const PREFIX: &str = "FERRICORN_";
const OWN_VARIABLES: [&str; 4] = [
    "FERRICORN_AS_GUNICORN",
    "FERRICORN_CMD_ARGS",
    "FERRICORN_FD",
    "FERRICORN_PID",
];
