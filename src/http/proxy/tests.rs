//! Headers as senders make them, and as nobody should.
#![allow(clippy::unwrap_used)]

use super::*;

/// A version 2 header.
fn v2(version_command: u8, family_transport: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [
        V2_SIGNATURE,
        &[version_command, family_transport],
        &length,
        payload,
    ]
    .concat()
}

fn v4_payload() -> Vec<u8> {
    vec![192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb]
}

fn v6_payload() -> Vec<u8> {
    let client: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let proxy: Ipv6Addr = "2001:db8::2".parse().unwrap();
    [
        &client.octets()[..],
        &proxy.octets(),
        &[0xdc, 0x04, 0x01, 0xbb],
    ]
    .concat()
}

/// The protocol and the route as text, for a header that stands before a request.
fn read(header: &[u8], mode: ProxyMode) -> String {
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
    match parse(&bytes, mode) {
        Ok(ProxyParse::Present {
            length,
            header: found,
        }) => {
            assert_eq!(length, header.len());
            match found.route {
                ProxyRoute::Ip { client, proxy } => format!("{} {client} {proxy}", found.protocol),
                ProxyRoute::Unknown => format!("{} -", found.protocol),
                ProxyRoute::Unix => format!("{} unix", found.protocol),
            }
        }
        Ok(ProxyParse::Absent) => "absent".to_owned(),
        Ok(ProxyParse::NeedData { is_announced }) => format!("needs more, {is_announced}"),
        Err(error) => {
            assert_eq!(error.status().code, 400);
            error.to_string()
        }
    }
}

#[test]
fn lines_of_version_1() {
    for (line, meaning) in [
        (
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
            "TCP4 192.0.2.1:56324 198.51.100.2:443",
        ),
        (
            "PROXY TCP6 2001:DB8::1 ::1 65535 0\r\n",
            "TCP6 [2001:db8::1]:65535 [::1]:0",
        ),
        (
            "PROXY TCP6 ffff:f:f:f:f:f:f:ffff ffff:f:f:f:f:f:f:ffff 1 2\r\n",
            "TCP6 [ffff:f:f:f:f:f:f:ffff]:1 [ffff:f:f:f:f:f:f:ffff]:2",
        ),
        ("PROXY UNKNOWN\r\n", "UNKNOWN -"),
        ("PROXY UNKNOWN ffff::1 what ever 1 2 3\r\n", "UNKNOWN -"),
    ] {
        assert_eq!(read(line.as_bytes(), ProxyMode::V1), meaning);
        assert_eq!(read(line.as_bytes(), ProxyMode::Auto), meaning);
    }
}

#[test]
fn the_longest_line_fits_and_the_next_does_not() {
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 16));
    assert_eq!(longest.len(), V1_BYTES_MAX);
    assert_eq!(read(longest.as_bytes(), ProxyMode::V1), "UNKNOWN -");
    let longer = longest.replace("\r\n", "x\r\n");
    assert!(read(longer.as_bytes(), ProxyMode::V1).starts_with("Invalid PROXY line: "));
    let endless = "PROXY TCP4 ".to_owned() + &"1".repeat(200);
    assert!(read(endless.as_bytes(), ProxyMode::Auto).starts_with("Invalid PROXY line: "));
}

#[test]
fn malformed_lines_of_version_1() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY unknown\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY tcp4 1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
        "PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4\t1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 ::1 ::1 1 1\r\n",
        "PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 01.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 256.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 host 1.1.1.1 1 1\r\n",
        "PROXY TCP6 [::1] ::1 1 1\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 -1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1_0 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1  1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\r\n",
        "PROXY / HTTP/1.1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1 \u{661}\r\n",
    ] {
        let meaning = read(line.as_bytes(), ProxyMode::Auto);
        assert!(
            meaning.starts_with("Invalid PROXY line: "),
            "{line:?}: {meaning}"
        );
    }
    let not_text = read(b"PROXY TCP4 \xff\xfe\r\n", ProxyMode::V1);
    assert_eq!(not_text, "Invalid PROXY line: 'PROXY TCP4 \\xff\\xfe'");
}

#[test]
fn headers_of_version_2() {
    let unix = vec![0; 216];
    let with_extension = [v4_payload(), vec![0x04, 0, 1, 0]].concat();
    for (header, meaning) in [
        (
            v2(0x21, 0x11, &v4_payload()),
            "TCP4 192.0.2.1:56324 198.51.100.2:443",
        ),
        (
            v2(0x21, 0x12, &v4_payload()),
            "UDP4 192.0.2.1:56324 198.51.100.2:443",
        ),
        (
            v2(0x21, 0x21, &v6_payload()),
            "TCP6 [2001:db8::1]:56324 [2001:db8::2]:443",
        ),
        (
            v2(0x21, 0x22, &v6_payload()),
            "UDP6 [2001:db8::1]:56324 [2001:db8::2]:443",
        ),
        (
            v2(0x21, 0x11, &with_extension),
            "TCP4 192.0.2.1:56324 198.51.100.2:443",
        ),
        (v2(0x21, 0x31, &unix), "UNIX unix"),
        (v2(0x21, 0x32, &unix), "UNIX unix"),
        (v2(0x21, 0x00, b""), "UNSPEC -"),
        (v2(0x21, 0x01, b"anything"), "UNSPEC -"),
        (v2(0x21, 0x10, &v4_payload()), "UNSPEC -"),
        (v2(0x20, 0x00, b""), "LOCAL -"),
        (v2(0x20, 0x11, &v4_payload()), "LOCAL -"),
        (v2(0x20, 0xff, b"ignored"), "LOCAL -"),
        (v2(0x20, 0x00, &[7; V2_BYTES_MAX - 16]), "LOCAL -"),
    ] {
        assert_eq!(read(&header, ProxyMode::V2), meaning);
        assert_eq!(read(&header, ProxyMode::Auto), meaning);
    }
}

