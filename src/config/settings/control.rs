//! Rows: Dirty Arbiters, Control.

use super::{Default, Kind, Section, Setting, row};

const DIRTY: Section = Section::DirtyArbiters;
const NO_DIRTY: &str = "there is no dirty arbiter: run such work in a task queue";
const WITH_DIRTY: &str = "there is no dirty arbiter";
const NO_CONTROL: &str = "there is no control socket";

pub(super) const ROWS: &[Setting] = &[
    row(
        "dirty_apps",
        DIRTY,
        Kind::Texts,
        Default::Texts(&[]),
        "Applications of dirty workers.",
    )
    .flags(&["--dirty-app"])
    .no_effect("it goes with dirty_workers"),
    row(
        "dirty_workers",
        DIRTY,
        Kind::Int,
        Default::Int(0),
        "Number of dirty workers.",
    )
    .flags(&["--dirty-workers"])
    .refused(&["0"], NO_DIRTY),
    row(
        "dirty_timeout",
        DIRTY,
        Kind::Int,
        Default::Int(300),
        "Seconds for a dirty task.",
    )
    .flags(&["--dirty-timeout"])
    .no_effect(WITH_DIRTY),
    row(
        "dirty_threads",
        DIRTY,
        Kind::Int,
        Default::Int(1),
        "Threads of a dirty worker.",
    )
    .flags(&["--dirty-threads"])
    .no_effect(WITH_DIRTY),
    row(
        "dirty_graceful_timeout",
        DIRTY,
        Kind::Int,
        Default::Int(30),
        "Seconds for dirty workers to stop.",
    )
    .flags(&["--dirty-graceful-timeout"])
    .no_effect(WITH_DIRTY),
    row(
        "control_socket",
        Section::Control,
        Kind::Text,
        Default::ControlSocket,
        "Unix socket of the control interface.",
    )
    .flags(&["--control-socket"])
    .not_yet(NO_CONTROL),
    row(
        "control_socket_mode",
        Section::Control,
        Kind::OctalInt,
        Default::Int(0o600),
        "Mode of the control socket.",
    )
    .flags(&["--control-socket-mode"])
    .not_yet(NO_CONTROL),
    row(
        "control_socket_disable",
        Section::Control,
        Kind::Bool { cli: true },
        Default::Bool(false),
        "Have no control socket.",
    )
    .flags(&["--no-control-socket"]),
];

/// A path of our own: sharing gunicorn's would mean taking its socket away.
pub(super) fn default_path() -> String {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    if let Some(runtime) = variable("XDG_RUNTIME_DIR") {
        return format!("{runtime}/ferricorn.ctl");
    }
    let home = variable("HOME").unwrap_or_else(|| "/tmp".to_owned());
    format!("{home}/.ferricorn/ferricorn.ctl")
}
