//! What is read of header blocks, and what is passed on instead of those that the library would choke on.
#![allow(clippy::unwrap_used)]
use super::*;

fn read(block: &[u8]) -> Result<HeaderBlock, BrokenBlock> {
    HeaderTable::default().read(block)
}

fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = |text: &[u8]| u8::try_from(text.len()).unwrap();
    [&[first, length(name)], name, &[length(value)], value].concat()
}

#[test]
fn the_examples_of_the_rfc_are_read_one_after_another() {
    // RFC 7541 appendix C.3 and C.4: three requests, plain and with Huffman codes.
    for blocks in [
        [
            &b"\x82\x86\x84\x41\x0fwww.example.com"[..],
            b"\x82\x86\x84\xbe\x58\x08no-cache",
            b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
        ],
        [
            b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
            b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
            b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
        ],
    ] {
        let mut table = HeaderTable::default();
        for (block, bytes) in blocks.into_iter().zip([57, 110, 164]) {
            let found = table.read(block).unwrap();
            assert!(found.is_bad_in_trailers && !found.is_malformed && !found.is_to_replace);
            assert_eq!(table.bytes, bytes, "as the appendix has it");
        }
        assert_eq!(table.entries.len(), 3);
    }
}

#[test]
fn blocks_that_cannot_be_decoded_are_broken() {
    for block in [
        &b"\x80"[..],
        b"\xbe",
        b"\x7f\x07\x01a",
        b"\x82\x21",
        b"\x3f\xe2\x1f",
        b"\xff\xff\xff\xff\xff\xff\xff",
        b"\0\x05ab",
        b"\0",
        b"\0\x01a",
        b"\x40\x01a\x82\x1f\xff",
        b"\x40\x01a\x84\xff\xff\xff\xff",
    ] {
        assert_eq!(read(block), Err(BrokenBlock), "{block:x?}");
    }
    assert!(
        read(b"\x20\x3f\xe1\x1f\x82").is_ok(),
        "sizes at the beginning"
    );
}

#[test]
fn entries_leave_the_table_when_it_is_full_and_when_it_shrinks() {
    let mut table = HeaderTable::default();
    let large = |value: usize| {
        let mut block = literal(0x40, b"name", b"");
        block.pop();
        put_text(value, &mut block);
        block
    };
    for _ in 0..5 {
        table.read(&large(2000)).unwrap();
    }
    assert_eq!((table.entries.len(), table.bytes), (2, 2 * 2036));
    assert!(table.clone().read(&[0xbf]).is_ok() && table.clone().read(&[0xc0]).is_err());
    table.read(&large(5000)).unwrap();
    assert_eq!(
        (table.entries.len(), table.bytes),
        (0, 0),
        "larger than the table"
    );
    table.read(&large(100)).unwrap();
    table.read(&[0x20]).unwrap();
    assert_eq!(table.read(&[0xbe]), Err(BrokenBlock));
}

#[test]
fn pseudo_fields_are_found_in_every_representation() {
    for block in [
        &[0x82][..],
        &[0x04, 1, b'/'],
        &[0x44, 1, b'/'],
        &literal(0, b":path", b"/"),
        &[0x10, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 1, b'/'],
        &[0x3f, 0xe1, 0x1f, 0x82],
        &[0x0f, 0x0d, 1, b'0', 0x82],
    ] {
        assert!(read(block).unwrap().is_bad_in_trailers, "{block:x?}");
    }
    for block in [
        &[][..],
        &[0x90],
        &literal(0, b"a", b":"),
        &[0x0f, 0x0d, 1, b'0'],
    ] {
        assert!(!read(block).unwrap().is_bad_in_trailers, "{block:x?}");
    }
    let mut table = HeaderTable::default();
    table.read(&[0x44, 2, b'/', b'x']).unwrap();
    assert!(
        table.read(&[0xbe]).unwrap().is_bad_in_trailers,
        "in the dynamic table"
    );
}

const BAD: [(&[u8], &[u8]); 12] = [
    (b"X-Upper", b"1"),
    (b"x y", b"1"),
    (b"x:y", b"1"),
    (b"x\x7f", b"1"),
    (b"", b"long"),
    (b"x", b"a\0b"),
    (b"x", b"a\nb"),
    (b"x", b"a\rb"),
    (b":test", b"x"),
    (b":status", b"200"),
    (b":method", b"G T"),
    (b":path", b"/\xff"),
];

