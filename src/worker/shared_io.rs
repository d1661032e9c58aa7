//! What bytes need on their way between the sockets and the requests: what all connections of one worker share for it.

use crate::tls::CurrentServer;

use super::exhaustion::Exhaustion;
use super::handshakes::Handshakes;
use super::worker_slot::WorkerSlot;
use super::write_side::WriteBudget;

/// The loop reads into a buffer of this many bytes.
const INPUT_BYTES: usize = 64 * 1024;
/// What the buffer of encoded bytes begins with: the head of most responses.
const ENCODED_BYTES: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct SharedIo {
    pub(super) handshakes: Handshakes,
    pub(super) writes: WriteBudget,
    pub(super) exhaustion: Exhaustion,
    /// What one read has brought.
    pub(super) input: Vec<u8>,
    /// What the protocol has just encoded. Empty between two steps of a connection.
    pub(super) encoded: Vec<u8>,
}

impl SharedIo {
    /// `tls`: connections begin with a handshake.
    pub(super) fn new(tls: Option<CurrentServer>, slot: WorkerSlot) -> Self {
        Self {
            handshakes: Handshakes::new(tls, slot),
            writes: WriteBudget::default(),
            exhaustion: Exhaustion::default(),
            input: vec![0; INPUT_BYTES],
            encoded: Vec::with_capacity(ENCODED_BYTES),
        }
    }
}

/// An iteration begins.
pub(super) fn renew_budgets(io: &mut SharedIo) {
    io.writes.renew();
    io.handshakes.renew();
}
