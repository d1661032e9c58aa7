//! Values of access log lines: how they are found in a head, and how they are made harmless.

use std::io::Write as _;

use super::Fields;
use crate::http::percent_decode;

/// The name of HTTP Basic authentication.
pub(super) fn user(request: &dyn Fields) -> Option<Vec<u8>> {
    let value = request.field(b"authorization")?;
    let (scheme, credentials) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = base64_decoded(credentials.trim_ascii())?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    decoded.truncate(colon);
    (!decoded.is_empty()).then_some(decoded)
}

fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let text = text
        .strip_suffix(b"==")
        .or(text.strip_suffix(b"="))
        .unwrap_or(text);
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in text {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count & 0xff) as u8);
        }
    }
    Some(decoded)
}

pub(super) fn escape_decoded(path: &[u8], out: &mut Vec<u8>) {
    if path.contains(&b'%') {
        let mut decoded = Vec::with_capacity(path.len());
        percent_decode(path, &mut decoded);
        escape(&decoded, out);
    } else {
        escape(path, out);
    }
}

pub(super) fn escape_or_dash(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        Some(value) => escape(value, out),
        None => out.push(b'-'),
    }
}

pub(super) fn escape(value: &[u8], out: &mut Vec<u8>) {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    // Nearly every value is plain, and then one copy does.
    let first = value
        .iter()
        .position(|byte| !plain(byte))
        .unwrap_or(value.len());
    out.extend_from_slice(&value[..first]);
    for byte in &value[first..] {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            byte if plain(byte) => out.push(*byte),
            byte => {
                let _ = write!(out, "\\x{byte:02X}");
            }
        }
    }
}
