//! Heads of requests that the h2 crate was given, until it makes requests of them. Of those that it refuses it tells nobody: they are
//! found by what it answers.
//!
//! Pure.

use std::collections::VecDeque;

/// Those that the crate passes over without a word, behind its last GOAWAY, are forgotten in time.
const HEADS_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct GivenHeads {
    /// Their streams, in order.
    streams: VecDeque<u32>,
}

impl GivenHeads {
    /// The head of a request is passed on.
    pub(super) fn give(&mut self, stream: u32) {
        if self.streams.len() == HEADS_MAX {
            self.streams.pop_front();
        }
        // A number that is not larger than the last is an error of the connection.
        if self.streams.back().is_none_or(|last| *last < stream) {
            self.streams.push_back(stream);
        }
    }

    /// The crate has made a request of it, or has answered it. Returns whether that was still to come.
    pub(super) fn take(&mut self, stream: u32) -> bool {
        // Requests come out in order.
        if self.streams.front() == Some(&stream) {
            self.streams.pop_front();
            return true;
        }
        let found = self.streams.binary_search(&stream);
        found.is_ok_and(|at| self.streams.remove(at).is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_taken_once_in_any_order() {
        let mut heads = GivenHeads::default();
        for stream in [1, 3, 5, 3] {
            heads.give(stream);
        }
        let taken = [3, 1, 3, 7].map(|stream| heads.take(stream));
        assert_eq!(taken, [true, true, false, false]);
        assert!(!heads.is_empty());
        assert!(heads.take(5) && heads.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut heads = GivenHeads::default();
        (1..10_000).for_each(|stream| heads.give(stream));
        assert_eq!(heads.streams.len(), HEADS_MAX);
        assert!(!heads.take(1) && heads.take(9999));
    }
}
