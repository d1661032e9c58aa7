//! Requests in the error log.

use crate::pool::Job;

/// A request as log lines name it.
pub(super) struct RequestLine<'a>(pub(super) &'a Job);

impl std::fmt::Display for RequestLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = String::from_utf8_lossy(self.0.head.request_line());
        write!(f, "{}", line.escape_debug())
    }
}

/// The body was longer than its head, or its status, allows.
pub(super) fn log_excess(job: &Job, status: u16, cut_bytes: u64) {
    let request = RequestLine(job);
    if (100..200).contains(&status) || matches!(status, 204 | 304) {
        log::warn!("Response to {request} has a body, which its status {status} does not allow.");
    } else {
        log::error!(
            "Response to {request} is {cut_bytes} bytes longer than its Content-Length; they were not sent."
        );
    }
}
