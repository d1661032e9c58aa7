//! Chunked bodies whole, in pieces, and broken.

use super::*;

/// The body and how many bytes it took, when `piece` bytes arrive at a time.
fn decode(
    bytes: &[u8],
    piece: usize,
    limits: &Limits,
) -> Result<Option<(Vec<u8>, usize)>, ParseError> {
    let mut decoder = ChunkedDecoder::default();
    let mut body = Vec::new();
    let (mut from, mut arrived) = (0, 0);
    loop {
        let (consumed, found) = decoder.decode(&bytes[from..arrived], limits)?;
        match found {
            Piece::Data(range) => {
                assert!(!range.is_empty() && range.end <= consumed);
                body.extend_from_slice(&bytes[from..arrived][range]);
                from += consumed;
            }
            Piece::End => return Ok(Some((body, from + consumed))),
            Piece::NeedData => {
                from += consumed;
                if arrived == bytes.len() {
                    return Ok(None);
                }
                arrived = (arrived + piece).min(bytes.len());
            }
        }
    }
}

fn whole(text: &str) -> Result<Option<(Vec<u8>, usize)>, u16> {
    let limits = Limits::new(0, 3, 40, 100);
    let at_once =
        decode(text.as_bytes(), usize::MAX / 2, &limits).map_err(|error| error.status().code);
    for piece in 1..4 {
        let slowly = decode(text.as_bytes(), piece, &limits).map_err(|error| error.status().code);
        assert_eq!(slowly, at_once, "{text:?} in pieces of {piece}");
    }
    at_once
}

#[test]
fn bodies() {
    for (text, body) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n", "hello world"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("00000000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        ("1;a\r\nx\r\n0;b=c\r\n\r\n", "x"),
        ("1 ;\ta = \"q\\\"\t;\" ; b=c;d\r\nx\r\n0\r\n\r\n", "x"),
        ("1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n", "x"),
    ] {
        assert_eq!(
            whole(text),
            Ok(Some((body.as_bytes().to_vec(), text.len()))),
            "{text:?}"
        );
        let followed = format!("{text}GET /");
        assert_eq!(
            whole(&followed),
            Ok(Some((body.as_bytes().to_vec(), text.len()))),
            "{followed:?}"
        );
    }
}

#[test]
fn unfinished_bodies_wait() {
    for text in [
        "",
        "5",
        "5\r",
        "5\r\nhel",
        "5\r\nhello",
        "5\r\nhello\r",
        "5\r\nhello\r\n",
        "0\r\n",
        "0\r\n\r",
        "0\r\nA: b",
        "0\r\nA: b\r\n",
    ] {
        assert_eq!(whole(text), Ok(None), "{text:?}");
    }
}

#[test]
fn malformed_bodies_are_refused() {
    for text in [
        "\r\n",
        " 5\r\nhello\r\n",
        "+5\r\n",
        "-5\r\n",
        "0x5\r\n",
        "5_0\r\n",
        "g\r\n",
        ";\r\n",
        "5 \r\n",
        "5\n",
        "5\rx",
        "5\r\r\n",
        "5\t5\r\n",
        "5,5\r\n",
        "5.0\r\n",
        "8000000000000000\r\n",
        "10000000000000005\r\n",
        "fffffffffffffffff\r\n",
        "5\r\nhelloX",
        "5\r\nhello\n",
        "5\r\nhello\rX",
        "5\r\nhello0\r\n",
        "5;\r\n",
        "5;a b\r\n",
        "5;a=\r\n",
        "5;a=\"b\r\n",
        "5;a=\"b\"c\r\n",
        "5;a\rb\r\n",
        "5;a\nb",
        "5;a=\"\n\"",
        "5;=b\r\n",
        "5;a;\r\n",
        "5;a \r\n",
        "5;a=b \r\n",
        "5;a=\"\0\"\r\n",
        "5;\u{e9}\r\n",
        "0\r\n A: b\r\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\nA\r\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\n\n",
        "0\r\nA: \0\r\n\r\n",
        "0\r\nA: b\r\n c\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\ntransfer-encoding: chunked\r\n\r\n",
        "0\r\nHost: h\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(whole(text), Err(400), "{text:?}");
    }
}

#[test]
fn everything_is_bounded() {
    assert_eq!(whole(&format!("{}\r\n", "0".repeat(41))), Err(400));
    assert_eq!(whole(&format!("1;{}\r\n", "a".repeat(60))), Err(400));
    assert_eq!(whole("65\r\n"), Err(413));
    assert_eq!(
        whole(&format!("40\r\n{}\r\n25\r\n", "x".repeat(64))),
        Err(413)
    );
    assert_eq!(whole("7fffffffffffffff\r\n"), Err(413));
    assert_eq!(whole(&format!("0\r\nA: {}", "x".repeat(60))), Err(431));
    assert_eq!(
        whole(&format!("0\r\nA: {}\r\n\r\n", "x".repeat(60))),
        Err(431)
    );
    assert_eq!(whole("0\r\nA:\r\nB:\r\nC:\r\nD:\r\n\r\n"), Err(431));
    let narrow = Limits {
        head_bytes_max: 5,
        ..Limits::default()
    };
    assert_eq!(
        decode(b"0\r\nA:b\r\n\r\n", 100, &narrow),
        Err(ParseError::HeadTooLarge)
    );
    assert_eq!(
        decode(b"7fffffffffffffff\r\nx", 100, &Limits::default()),
        Ok(None)
    );
}

#[test]
fn a_decoder_knows_whether_it_was_touched() {
    let mut decoder = ChunkedDecoder::default();
    assert!(decoder.is_untouched());
    assert_eq!(
        decoder.decode(b"1", &Limits::default()),
        Ok((1, Piece::NeedData))
    );
    assert!(!decoder.is_untouched());
}
