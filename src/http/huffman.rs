//! The Huffman code of HPACK (RFC 7541 appendix B).
//!
//! The code is canonical: codes of a length are consecutive, in the order of [`SYMBOLS`]. So the first code of each length is all
//! that is needed, and codes of at most eight bits, which common text is made of, are looked up.

/// Why a string is none: it has the end-of-string symbol, or a padding that is not the shortest of ones (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotHuffman;

/// In the order of their codes.
const SYMBOLS: [u8; 256] = [
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57,
    61, 65, 95, 98, 100, 102, 103, 104, 108, 109, 110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71,
    72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119,
    120, 121, 122, 38, 42, 44, 59, 88, 90, 33, 34, 40, 41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91,
    93, 126, 94, 125, 60, 96, 123, 92, 195, 208, 128, 130, 131, 162, 184, 194, 224, 226, 153, 161,
    167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129, 132, 133, 134, 136, 146, 154, 156,
    160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233, 1,
    135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174,
    175, 180, 182, 183, 188, 191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225,
    236, 237, 199, 207, 234, 235, 192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242,
    243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252,
    253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28,
    29, 30, 31, 127, 220, 249, 10, 13, 22,
];

/// Codes of one length.
#[derive(Clone, Copy)]
struct Row {
    bits: u32,
    /// The first of them, at the left of 32 bits.
    first: u32,
    /// Its place in [`SYMBOLS`].
    index: usize,
}

const fn row(bits: u32, first: u32, index: usize) -> Row {
    Row { bits, first, index }
}

const ROWS: [Row; 21] = [
    row(5, 0, 0),
    row(6, 0x5000_0000, 10),
    row(7, 0xb800_0000, 36),
    row(8, 0xf800_0000, 68),
    row(10, 0xfe00_0000, 74),
    row(11, 0xff40_0000, 79),
    row(12, 0xffa0_0000, 82),
    row(13, 0xffc0_0000, 84),
    row(14, 0xfff0_0000, 90),
    row(15, 0xfff8_0000, 92),
    row(19, 0xfffe_0000, 95),
    row(20, 0xfffe_6000, 98),
    row(21, 0xfffe_e000, 106),
    row(22, 0xffff_4800, 119),
    row(23, 0xffff_b000, 145),
    row(24, 0xffff_ea00, 174),
    row(25, 0xffff_f600, 186),
    row(26, 0xffff_f800, 190),
    row(27, 0xffff_fbc0, 205),
    row(28, 0xffff_fe20, 224),
    row(30, 0xffff_fff0, 253),
];

/// The symbol whose code `window` begins with, and its length. The end of string has no symbol.
const fn find(window: u32) -> (Option<u8>, u32) {
    let mut at = ROWS.len() - 1;
    while ROWS[at].first > window {
        at -= 1;
    }
    let row = ROWS[at];
    let index = row.index + ((window - row.first) >> (32 - row.bits)) as usize;
    if index < SYMBOLS.len() {
        (Some(SYMBOLS[index]), row.bits)
    } else {
        (None, row.bits)
    }
}

/// By the first eight bits: symbol and length, 0 for longer codes.
const SHORT: [(u8, u8); 256] = {
    let mut short = [(0, 0); 256];
    let mut first = 0;
    while first < 256 {
        if let (Some(symbol), bits @ 0..=8) = find((first as u32) << 24) {
            short[first] = (symbol, bits as u8);
        }
        first += 1;
    }
    short
};

/// Append what `bytes` stand for.
///
/// # Errors
/// They are not a Huffman-coded string.
pub(super) fn decode(bytes: &[u8], into: &mut Vec<u8>) -> Result<(), NotHuffman> {
    // Bits that wait, at the left, and how many there are.
    let (mut window, mut waiting) = (0_u64, 0);
    let mut rest = bytes.iter();
    loop {
        while waiting <= 56
            && let Some(byte) = rest.next()
        {
            window |= u64::from(*byte) << (56 - waiting);
            waiting += 8;
        }
        let (symbol, bits) = match SHORT[(window >> 56) as usize] {
            (_, 0) => find((window >> 32) as u32),
            (symbol, bits) => (Some(symbol), u32::from(bits)),
        };
        if bits > waiting {
            break;
        }
        into.push(symbol.ok_or(NotHuffman)?);
        window <<= bits;
        waiting -= bits;
    }
    let is_padding = waiting < 8 && window.leading_ones() >= waiting;
    is_padding.then_some(()).ok_or(NotHuffman)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, NotHuffman> {
        let mut text = Vec::new();
        decode(bytes, &mut text).map(|()| text)
    }

    /// As the RFC's table has it, by the code of each symbol.
    fn encode(text: &[u8]) -> Vec<u8> {
        let (mut bytes, mut window, mut waiting) = (Vec::new(), 0_u64, 0);
        for byte in text {
            let index = SYMBOLS.iter().position(|symbol| symbol == byte).unwrap();
            let row = ROWS.iter().rfind(|row| row.index <= index).unwrap();
            let code = (row.first >> (32 - row.bits)) as usize + index - row.index;
            window = window << row.bits | code as u64;
            waiting += row.bits;
            while waiting >= 8 {
                waiting -= 8;
                bytes.push((window >> waiting) as u8);
            }
        }
        if waiting > 0 {
            bytes.push((window << (8 - waiting)) as u8 | 0xff >> waiting);
        }
        bytes
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        for (bytes, text) in [
            (
                &b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..],
                "www.example.com",
            ),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f", "custom-key"),
            (b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf", "custom-value"),
            (b"", ""),
        ] {
            assert_eq!(decoded(bytes).unwrap(), text.as_bytes());
            assert_eq!(encode(text.as_bytes()), bytes);
        }
    }

    #[test]
    fn every_octet_has_a_code() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encode(&all)).unwrap(), all);
        for byte in all {
            assert_eq!(decoded(&encode(&[byte; 3])).unwrap(), [byte; 3]);
        }
    }

    #[test]
    fn padding_is_the_shortest_of_ones() {
        assert_eq!(decoded(b"\x1f"), Ok(vec![b'a']));
        for bad in [
            &b"\x18"[..],
            b"\x1e",
            b"\x1f\xff",
            b"\xff",
            b"\xff\xff\xff\xff",
            b"\x1f\xff\xff\xff\xfc",
        ] {
            assert_eq!(decoded(bad), Err(NotHuffman), "{bad:x?}");
        }
    }
}
