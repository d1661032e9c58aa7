//! The queries of an [`Exchange`]; none of them changes it.

use super::current_request::{Next, Request};
use super::syntax::Syntax;
use super::{Exchange, LastBody, State};
use crate::http::decode::IncomingBody;
use crate::http::encode::BodyEncoder;
use crate::http::framing::{BodyLength, Upgrade};

impl Exchange {
    /// Of a connection that carries one packet of the uwsgi protocol.
    pub fn uwsgi() -> Self {
        Self {
            syntax: Syntax::Uwsgi,
            ..Self::default()
        }
    }

    pub fn is_uwsgi(&self) -> bool {
        self.syntax == Syntax::Uwsgi
    }

    /// Between requests, and nothing of the next has arrived.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle | State::AfterBlank)
    }

    pub fn is_reading_head(&self) -> bool {
        matches!(self.state, State::HalfBlank | State::Head(_))
    }

    pub fn is_reading_body(&self) -> bool {
        matches!(self.state, State::Body(..))
    }

    /// How many bytes of the body being received are still to come, when its length was declared.
    pub fn counted_body_left(&self) -> Option<u64> {
        match &self.state {
            State::Body(_, body) => body.counted_left(),
            _ => None,
        }
    }

    /// The request is with the pool and not yet answered.
    pub fn is_dispatched(&self) -> bool {
        matches!(self.state, State::Dispatched(..))
    }

    pub fn is_responding(&self) -> bool {
        matches!(self.state, State::Responding(..))
    }

    /// No further request will be read. Also true between a parse error and its page.
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing(_) | State::Refused(_))
    }

    /// The peer waits for `100 Continue`, and nothing of the body has arrived.
    pub fn wants_continue(&self) -> bool {
        let body = match &self.state {
            State::Body(_, body) => Some(body),
            State::Dispatched(_, streamed) => streamed.as_deref(),
            _ => None,
        };
        body.is_some_and(IncomingBody::wants_continue)
    }

    /// What a request asks the connection to be upgraded to (RFC 9110 section 7.8).
    pub fn upgrade(&self) -> Upgrade {
        self.request()
            .map_or(Upgrade::None, |request| request.upgrade)
    }

    /// How the body of the request being received or answered is delimited.
    pub fn body_length(&self) -> BodyLength {
        self.request()
            .map_or(BodyLength::Empty, |request| request.length)
    }

    pub fn is_head_request(&self) -> bool {
        self.request().is_some_and(|request| request.is_head)
    }

    /// If the connection closed in good order now, the peer would take a part of the response's body for all of it:
    /// nothing but the end of the connection delimits the body, and some of it was not encoded, or not written.
    pub fn would_look_whole(&self, all_written: bool) -> bool {
        match self.state {
            State::Responding(_, encoder, _) => encoder == BodyEncoder::CloseDelimited,
            State::Closing(LastBody::ClosesCut) => true,
            State::Closing(LastBody::ClosesWhole) => !all_written,
            _ => false,
        }
    }

    /// What must hold between calls. Costs nothing in a release build.
    pub fn check_invariants(&self) {
        match &self.state {
            State::Body(request, body) => debug_assert!(body.fits(request.length)),
            State::Dispatched(request, Some(body)) => {
                debug_assert!(body.fits(request.length));
            }
            State::Responding(request, encoder, streamed) => {
                debug_assert!(
                    streamed
                        .as_ref()
                        .is_none_or(|body| body.fits(request.length))
                );
                debug_assert!(
                    *encoder != BodyEncoder::CloseDelimited || request.next == Next::Close,
                    "only the close ends this body"
                );
            }
            _ => {}
        }
    }

    /// The request that is being received or answered, once its head is whole.
    pub(super) fn request(&self) -> Option<&Request> {
        match &self.state {
            State::Body(request, _)
            | State::Dispatched(request, _)
            | State::Responding(request, ..)
            | State::Refused(Some(request)) => Some(request),
            _ => None,
        }
    }

    /// The body that arrives for a request that is not answered yet.
    pub(super) fn incoming_body_mut(&mut self) -> Option<&mut IncomingBody> {
        match &mut self.state {
            State::Body(_, body) => Some(body),
            State::Dispatched(_, streamed) => streamed.as_deref_mut(),
            _ => None,
        }
    }
}
