//! On which streams the client may still send: what the h2 crate does not tell apart when it refuses a frame.
//!
//! Pure. A request without a body is one comparison here; only requests with one are remembered, until their end.

use std::collections::{HashSet, VecDeque};

/// Streams that were reset, whose frames may still be on their way. A client learns of a reset within a round trip.
const RESET_STREAMS_MAX: usize = 1024;
/// Runs of numbers that the client has left out. Clients leave none out; further runs count as used.
const SKIPPED_RUNS_MAX: usize = 32;
/// More requests than may run can have begun, and be refused.
const UNFINISHED_MIN: usize = 1024;

/// What a frame of the client's is for its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameUse {
    /// The head of a request.
    Request,
    /// Data, or trailers, of a request that has begun.
    More,
    /// For the crate to decide: the stream is idle, was left out, or was reset.
    Other,
    /// The client has ended this stream before (RFC 9113 section 5.1: STREAM_CLOSED).
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResetBy {
    Client,
    Us,
}

/// See the module.
#[derive(Debug)]
pub(super) struct StreamInputs {
    last: u32,
    unfinished: HashSet<u32>,
    unfinished_max: usize,
    reset: VecDeque<(u32, ResetBy)>,
    skipped: Vec<(u32, u32)>,
}

impl StreamInputs {
    pub(super) fn new(streams_max: u32) -> Self {
        let streams_max = usize::try_from(streams_max).unwrap_or(usize::MAX);
        Self {
            last: 0,
            unfinished: HashSet::new(),
            unfinished_max: streams_max.saturating_mul(2).max(UNFINISHED_MIN),
            reset: VecDeque::new(),
            skipped: Vec::new(),
        }
    }

    /// More is to come on this stream.
    pub(super) fn is_unfinished(&self, stream: u32) -> bool {
        self.unfinished.contains(&stream)
    }

    /// The client has not opened it, or cannot.
    pub(super) fn is_idle(&self, stream: u32) -> bool {
        stream > self.last || stream % 2 == 0
    }

    /// A HEADERS frame.
    pub(super) fn on_headers(&mut self, stream: u32, is_end: bool) -> FrameUse {
        if stream % 2 == 0 {
            return FrameUse::Other;
        }
        if stream <= self.last {
            return self.on_more(stream, is_end, |by| by == ResetBy::Us);
        }
        // The first stream is 1.
        let next = if self.last == 0 { 1 } else { self.last + 2 };
        if stream > next && self.skipped.len() < SKIPPED_RUNS_MAX {
            self.skipped.push((next, stream - 2));
        }
        self.last = stream;
        if !is_end && self.unfinished.len() < self.unfinished_max {
            self.unfinished.insert(stream);
        }
        FrameUse::Request
    }

    /// A DATA frame.
    pub(super) fn on_data(&mut self, stream: u32, is_end: bool) -> FrameUse {
        match self.is_idle(stream) {
            true => FrameUse::Other,
            false => self.on_more(stream, is_end, |_| true),
        }
    }

    /// `passes`: whether it is no error of the connection on a stream that was reset by this side.
    fn on_more(&mut self, stream: u32, is_end: bool, passes: impl Fn(ResetBy) -> bool) -> FrameUse {
        let is_known = match is_end {
            true => self.unfinished.remove(&stream),
            false => self.unfinished.contains(&stream),
        };
        if is_known {
            return FrameUse::More;
        }
        let reset = self.reset.iter().rev().find(|(id, _)| *id == stream);
        let was_skipped = |(first, last): &(u32, u32)| (*first..=*last).contains(&stream);
        match reset {
            Some((_, by)) if passes(*by) => FrameUse::Other,
            None if self.skipped.iter().any(was_skipped) => FrameUse::Other,
            _ => FrameUse::Closed,
        }
    }

    /// The client has reset a stream.
    pub(super) fn on_reset(&mut self, stream: u32) {
        if stream <= self.last {
            self.unfinished.remove(&stream);
            self.note_reset(stream, ResetBy::Client);
        }
    }

    /// We have.
    pub(super) fn on_own_reset(&mut self, stream: u32) {
        if self.unfinished.remove(&stream) {
            self.note_reset(stream, ResetBy::Us);
        }
    }

    fn note_reset(&mut self, stream: u32, by: ResetBy) {
        if self.reset.len() == RESET_STREAMS_MAX {
            self.reset.pop_front();
        }
        self.reset.push_back((stream, by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> StreamInputs {
        StreamInputs::new(100)
    }

    #[test]
    fn a_request_is_open_until_its_end() {
        let mut inputs = inputs();
        assert_eq!(inputs.on_headers(1, true), FrameUse::Request);
        assert_eq!(inputs.on_headers(3, false), FrameUse::Request);
        assert_eq!(inputs.on_data(3, false), FrameUse::More);
        assert!(inputs.is_unfinished(3) && !inputs.is_unfinished(1));
        assert_eq!(inputs.on_headers(3, true), FrameUse::More);
        for stream in [1, 3] {
            assert_eq!(inputs.on_data(stream, true), FrameUse::Closed);
            assert_eq!(inputs.on_headers(stream, true), FrameUse::Closed);
        }
        assert_eq!(inputs.on_data(5, true), FrameUse::Other, "it is idle");
        assert_eq!(
            inputs.on_data(2, true),
            FrameUse::Other,
            "it is not the client's"
        );
        assert_eq!(inputs.on_headers(4, true), FrameUse::Other);
    }

    #[test]
    fn frames_may_be_on_their_way_to_a_stream_that_we_have_reset() {
        let mut inputs = inputs();
        inputs.on_headers(1, false);
        inputs.on_own_reset(1);
        assert!(!inputs.is_unfinished(1));
        assert_eq!(inputs.on_data(1, false), FrameUse::Other);
        assert_eq!(inputs.on_headers(1, true), FrameUse::Other);
    }

    #[test]
    fn a_client_that_has_reset_a_stream_has_closed_it() {
        let mut inputs = inputs();
        inputs.on_headers(1, false);
        inputs.on_reset(1);
        inputs.on_reset(7);
        assert_eq!(
            inputs.on_data(1, false),
            FrameUse::Other,
            "an error of the stream"
        );
        assert_eq!(inputs.on_headers(1, true), FrameUse::Closed);
        assert_eq!(inputs.on_headers(7, true), FrameUse::Request, "it was idle");
    }

    #[test]
    fn numbers_that_were_left_out_are_not_closed() {
        let mut inputs = inputs();
        inputs.on_headers(5, true);
        inputs.on_headers(7, true);
        inputs.on_headers(11, true);
        let mut seen = |stream| inputs.on_headers(stream, true);
        assert_eq!([seen(1), seen(3), seen(9)], [FrameUse::Other; 3]);
        assert_eq!([seen(5), seen(7), seen(11)], [FrameUse::Closed; 3]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut inputs = inputs();
        for stream in (1..200_000).step_by(4) {
            inputs.on_headers(stream, false);
            inputs.on_own_reset(stream);
        }
        assert_eq!(
            (inputs.reset.len(), inputs.skipped.len()),
            (RESET_STREAMS_MAX, SKIPPED_RUNS_MAX)
        );
        for stream in (200_001..400_000).step_by(2) {
            inputs.on_headers(stream, false);
        }
        assert_eq!(inputs.unfinished.len(), UNFINISHED_MIN);
    }
}
