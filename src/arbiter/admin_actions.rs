//! What a request with `admin_token` can have done: a reload, a worker more or fewer, the stacks of a worker.
//!
//! What changes the server is sent to this process as a signal, so it is logged and ordered like any other. Only stacks take
//! time: their response is given when the worker has answered, see `stack_requests`.

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::admin_response::{Answered, Asked, Method, Response};
use super::admin_token::AdminToken;
use super::children::Children;
use super::control_server::signal_self;
use super::dashboard::is_own_host;
use super::stack_requests::{Asker, StackError, StackRequests};
use crate::config::Config;
use crate::scoreboard::monotonic_ms;

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Reload,
    AddWorker,
    RemoveWorker,
    Stack,
}

impl Action {
    pub(super) fn at(path: &[u8]) -> Option<Self> {
        match path {
            b"/actions/reload" => Some(Self::Reload),
            b"/actions/add-worker" => Some(Self::AddWorker),
            b"/actions/remove-worker" => Some(Self::RemoveWorker),
            b"/actions/stack" => Some(Self::Stack),
            _ => None,
        }
    }
}

/// What actions need.
pub(super) struct AdminActions<'a> {
    /// Of the arbiter.
    pub(super) pid: Pid,
    pub(super) config: &'a Config,
    pub(super) children: &'a Children,
    pub(super) stacks: &'a mut StackRequests,
    /// How many workers there shall be.
    pub(super) num_workers: usize,
    pub(super) is_stopping: bool,
}

impl AdminActions<'_> {
    /// `number` is the connection's, for a response that comes later.
    pub(super) fn answer(
        self,
        (action, asked): (Action, &Asked),
        token: &mut AdminToken,
        number: u64,
    ) -> Answered {
        if asked.method() != Method::Post {
            return Answered::Now(Response::only_post());
        }
        if !is_own_host(asked.host(), &self.config.control) {
            return Answered::Now(Response::misdirected());
        }
        match token.permit(asked) {
            Ok(()) => self.act(action, asked, number),
            Err(refusal) => Answered::Now(refusal),
        }
    }

    fn act(self, action: Action, asked: &Asked, number: u64) -> Answered {
        if self.is_stopping && action != Action::Stack {
            return Answered::Now(Response::conflict("The server is stopping\n"));
        }
        Answered::Now(match action {
            Action::Reload => self.signal(Signal::SIGHUP, "reloading"),
            Action::AddWorker if self.num_workers >= WORKERS_MAX => {
                Response::conflict("There are 1000 workers already\n")
            }
            Action::AddWorker => self.signal(Signal::SIGTTIN, "adding a worker"),
            Action::RemoveWorker if self.num_workers <= 1 => {
                Response::conflict("The last worker stays\n")
            }
            Action::RemoveWorker => self.signal(Signal::SIGTTOU, "removing a worker"),
            Action::Stack => return self.request_stacks(asked, number),
        })
    }

    fn signal(&self, signal: Signal, status: &str) -> Response {
        log::info!("admin_bind: {status}");
        match signal_self(self.pid, signal, json!({"status": status})) {
            Ok(data) => Response::json(data.to_string()),
            Err(error) => Response::conflict(format!("{error}\n")),
        }
    }

    fn request_stacks(self, asked: &Asked, number: u64) -> Answered {
        let pid = asked.form("pid");
        let pid = pid.and_then(|pid| String::from_utf8(pid).ok()?.parse().ok());
        let worker = pid.and_then(|pid| self.children.by_pid(Pid::from_raw(pid)));
        let Some(worker) = worker else {
            return Answered::Now(Response::bad_request("pid must be that of a worker\n"));
        };
        let asker = Asker::Admin(number);
        match self.stacks.request(asker, worker, monotonic_ms()) {
            Ok(()) => Answered::Later,
            Err(error) => Answered::Now(stack_response(Err(error))),
        }
    }
}

/// The stacks that have come, or why they have not.
pub(super) fn stack_response(result: Result<Value, StackError>) -> Response {
    match result {
        Ok(stacks) => Response::json(stacks.to_string()),
        Err(error) => Response::conflict(format!("{error}\n")),
    }
}

/// A button that sticks must not start processes without end.
const WORKERS_MAX: usize = 1000;