#[test]
fn fields_with_forbidden_bytes_are_malformed_and_replaced_by_others_of_their_size() {
    for (name, value) in BAD {
        let mut table = HeaderTable::default();
        let block = literal(0x40, name, value);
        let found = table.read(&block).unwrap();
        assert!(found.is_malformed && found.is_to_replace, "{name:x?}");
        let replaced = table.replaced(&block).unwrap();
        let mut theirs = HeaderTable::default();
        let found = theirs.read(&replaced).unwrap();
        assert!(!found.is_malformed, "{replaced:x?}");
        assert_eq!(theirs.bytes, table.bytes, "{name:x?}");
        // Whatever refers to it is malformed too.
        assert!(table.read(&[0xbe]).unwrap().is_malformed);
        // One that does not enter the table is left out.
        let block = [&literal(0, name, value)[..], &[0x90]].concat();
        table.read(&block).unwrap();
        assert_eq!(table.replaced(&block).unwrap(), [0x90]);
    }
    let mut table = HeaderTable::default();
    let nothing = literal(0x40, b"", b"");
    assert!(table.read(&nothing).unwrap().is_to_replace);
    assert_eq!(table.replaced(&nothing), None);
}

/// Fields that make any block one of several frames.
fn long_fields() -> Vec<u8> {
    literal(0, b"x-long", &[b'v'; 100]).repeat(80)
}

#[test]
fn fields_that_no_request_has_or_not_in_that_place_are_left_out_of_long_blocks() {
    let (path, field) = (literal(0, b":path", b"/x"), literal(0, b"x", b"1"));
    let (close, gzip) = (
        literal(0, b"connection", b"close"),
        literal(0, b"te", b"gzip"),
    );
    let long = long_fields();
    for (block, kept) in [
        ([&[0x82, 0x82, 0x84][..], &field], [&[0x82][..], &field]),
        ([&[0x84], &path], [&[0x84], &[]]),
        ([&field, &[0x82, 0x84]], [&field, &[]]),
        ([&field, &path], [&field, &[]]),
        ([&[0x84], &[0x88]], [&[0x84], &[]]),
        ([&field, &close], [&field, &[]]),
        ([&field, &gzip], [&field, &[]]),
        ([&[0x82, 0x86, 0x84], &[0xb9]], [&[0x82, 0x86, 0x84], &[]]),
    ] {
        let (block, mut table) = (block.concat(), HeaderTable::default());
        assert!(table.read(&block).unwrap().is_malformed, "{block:x?}");
        let block = [&block[..], &long].concat();
        let found = table.read(&block).unwrap();
        assert!(found.is_malformed && found.is_to_replace);
        let kept = [&kept.concat()[..], &long].concat();
        assert!(table.replaced(&block).unwrap() == kept, "{kept:x?}");
    }
}

#[test]
fn a_field_that_is_not_in_its_place_keeps_its_name_in_a_short_block_alone() {
    let misplaced = [&[0x84][..], &literal(0x40, b":path", b"/\"x")].concat();
    let mut table = HeaderTable::default();
    assert!(table.read(&misplaced).unwrap().is_malformed);
    assert_eq!(table.take_path(), None);
    assert!(!table.read(&[0xbe]).unwrap().is_malformed);
    assert_eq!(table.take_path().as_deref(), Some(&b"/\"x"[..]));
    let (block, mut table) = ([misplaced, long_fields()].concat(), HeaderTable::default());
    assert!(table.read(&block).unwrap().is_malformed);
    let expected = [&[0x84][..], &literal(0x40, b"xxxxx", b"xxx")].concat();
    assert!(table.replaced(&block).unwrap().starts_with(&expected));
    assert_eq!(table.take_path(), None);
    assert!(table.read(&[0xbe]).unwrap().is_malformed);
}

#[test]
fn a_field_that_no_request_has_stays_in_the_table_of_a_short_block() {
    let mut table = HeaderTable::default();
    let gzip = literal(0x40, b"te", b"gzip");
    let found = table.read(&gzip).unwrap();
    assert!(found.is_malformed && !found.is_to_replace);
    assert!(table.read(&[0xbe]).unwrap().is_malformed);
    let trailers = [
        0x0f, 0x2f, 8, b't', b'r', b'a', b'i', b'l', b'e', b'r', b's',
    ];
    let found = table.read(&trailers).unwrap();
    assert!(!found.is_malformed && !found.is_to_replace);
    // In a long block it is left out where it is named by its index.
    let block = [&[0xbe][..], &long_fields()].concat();
    assert!(table.read(&block).unwrap().is_malformed);
    assert!(table.replaced(&block).unwrap() == long_fields());
}

