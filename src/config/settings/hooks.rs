//! Rows: Server Hooks, Dirty Arbiter Hooks. Their values are Python callables.

use super::row::{Default, Kind, Section, Setting, row};

const DIRTY: &str = "there is no dirty arbiter";

const fn hook(name: &'static str, arity: u8, doc: &'static str) -> Setting {
    row(
        name,
        Section::ServerHooks,
        Kind::Hook { arity },
        Default::None,
        doc,
    )
}

const fn dirty(name: &'static str, arity: u8) -> Setting {
    row(
        name,
        Section::DirtyHooks,
        Kind::Hook { arity },
        Default::None,
        "Dirty arbiter hook.",
    )
    .no_effect(DIRTY)
}

pub(super) const ROWS: &[Setting] = &[
    hook("on_starting", 1, "(arbiter) Before the arbiter starts."),
    hook(
        "on_reload",
        1,
        "(arbiter) On SIGHUP, before the new workers.",
    ),
    hook("when_ready", 1, "(arbiter) After the sockets are bound."),
    hook(
        "pre_fork",
        2,
        "(arbiter, worker) Before a worker is forked.",
    ),
    hook(
        "post_fork",
        2,
        "(arbiter, worker) In a worker, right after the fork.",
    ),
    hook(
        "post_worker_init",
        1,
        "(worker) After the worker has imported the application.",
    ),
    hook(
        "worker_int",
        1,
        "(worker) The worker got SIGINT or SIGQUIT.",
    ),
    hook(
        "worker_abort",
        1,
        "(worker) The worker got SIGABRT: a heartbeat was missing for too long.",
    ),
    hook("pre_exec", 1, "(arbiter) Before a new arbiter is executed."),
    hook(
        "pre_request",
        2,
        "(worker, request) Before a request is handled.",
    ),
    row(
        "post_request",
        Section::ServerHooks,
        Kind::PostRequest,
        Default::None,
        "(worker, request, environ, response) After a request was handled.",
    ),
    hook(
        "child_exit",
        2,
        "(arbiter, worker) In the arbiter, after a worker has exited.",
    ),
    hook(
        "worker_exit",
        2,
        "(arbiter, worker) In a worker, before it exits.",
    ),
    hook(
        "nworkers_changed",
        3,
        "(arbiter, new, old) After the number of workers has changed.",
    ),
    hook("on_exit", 1, "(arbiter) Before the arbiter exits."),
    hook(
        "ssl_context",
        2,
        "(config, default_factory) Creates the SSL context: once, and what cannot be carried over is refused.",
    ),
    dirty("on_dirty_starting", 1),
    dirty("dirty_post_fork", 2),
    dirty("dirty_worker_init", 1),
    dirty("dirty_worker_exit", 2),
];
