//! The parts of a connection that are not its protocol's, as HTTP/2 uses them for a step.

use crate::worker::connection_lifecycle::Lifecycle;
use crate::worker::http1::Client;
use crate::worker::read_side::ReadSide;
use crate::worker::transport::Transport;
use crate::worker::usage::Usage;
use crate::worker::write_side::WriteSide;

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
