//! Fields as proxies write them, and as clients forge them.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::http::{HeadScan, Limits, parse_head};

fn head(fields: &[&str]) -> RequestHead {
    let text = format!("GET / HTTP/1.0\r\n{}\r\n", {
        let lines: Vec<String> = fields.iter().map(|field| format!("{field}\r\n")).collect();
        lines.concat()
    });
    let mut head = RequestHead::default();
    parse_head(
        text.as_bytes(),
        &mut HeadScan::default(),
        &Limits::default(),
        &mut head,
    )
    .unwrap()
    .unwrap();
    head
}

/// The address as text, or why there is none.
fn found(fields: &[&str], field: ClientField, hops: usize) -> String {
    match client(&head(fields), field, hops) {
        Ok(ClientAddress::Ip(ip)) => ip.to_string(),
        Ok(ClientAddress::WithPort(address)) => address.to_string(),
        Err(why) => format!("{why:?}"),
    }
}

fn x(value: &str, hops: usize) -> String {
    found(
        &[&format!("X-Forwarded-For: {value}")],
        ClientField::XForwardedFor,
        hops,
    )
}

fn f(value: &str, hops: usize) -> String {
    found(
        &[&format!("Forwarded: {value}")],
        ClientField::Forwarded,
        hops,
    )
}

#[test]
fn x_forwarded_for_is_counted_from_the_right() {
    let chain = "6.6.6.6, 192.0.2.1,\t10.0.0.1";
    assert_eq!(x(chain, 1), "10.0.0.1");
    assert_eq!(x(chain, 2), "192.0.2.1");
    assert_eq!(x(chain, 3), "6.6.6.6");
    assert_eq!(x(chain, 4), "TooShort");
    assert_eq!(x(chain, usize::MAX), "TooShort");
}

#[test]
fn repeated_fields_are_one_list_in_their_order() {
    let fields = [
        "X-Forwarded-For: 1.1.1.1, 2.2.2.2",
        "Other: 9.9.9.9",
        "x-forwarded-for: 3.3.3.3",
    ];
    for (hops, address) in [(1, "3.3.3.3"), (2, "2.2.2.2"), (3, "1.1.1.1")] {
        assert_eq!(found(&fields, ClientField::XForwardedFor, hops), address);
    }
    let fields = [
        "Forwarded: for=1.1.1.1, for=2.2.2.2",
        "Forwarded: for=3.3.3.3",
    ];
    for (hops, address) in [(1, "3.3.3.3"), (2, "2.2.2.2"), (3, "1.1.1.1")] {
        assert_eq!(found(&fields, ClientField::Forwarded, hops), address);
    }
    assert_eq!(found(&fields, ClientField::Forwarded, 4), "TooShort");
    assert_eq!(found(&["A: b"], ClientField::Forwarded, 1), "Missing");
    assert_eq!(found(&["A: b"], ClientField::XForwardedFor, 1), "Missing");
}

#[test]
fn forms_of_an_address() {
    for (text, address) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:65535", "[2001:db8::1]:65535"),
        ("192.0.2.1:_hidden", "192.0.2.1"),
        ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
        ("unknown", "NotAnAddress"),
        ("_secret", "NotAnAddress"),
        ("", "NotAnAddress"),
        ("host.example", "NotAnAddress"),
        ("192.0.2.1:", "NotAnAddress"),
        ("192.0.2.1:65536", "NotAnAddress"),
        ("192.0.2.1:+1", "NotAnAddress"),
        ("192.0.2.1:_", "NotAnAddress"),
        ("192.0.2.01", "NotAnAddress"),
        ("192.0.2.1 80", "NotAnAddress"),
        ("192.0.2", "NotAnAddress"),
        ("[192.0.2.1]", "NotAnAddress"),
        ("[::1", "NotAnAddress"),
        ("[::1]80", "NotAnAddress"),
        ("[::1%eth0]", "NotAnAddress"),
        ("\"192.0.2.1\"", "NotAnAddress"),
        ("192.0.2.1\u{e9}", "NotAnAddress"),
    ] {
        assert_eq!(x(text, 1), address, "{text}");
    }
}

