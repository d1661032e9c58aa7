//! `docs/settings.md`, written from the table: `make docs`.

use super::settings::{self, Default, Kind, Section, Setting, Verdict};

/// The whole page.
#[must_use]
pub fn document() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in Section::ALL {
        let rows = rows(section);
        if !rows.is_empty() {
            let title = section.title();
            let anchor = title.to_lowercase().replace(' ', "-").replace('/', "");
            page.push_str(&format!("- [{title}](#{anchor}): "));
            let names: Vec<_> = rows
                .iter()
                .map(|row| format!("[{0}](#{0})", row.name))
                .collect();
            page.push_str(&names.join(", "));
            page.push('\n');
        }
    }
    for section in Section::ALL {
        let rows = rows(section);
        if !rows.is_empty() {
            page.push_str(&format!("\n## {}\n", section.title()));
        }
        for setting in rows {
            page.push_str(&entry(setting));
        }
    }
    page
}

fn rows(section: Section) -> Vec<&'static Setting> {
    let rows = settings::all().iter();
    rows.filter(|setting| setting.section == section).collect()
}

fn entry(setting: &Setting) -> String {
    let mut facts = Vec::new();
    if !setting.flags.is_empty() {
        let flags: Vec<_> = setting.flags.iter().map(|flag| code(flag)).collect();
        facts.push(flags.join(", "));
    }
    facts.push(kind(setting.kind).to_owned());
    facts.push(format!("default {}", default(setting)));
    let variables = variables(setting);
    if variables.is_empty() {
        facts.push("config file only".to_owned());
    } else {
        facts.push(variables.join(", "));
    }
    let mut text = format!(
        "\n### {}\n\n{}\n\n{}\n",
        setting.name,
        facts.join(" · "),
        escape(setting.doc)
    );
    if let Some(effect) = effect(setting) {
        text.push_str(&format!("\n{effect}\n"));
    }
    text
}

/// How the setting differs from gunicorn's, if it does.
fn effect(setting: &Setting) -> Option<String> {
    let told = match setting.verdict {
        Verdict::Works if setting.ours => Some("Not a setting of gunicorn.".to_owned()),
        Verdict::Works => None,
        Verdict::NoEffect(why) => Some(format!("**No effect:** {}.", escape(why))),
        Verdict::Refused { allowed, message } => {
            let allowed: Vec<_> = allowed.iter().map(|value| code(value)).collect();
            Some(format!(
                "**Refused** unless it is {}: {}.",
                allowed.join(" or "),
                escape(message)
            ))
        }
    };
    let differs = setting
        .differs
        .map(|differs| format!("**Differs from gunicorn:** {}", escape(differs)));
    let told: Vec<_> = told.into_iter().chain(differs).collect();
    (!told.is_empty()).then(|| told.join(" "))
}

fn variables(setting: &Setting) -> Vec<String> {
    // A callable cannot be written into a variable, and the config file is chosen before variables are looked at.
    let own = (!setting.kind.is_hook()).then(|| {
        let name = setting.name.to_ascii_uppercase();
        code(&format!("FERRICORN_{name}"))
    });
    let others = setting.env.iter().map(|(variable, _)| code(variable));
    own.into_iter().chain(others).collect()
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Seconds => "seconds",
        Kind::UrlPath => "path of a URL",
        Kind::Workers => "whole number or `auto`",
        Kind::Int | Kind::IntWithin { .. } => "whole number",
        Kind::OctalInt => "number, also `0o22` or `0022`",
        Kind::Bool { .. } => "switch",
        Kind::Texts => "list of texts; the flag may be repeated",
        Kind::Paths => "path, or a list of paths",
        Kind::Files => "list of files and patterns; the flag may be repeated",
        Kind::CommaTexts => "text with commas",
        Kind::Addresses => "IP addresses or networks with commas, or `*`",
        Kind::Mapping => "dict",
        Kind::Word { .. } | Kind::ProxyProtocol | Kind::Http2Cleartext => "word",
        Kind::HttpProtocols => "words with commas",
        Kind::StatsdAddress => "`HOST:PORT` or `unix://PATH`",
        Kind::Hook { .. } | Kind::PostRequest => "callable",
        Kind::Class => "class or its dotted path",
        Kind::Directory => "directory",
        Kind::User => "user name or number",
        Kind::Group => "group name or number",
        Kind::Anything => "anything",
        _ => "text",
    }
}

fn default(setting: &Setting) -> String {
    match setting.default {
        Default::StartDirectory => "the directory of the start".to_owned(),
        Default::ControlSocket => format!(
            "{} or {}",
            code("$XDG_RUNTIME_DIR/ferricorn/{pid}.ctl"),
            code("~/.ferricorn/{pid}.ctl")
        ),
        Default::None if setting.kind.is_hook() => "none".to_owned(),
        Default::None => match setting.kind {
            Kind::User | Kind::Group => "the current one".to_owned(),
            _ => "not set".to_owned(),
        },
        Default::Int(number) if matches!(setting.kind, Kind::OctalInt) => {
            code(&format!("0o{number:o}"))
        }
        _ => code(&setting.default_value().repr()),
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// What would be markup: `<`, `*` and the bar of tables.
fn escape(text: &str) -> String {
    text.replace('*', "\\*").replace('<', "\\<")
}

const INTRODUCTION: &str = "\
# Settings

All settings, in gunicorn's sections and with gunicorn's names. `make docs` writes this page from the table in `src/config/settings`.

A value comes from the first of these that sets one: the command line, `FERRICORN_CMD_ARGS`, `GUNICORN_CMD_ARGS`, the variable
`FERRICORN_<SETTING>`, the config file (`-c`, else `./ferricorn.conf.py`, else `./gunicorn.conf.py`), the variables that gunicorn reads
(`WEB_CONCURRENCY`, `PORT`, ...), the default. An empty variable counts as unset. In variables, list items are separated by commas.

`ferricorn --print-config` prints every setting with its value and the source of the value. `ferricorn --check-config` reports settings that are
misspelt, have no effect or differ, imports the application, and exits with 1 if something is wrong.

";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `UPDATE_DOCS=1` writes the page instead.
    #[test]
    fn the_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == document(),
            "docs/settings.md is not what the table says: run `make docs`"
        );
    }

    #[test]
    fn every_setting_has_its_place() {
        let page = document();
        for setting in settings::all() {
            let heading = format!("\n### {}\n", setting.name);
            assert_eq!(page.matches(&heading).count(), 1, "{}", setting.name);
        }
        assert!(page.contains("`-w`, `--workers` · whole number or `auto` · default `1` · `FERRICORN_WORKERS`, `WEB_CONCURRENCY`"));
    }
}
