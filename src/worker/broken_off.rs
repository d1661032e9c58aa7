//! Requests that have ended for their clients while the pool still has their jobs, until those are back: only then can they be
//! logged.

use std::collections::HashMap;

use crate::http::ResponseHead;
use crate::pool::ConnId;

/// What a client has seen of one.
#[derive(Debug)]
pub(super) struct BrokenOff {
    pub(super) status: u16,
    /// Bytes of its body that were sent.
    pub(super) sent_bytes: u64,
    /// Why it is not what was asked for.
    pub(super) reason: &'static str,
    /// The head of the response, if that had begun.
    pub(super) response: Option<ResponseHead>,
}

/// See the module. There are no more than jobs with the pool.
#[derive(Debug, Default)]
pub(super) struct BrokenOffRequests(HashMap<ConnId, BrokenOff>);

impl BrokenOffRequests {
    pub(super) fn note(&mut self, id: ConnId, seen: BrokenOff) {
        self.0.insert(id, seen);
    }

    /// The job of `id` is back.
    pub(super) fn take(&mut self, id: ConnId) -> Option<BrokenOff> {
        self.0.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_known_by_its_number_and_taken_once() {
        let (mut requests, conn) = (BrokenOffRequests::default(), ConnId::new(1, 2));
        let seen = BrokenOff {
            status: 200,
            sent_bytes: 9,
            reason: "client gone",
            response: None,
        };
        requests.note(conn.with_stream(3), seen);
        assert!(requests.take(conn).is_none());
        let seen = requests.take(conn.with_stream(3));
        assert_eq!(seen.map(|seen| seen.sent_bytes), Some(9));
        assert!(requests.take(conn.with_stream(3)).is_none());
    }
}
