//! The contract between the event loop and the threads that run the application: neither sockets nor Python here.
//!
//! The loop pushes a [`Job`] (one complete request) with [`Pool::push`]; a pool thread takes it with
//! [`PoolThread::next_job`], runs the application and answers with [`Reply`] values through [`Pool::send`]. A response
//! that is streamed is slowed down by its [`Window`]. Bytes of the application that the loop has written may not be
//! dropped without the GIL: they go back through [`Pool::defer_drop`].
//!
//! # Layers
//! A file uses those above it and none below.
//!
//! | layer | files |
//! | --- | --- |
//! | words | `alarm`, `conn_id`, `estimates`, `sync`, `buffer_pool`, `wait_sampler`, `tls_info`, `disk_thread`, `temporary_file`, `hub_wakeup`, `borrowed_buffer`, `counted_objects`, `shared_files`, `hurries`, `response_memory`, `stream_spool`, `window` |
//! | rules | [`policy`]: when a thread or the loop wakes, parks and sleeps; [`balance`]: which work goes to a peer worker; `delegation`: when a thread runs the loop |
//! | parts | `wakeup` (at most one thread is waking), `loop_park` (the loop's sleep), `loop_role` (who runs the loop), `live_connections`, `gone_streams`, `in_flight`, `streaming_body`, `convoy`, `busy_threads`, `job_stats` |
//! | messages | `job` |
//! | queues | `job_queue` (in), `replies` (back) |
//! | the whole | `thread_pool` |
//! | a thread's side | `thread` |

mod alarm;
pub mod balance;
mod borrowed_buffer;
mod buffer_pool;
mod busy_threads;
mod conn_id;
mod convoy;
mod counted_objects;
mod delegation;
mod disk_thread;
mod estimates;
mod gone_streams;
mod hub_wakeup;
mod hurries;
mod in_flight;
mod job;
mod job_queue;
mod job_stats;
mod live_connections;
mod loop_park;
mod loop_role;
pub mod policy;
mod replies;
mod response_memory;
mod shared_files;
mod stream_spool;
mod streaming_body;
mod sync;
mod temporary_file;
mod thread;
mod thread_pool;
mod tls_info;
mod wait_sampler;
mod wakeup;
mod window;

use std::sync::Arc;

pub use borrowed_buffer::BorrowedBuffer;
pub use buffer_pool::{BodyBytes, BufferPool, REUSED_BYTES_MIN};
pub use conn_id::ConnId;
pub use delegation::{Delegation, Found};
pub use estimates::OneRequestShare;
pub use hub_wakeup::{HubWakeup, Ticket};
pub use in_flight::InFlightRequest;
pub use job::{AccessLine, Job, Peer, Piece, Reply, RequestBody, ResponseBody, StreamedResponse};
pub use loop_role::{DelegableLoop, NextHolder, Served};
pub use policy::{Reason, SleepMode};
pub use response_memory::{COUNTED_BYTES_MIN, Overdraft, Reservation, UnsentBytes};
pub use shared_files::{PieceFile, SharedFiles, StoredBytes};
pub use stream_spool::{FILE_BYTES_MAX, SpooledPart, TAIL_BYTES_MAX};
pub use streaming_body::{BodyDemand, StreamingBody};
pub use temporary_file::{TemporaryFile, temporary_file};
pub use thread::{NextJob, PoolThread};
pub use thread_pool::Pool;
pub use tls_info::{ClientCertificate, TlsInfo, openssl_date};
pub use window::{NotSent, NotStored, SpoolRoom, Waited, Window, WindowClosed};

/// A request that runs longer than `request_timeout`.
#[derive(Clone, Debug)]
pub struct TimedOutRequest {
    /// The number of the thread that runs it.
    pub thread: usize,
    /// See [`PoolThread::token`].
    pub token: u64,
    /// The request in words, for the log.
    pub request: String,
}

/// A pool thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("a pool thread could not be started: {0}")]
pub struct ThreadStartError(#[from] pub Box<dyn std::error::Error + Send + Sync>);

/// What the pool's threads run. Python is one implementation, a closure in the tests is another.
pub trait Application: Send + Sync {
    /// Start `pool.thread_count()` threads. Each calls [`PoolThread::register`] once, then [`PoolThread::next_job`]
    /// until it returns `None`, and drops its [`PoolThread`] last.
    ///
    /// # Errors
    /// A thread could not be started.
    fn start_threads(&self, pool: &Arc<Pool>) -> Result<(), ThreadStartError>;

    /// Whether the threads run side by side, which threads of an interpreter with a GIL do not.
    fn is_parallel(&self) -> bool {
        false
    }

    /// What wakes the one native thread that takes all the pool's places, and runs jobs as greenlets of one hub there.
    fn hub(&self) -> Option<Arc<HubWakeup>> {
        None
    }

    /// Called on the event loop's thread when a signal that the application handles itself has arrived.
    fn on_interrupt(&self) {}

    /// Called on the event loop's thread for each signal to the worker that the loop does not act upon alone (INT,
    /// QUIT and ABRT before it stops, USR1, WINCH).
    fn on_signal(&self, _signal: i32) {}

    /// Called on the event loop's thread, once for each request that runs longer than `request_timeout`. Must not wait.
    fn on_request_timeout(&self, _request: &TimedOutRequest) {}
}

#[cfg(test)]
mod tests;
