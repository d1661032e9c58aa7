//! Rows: Dirty Arbiters, Control.

use super::row::{Default, Kind, Section, Setting, row};

const DIRTY: Section = Section::DirtyArbiters;
const NO_DIRTY: &str = "there is no dirty arbiter: use a task queue";
const WITH_DIRTY: &str = "there is no dirty arbiter";

pub(super) const ROWS: &[Setting] = &[
    row(
        "dirty_apps",
        DIRTY,
        Kind::Texts,
        Default::Texts(&[]),
        "Applications of dirty workers.",
    )
    .flags(&["--dirty-app"])
    .no_effect("it is used with dirty_workers"),
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
        "Unix socket for ferricornc; {pid} stands for the master's pid.",
    )
    .flags(&["--control-socket"])
    .differs("By default each server has a socket of its own. That of a running server is never taken over."),
    row(
        "control_socket_mode",
        Section::Control,
        Kind::OctalInt,
        Default::Int(0o600),
        "Mode of the control socket.",
    )
    .flags(&["--control-socket-mode"]),
    row(
        "control_socket_disable",
        Section::Control,
        Kind::Bool { cli: true },
        Default::Bool(false),
        "Do not create a control socket.",
    )
    .flags(&["--no-control-socket"]),
];
