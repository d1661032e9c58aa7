//! How far a connection of HTTP/2 is on the way to its end. `goodbye.rs` assigns it.

/// How far the connection is on the way to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Goodbye {
    #[default]
    Unsaid,
    /// GOAWAY is sent; requests that were on their way are still taken.
    Said,
    /// No request is under way, and the client has a moment for its last.
    LastWait,
    /// The last GOAWAY is on its way out, or was not worth while.
    Over,
}

impl Goodbye {
    pub(super) fn is_over(self) -> bool {
        self == Self::Over
    }
}
