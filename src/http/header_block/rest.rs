//! `Rest`: the part of a header block that is not read yet, and the integers and strings that it begins with (RFC 7541 section 5).
//!
//! Pure. `header_block.rs` calls it.

use crate::http::huffman;

/// A block that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenBlock;

/// See the module.
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl<'a> Rest<'a> {
    /// RFC 7541 section 5.1.
    pub(super) fn integer(&mut self, prefix_bits: u32) -> Result<usize, BrokenBlock> {
        let mask = (1_usize << prefix_bits) - 1;
        let (first, mut rest) = self.0.split_first().ok_or(BrokenBlock)?;
        let mut value = usize::from(*first) & mask;
        if value == mask {
            // Four octets more are enough for any length that a block can have.
            for shift in [0, 7, 14, 21] {
                let (next, behind) = rest.split_first().ok_or(BrokenBlock)?;
                rest = behind;
                value += usize::from(next & 0x7f) << shift;
                if next & 0x80 == 0 {
                    self.0 = rest;
                    return Ok(value);
                }
            }
            return Err(BrokenBlock);
        }
        self.0 = rest;
        Ok(value)
    }

    /// RFC 7541 section 5.2.
    pub(super) fn string<'b>(&mut self, scratch: &'b mut Vec<u8>) -> Result<&'b [u8], BrokenBlock>
    where
        'a: 'b,
    {
        let is_huffman = self.0.first().ok_or(BrokenBlock)? & 0x80 != 0;
        let length = self.integer(7)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or(BrokenBlock)?;
        self.0 = rest;
        if !is_huffman {
            return Ok(string);
        }
        scratch.clear();
        huffman::decode(string, scratch).map_err(|_| BrokenBlock)?;
        Ok(scratch)
    }
}
