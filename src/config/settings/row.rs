//! `Setting`: what a row of the table says.

use crate::config::host;
use crate::config::value::Value;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// gunicorn's name, which is also the config file's.
    pub name: &'static str,
    pub section: Section,
    /// Command-line spellings; empty means config file and environment only.
    pub flags: &'static [&'static str],
    pub kind: Kind,
    pub default: Default,
    /// A variable that replaces the default, and how its text is read.
    pub env: Option<EnvDefault>,
    pub verdict: Verdict,
    /// What is different here from gunicorn, in a sentence.
    pub differs: Option<&'static str>,
    /// Not a setting of gunicorn.
    pub ours: bool,
    /// One short sentence, for `--help` and the documentation.
    pub doc: &'static str,
}

/// A variable's name and the reader of its text.
pub type EnvDefault = (&'static str, fn(&str) -> Value);

/// gunicorn's sections, in the order of its documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    ConfigFile,
    ServerSocket,
    WorkerProcesses,
    Security,
    Debugging,
    ServerMechanics,
    Logging,
    ProcessNaming,
    ServerHooks,
    Tls,
    Http2,
    DirtyArbiters,
    DirtyHooks,
    Control,
}

impl Section {
    pub const ALL: [Self; 14] = [
        Self::ConfigFile,
        Self::ServerSocket,
        Self::WorkerProcesses,
        Self::Security,
        Self::Debugging,
        Self::ServerMechanics,
        Self::Logging,
        Self::ProcessNaming,
        Self::ServerHooks,
        Self::Tls,
        Self::Http2,
        Self::DirtyArbiters,
        Self::DirtyHooks,
        Self::Control,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::ConfigFile => "Config File",
            Self::ServerSocket => "Server Socket",
            Self::WorkerProcesses => "Worker Processes",
            Self::Security => "Security",
            Self::Debugging => "Debugging",
            Self::ServerMechanics => "Server Mechanics",
            Self::Logging => "Logging",
            Self::ProcessNaming => "Process Naming",
            Self::ServerHooks => "Server Hooks",
            Self::Tls => "SSL",
            Self::Http2 => "HTTP/2",
            Self::DirtyArbiters => "Dirty Arbiters",
            Self::DirtyHooks => "Dirty Arbiter Hooks",
            Self::Control => "Control",
        }
    }
}

/// What values a setting takes; `check.rs` holds the rules and gunicorn's messages.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text,
    /// The path of a URL, without query.
    UrlPath,
    /// Text that can stand in a header.
    FieldValue,
    /// A whole number >= 0.
    Int,
    /// A whole number >= 0, or the word `auto`.
    Workers,
    /// A whole number >= 0; the command line also takes `0o22`, `0x12` and the octal `0022`.
    OctalInt,
    /// Seconds >= 0, also parts of one.
    Seconds,
    /// A number with limits of its own; the function gives the message for one outside.
    IntWithin {
        min: i64,
        max: i64,
        complaint: fn(i64) -> String,
    },
    /// On the command line the flag sets it to `cli`.
    Bool {
        cli: bool,
    },
    /// A list; its flag may be repeated.
    Texts,
    /// One path or a list of them; the command line gives one.
    Paths,
    /// Text that is never shown.
    Secret,
    /// A list of files (which must exist) and glob patterns.
    Files,
    /// Text with commas.
    CommaTexts,
    /// Text with commas, or a list.
    TextsOrCommas,
    /// Text with commas: IP addresses, networks or `*`.
    Addresses,
    Mapping,
    /// One of a few words, in any case; the function gives the message for another.
    Word {
        words: &'static [&'static str],
        complaint: fn(&Value) -> String,
    },
    ProxyProtocol,
    HttpProtocols,
    Http2Cleartext,
    StatsdAddress,
    /// A Python callable with that many parameters; the Python side checks it.
    Hook {
        arity: u8,
    },
    /// `post_request`: 2, 3 or 4 parameters.
    PostRequest,
    /// A class or its dotted path.
    Class,
    Directory,
    User,
    Group,
    /// Anything: the setting is ignored.
    Anything,
}

impl Kind {
    /// Reads a `FERRICORN_<SETTING>` variable: lists and mappings are split at commas.
    pub(in crate::config) fn read_variable(self, text: &str) -> Value {
        let items = || {
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
        };
        match self {
            Self::Texts | Self::Files => Value::List(items().map(Value::str).collect()),
            Self::Mapping => Value::Dict(
                items()
                    .filter_map(|item| item.split_once('='))
                    .map(|(key, value)| (Value::str(key.trim()), Value::str(value.trim())))
                    .collect(),
            ),
            Self::Bool { .. } => switch(text),
            _ => Value::str(text),
        }
    }

