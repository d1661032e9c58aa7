//! What can be asked of an [`Exchange`]; nothing here changes it.

use super::{Exchange, State};
use crate::http::decode::BodyDecoder;
use crate::http::encode::BodyEncoder;
use crate::http::framing::BodyLength;

impl Exchange {
    /// Between requests, and nothing of the next has arrived.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    pub fn is_reading_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    pub fn is_reading_body(&self) -> bool {
        matches!(self.state, State::Body(_))
    }

    /// How many bytes of the body being received are still to come, when its length was declared.
    pub fn counted_body_left(&self) -> Option<u64> {
        match self.state {
            State::Body(BodyDecoder::Length { remaining }) => Some(remaining),
            _ => None,
        }
    }

    /// The request is whole and not yet answered.
    pub fn is_dispatched(&self) -> bool {
        matches!(self.state, State::Dispatched)
    }

    pub fn is_responding(&self) -> bool {
        matches!(self.state, State::Responding(_))
    }

    /// No further request will be read. Also true between a parse error and its page.
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing | State::Refused)
    }

    /// The peer waits for `100 Continue`, and nothing of the body has arrived.
    pub fn wants_continue(&self) -> bool {
        self.waits_for_continue
            && (self.is_reading_body() || self.is_dispatched() && self.arriving.is_some())
    }

    /// The request has no body and asks for an upgrade of the connection (RFC 9110 section 7.8).
    pub fn asks_for_upgrade(&self) -> bool {
        self.asks_for_upgrade
    }

    /// How the body of the request being received or answered is delimited.
    pub fn body_length(&self) -> BodyLength {
        self.length
    }

    pub fn is_head_request(&self) -> bool {
        self.is_head_request
    }

    /// If the connection closed in good order now, the peer would take a part of the response's body for all of it:
    /// nothing but the end of the connection delimits the body, and some of it was not encoded, or not written.
    pub fn would_look_whole(&self, all_written: bool) -> bool {
        let is_whole = all_written && !self.broken_off && !self.is_responding();
        self.ends_with_connection && !is_whole
    }

    /// What must hold between calls. Costs nothing in a release build.
    pub fn check_invariants(&self) {
        debug_assert!(
            self.arriving.is_none() || self.is_dispatched() || self.is_responding(),
            "only a request that is with the pool can be ahead of its body"
        );
        match self.state {
            State::Idle | State::Head(_) => {
                debug_assert_eq!(self.length, BodyLength::Empty);
                debug_assert!(
                    !self.waits_for_continue,
                    "nobody waits before a head is whole"
                );
            }
            State::Body(decoder) => debug_assert!(decoder.fits(self.length)),
            State::Responding(encoder) => {
                debug_assert!(!self.waits_for_continue);
                let undelimited = encoder == BodyEncoder::CloseDelimited;
                debug_assert!(
                    !(undelimited && self.keep_alive),
                    "only the close ends this body"
                );
            }
            State::Refused | State::Closing => debug_assert!(!self.keep_alive),
            State::Dispatched => {
                debug_assert!(!self.waits_for_continue || self.arriving.is_some());
            }
        }
    }
}