#[test]
fn an_element_that_is_no_address_still_counts() {
    assert_eq!(x("1.1.1.1, unknown", 1), "NotAnAddress");
    assert_eq!(x("1.1.1.1, unknown", 2), "1.1.1.1");
    assert_eq!(x("1.1.1.1,", 1), "NotAnAddress");
    assert_eq!(f("for=1.1.1.1, by=2.2.2.2", 1), "NotAnAddress");
    assert_eq!(f("for=1.1.1.1, by=2.2.2.2", 2), "1.1.1.1");
}

#[test]
fn forwarded_as_rfc_7239_shows_it() {
    for (value, hops, address) in [
        ("for=\"_gazonk\"", 1, "NotAnAddress"),
        (
            "For=\"[2001:db8:cafe::17]:4711\"",
            1,
            "[2001:db8:cafe::17]:4711",
        ),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", 1, "192.0.2.60"),
        ("proto=http ; FOR=192.0.2.60 ;; by=x;", 1, "192.0.2.60"),
        ("for=192.0.2.43, for=198.51.100.17", 1, "198.51.100.17"),
        ("for=192.0.2.43, for=198.51.100.17", 2, "192.0.2.43"),
        ("for=\"192.0.2.43:47011\"", 1, "192.0.2.43:47011"),
        ("for=192.0.2.43:47011", 1, "192.0.2.43:47011"),
        ("for=[::1]:1", 1, "[::1]:1"),
        ("for=\"[::1]:_p.0-x\"", 1, "::1"),
        ("for=unknown", 1, "NotAnAddress"),
        ("for=\"::1\"", 1, "NotAnAddress"),
        ("host=\"a,b;for=6.6.6.6\";for=1.2.3.4", 1, "1.2.3.4"),
        ("host=\"a\\\"b,for=6.6.6.6\";for=1.2.3.4", 1, "1.2.3.4"),
        ("for=\"1.2.3\\.4\"", 1, "NotAnAddress"),
        (", for=1.1.1.1", 1, "1.1.1.1"),
        (", for=1.1.1.1", 2, "NotAnAddress"),
        ("", 1, "TooShort"),
    ] {
        assert_eq!(f(value, hops), address, "{value}");
    }
}

#[test]
fn malformed_forwarded_is_not_believed_anywhere() {
    for value in [
        "for",
        "for=",
        "=1.1.1.1",
        "for =1.1.1.1",
        "for= 1.1.1.1",
        "for=1.1.1.1 for=2.2.2.2",
        "for=1.1.1.1;for=2.2.2.2",
        "for=\"1.1.1.1",
        "for=\"1.1.1.1\\\"",
        "for=\"\"",
        "for=1.1.1.1\"\"",
        "for=\"1.1.1.1\"x",
        "for=1.1.1.1,",
        "for=1.1.1.1, ",
        "f or=1.1.1.1",
        "for=1.1.1.1/24",
    ] {
        assert_eq!(f(value, 1), "Malformed", "{value}");
    }
}

/// What a client sends in front of what its proxy appends never makes the proxy's element another one.
#[test]
fn a_client_cannot_hide_or_replace_what_the_proxy_says() {
    let appended = [
        ("for=1.2.3.4", "1.2.3.4"),
        ("for=\"[2001:db8::1]:80\"", "[2001:db8::1]:80"),
        ("by=\"[::2]\";for=\"[2001:db8::1]\"", "2001:db8::1"),
    ];
    for forged in [
        "for=6.6.6.6",
        "for=\"6.6.6.6",
        "for=6.6.6.6;host=\"",
        "for=6.6.6.6, for=6.6.6.6;host=\"",
        "for=\"6.6.6.6\\",
        "host=\"\\\"",
        "for=6.6.6.6;",
        "\"",
        ";;;",
        "for=6.6.6.6, ",
    ] {
        for (element, address) in appended {
            let seen = f(&format!("{forged}, {element}"), 1);
            assert!(seen == address || seen == "Malformed", "{forged}: {seen}");
            // In a field of its own it is always found.
            let fields = [
                &format!("Forwarded: {forged}")[..],
                &format!("Forwarded: {element}"),
            ];
            assert_eq!(found(&fields, ClientField::Forwarded, 1), address);
        }
    }
}

#[test]
fn no_value_panics() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let alphabet = b"for=\"\\;,:[]1.2._ \tbyxF";
    for _ in 0..20_000 {
        let mut value = String::new();
        for _ in 0..24 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            value.push(char::from(alphabet[state as usize % alphabet.len()]));
        }
        for hops in 1..4 {
            let _ = (x(&value, hops), f(&value, hops));
        }
    }
}
