//! The contract between the event loop and the threads that run the application: neither sockets nor Python here.
//!
//! The loop pushes a [`Job`] (one complete request) with [`Pool::push`]; a pool thread takes it with [`Seat::next`],
//! runs the application and answers with [`Reply`] values through [`Pool::send`]. A response that is streamed is
//! slowed down by its [`Window`]. What the loop has finished with but may not drop itself (objects of the
//! application) travels back through [`Pool::release`].

mod body;
pub mod heirs;
mod inflow;
mod job;
mod presence;
mod queue;
mod replies;
mod seat;
mod sync;
mod waits;
mod watch;
mod window;

use std::sync::Arc;

pub use body::{BodyBytes, REUSED_BYTES_MIN, Spares};
pub use inflow::Inflow;
pub use job::{ConnId, Job, Peer, Piece, Reply, RequestBody, ResponseBody, SharedBytes, Streaming};
pub use queue::Pool;
pub use replies::ParkMode;
pub use seat::Seat;
pub use watch::InHand;
pub use window::{Window, WindowClosed};

/// A request that runs longer than `request_timeout`.
#[derive(Clone, Debug)]
pub struct Overrun {
    /// Whose job it is.
    pub seat: usize,
    /// See [`Seat::token`].
    pub token: u64,
    /// The request in words, for the log.
    pub request: String,
}

/// What the pool's threads run. Python is one implementation, a closure in the tests is another.
pub trait Application: Send + Sync {
    /// Start `pool.thread_count()` threads, each of which calls [`Pool::enter`] once, then [`Seat::next`] until it
    /// returns `None`, and drops its [`Seat`] last.
    ///
    /// # Errors
    /// The reason, in words, why a thread could not be started.
    fn start_threads(&self, pool: &Arc<Pool>) -> Result<(), String>;

    /// Whether the threads run side by side, which threads of an interpreter with a GIL do not.
    fn is_parallel(&self) -> bool {
        false
    }

    /// Called on the event loop's thread when a signal that the application handles itself has arrived.
    fn on_interrupt(&self) {}

    /// Called on the event loop's thread for each signal to the worker that the loop does not act upon alone (INT,
    /// QUIT and ABRT before it stops, USR1, WINCH).
    fn on_signal(&self, _signal: i32) {}

    /// Called on the event loop's thread, once for each job that runs longer than `request_timeout`. Must not wait.
    fn on_overrun(&self, _overrun: &Overrun) {}
}
