//! THE table: one row per setting. Command line, environment, config file, `--help` and
//! `--print-config` all come from it; adding a row is all it takes to add a setting.
//!
//! Rows are in `settings/`, by gunicorn's own sections. A row says how the value is checked (`Kind`) and
//! what the setting does here (`Verdict`). A setting that does nothing here is still a row, so that no
//! command line or config file written for gunicorn fails on it.

mod control;
mod debugging;
mod hooks;
mod http2;
mod lifecycle;
mod logging;
mod mechanics;
mod row;
mod security;
mod socket;
mod tls;
pub(super) mod workers;

use std::sync::LazyLock;

pub use self::row::{Default, EnvDefault, Kind, Section, Setting, Verdict};

/// All rows, section by section.
pub fn all() -> &'static [Setting] {
    static ALL: LazyLock<Vec<Setting>> = LazyLock::new(|| {
        let files = [
            socket::ROWS,
            workers::ROWS,
            lifecycle::ROWS,
            security::ROWS,
            debugging::ROWS,
            mechanics::ROWS,
            logging::ROWS,
            hooks::ROWS,
            tls::ROWS,
            http2::ROWS,
            control::ROWS,
        ];
        files.concat()
    });
    &ALL
}

pub fn find(name: &str) -> Option<&'static Setting> {
    all().iter().find(|setting| setting.name == name)
}

/// Whether `worker_class` may have this value: a name, a path, or Python's repr of a class.
pub fn has_worker_class(class: &str) -> bool {
    workers::refusal(class).is_none()
}

pub fn names() -> impl Iterator<Item = &'static str> {
    all().iter().map(|setting| setting.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn has_all_of_gunicorn_and_no_row_twice() {
        assert_eq!(all().iter().filter(|setting| !setting.ours).count(), 120);
        assert_eq!(names().collect::<BTreeSet<_>>().len(), all().len());
        let flags = || all().iter().flat_map(|setting| setting.flags);
        assert_eq!(flags().collect::<BTreeSet<_>>().len(), flags().count());
        assert_eq!(
            all()
                .iter()
                .filter(|s| !s.ours && s.flags.is_empty())
                .count(),
            25
        );
    }

    #[test]
    fn every_row_is_described_in_a_sentence() {
        for setting in all() {
            assert!(
                setting.doc.ends_with('.') && setting.doc.len() < 130,
                "{}",
                setting.name
            );
        }
    }
}
