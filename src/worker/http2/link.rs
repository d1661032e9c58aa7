//! The parts of a connection that are not its protocol's, as HTTP/2 uses them for a step.

use crate::worker::connection_lifecycle::{Action, Lifecycle};
use crate::worker::dispatch::Usage;
use crate::worker::http1::Client;
use crate::worker::read_side::{Input, ReadSide};
use crate::worker::transport::Transport;
use crate::worker::write_side::WriteSide;

/// How often a connection in lingering close is read in one iteration.
const LINGERING_CLOSE_READS: usize = 8;

/// The parts of the connection that are not the protocol's.
#[derive(Debug)]
pub(in crate::worker) struct Link<'a> {
    pub(in crate::worker) client: &'a Client,
    pub(in crate::worker) transport: &'a mut Transport,
    pub(in crate::worker) read: &'a mut ReadSide,
    pub(in crate::worker) write: &'a mut WriteSide,
    pub(in crate::worker) lifecycle: &'a mut Lifecycle,
    pub(in crate::worker) usage: &'a mut Usage,
}

/// Read and forget, until the client closes its side too.
pub(super) fn discard_input(buffer: &mut [u8], link: &mut Link<'_>) -> Action {
    for _ in 0..LINGERING_CLOSE_READS {
        match link.read.read(buffer, link.transport) {
            Ok(Input::Bytes(_)) => {}
            Ok(Input::Blocked) => return Action::Wait,
            Ok(Input::End) | Err(_) => return Action::Close,
        }
    }
    Action::Resume
}
