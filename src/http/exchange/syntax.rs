//! How the heads of a connection are written: as text, or as packets of the uwsgi protocol.

use super::current_request::Request;
use crate::http::error::ParseError;
use crate::http::framing::Framing;
use crate::http::head::{HeadScan, RequestHead, parse_head};
use crate::http::limits::Limits;
use crate::http::uwsgi::parse_packet;
use crate::http::version::Version;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Syntax {
    #[default]
    Http,
    Uwsgi,
}

impl Syntax {
    pub(super) fn parse(
        self,
        input: &[u8],
        scan: &mut HeadScan,
        limits: &Limits,
        head: &mut RequestHead,
    ) -> Result<Option<(usize, Framing)>, ParseError> {
        match self {
            Self::Http => parse_head(input, scan, limits, head)
                .inspect_err(|_| head.keep_refused(input, limits)),
            Self::Uwsgi => parse_packet(input, limits, head),
        }
    }

    /// A gateway takes the response's body for what it is: without chunks, and after one head.
    pub(super) fn request(self, framing: &Framing, head: &RequestHead) -> Request {
        let request = Request::new(framing, head);
        match self {
            Self::Http => request,
            Self::Uwsgi => Request {
                version: Version::HTTP_10,
                ..request
            },
        }
    }
}
