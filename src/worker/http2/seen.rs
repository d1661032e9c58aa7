//! What was seen to come and is not acted upon yet: the requests that it is about come out of the crate later.

use super::violation::StreamFault;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Streams that the client has reset.
    pub(super) resets: Vec<u32>,
    /// Streams with an error.
    pub(super) faults: Vec<(u32, StreamFault)>,
}

impl Seen {
    pub(super) fn is_empty(&self) -> bool {
        self.resets.is_empty() && self.faults.is_empty()
    }
}
