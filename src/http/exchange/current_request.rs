//! What an exchange keeps of a request's head until the request is answered.

use crate::http::framing::{BodyLength, Framing, Upgrade};
use crate::http::head::RequestHead;
use crate::http::version::Version;

/// What the head said of the request that is being received or answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) length: BodyLength,
    pub(super) version: Version,
    pub(super) is_head: bool,
    pub(super) upgrade: Upgrade,
    /// Decided by the request first, then by the response.
    pub(super) next: Next,
}

/// What follows the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The connection takes another request.
    Request,
    Close,
}

impl Request {
    pub(super) fn new(framing: &Framing, head: &RequestHead) -> Self {
        Self {
            length: framing.length,
            version: head.version(),
            is_head: head.method() == b"HEAD",
            upgrade: framing.upgrade,
            next: match framing.keep_alive {
                true => Next::Request,
                false => Next::Close,
            },
        }
    }

    /// Of a peer that is answered before its head is whole.
    pub(super) fn unknown() -> Self {
        Self {
            length: BodyLength::Empty,
            version: Version::HTTP_11,
            is_head: false,
            upgrade: Upgrade::None,
            next: Next::Close,
        }
    }
}
