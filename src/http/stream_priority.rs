//! What a client says of a stream's rank among its others (RFC 7540 section 5.3, which RFC 9113 has given up).
//!
//! It changes nothing here: the environ has it, as gunicorn's does.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPriority {
    /// From 1 to 256.
    pub weight: u16,
    /// The number of another stream, or 0.
    pub depends_on: u32,
}

impl Default for StreamPriority {
    fn default() -> Self {
        Self::UNSAID
    }
}

impl StreamPriority {
    /// Where the client says nothing.
    pub const UNSAID: Self = Self {
        weight: 16,
        depends_on: 0,
    };

    /// As HEADERS and PRIORITY frames have it. The first bit, for exclusive dependencies, is left out.
    pub fn parse(bytes: [u8; 5]) -> Self {
        let [first, second, third, fourth, weight] = bytes;
        Self {
            weight: u16::from(weight) + 1,
            depends_on: u32::from_be_bytes([first & 0x7f, second, third, fourth]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_one_more_than_its_octet() {
        let (weight, depends_on) = (256, 3);
        let parsed = StreamPriority::parse([0x80, 0, 0, 3, 255]);
        assert_eq!(parsed, StreamPriority { weight, depends_on });
        let parsed = StreamPriority::parse([0, 0, 0, 0, 15]);
        assert_eq!(parsed, StreamPriority::default());
    }
}
