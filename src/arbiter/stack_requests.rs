//! `stack PID`: the worker is asked on its control channel, the loop goes on, and the response is passed on when it
//! comes.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use serde_json::{Value, json};

use super::children::Children;
use super::control_channel::{self, ControlChannel, WorkerChannel};
use super::signals::dump_signal;
use super::worker_handle::WorkerHandle;
use crate::control::{self, ClientId};

/// Who waits for stacks.
#[derive(Clone, Debug)]
pub(super) enum Asker {
    /// Of the control socket, with the number of its request.
    Control(ClientId, Value),
    /// A connection of `admin_bind`.
    Admin(u64),
}

/// The control channels of all workers, and the clients that wait for stacks.
#[derive(Debug, Default)]
pub(super) struct StackRequests {
    /// By the worker's age.
    channels: BTreeMap<u64, ControlChannel>,
    waiting: Vec<StackRequest>,
    last_number: u32,
}

#[derive(Debug)]
struct StackRequest {
    number: u32,
    asker: Asker,
    pid: i32,
    age: u64,
    deadline: u64,
    /// The interpreter did not respond; `faulthandler` was asked.
    is_dumping: bool,
}

/// What a client is sent.
#[derive(Debug)]
pub(super) struct StackAnswer {
    pub(super) asker: Asker,
    pub(super) result: Result<Value, StackError>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum StackError {
    #[error("Worker {0} cannot be asked")]
    Unreachable(i32),
    #[error("Worker {0} is gone")]
    Gone(i32),
    #[error("The worker's response could not be parsed: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl StackRequests {
    /// The ends of a new worker's channel. A worker without one cannot be asked for its stacks, and no fork server can
    /// make it; nothing else is missing.
    pub(super) fn open_channel(&mut self, age: u64) -> Option<WorkerChannel> {
        match control_channel::open() {
            Ok((ours, theirs)) => {
                self.channels.insert(age, ours);
                Some(theirs)
            }
            Err(error) => {
                log::warn!("The next worker will not be able to report its stacks: {error}");
                None
            }
        }
    }

    /// The worker is known: it may begin.
    pub(super) fn start_worker(&mut self, age: u64) {
        if let Some(channel) = self.channels.get_mut(&age) {
            channel.start();
        }
    }

    pub(super) fn close_channel(&mut self, age: u64) {
        self.channels.remove(&age);
    }

    /// What the loop's poll waits for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let waiting = self.waiting.iter();
        let channels = waiting.filter_map(|request| self.channels.get(&request.age));
        channels.map(ControlChannel::descriptor)
    }

    /// Milliseconds that the loop may sleep.
    pub(super) fn patience(&self, now: u64) -> Option<u64> {
        let left = self.waiting.iter();
        left.map(|request| request.deadline.saturating_sub(now).max(1))
            .min()
    }

    /// Asks a worker for its stacks.
    ///
    /// # Errors
    /// Its channel is full or missing.
    pub(super) fn request(
        &mut self,
        asker: Asker,
        worker: &WorkerHandle,
        now: u64,
    ) -> Result<(), StackError> {
        self.last_number = match self.last_number.wrapping_add(1) {
            control_channel::START => 1,
            number => number,
        };
        let (number, age, pid) = (self.last_number, worker.age(), worker.pid().as_raw());
        let channel = self.channels.get_mut(&age);
        if !channel.is_some_and(|channel| channel.request(number)) {
            return Err(StackError::Unreachable(pid));
        }
        self.waiting.push(StackRequest {
            number,
            asker,
            pid,
            age,
            deadline: now + RESPONSE_MS,
            is_dumping: false,
        });
        Ok(())
    }

    /// The stacks that have come, and the errors of workers that could not respond.
    pub(super) fn collect(&mut self, children: &Children, now: u64) -> Vec<StackAnswer> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut responses = Vec::new();
        for request in &waiting {
            let channel = self.channels.get_mut(&request.age);
            responses.extend(channel.map(ControlChannel::responses).unwrap_or_default());
        }
        let mut answers = Vec::new();
        for request in waiting {
            let position = responses
                .iter()
                .position(|(number, _)| *number == request.number);
            let worker = children.by_age(request.age);
            let result = match (position, worker) {
                (Some(at), worker) => stacks(&request, worker, &responses.swap_remove(at).1, now),
                (None, None) => Err(StackError::Gone(request.pid)),
                (None, Some(_)) if request.deadline > now => {
                    self.waiting.push(request);
                    continue;
                }
                (None, Some(worker)) => match self.dump(request, worker, now) {
                    Some(answer) => {
                        answers.push(answer);
                        continue;
                    }
                    None => continue,
                },
            };
            answers.push(StackAnswer {
                asker: request.asker,
                result,
            });
        }
        answers
    }

    /// The interpreter has not responded: first `faulthandler` is asked, then the client gets what it wrote.
    fn dump(
        &mut self,
        mut request: StackRequest,
        worker: &WorkerHandle,
        now: u64,
    ) -> Option<StackAnswer> {
        let text = self.channels.get(&request.age)?.dumped();
        if !request.is_dumping
            && let Some(signal) = dump_signal()
        {
            worker.send(signal);
            request.is_dumping = true;
            request.deadline = now + DUMP_MS;
            self.waiting.push(request);
            return None;
        }
        let heartbeat = worker.heartbeats(now).python;
        let silent = (heartbeat != 0).then(|| now.saturating_sub(heartbeat) / 1000);
        let data = json!({
            "worker": request.pid,
            "threads": [],
            "requests": running(worker, now),
            "python_heartbeat": silent,
            "note": NO_RESPONSE,
            "dump": String::from_utf8_lossy(&text).lines().collect::<Vec<_>>(),
        });
        Some(StackAnswer {
            asker: request.asker,
            result: Ok(data),
        })
    }
}

/// The worker's threads, and the requests that they run.
fn stacks(
    request: &StackRequest,
    worker: Option<&WorkerHandle>,
    payload: &[u8],
    now: u64,
) -> Result<Value, StackError> {
    let threads: Value = serde_json::from_slice(payload)?;
    let requests = worker.map(|worker| running(worker, now));
    Ok(json!({
        "worker": request.pid,
        "threads": threads,
        "requests": requests.unwrap_or_default(),
    }))
}

fn running(worker: &WorkerHandle, now: u64) -> Vec<Value> {
    let threads = worker.slot().running_threads();
    let rows = threads.map(|(thread, request)| {
        let mut row = control::running(&request, now);
        row["thread"] = Value::from(thread);
        row
    });
    rows.collect()
}

const NO_RESPONSE: &str = "The interpreter did not answer within 2 seconds: some thread keeps the GIL, \
    as C code can. What follows is what faulthandler sees without it.";
/// How long a worker has to report its stacks. The loop goes on meanwhile.
const RESPONSE_MS: u64 = 2000;
/// How long `faulthandler` has: it writes at once, in a signal handler.
const DUMP_MS: u64 = 300;
