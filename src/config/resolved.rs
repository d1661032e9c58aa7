//! `Resolved`: the final, checked value of every row, and readers that give it its Rust type.

use std::path::PathBuf;
use std::time::Duration;

use super::peers::AllowedPeers;
use super::settings::Setting;
use super::sources::Source;
use super::value::Value;

/// Every row with its final value and where it came from, in the table's order.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    rows: Vec<(&'static Setting, Value, Source)>,
}

impl Resolved {
    pub(super) fn push(&mut self, setting: &'static Setting, value: Value, source: Source) {
        self.rows.push((setting, value, source));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static Setting, &Value, &Source)> {
        self.rows
            .iter()
            .map(|(setting, value, source)| (*setting, value, source))
    }

    pub fn value(&self, name: &str) -> Option<&Value> {
        self.iter()
            .find(|(setting, ..)| setting.name == name)
            .map(|(_, value, _)| value)
    }

    pub fn source(&self, name: &str) -> Option<&Source> {
        self.iter()
            .find(|(setting, ..)| setting.name == name)
            .map(|(.., source)| source)
    }

    /// `--print-config`: gunicorn's sorted lines, and after each value where it came from.
    pub fn print(&self) -> String {
        let width = self
            .iter()
            .map(|(setting, ..)| setting.name.len())
            .max()
            .unwrap_or(0);
        let mut lines: Vec<String> = self
            .iter()
            .map(|(setting, value, source)| {
                let shown = setting.shown(value);
                format!("{:width$} = {shown}  # {source}", setting.name)
            })
            .collect();
        lines.sort();
        lines.join("\n") + "\n"
    }

    /// For `--check-config`: how the settings that were given differ from gunicorn's.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.iter()
            .filter(|(_, _, source)| **source != Source::Default)
            .filter_map(|(setting, value, source)| {
                let differs = setting.differs?;
                let shown = setting.shown(value);
                Some(format!("{} = {shown} ({source}): {differs}", setting.name))
            })
    }

    /// How many settings were given a value, besides those that say what to check.
    pub fn given(&self) -> usize {
        let is_given = |setting: &Setting, source: &Source| {
            *source != Source::Default && !NOT_COUNTED.contains(&setting.name)
        };
        self.iter()
            .filter(|(setting, _, source)| is_given(setting, source))
            .count()
    }

    /// The names of those that differ from gunicorn's.
    pub fn differing(&self) -> Vec<&'static str> {
        self.iter()
            .filter(|(setting, _, source)| **source != Source::Default && setting.differs.is_some())
            .map(|(setting, ..)| setting.name)
            .collect()
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.value(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }

    /// Text; an empty one counts as not given.
    pub(super) fn filled(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.filled(name).map(PathBuf::from)
    }

    /// Of a row of `Kind::Paths`: none, one or several.
    pub(super) fn paths(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::Str(text)) if !text.is_empty() => vec![text.clone()],
            Some(list @ Value::List(_)) => list.strings(),
            _ => Vec::new(),
        }
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.value(name).map(Value::strings).unwrap_or_default()
    }

    pub(super) fn on(&self, name: &str) -> bool {
        self.value(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Numbers were checked to be >= 0. One that is too large for its type becomes the type's largest.
    pub(super) fn number<T: TryFrom<i64> + Bounded>(&self, name: &str) -> T {
        let number = self.value(name).and_then(Value::as_int).unwrap_or(0);
        T::try_from(number).unwrap_or(T::LARGEST)
    }

    pub(super) fn seconds(&self, name: &str) -> Option<Duration> {
        // Limited to a century, so that deadlines cannot overflow.
        let seconds: u64 = self.number(name);
        (seconds > 0).then(|| Duration::from_secs(seconds.min(SECONDS_MAX)))
    }

    /// Of a row of `Kind::Seconds`.
    pub(super) fn time(&self, name: &str) -> Option<Duration> {
        let Some(Value::Opaque(text)) = self.value(name) else {
            return self.seconds(name);
        };
        let seconds: f64 = text.parse().ok()?;
        (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(SECONDS_MAX as f64)))
    }

    pub(super) fn peers(&self, name: &str) -> AllowedPeers {
        let items = self.texts(name);
        AllowedPeers::new(items.iter().map(String::as_str))
            .expect("the row's check has parsed the same items")
    }
}

/// Types whose largest value stands for "more than fits".
pub(super) trait Bounded {
    const LARGEST: Self;
}

impl Bounded for u32 {
    const LARGEST: Self = Self::MAX;
}

impl Bounded for u64 {
    const LARGEST: Self = Self::MAX;
}

impl Bounded for usize {
    const LARGEST: Self = Self::MAX;
}

const NOT_COUNTED: [&str; 4] = ["wsgi_app", "config", "check_config", "print_config"];
const SECONDS_MAX: u64 = 100 * 365 * 24 * 3600;
