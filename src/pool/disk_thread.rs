//! The thread that gives back what is done with on the disk. To free the pages of a file takes some 70 µs for each MiB, and longer
//! where the disk is busy; who is done with a file is often the event loop, or a thread that has the GIL.
//!
//! It is started with the first of them and runs until the process ends. It never sees Python, and nobody waits for it. What waits
//! for it is bounded by what was stored. The arbiter stores nothing, so workers inherit no thread that is not there.

use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, SendError, Sender, channel};

use nix::sys::signal::SigSet;

use crate::fork_guard::is_child;

type Work = Box<dyn FnOnce() + Send>;

static THREAD: LazyLock<Option<Sender<Work>>> = LazyLock::new(|| {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new()
        .name("ferricorn-disk".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || run(receiver));
    thread.is_ok().then_some(sender)
});

/// Call `work` on the thread, after all that came before it. In a child that the application has forked, and where no thread was
/// to be had, it is called here.
pub(super) fn give(work: impl FnOnce() + Send + 'static) {
    // A child has no such thread.
    if is_child() {
        return work();
    }
    match &*THREAD {
        Some(thread) => {
            if let Err(SendError(work)) = thread.send(Box::new(work)) {
                work();
            }
        }
        None => work(),
    }
}

fn run(works: Receiver<Work>) {
    // Signals are for the main thread.
    let _ = SigSet::all().thread_block();
    for work in works {
        work();
    }
}

/// It calls nothing that is deep.
const STACK_BYTES: usize = 128 * 1024;

/// Wait until the thread has done what it was given.
#[cfg(test)]
pub(super) fn wait_until_done() {
    let (done, is_done) = channel();
    give(move || done.send(()).unwrap_or_default());
    let _ = is_done.recv();
}

/// Have the thread stand still until what is returned is dropped.
#[cfg(test)]
pub(super) fn hold() -> Sender<()> {
    let (release, until) = channel::<()>();
    give(move || until.recv().unwrap_or_default());
    release
}
