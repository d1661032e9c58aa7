//! `stack PID`: the worker is asked on its line, the loop goes on, and the answer is passed on when it comes.

use serde_json::{Value, json};

use super::Arbiter;
use super::control::Control;
use super::line;
use super::workers::WorkerHandle;
use crate::control::{self, ClientId};
use crate::scoreboard::monotonic_ms;

/// A client waits for a worker's stacks.
#[derive(Debug)]
pub(super) struct Question {
    number: u32,
    client: ClientId,
    id: Value,
    pid: i32,
    pub(super) age: u64,
    pub(super) deadline: u64,
    /// The interpreter did not answer; `faulthandler` was asked.
    is_dumping: bool,
}

impl Control {
    pub(super) fn ask(&mut self, client: ClientId, id: Value, pid: i32, age: u64) {
        self.last_question = self.last_question.wrapping_add(1);
        let number = self.last_question;
        let asked = self
            .lines
            .get_mut(&age)
            .is_some_and(|line| line.ask(number));
        if !asked {
            return self.answer(client, &id, Err(format!("Worker {pid} cannot be asked")));
        }
        self.questions.push(Question {
            number,
            client,
            id,
            pid,
            age,
            deadline: monotonic_ms() + ANSWER_MS,
            is_dumping: false,
        });
    }
}

impl Arbiter<'_> {
    /// Passes on the stacks that workers told, and the excuses of those that could not.
    pub(super) fn collect_stacks(&mut self, now: u64) {
        let known: Vec<u64> = self.workers.iter().map(|worker| worker.age).collect();
        self.control.lines.retain(|age, _| known.contains(age));
        let questions = std::mem::take(&mut self.control.questions);
        let mut told = Vec::new();
        for question in &questions {
            let line = self.control.lines.get_mut(&question.age);
            told.extend(line.map(|line| line.answers()).unwrap_or_default());
        }
        for question in questions {
            let answer = told
                .iter()
                .position(|(number, _)| *number == question.number);
            match answer {
                Some(at) => {
                    let (_, payload) = told.swap_remove(at);
                    let data = self.stacks(&question, &payload, now);
                    self.control.answer(question.client, &question.id, data);
                }
                None if !known.contains(&question.age) => {
                    let gone = format!("Worker {} is gone", question.pid);
                    self.control
                        .answer(question.client, &question.id, Err(gone));
                }
                None if question.deadline > now => self.control.questions.push(question),
                None => self.give_up_or_dump(question, now),
            }
        }
    }

    /// The interpreter has not answered: first `faulthandler` is asked, then the client is told what it says.
    fn give_up_or_dump(&mut self, mut question: Question, now: u64) {
        let worker = self
            .workers
            .iter()
            .find(|worker| worker.age == question.age);
        let line = self.control.lines.get(&question.age);
        let (Some(worker), Some(line)) = (worker, line) else {
            return;
        };
        let text = line.dumped();
        if !question.is_dumping
            && let Some(signal) = line::dump_signal()
        {
            worker.send(signal);
            question.is_dumping = true;
            question.deadline = now + DUMP_MS;
            self.control.questions.push(question);
            return;
        }
        let beat = worker.beats().python;
        let silent = (beat != 0).then(|| now.saturating_sub(beat) / 1000);
        let data = json!({
            "worker": question.pid,
            "threads": [],
            "requests": self.running(&question, now),
            "python_heartbeat": silent,
            "note": NO_ANSWER,
            "dump": String::from_utf8_lossy(&text).lines().collect::<Vec<_>>(),
        });
        self.control.answer(question.client, &question.id, Ok(data));
    }

    /// The worker's threads, and the requests that they run.
    fn stacks(&self, question: &Question, payload: &[u8], now: u64) -> Result<Value, String> {
        let threads: Value = serde_json::from_slice(payload)
            .map_err(|error| format!("The worker's answer is not readable: {error}"))?;
        Ok(json!({
            "worker": question.pid,
            "threads": threads,
            "requests": self.running(question, now),
        }))
    }

    fn running(&self, question: &Question, now: u64) -> Vec<Value> {
        let worker = self
            .workers
            .iter()
            .find(|worker| worker.age == question.age);
        let slot = worker.map(WorkerHandle::slot);
        let running = slot.into_iter().flat_map(|slot| slot.running_threads());
        let rows = running.map(|(thread, request)| {
            let mut row = control::running(&request, now);
            row["thread"] = Value::from(thread);
            row
        });
        rows.collect()
    }
}

const NO_ANSWER: &str = "The interpreter did not answer within 2 seconds: some thread keeps the GIL, \
    as C code can. What follows is what faulthandler sees without it.";
/// How long a worker has to tell its stacks. Other tools give up after 30 seconds; the loop is not held up meanwhile.
const ANSWER_MS: u64 = 2000;
/// And how long `faulthandler` has: it writes at once, in a signal handler.
const DUMP_MS: u64 = 300;
