//! What was seen to come and is not acted upon yet: the requests that it is about come out of the crate later.

use h2::Reason;

use super::given_heads::GivenHeads;
use super::violation::StreamFault;
use crate::http::StreamPriority;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Streams that the client has reset.
    pub(super) resets: Vec<u32>,
    /// Ranks of streams, but for those of most.
    pub(super) priorities: Vec<(u32, StreamPriority)>,
    /// Streams with an error.
    pub(super) faults: Vec<(u32, StreamFault)>,
    /// Paths of requests that the crate gets with another.
    pub(super) paths: Vec<(u32, Box<[u8]>)>,
    /// Heads of which no request has come out of the crate.
    pub(super) heads: GivenHeads,
    /// Streams that were reset for an error of the client's.
    pub(super) own_resets: Vec<(u32, Reason)>,
    /// Streams whose heads the crate has answered itself.
    pub(super) crate_answers: Vec<u32>,
}

impl Seen {
    pub(super) fn is_empty(&self) -> bool {
        self.resets.is_empty() && self.faults.is_empty() && self.priorities.is_empty()
    }
}

/// A path that was replaced in a header block.
pub(super) fn note_path(stream: u32, path: Option<Box<[u8]>>, seen: &mut Seen) {
    if let Some(path) = path {
        seen.paths.push((stream, path));
    }
}

/// The path of a request that has come. Requests come in order: those before this one have been refused.
pub(super) fn take_path(stream: u32, seen: &mut Seen) -> Option<Box<[u8]>> {
    if seen.paths.is_empty() {
        return None;
    }
    seen.paths.retain(|(id, _)| *id >= stream);
    let at = seen.paths.iter().position(|(id, _)| *id == stream)?;
    Some(seen.paths.swap_remove(at).1)
}

/// A rank, as it stands before a header block or in a PRIORITY frame.
pub(super) fn note_priority(stream: u32, bytes: &[u8], seen: &mut Seen) {
    if let Some(bytes) = bytes.last_chunk() {
        let priority = StreamPriority::parse(*bytes);
        if priority != StreamPriority::default() {
            seen.priorities.push((stream, priority));
        }
    }
}

/// Whether a priority, which may stand behind the length of padding, makes `stream` depend on itself. The library resets one that
/// does, even if it is idle; RFC 9113 section 5.3.2 gives that no meaning.
pub(super) fn depends_on_itself(stream: u32, priority: &[u8]) -> bool {
    let Some([first, rest @ .., _weight]) = priority.last_chunk::<5>() else {
        return false;
    };
    let named = rest.iter().fold(u32::from(first & 0x7f), |named, byte| {
        named << 8 | u32::from(*byte)
    });
    named == stream
}