    /// The placeholder for a value in `--help` and error messages; `None` for plain switches.
    pub fn metavar(self) -> Option<&'static str> {
        match self {
            Self::Bool { .. } => None,
            Self::Workers | Self::Int | Self::OctalInt | Self::IntWithin { .. } => Some("INT"),
            Self::Seconds => Some("SECONDS"),
            Self::Files => Some("FILES"),
            Self::Addresses => Some("IPS"),
            Self::Directory => Some("DIR"),
            Self::User => Some("USER"),
            Self::Group => Some("GROUP"),
            Self::ProxyProtocol => Some("MODE"),
            _ => Some("STRING"),
        }
    }

    /// True for settings whose value is a Python object kept by `python/hooks.rs`.
    pub fn is_hook(self) -> bool {
        matches!(self, Self::Hook { .. } | Self::PostRequest)
    }
}

/// A switch in the environment; other words are left for the check to refuse.
fn switch(text: &str) -> Value {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "y" | "on" => Value::Bool(true),
        "0" | "false" | "no" | "n" | "off" => Value::Bool(false),
        _ => Value::str(text),
    }
}

/// A default as a constant, or the name of one that depends on the process.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    None,
    Bool(bool),
    Int(i64),
    Text(&'static str),
    Texts(&'static [&'static str]),
    Pairs(&'static [(&'static str, &'static str)]),
    /// The directory the server was started in.
    StartDirectory,
    /// In `$XDG_RUNTIME_DIR`, else in the home directory.
    ControlSocket,
}

/// What becomes of a setting here.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    Works,
    /// Parsed and checked, then ignored for the reason given.
    NoEffect(&'static str),
    /// Any value outside `allowed` (written as Python's `str()`) stops the start with the message.
    Refused {
        allowed: &'static [&'static str],
        message: &'static str,
    },
}

pub(super) const fn row(
    name: &'static str,
    section: Section,
    kind: Kind,
    default: Default,
    doc: &'static str,
) -> Setting {
    Setting {
        name,
        section,
        flags: &[],
        kind,
        default,
        env: None,
        verdict: Verdict::Works,
        differs: None,
        ours: false,
        doc,
    }
}

impl Setting {
    pub(super) const fn flags(mut self, flags: &'static [&'static str]) -> Self {
        self.flags = flags;
        self
    }

    pub(super) const fn env(mut self, variable: &'static str, read: fn(&str) -> Value) -> Self {
        self.env = Some((variable, read));
        self
    }

    pub(super) const fn no_effect(mut self, why: &'static str) -> Self {
        self.verdict = Verdict::NoEffect(why);
        self
    }

    pub(super) const fn differs(mut self, how: &'static str) -> Self {
        self.differs = Some(how);
        self
    }

    pub(super) const fn refused(
        mut self,
        allowed: &'static [&'static str],
        message: &'static str,
    ) -> Self {
        self.verdict = Verdict::Refused { allowed, message };
        self
    }

    pub(super) const fn ours(mut self) -> Self {
        self.ours = true;
        self
    }

    /// The default as a value, before it is checked like any other.
    pub fn default_value(&self) -> Value {
        match self.default {
            Default::None => Value::None,
            Default::Bool(on) => Value::Bool(on),
            Default::Int(number) => Value::Int(number),
            Default::Text(text) => Value::str(text),
            Default::Texts(texts) => Value::List(texts.iter().copied().map(Value::str).collect()),
            Default::Pairs(pairs) => Value::Dict(
                pairs
                    .iter()
                    .map(|(key, value)| (Value::str(*key), Value::str(*value)))
                    .collect(),
            ),
            Default::StartDirectory => Value::str("."),
            Default::ControlSocket => Value::str(host::control_socket_path()),
        }
    }

    /// A value as the operator may read it.
    pub fn shown(&self, value: &Value) -> String {
        match (self.kind, value) {
            (Kind::OctalInt, Value::Int(number)) => format!("0o{number:o}"),
            // Where the secret is may be said.
            (Kind::Secret, Value::Str(text))
                if text.starts_with("env:") || text.starts_with("file:") =>
            {
                text.clone()
            }
            (Kind::Secret, value) if *value != Value::None => "***".to_owned(),
            _ => value.to_string(),
        }
    }

    /// `-w/--workers`, as argparse names an option in its messages.
    pub fn flag_names(&self) -> String {
        self.flags.join("/")
    }
}
