//! Values of access log lines: how they are found in a head, and how they are escaped.

use std::io::Write as _;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::entry::{AccessEntry, Fields};
use crate::http::percent_decode;

/// The name of HTTP Basic authentication.
pub(super) fn user(request: &dyn Fields) -> Option<Vec<u8>> {
    let value = request.last(b"authorization")?;
    let (scheme, credentials) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = BASE64.decode(credentials.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':');
    decoded.truncate(colon.unwrap_or(decoded.len()));
    // gunicorn takes UTF-8 only.
    (!decoded.is_empty() && std::str::from_utf8(&decoded).is_ok()).then_some(decoded)
}

/// As clients send it: padded or not, and whatever the last bits are.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The path below the application's mount point, as sent.
pub(super) fn path_info<'a>(entry: &AccessEntry<'a>) -> &'a [u8] {
    let below = entry.path.strip_prefix(entry.script_name);
    below.unwrap_or(entry.path)
}

/// What the client called the server, or else where it listens.
pub(super) fn host_and_port<'a>(entry: &AccessEntry<'a>) -> (&'a [u8], Option<u16>) {
    let host = entry.request.last(b"host").unwrap_or_default();
    if host.is_empty() {
        return (entry.server.0.as_bytes(), entry.server.1.parse().ok());
    }
    let colon = host.iter().rposition(|byte| *byte == b':');
    let port = colon.and_then(|colon| {
        let digits = std::str::from_utf8(&host[colon + 1..]).ok()?;
        Some((colon, digits.parse().ok()?))
    });
    match port {
        Some((colon, port)) => (&host[..colon], Some(port)),
        None => (host, None),
    }
}

/// The environ as far as the request's head determines it: of a request that the application never saw.
pub(super) fn environ_of_head(name: &str, entry: &AccessEntry<'_>, out: &mut Vec<u8>) {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "request_method" => escape_or_dash(Some(entry.method), out),
        "raw_uri" => escape_or_dash(Some(entry.target), out),
        "path_info" => escape_decoded(path_info(entry), out),
        "script_name" => escape(entry.script_name, out),
        "query_string" => escape(entry.query, out),
        "server_protocol" => escape(entry.version.as_bytes(), out),
        "remote_addr" => escape(entry.peer.as_bytes(), out),
        "content_type" => escape_joined(entry.request, b"content-type", out),
        "content_length" => escape_joined(entry.request, b"content-length", out),
        name => match name.strip_prefix("http_") {
            Some(field) => escape_joined(entry.request, field.replace('_', "-").as_bytes(), out),
            None => out.push(b'-'),
        },
    }
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

/// All values of a field, with commas between them.
pub(super) fn escape_joined(fields: &dyn Fields, lowercase_name: &[u8], out: &mut Vec<u8>) {
    let mut is_first = true;
    fields.each(lowercase_name, &mut |value| {
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        escape(value, out);
    });
    if is_first {
        out.push(b'-');
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

/// A JSON string in ASCII. Bytes that are not UTF-8 are taken for Latin-1, as WSGI takes them.
pub(super) fn json_text(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if value.iter().all(plain) {
        out.extend_from_slice(value);
    } else if let Ok(text) = std::str::from_utf8(value) {
        text.chars().for_each(|c| json_char(c, out));
    } else {
        value
            .iter()
            .for_each(|byte| json_char(char::from(*byte), out));
    }
    out.push(b'"');
}

fn json_char(c: char, out: &mut Vec<u8>) {
    match c {
        '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
        ' '..='~' => out.push(c as u8),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        c => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}
