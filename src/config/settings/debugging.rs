//! Rows: Debugging.

use super::row::{Default, Kind, Section, Setting, row};

const SECTION: Section = Section::Debugging;

pub(super) const ROWS: &[Setting] = &[
    row(
        "reload",
        SECTION,
        Kind::Bool { cli: true },
        Default::Bool(false),
        "Restart workers when code changes, for development.",
    )
    .flags(&["--reload"])
    .differs("Any error at import is shown to clients, not only a syntax error."),
    row(
        "reload_engine",
        SECTION,
        Kind::Word {
            words: &["auto", "poll", "inotify"],
            complaint: |value| format!("Invalid reload_engine: {}", value.repr()),
        },
        Default::Text("auto"),
        "How changes are detected: auto, poll or inotify.",
    )
    .flags(&["--reload-engine"])
    .differs("inotify needs no package."),
    row(
        "reload_extra_files",
        SECTION,
        Kind::Files,
        Default::Texts(&[]),
        "More files or patterns (templates/**/*.html) for --reload. Repeatable.",
    )
    .flags(&["--reload-extra-file"]),
    row(
        "spew",
        SECTION,
        Kind::Bool { cli: true },
        Default::Bool(false),
        "Print every line of Python that runs.",
    )
    .flags(&["--spew"]),
    row(
        "check_config",
        SECTION,
        Kind::Bool { cli: true },
        Default::Bool(false),
        "Check the settings and import the application, then exit.",
    )
    .flags(&["--check-config"]),
    row(
        "print_config",
        SECTION,
        Kind::Bool { cli: true },
        Default::Bool(false),
        "Print every setting with its value and source, then check like --check-config.",
    )
    .flags(&["--print-config"]),
];
