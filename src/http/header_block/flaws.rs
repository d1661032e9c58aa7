//! What is wrong with a field.

use std::ops::BitOrAssign;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flaws {
    /// Forbidden bytes, or a field that no request has, or not in its place.
    pub(super) is_bad: bool,
    /// Spaces around its value, which HTTP/1 strips and HTTP/2 forbids (RFC 9113 section 8.2.1).
    pub(super) has_outer_space: bool,
}

impl Flaws {
    pub(super) fn of_value(value: &[u8], is_bad: bool) -> Self {
        let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        Self {
            is_bad,
            has_outer_space: is_space(value.first()) || is_space(value.last()),
        }
    }
}

impl BitOrAssign for Flaws {
    fn bitor_assign(&mut self, other: Self) {
        self.is_bad |= other.is_bad;
        self.has_outer_space |= other.has_outer_space;
    }
}
