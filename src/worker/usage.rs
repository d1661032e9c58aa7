//! How much a connection was used. A worker's load counts connections whose first request is still to come.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// No request has come on it.
    New,
    /// One request has come.
    Asked,
    /// It was kept after a response; over HTTP/2, a second request has come.
    Kept,
}

impl Usage {
    /// A request has come. Returns whether it is the connection's first.
    pub(super) fn note_request(&mut self) -> bool {
        let is_first = *self == Self::New;
        *self = match is_first {
            true => Self::Asked,
            false => Self::Kept,
        };
        is_first
    }

    /// A response of HTTP/1 is written, and the connection stays.
    pub(super) fn note_kept(&mut self) {
        *self = Self::Kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_request_is_the_first_and_a_second_keeps_the_connection() {
        let mut usage = Usage::New;
        assert!(usage.note_request());
        assert_eq!(usage, Usage::Asked);
        assert!(!usage.note_request());
        assert_eq!(usage, Usage::Kept);
        let mut usage = Usage::New;
        assert!(usage.note_request());
        usage.note_kept();
        assert!(!usage.note_request());
        assert_eq!(usage, Usage::Kept);
    }
}