#[test]
fn a_good_name_stays_when_its_value_does_not() {
    let mut table = HeaderTable::default();
    let block = literal(0x40, b"x-name", b"a\0");
    table.read(&block).unwrap();
    let replaced = table.replaced(&block).unwrap();
    assert_eq!(replaced, literal(0x40, b"x-name", b"xx"));
    let by_name = [0x7e, 1, b'v'];
    let found = table.read(&by_name).unwrap();
    assert!(!found.is_malformed && !found.is_to_replace);
}

#[test]
fn other_bytes_are_allowed() {
    for (name, value) in [
        (&b"x-name_1.a~"[..], &b"caf\xe9\t \x80"[..]),
        (b":path", "/\u{e9}".as_bytes()),
        (b":method", b"M-SEARCH"),
        (b":protocol", b"websocket"),
        (b"x", b""),
    ] {
        let found = read(&literal(0, name, value)).unwrap();
        assert!(!found.is_malformed && !found.is_to_replace, "{name:x?}");
    }
}

#[test]
fn lengths_are_written_as_they_are_read() {
    for length in [0, 1, 126, 127, 128, 254, 255, 300, 16_384, 100_000] {
        let mut text = Vec::new();
        put_text(length, &mut text);
        let mut rest = Rest(&text);
        assert_eq!(rest.string(&mut Vec::new()).unwrap().len(), length);
        assert!(rest.0.is_empty());
    }
}

#[test]
fn a_path_that_the_library_does_not_take_as_it_is_stands_aside() {
    for path in [&b"/?q=\"x\""[..], b"/<a>", b"/`", b"/a#b", b"/#"] {
        let huffman_free = |first: u8| literal(first, b":path", path);
        for first in [0x40, 0, 0x10] {
            let block = [&b"\x82\x86"[..], &huffman_free(first), b"\0\x01a\x01b"].concat();
            let mut table = HeaderTable::default();
            let found = table.read(&block).unwrap();
            assert!(found.is_bad_in_trailers && !found.is_malformed && found.is_to_replace);
            let replaced = table.replaced(&block).unwrap();
            assert_eq!(table.take_path().as_deref(), Some(path));
            assert_eq!(table.take_path(), None);
            let padded = [b"/", &vec![b'x'; path.len() - 1][..]].concat();
            let expected = literal(first, b":path", &padded);
            assert_eq!(
                replaced,
                [&b"\x82\x86"[..], &expected, b"\0\x01a\x01b"].concat()
            );
            // The library's table has as much as the client's, and what the entry stands for is known.
            let mut library = HeaderTable::default();
            library.read(&replaced).unwrap();
            assert_eq!(
                (library.bytes, library.entries.len()),
                (table.bytes, table.entries.len())
            );
            if first == 0x40 {
                let again = b"\x82\x86\xbe";
                assert!(!table.read(again).unwrap().is_to_replace);
                assert_eq!(table.take_path().as_deref(), Some(path));
            }
        }
    }
    for path in [
        &b"/"[..],
        b"/a%22?b='{|}~'",
        b"*",
        b"a#",
        b"/a #",
        b"/\xc3\xa9#",
        b"",
    ] {
        let mut table = HeaderTable::default();
        table.read(&literal(0x40, b":path", path)).unwrap();
        assert_eq!(table.take_path(), None, "{path:?}");
    }
}

#[test]
fn spaces_around_a_value_are_for_trailers_alone_to_mind() {
    for (value, is_bad) in [("a b", false), (" a", true), ("a\t", true), ("", false)] {
        let mut table = HeaderTable::default();
        let mut block = vec![0x40, 1, b'x', value.len() as u8];
        block.extend_from_slice(value.as_bytes());
        for block in [&block[..], &[0xbe]] {
            let found = table.read(block).unwrap();
            assert_eq!(
                (found.is_bad_in_trailers, found.is_malformed),
                (is_bad, false),
                "{value:?}"
            );
        }
    }
}
