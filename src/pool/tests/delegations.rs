//! A loop that is delegated, with real threads and a real alarm. (`loop_role.rs` has no tests in it: the model compiles it.)
#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle, ThreadId};

use crate::pool::loop_role::{DelegableLoop, LoopRole, NextHolder, Served};

/// A loop whose iterations end as a test says. It says where they ran.
struct Scripted {
    ends: Receiver<Box<dyn Fn() -> io::Result<NextHolder> + Send>>,
    ran: Sender<ThreadId>,
}

impl DelegableLoop for Scripted {
    fn serve(&mut self) -> io::Result<Served> {
        Ok(Served::Calm)
    }

    fn run_once(&mut self) -> io::Result<NextHolder> {
        self.ran.send(thread::current().id()).unwrap();
        self.ends.recv().unwrap()()
    }
}

/// A monitor that delegates its loop until a iteration has run, and then ends with the delegation.
struct Monitor {
    role: Arc<LoopRole>,
    ends: Sender<Box<dyn Fn() -> io::Result<NextHolder> + Send>>,
    ran: Receiver<()>,
    thread: JoinHandle<(Vec<ThreadId>, io::Result<()>)>,
}

fn monitor() -> Monitor {
    let role = Arc::new(LoopRole::new());
    let (ends, scripted) = channel();
    let (runs, ran) = channel();
    let (reports, reported) = channel();
    let lender = Arc::clone(&role);
    let thread = thread::spawn(move || {
        assert!(lender.prepare());
        let mut event_loop: Box<dyn DelegableLoop> = Box::new(Scripted {
            ends: scripted,
            ran: runs,
        });
        loop {
            let (back, end) = lender.delegate(event_loop, || {});
            let threads: Vec<_> = ran.try_iter().collect();
            if !threads.is_empty() {
                return (threads, end);
            }
            event_loop = back;
            let _ = reports.send(());
        }
    });
    Monitor {
        role,
        ends,
        ran: reported,
        thread,
    }
}

impl Monitor {
    fn script(&self, end: impl Fn() -> io::Result<NextHolder> + Send + 'static) {
        self.ends.send(Box::new(end)).unwrap();
    }

    /// Take the loop and run it.
    fn run(&self, has_work: impl Fn() -> bool) {
        while self.role.run(&has_work).is_none() {
            thread::yield_now();
        }
    }
}

#[test]
fn a_loop_that_no_thread_takes_is_the_monitors_again() {
    let monitor = monitor();
    monitor.ran.recv().unwrap();
    monitor.ran.recv().unwrap();
    monitor.script(|| Ok(NextHolder::Monitor));
    monitor.run(|| false);
    assert!(monitor.thread.join().unwrap().1.is_ok());
}

#[test]
fn a_thread_runs_the_loop_until_it_is_the_monitors() {
    let monitor = monitor();
    for iteration in [NextHolder::Same, NextHolder::Same, NextHolder::Monitor] {
        monitor.script(move || Ok(iteration));
    }
    monitor.run(|| false);
    let (threads, end) = monitor.thread.join().unwrap();
    assert_eq!(threads, [thread::current().id(); 3]);
    assert!(end.is_ok() && !monitor.role.is_delegated() && !monitor.role.is_aside());
    assert_eq!(monitor.role.run(|| false), None);
}

#[test]
fn a_loop_whose_thread_does_not_come_back_from_its_job_is_the_monitors() {
    let monitor = monitor();
    monitor.script(|| Ok(NextHolder::Same));
    let iterations = std::cell::Cell::new(0);
    monitor.run(|| iterations.replace(iterations.get() + 1) == 1);
    let (threads, end) = monitor.thread.join().unwrap();
    assert_eq!(threads.len(), 1);
    assert!(end.is_ok());
}

#[test]
fn a_recalled_thread_puts_the_loop_aside() {
    let monitor = monitor();
    let role = Arc::clone(&monitor.role);
    monitor.script(move || {
        role.recall();
        assert!(role.is_recalled());
        Ok(NextHolder::Same)
    });
    monitor.run(|| false);
    assert_eq!(monitor.thread.join().unwrap().0.len(), 1);
    monitor.role.recall();
    assert!(!monitor.role.is_recalled(), "the loop is with the monitor");
}

#[test]
fn an_error_and_a_panic_of_the_loop_are_the_monitors() {
    let failed = monitor();
    failed.script(|| Err(io::ErrorKind::BrokenPipe.into()));
    failed.run(|| false);
    let error = failed.thread.join().unwrap().1.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);

    let panicked = monitor();
    panicked.script(|| panic!("on purpose"));
    let run = std::panic::AssertUnwindSafe(|| panicked.run(|| false));
    std::panic::catch_unwind(run).unwrap_err();
    let error = panicked.thread.join().unwrap().1.unwrap_err();
    assert_eq!(error.to_string(), "the event loop panicked");
}
