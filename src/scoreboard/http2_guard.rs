//! What connections of HTTP/2 are ended for, as `/metrics` names it.

/// A limit that a client has passed, or the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Guard {
    Control,
    EarlyResets,
    ForcedResets,
    EmptyData,
    Continuations,
    HeaderBlock,
    Overhead,
    Protocol,
}

/// In the order of [`Http2Guard`].
pub const HTTP2_GUARDS: [&str; 8] = [
    "control",
    "early_resets",
    "forced_resets",
    "empty_data",
    "continuations",
    "header_block",
    "overhead",
    "protocol",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_guard_has_a_name() {
        assert_eq!(HTTP2_GUARDS[Http2Guard::EmptyData as usize], "empty_data");
        let last = Http2Guard::Protocol as usize;
        assert_eq!(
            (HTTP2_GUARDS[last], last + 1),
            ("protocol", HTTP2_GUARDS.len())
        );
    }
}
