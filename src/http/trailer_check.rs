//! Pseudo-fields in a trailer section (RFC 9113 section 8.1: they make the request malformed), found in the HPACK block
//! (RFC 7541 section 6) without decoding it.
//!
//! Only names that the connection's dynamic table holds stay unknown; a pseudo-field that was put there by a request's head
//! can hide there. All it can do is to be ignored.

/// The static table begins with the pseudo-fields.
const PSEUDO_INDEXES: std::ops::RangeInclusive<usize> = 1..=14;
/// The Huffman code of `:` (RFC 7541 appendix B), seven bits long.
const HUFFMAN_COLON: u8 = 0b101_1100;

/// Whether a field of the block is seen to be a pseudo-field.
pub fn has_pseudo_field(block: &[u8]) -> bool {
    let mut rest = Rest(block);
    while let Some(first) = rest.first() {
        let found = match first {
            0x80.. => rest.integer(7).map(|index| PSEUDO_INDEXES.contains(&index)),
            0x40.. => rest.literal(6),
            0x20.. => rest.integer(5).map(|_| false),
            _ => rest.literal(4),
        };
        match found {
            Some(false) => {}
            Some(true) => return true,
            // The block is cut or broken, which its decoder reports.
            None => return false,
        }
    }
    false
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn first(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// RFC 7541 section 5.1.
    fn integer(&mut self, prefix_bits: u32) -> Option<usize> {
        let mask = (1_usize << prefix_bits) - 1;
        let (first, mut rest) = self.0.split_first()?;
        let mut value = usize::from(*first) & mask;
        if value == mask {
            // Four octets more are enough for any length that a frame can have.
            for shift in [0, 7, 14, 21] {
                let (next, behind) = rest.split_first()?;
                rest = behind;
                value += usize::from(next & 0x7f) << shift;
                if next & 0x80 == 0 {
                    self.0 = rest;
                    return Some(value);
                }
            }
            return None;
        }
        self.0 = rest;
        Some(value)
    }

    /// A string, and whether it is Huffman-coded.
    fn string(&mut self) -> Option<(&'a [u8], bool)> {
        let is_huffman = self.first()? & 0x80 != 0;
        let length = self.integer(7)?;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some((string, is_huffman))
    }

    /// A literal field; whether its name is a pseudo-field's.
    fn literal(&mut self, prefix_bits: u32) -> Option<bool> {
        let index = self.integer(prefix_bits)?;
        let is_pseudo = match index {
            0 => match self.string()? {
                ([first, ..], true) => first >> 1 == HUFFMAN_COLON,
                (name, _) => name.first() == Some(&b':'),
            },
            index => PSEUDO_INDEXES.contains(&index),
        };
        self.string()?;
        Some(is_pseudo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudo_fields_are_found_in_every_representation() {
        for block in [
            &[0x82][..],
            &[0x04, 1, b'/'],
            &[0x44, 1, b'/'],
            &[0x00, 5, b':', b'p', b'a', b't', b'h', 1, b'/'],
            &[0x10, 0x82, 0xb9, 0x58, 1, b'/'],
            &[0x3f, 0xe1, 0x1f, 0x82],
            &[0x0f, 0x0d, 1, b'0', 0x82],
        ] {
            assert!(has_pseudo_field(block), "{block:x?}");
        }
    }

    #[test]
    fn other_fields_and_broken_blocks_are_none() {
        for block in [
            &[][..],
            &[0x90],
            &[0xbe],
            &[0x00, 1, b'a', 1, b':'],
            &[0x0f, 0x0d, 1, b'0'],
            &[0x00, 9, b'a'],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x00],
        ] {
            assert!(!has_pseudo_field(block), "{block:x?}");
        }
    }
}
