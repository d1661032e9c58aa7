//! `AccessEntry`: one finished exchange, as a line can show it.

use std::time::Duration;

use crate::http::{RequestHead, ResponseHead};

/// Looks up header fields by lower-case name, in the order of their arrival.
pub trait Fields {
    fn each<'a>(&'a self, lowercase_name: &[u8], found: &mut dyn FnMut(&'a [u8]));

    /// The last field of the name, which is the one that gunicorn shows.
    fn last(&self, lowercase_name: &[u8]) -> Option<&[u8]> {
        let mut last = None;
        self.each(lowercase_name, &mut |value| last = Some(value));
        last
    }
}

/// No fields at all: of a request or response that never came to be.
impl Fields for () {
    fn each<'a>(&'a self, _: &[u8], _: &mut dyn FnMut(&'a [u8])) {}
}

impl Fields for RequestHead {
    fn each<'a>(&'a self, lowercase_name: &[u8], found: &mut dyn FnMut(&'a [u8])) {
        for (name, value) in self.fields() {
            if name.eq_ignore_ascii_case(lowercase_name) {
                found(value);
            }
        }
    }
}

impl Fields for ResponseHead {
    fn each<'a>(&'a self, lowercase_name: &[u8], found: &mut dyn FnMut(&'a [u8])) {
        for (name, value) in self.fields() {
            if name.eq_ignore_ascii_case(lowercase_name) {
                found(value);
            }
        }
    }
}

/// One finished exchange, as the event loop knows it.
#[derive(Clone, Copy)]
#[expect(
    missing_debug_implementations,
    reason = "borrows trait objects that have none"
)]
pub struct AccessEntry<'a> {
    /// The peer's address without its port; empty for unix sockets, as gunicorn.
    pub peer: &'a str,
    pub peer_port: Option<u16>,
    /// Empty when not even a request line was understood; the line then shows `-`.
    pub method: &'a [u8],
    /// The target as sent.
    pub target: &'a [u8],
    /// The path as sent.
    pub path: &'a [u8],
    /// Where the application is mounted: the start of the path that `%(U)s` does not show.
    pub script_name: &'a [u8],
    pub query: &'a [u8],
    /// `HTTP/1.1`
    pub version: &'a str,
    pub is_https: bool,
    /// Version and cipher of the connection; `None` when it is plain.
    pub tls: Option<(&'static str, &'static str)>,
    /// Address and port of the listener; both empty for unix sockets.
    pub server: (&'a str, &'a str),
    pub request: &'a dyn Fields,
    pub status: u16,
    pub response: &'a dyn Fields,
    /// The environ's values that the format asks for, in the order of [`super::AccessFormat::environ_keys`]. Empty when the
    /// application was not called.
    pub environ: &'a [Option<Box<[u8]>>],
    /// Length of the request's body, when it is known.
    pub bytes_received: Option<u64>,
    /// Bytes of the body that were sent.
    pub bytes_sent: u64,
    pub duration: Duration,
    /// Until a thread took the request.
    pub queued: Option<Duration>,
    /// How much of that a thread waited for the GIL.
    pub gil_wait: Option<Duration>,
    /// Seconds since the epoch, and what is over.
    pub now: (i64, u32),
    pub pid: u32,
    /// The worker's number.
    pub worker: u64,
    /// Place and generation: together unique in a worker.
    pub connection: (u32, u32),
    /// The request's name, from the client or made.
    pub request_id: &'a [u8],
    /// Ids of trace and calling span, if the client sent them.
    pub trace: Option<(&'a [u8], &'a [u8])>,
    /// Why the request was refused, cut or not answered; empty if it was answered.
    pub reason: &'a str,
}
