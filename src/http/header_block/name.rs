//! What the name of a field says of it (RFC 9113 sections 8.2 and 8.3), and which names the static table has (RFC 7541 appendix A).
//!
//! Pure. `header_block.rs` calls it.

use crate::http::fields::{is_field_value, is_token, is_token_byte};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) length: usize,
    pub(super) kind: Kind,
    pub(super) is_bad: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Method,
    Scheme,
    Path,
    Authority,
    Protocol,
    /// A pseudo-field that requests do not have.
    Unknown,
    Te,
    /// About a connection of HTTP/1 (RFC 9113 section 8.2.2).
    OfConnection,
    Field,
}

impl Name {
    pub(super) fn of(text: &[u8]) -> Self {
        let (kind, is_bad) = match text {
            b":method" => (Kind::Method, false),
            b":scheme" => (Kind::Scheme, false),
            b":path" => (Kind::Path, false),
            b":authority" => (Kind::Authority, false),
            b":protocol" => (Kind::Protocol, false),
            [b':', ..] => (Kind::Unknown, true),
            b"te" => (Kind::Te, false),
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
            | b"upgrade" => (Kind::OfConnection, false),
            _ => {
                let is_good = (1..=NAME_BYTES_MAX).contains(&text.len())
                    && text.iter().all(|byte| is_name_byte(*byte));
                (Kind::Field, !is_good)
            }
        };
        Self {
            length: text.len(),
            kind,
            is_bad,
        }
    }

    /// In the library's table a field of another name stands for one of this length.
    pub(super) fn lost(length: usize) -> Self {
        Self {
            length,
            kind: Kind::Field,
            is_bad: true,
        }
    }

    /// Of an entry of the static table. The first there are pseudo-fields; the last of those, from 8 on, are `:status`.
    pub(super) fn of_static(index: usize) -> Option<Self> {
        let length = usize::from(*STATIC_NAMES.get(index.checked_sub(1)?)?);
        let (kind, is_bad) = match index {
            1 => (Kind::Authority, false),
            2 | 3 => (Kind::Method, false),
            4 | 5 => (Kind::Path, false),
            6 | 7 => (Kind::Scheme, false),
            8..=14 => (Kind::Unknown, true),
            TRANSFER_ENCODING => (Kind::OfConnection, false),
            _ => (Kind::Field, false),
        };
        Some(Self {
            length,
            kind,
            is_bad,
        })
    }
}

impl Kind {
    /// Whether the library can decode it with this value.
    pub(super) fn allows(self, value: &[u8]) -> bool {
        match self {
            Self::Method => is_token(value),
            // The library takes an empty one for none, and a digit for a letter (RFC 3986 section 3.1).
            Self::Scheme => value.first().is_some_and(u8::is_ascii_alphabetic) && is_text(value),
            Self::Path | Self::Authority | Self::Protocol => is_text(value),
            Self::Unknown | Self::Te | Self::OfConnection | Self::Field => is_field_value(value),
        }
    }

    /// Whether a request may have it with this value. The library minds it too, but for the cases that the module names.
    pub(super) fn is_of_request(self, value: &[u8]) -> bool {
        match self {
            Self::OfConnection => false,
            Self::Te => value == b"trailers",
            _ => true,
        }
    }

    /// One for each pseudo-field that requests have.
    pub(super) fn pseudo_bit(self) -> Option<u8> {
        match self {
            Self::Method => Some(1),
            Self::Scheme => Some(2),
            Self::Path => Some(4),
            Self::Authority => Some(8),
            Self::Protocol => Some(16),
            Self::Unknown | Self::Te | Self::OfConnection | Self::Field => None,
        }
    }

    pub(super) fn is_pseudo(self) -> bool {
        self == Self::Unknown || self.pseudo_bit().is_some()
    }
}

/// Which fields of a block have come. Pseudo-fields stand before the others, and each once (RFC 9113 section 8.3).
#[derive(Debug, Default)]
pub(super) struct Order {
    pseudo_bits: u8,
    has_other: bool,
}

impl Order {
    /// The next field has this name. Returns whether it may stand there.
    pub(super) fn take(&mut self, kind: Kind) -> bool {
        let bit = kind.pseudo_bit().unwrap_or(0);
        let is_in_place = bit == 0 || !self.has_other && self.pseudo_bits & bit == 0;
        self.pseudo_bits |= bit;
        // The library may get a field of another name for one that is not in its place.
        self.has_other |= bit == 0 || !is_in_place;
        is_in_place
    }
}

fn is_text(value: &[u8]) -> bool {
    value.is_ascii() || std::str::from_utf8(value).is_ok()
}

/// RFC 9113 section 8.2.1: of names, lower case only.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || !byte.is_ascii_uppercase() && is_token_byte(byte)
}

const TRANSFER_ENCODING: usize = 57;

/// The library takes no longer name.
pub(super) const NAME_BYTES_MAX: usize = 65_535;

/// Indexes up to this one are those of the static table.
pub(super) const STATIC_MAX: usize = STATIC_NAMES.len();

/// The lengths of its names.
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];
