//! Rows that gunicorn does not have: how workers are replaced and how the server stops. Part of the section Worker Processes.

use super::row::{Default, Kind, Section, Setting, row};

const SECTION: Section = Section::WorkerProcesses;

pub(super) const ROWS: &[Setting] = &[
    row(
        "reload_surge",
        SECTION,
        AT_LEAST_ONE,
        Default::Int(1),
        "How many worker processes a reload may run in addition to --workers.",
    )
    .flags(&["--reload-surge"])
    .ours(),
    row(
        "max_retiring",
        SECTION,
        AT_LEAST_ONE,
        Default::Int(1),
        "How many workers are replaced at a time for --max-requests and other limits.",
    )
    .flags(&["--max-retiring"])
    .ours(),
    row(
        "max_worker_memory",
        SECTION,
        Kind::Int,
        Default::Int(0),
        "Replace a worker that holds more than this many MiB of memory. 0: never.",
    )
    .flags(&["--max-worker-memory"])
    .ours(),
    row(
        "max_worker_lifetime",
        SECTION,
        Kind::Int,
        Default::Int(0),
        "Replace a worker after this many seconds. 0: never.",
    )
    .flags(&["--max-worker-lifetime"])
    .ours(),
    row(
        "max_worker_lifetime_jitter",
        SECTION,
        Kind::Int,
        Default::Int(0),
        "Random number of seconds up to this added to --max-worker-lifetime.",
    )
    .flags(&["--max-worker-lifetime-jitter"])
    .ours(),
    row(
        "stop_delay",
        SECTION,
        Kind::Int,
        Default::Int(0),
        "Seconds to keep serving after SIGTERM, until load balancers have noticed.",
    )
    .flags(&["--stop-delay"])
    .ours(),
];

/// None at all would mean to take capacity away first.
const AT_LEAST_ONE: Kind = Kind::IntWithin {
    min: 1,
    max: 1000,
    complaint: |number| format!("must be from 1 to 1000, not {number}"),
};