#[test]
fn malformed_headers_of_version_2() {
    for (header, why) in [
        (v2(0x11, 0x11, &v4_payload()), "unsupported version"),
        (v2(0x31, 0x11, &v4_payload()), "unsupported version"),
        (v2(0x22, 0x11, &v4_payload()), "unsupported command"),
        (
            v2(0x21, 0x13, &v4_payload()),
            "unsupported transport protocol",
        ),
        (v2(0x21, 0x41, &v4_payload()), "unsupported address family"),
        (v2(0x21, 0xf0, &v4_payload()), "unsupported address family"),
        (
            v2(0x21, 0x11, &v4_payload()[..11]),
            "insufficient address data for IPv4",
        ),
        (v2(0x21, 0x11, b""), "insufficient address data for IPv4"),
        (
            v2(0x21, 0x21, &v6_payload()[..35]),
            "insufficient address data for IPv6",
        ),
        (
            v2(0x21, 0x21, &v4_payload()),
            "insufficient address data for IPv6",
        ),
        (
            v2(0x21, 0x31, &[0; 215]),
            "insufficient address data for unix sockets",
        ),
        (v2(0x21, 0x11, &[0; V2_BYTES_MAX - 15]), "too long"),
        (v2(0x20, 0x00, &[0; 0xffff]), "too long"),
    ] {
        assert_eq!(
            read(&header, ProxyMode::Auto),
            format!("Invalid PROXY header: {why}")
        );
    }
}

#[test]
fn a_header_that_is_too_long_is_refused_before_it_has_arrived() {
    let start = &v2(0x21, 0x11, &[0; 0xffff])[..16];
    assert!(parse(start, ProxyMode::V2).is_err());
}

#[test]
fn every_part_of_a_header_asks_for_more_and_says_when_it_is_sure() {
    let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n".to_vec();
    let binary = v2(0x21, 0x21, &v6_payload());
    for (header, signature) in [(line, V1_SIGNATURE.len()), (binary, V2_SIGNATURE.len())] {
        for end in 0..header.len() {
            assert_eq!(
                parse(&header[..end], ProxyMode::Auto),
                Ok(ProxyParse::NeedData {
                    is_announced: end >= signature
                }),
                "{end}"
            );
        }
    }
}

#[test]
fn what_is_not_a_header_is_known_by_its_first_different_byte() {
    for (bytes, mode) in [
        (&b"G"[..], ProxyMode::Auto),
        (b"PO", ProxyMode::Auto),
        (b"PROP", ProxyMode::V1),
        (b"PROXY\t", ProxyMode::Auto),
        (b"\r\nG", ProxyMode::Auto),
        (b"\n", ProxyMode::V2),
        (b"P", ProxyMode::V2),
        (b"PROXY TCP4 ", ProxyMode::V2),
        (b"\r", ProxyMode::V1),
        (b"\r\n\r\n\0\r\nQUIT\n", ProxyMode::V1),
    ] {
        assert_eq!(parse(bytes, mode), Ok(ProxyParse::Absent), "{bytes:?}");
    }
}

/// No bytes panic, and no more is asked for than a header can have.
#[test]
fn garbage_behind_a_signature_ends() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let signature = [V1_SIGNATURE, V2_SIGNATURE][random() as usize % 2];
        let tail: Vec<u8> = (0..random() % 64).map(|_| random() as u8).collect();
        let mut bytes = [signature, &tail].concat();
        if signature == V2_SIGNATURE && random() % 2 == 0 && bytes.len() > 15 {
            // Often enough of the right version for what follows to be looked at.
            bytes[12] = 0x20 | (random() as u8 & 1);
            bytes[14] = 0;
        }
        let first = parse(&bytes, ProxyMode::Auto);
        if let Ok(ProxyParse::Present { length, .. }) = first {
            assert!(length <= bytes.len());
        }
        bytes.resize(V2_BYTES_MAX, b'x');
        let whole = parse(&bytes, ProxyMode::Auto);
        assert!(!matches!(whole, Ok(ProxyParse::NeedData { .. })));
        if let Err(error) = first {
            assert_eq!(Err(error), whole);
        }
    }
}
