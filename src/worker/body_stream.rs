//! A streaming request body (`request_buffering = False`): the request is with the application, and its body goes there as
//! it arrives.
//!
//! The loop reads while the window has room (`pool/streaming_body.rs`). A body that cannot be received whole is an `OSError`
//! for the application.

use std::io;
use std::sync::Arc;

use crate::pool::{ConnId, Pool, RequestBody, StreamingBody};

/// The loop's end of the body.
#[derive(Debug)]
pub(super) struct StreamingRequestBody {
    body: Arc<StreamingBody>,
    /// The window is full.
    is_paused: bool,
}

impl StreamingRequestBody {
    /// Both ends of the body of the request that `conn` is sending.
    pub(super) fn new(pool: &Arc<Pool>, conn: ConnId) -> (Self, RequestBody) {
        let body = Arc::new(StreamingBody::new(pool.clone(), conn));
        let ours = Self {
            body: body.clone(),
            is_paused: false,
        };
        (ours, RequestBody::Streaming(body))
    }

    /// Whether there is room for more.
    pub(super) fn is_wanted(&self) -> bool {
        !self.is_paused
    }

    /// Bytes of the body have arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.is_paused = self.body.push(bytes);
    }

    /// The application waits for the body, or has room for more of it.
    pub(super) fn resume(&mut self) {
        self.is_paused = false;
    }

    /// The body is whole.
    pub(super) fn end(self) {
        self.body.end();
    }

    /// The rest of the body will not come.
    pub(super) fn fail(self, kind: io::ErrorKind, why: &'static str) {
        self.body.break_off(kind, why);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ends() -> (StreamingRequestBody, Arc<StreamingBody>) {
        let pool = Arc::new(Pool::new(1, 1, Box::new(|| {})));
        let conn = ConnId::new(0, 0);
        let (ours, theirs) = StreamingRequestBody::new(&pool, conn);
        let RequestBody::Streaming(theirs) = theirs else {
            panic!("it streams")
        };
        (ours, theirs)
    }

    #[test]
    fn a_full_window_pauses_until_the_application_has_room() {
        let (mut ours, _theirs) = ends();
        ours.push(b"little");
        assert!(ours.is_wanted());
        ours.push(&[0; 1 << 20]);
        assert!(!ours.is_wanted());
        ours.resume();
        assert!(ours.is_wanted());
    }

    #[test]
    fn the_application_gets_the_whole_body_or_an_error() {
        let (mut ours, theirs) = ends();
        ours.push(b"body");
        ours.end();
        let mut bytes = Vec::new();
        assert!(theirs.take(&mut bytes, None).unwrap());
        assert!(!theirs.take(&mut bytes, None).unwrap());
        assert_eq!(bytes, b"body");
        let (ours, theirs) = ends();
        ours.fail(io::ErrorKind::TimedOut, "too slow");
        let error = theirs.take(&mut bytes, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
