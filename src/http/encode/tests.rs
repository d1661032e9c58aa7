//! Bytes of heads, chunks and pages.

use super::*;

#[test]
fn chunk_sizes_are_hexadecimal() {
    for (len, text) in [
        (1, "1\r\n"),
        (15, "f\r\n"),
        (16, "10\r\n"),
        (0x12ab, "12ab\r\n"),
        (usize::MAX, "ffffffffffffffff\r\n"),
    ] {
        let mut out = Vec::new();
        write_chunk_size(len, &mut out);
        assert_eq!(out, text.as_bytes());
    }
}

#[test]
fn a_refusal_is_a_whole_page() {
    let defaults = ResponseDefaults {
        server: b"s",
        date: b"d",
    };
    let mut out = Vec::new();
    write_error_page(
        Status::BAD_REQUEST,
        "Invalid <&> 'x' \"y\"",
        false,
        &defaults,
        &mut out,
    );
    let page = "<html>\n  <head>\n    <title>Bad Request</title>\n  </head>\n  <body>\n    <h1><p>Bad Request</p></h1>\n    Invalid &lt;&amp;&gt; &#x27;x&#x27; &quot;y&quot;\n  </body>\n</html>\n";
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nServer: s\r\nDate: d\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n",
        page.len()
    );
    assert_eq!(String::from_utf8_lossy(&out), format!("{head}{page}"));
    let mut out = Vec::new();
    write_error_page(
        Status::BAD_REQUEST,
        "Invalid <&> 'x' \"y\"",
        true,
        &defaults,
        &mut out,
    );
    assert_eq!(String::from_utf8_lossy(&out), head);
}

#[test]
fn lengths_cut_and_count() {
    let mut out = Vec::new();
    let mut encoder = BodyEncoder::Length { remaining: 10 };
    assert_eq!(
        (encoder.data(4, &mut out), encoder.finish(&mut out)),
        (4, 6)
    );
    assert_eq!(
        (
            encoder.data(9, &mut out),
            encoder.data(1, &mut out),
            encoder.finish(&mut out)
        ),
        (6, 0, 0)
    );
    assert!(out.is_empty());
}

#[test]
fn chunks_open_and_close() {
    let mut out = Vec::new();
    let mut encoder = BodyEncoder::Chunked { open: false };
    assert_eq!(encoder.data(3, &mut out), 3);
    out.extend_from_slice(b"abc");
    encoder.data_end(&mut out);
    assert_eq!(encoder.data(0, &mut out), 0);
    encoder.data_end(&mut out);
    assert_eq!(encoder.finish(&mut out), 0);
    assert_eq!(out, b"3\r\nabc\r\n0\r\n\r\n");
}
