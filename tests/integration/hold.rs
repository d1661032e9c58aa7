//! An application that holds requests until the test lets them go, and notes what it has run.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use ferricorn::pool::{Job, PoolThread};

use crate::support::{Client, Server, answer};

/// What the application notes.
#[derive(Debug, Default)]
struct Notes {
    targets: Vec<String>,
    /// Of each held request, when it was let go: whether its client was gone.
    gone: Vec<bool>,
}

/// The test's end of the application.
pub(crate) struct Hold {
    notes: Arc<Mutex<Notes>>,
    began: Receiver<()>,
    go: Sender<()>,
}

/// An application that answers `done`. A request for `/hold` reports that it began, and waits for the test.
pub(crate) fn holding() -> (Hold, impl Fn(&PoolThread, Box<Job>) + Send + Sync) {
    let notes = Arc::<Mutex<Notes>>::default();
    let (began, began_at) = channel();
    let (go, go_at) = channel();
    let hold = Hold {
        notes: notes.clone(),
        began: began_at,
        go,
    };
    let (began, go_at) = (Mutex::new(began), Mutex::new(go_at));
    let run = move |thread: &PoolThread, job: Box<Job>| {
        let target = String::from_utf8_lossy(job.head.target()).into_owned();
        if target == "/hold" {
            let began = began.lock().expect("no panic");
            began.send(()).expect("the test waits");
            // A test that is over lets everything go.
            let _ = go_at.lock().expect("no panic").recv();
            let is_gone = thread.pool().is_gone(job.conn);
            notes.lock().expect("no panic").gone.push(is_gone);
        }
        notes.lock().expect("no panic").targets.push(target);
        answer(thread, job, b"done");
    };
    (hold, run)
}

impl Hold {
    /// Ask for `/hold`, and wait until it runs.
    pub(crate) fn begin(&self, client: &mut Client) {
        get(client, "/hold");
        self.began.recv().expect("the request runs");
    }

    /// Let the held request go.
    pub(crate) fn release(&self) {
        self.go.send(()).expect("the request waits");
    }

    /// The targets of the requests that ran, in their order.
    pub(crate) fn ran(&self) -> Vec<String> {
        self.notes.lock().expect("no panic").targets.clone()
    }

    /// Of each held request, when it was let go: whether its client was gone.
    pub(crate) fn gone(&self) -> Vec<bool> {
        self.notes.lock().expect("no panic").gone.clone()
    }
}

pub(crate) fn get(client: &mut Client, target: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
}

/// The loop has handled what came before when it has refused something that came after; no thread is needed for that.
pub(crate) fn let_the_loop_see(server: &Server) {
    server.connect().send("BAD\r\n\r\n").response();
}
