//! Streams whose clients want no answer any more although their connection is there: written by the event loop, read by any
//! thread.
//!
//! A stream is noted when it is reset and forgotten when its job is back with the loop, so there are no more of them than
//! jobs. Only requests that have a stream ask here, and without any reset stream the answer is one load.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::conn_id::ConnId;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct GoneStreams {
    count: AtomicUsize,
    streams: Mutex<HashSet<ConnId>>,
}

impl GoneStreams {
    pub(super) fn insert(&self, stream: ConnId) {
        let mut streams = self.lock();
        streams.insert(stream);
        self.count.store(streams.len(), Ordering::Relaxed);
    }

    pub(super) fn remove(&self, stream: ConnId) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut streams = self.lock();
            streams.remove(&stream);
            self.count.store(streams.len(), Ordering::Relaxed);
        }
    }

    pub(super) fn contains(&self, stream: ConnId) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.lock().contains(&stream)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ConnId>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_gone_until_its_job_is_back() {
        let gone = GoneStreams::default();
        let stream = ConnId::new(1, 2).with_stream(3);
        assert!(!gone.contains(stream));
        gone.insert(stream);
        assert!(gone.contains(stream) && !gone.contains(ConnId::new(1, 2).with_stream(5)));
        gone.remove(stream);
        assert!(!gone.contains(stream));
    }
}
