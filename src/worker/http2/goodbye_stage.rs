//! How far a connection of HTTP/2 is on the way to its end. `goodbye.rs` moves it on.

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

    /// GOAWAY is sent, and more requests may come.
    pub(super) fn say(&mut self) {
        *self = Self::Said;
    }

    /// All requests are answered: the client has a moment for its last.
    pub(super) fn await_last(&mut self) {
        *self = Self::LastWait;
    }

    /// A request is under way.
    pub(super) fn on_request(&mut self) {
        if *self == Self::LastWait {
            self.say();
        }
    }

    /// Nothing more is taken.
    pub(super) fn end(&mut self) {
        *self = Self::Over;
    }
}
