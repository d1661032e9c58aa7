//! `--help`: the settings that work here, by section, within 80 columns.

use super::settings::{self, Default, Kind, Section, Setting, Verdict};

/// The text of `--help`, for the program by this name.
pub(super) fn text(program: &str) -> String {
    let mut out = format!("usage: {program} [OPTIONS] [APP_MODULE]\n\n{INTRODUCTION}\n");
    entry(&mut out, "-h, --help", "Show this help and exit.");
    entry(&mut out, "-v, --version", "Show the version and exit.");
    for section in Section::ALL {
        let rows = settings::all().iter().filter(|setting| {
            setting.section == section
                && !setting.flags.is_empty()
                && matches!(setting.verdict, Verdict::Works)
        });
        for (index, setting) in rows.enumerate() {
            if index == 0 {
                out.push_str(&format!("\n{}:\n", section.title()));
            }
            entry(&mut out, &flags(setting), &described(setting));
        }
    }
    out.push_str(EPILOGUE);
    out
}

fn flags(setting: &Setting) -> String {
    // A spelling that differs only in its dashes is left out.
    let repeats = |flag: &str| {
        setting
            .flags
            .iter()
            .any(|other| *other != flag && other.replace('_', "-") == flag)
    };
    let spellings: Vec<&str> = setting
        .flags
        .iter()
        .copied()
        .filter(|flag| !repeats(flag))
        .collect();
    let spellings = spellings.join(", ");
    match setting.kind.metavar() {
        Some(metavar) => format!("{spellings} {metavar}"),
        None => spellings,
    }
}

fn described(setting: &Setting) -> String {
    let default = match setting.default {
        Default::Int(number) if matches!(setting.kind, Kind::OctalInt) => format!("0o{number:o}"),
        Default::Int(number) => number.to_string(),
        Default::Text(text) if text.len() <= DEFAULT_LENGTH_MAX => text.to_owned(),
        Default::Texts([text]) => (*text).to_owned(),
        _ => return setting.doc.to_owned(),
    };
    if default.is_empty() {
        setting.doc.to_owned()
    } else {
        format!("{} [{default}]", setting.doc)
    }
}

/// The flags in the left column; what they do in the right one, beside or below them.
fn entry(out: &mut String, flags: &str, doc: &str) {
    let mut line = format!("  {flags}");
    if line.len() + 2 > COLUMN {
        out.push_str(&line);
        out.push('\n');
        line.clear();
    }
    let mut has_words = false;
    for word in doc.split_whitespace() {
        if has_words && line.len() + 1 + word.len() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line.clear();
            has_words = false;
        }
        if has_words {
            line.push(' ');
        } else {
            line.push_str(&" ".repeat(COLUMN - line.len()));
        }
        line.push_str(word);
        has_words = true;
    }
    out.push_str(&line);
    out.push('\n');
}

const INTRODUCTION: &str = "\
Serves a WSGI application: MODULE, MODULE:VARIABLE or MODULE:FACTORY(ARGS).
For example: ferricorn app:app -w 4 --threads 2 -b 0.0.0.0:5000
";
const EPILOGUE: &str = "
Every setting can also be given in the config file, in FERRICORN_CMD_ARGS or
GUNICORN_CMD_ARGS, and as FERRICORN_<NAME>, for example FERRICORN_WORKERS=4.
gunicorn's other options are accepted; the log says which have no effect here.
docs/settings.md describes each. ferricornc inspects a running server.
";
const COLUMN: usize = 28;
const WIDTH: usize = 79;
const DEFAULT_LENGTH_MAX: usize = 24;
