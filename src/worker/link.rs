//! What a connection is beside its protocol, and the steps that are the same in every protocol.
//!
//! Each part guards its own fields; [`Link`] only names them, so that a protocol is given them together and borrows them one
//! by one.
//!
//! *Lingering close* (nginx's term): closing a socket with unread input would reset it, and the reset can destroy the
//! response before the client has read it (RFC 9112 section 9.6). So the end of the stream is sent first, and what still
//! comes is read and forgotten for a moment.

use super::connection_lifecycle::{Action, Lifecycle, Pace};
use super::http1::Client;
use super::loop_clock::Clock;
use super::read_side::ReadSide;
use super::requests::Requests;
use super::shared_io::SharedIo;
use super::transport::Transport;
use super::usage::Usage;
use super::write_side::{Progress, WriteBudget, WriteError, WriteSide};
use crate::net::unacknowledged_bytes;

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) transport: Transport,
    pub(super) read: ReadSide,
    pub(super) write: WriteSide,
    pub(super) lifecycle: Lifecycle,
    pub(super) usage: Usage,
}

/// Nothing waits to be written, and nothing that was read waits to be consumed.
pub(super) fn is_quiet(link: &Link) -> bool {
    link.write.is_empty() && link.read.is_empty()
}

/// Read and forget, until the client closes its side too.
pub(super) fn discard_input(link: &mut Link, io: &mut SharedIo) -> Action {
    Action::after_discarding(link.read.discard(&mut io.input, &mut link.transport))
}

/// Write what is queued. Returns what becomes of the connection when not everything was written.
///
/// # Errors
/// It can never be written.
pub(super) fn flush(
    link: &mut Link,
    pace: Pace,
    requests: &mut Requests,
    writes: &mut WriteBudget,
) -> Result<Option<Action>, WriteError> {
    let (transport, drops) = (&mut link.transport, &mut requests.drops);
    let (action, written) = match link.write.flush(transport, writes, drops)? {
        Progress::Done => return Ok(None),
        Progress::BudgetExhausted => return Ok(Some(Action::Resume)),
        Progress::Blocked { written } => (Action::Wait, written),
        Progress::ShareUsed { written } => (Action::Resume, written),
    };
    let clock = &mut requests.clock;
    match pace {
        Pace::Ordinary => link.lifecycle.await_client(written, clock),
        Pace::Hurried => {
            let left = unacknowledged_bytes(&link.transport);
            link.lifecycle.await_hurried_client(written, left, clock);
        }
    }
    Ok(Some(action))
}

/// Nothing more will come of the client: close, as soon as the socket has taken the announcement of the end.
pub(super) fn close_announced(link: &mut Link, clock: &mut Clock) -> Action {
    if link.transport.announce_end() || link.transport.shutdown_write().is_err() {
        return Action::Close;
    }
    link.lifecycle.begin_lingering_close(clock);
    Action::Wait
}

/// Everything is written, and no more requests are taken: close, in a lingering close if the client may still be sending.
pub(super) fn begin_close(link: &mut Link, clock: &mut Clock) -> Action {
    if link.lifecycle.is_lingering_close() {
        return Action::Wait;
    }
    // An end that the socket does not take now is waited for, and what the client may still send is read first.
    if link.transport.announce_end() && !link.read.may_have_unread()
        || link.transport.shutdown_write().is_err()
    {
        return Action::Close;
    }
    drop(link.read.take());
    link.lifecycle.begin_lingering_close(clock);
    // Not read here: the buffer that is read into may be in use.
    Action::Resume
}
