//! The arbiter: the master process. It owns the listeners, starts workers and keeps them running.
//!
//! One thread, one loop, gunicorn's: wait at most a second for a signal or a worker's notification; act on signals in
//! the order they came; reap children that ended; kill silent ones; start and retire so that `num_workers` serve.
//!
//! Invariants:
//! - It never starts a thread and never imports the application (`--preload` is the business of a process of its
//!   own, see `fork_server`): that is what makes its forks safe.
//! - It never waits for another process: a worker, a fork server or a client that hangs holds up nothing here.
//! - Which process is signalled and which is believed dead is the kernel's word, never what a worker can write.
//! - `run` returns in the arbiter with an exit code, and in every child with its context. Nothing that is dropped on
//!   the way out of it removes a file.
//!
//! # Layers
//! A file uses its own layer and those above it in the table.
//!
//! | layer | files |
//! | --- | --- |
//! | rules and words | `supervision`, `backoff`, `stopping`, `runtime`, `signals` |
//! | owners that use no other | `listeners`, `pidfile`, `certificate_watch`, `binary_upgrade`, `notifier`, `admin_response`, `admin_token`, `admin_server`, `metrics`, `control_channel`, `worker_handle`, `rollout`, `deferred_reload` |
//! | owners that are given others | `fork`, `exit_report`, `children`, `fork_server`, `spawner`, `watchdog`, `wear`, `gauges`, `stack_requests`, `control_server`, `dashboard`, `admin_pages`, `admin_actions`, `start_error`, `outcome` |
//! | the arbiter itself, which passes on what they need | `main_loop` |

mod admin_actions;
mod admin_pages;
mod admin_response;
mod admin_server;
mod admin_token;
mod backoff;
mod binary_upgrade;
mod certificate_watch;
mod children;
mod control_channel;
mod control_server;
mod dashboard;
mod deferred_reload;
mod exit_report;
mod fork;
mod fork_server;
mod gauges;
mod listeners;
mod main_loop;
mod metrics;
mod notifier;
mod outcome;
mod pidfile;
mod rollout;
mod runtime;
pub mod signals;
mod spawner;
mod stack_requests;
mod start_error;
mod stopping;
mod supervision;
mod watchdog;
mod wear;
mod worker_handle;

pub use admin_token::{TokenError, check_token};
pub use certificate_watch::{CertificateError, TICKETS, unix_now};
pub use control_channel::WorkerChannel;
pub use fork::WorkerContext;
pub use fork_server::{ForkServerContext, Place, SpawnRequest};
pub use listeners::ListenError;
pub use notifier::Supervisor;
pub use outcome::{Outcome, Start};
pub use runtime::{Forked, Hook, HookError, HookEvent, ReloadError, Runtime, WorkerInfo};
pub use start_error::StartError;
pub use supervision::{EXIT_APP_LOAD, EXIT_BOOT};

use self::main_loop::{Arbiter, Served};
use self::outcome::EXIT_UNHANDLED;
use crate::net::host_names;

/// Runs the server until it stops. Returns in children too: see `Outcome`.
pub fn run(runtime: &mut dyn Runtime, start: Start) -> Outcome {
    host_names::never_wait();
    let mut arbiter = match Arbiter::new(runtime, start) {
        Ok(arbiter) => arbiter,
        Err(error) => return Outcome::Refused(error),
    };
    if let Err(error) = arbiter.start() {
        arbiter.unlink_files();
        return Outcome::Refused(error);
    }
    match arbiter.serve() {
        Ok(Served::Child(outcome)) => outcome,
        Ok(Served::End(end)) => Outcome::Exit(arbiter.halt(end)),
        Err(error) => {
            log::error!("Unhandled exception in main loop");
            log::error!("{error}");
            arbiter.stop(false);
            arbiter.unlink_files();
            Outcome::Exit(EXIT_UNHANDLED)
        }
    }
}
