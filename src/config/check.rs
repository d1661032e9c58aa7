//! Checks one value against one row, by gunicorn's rules, and brings it into its final form.
//!
//! Final forms: `Int`, `Bool`, `Str` or `None` as the kind says; comma-separated text becomes a
//! list; paths of `Kind::Directory` become absolute; users and groups become their number.

use std::path::{Path, PathBuf};

use super::bad_value::BadValue;
use super::choices::StatsdAddress;
use super::cpus;
use super::host;
use super::peers::Network;
use super::settings::{Kind, Setting};
use super::value::Value;

/// # Errors
/// The setting does not take the value.
pub fn check(setting: &Setting, value: &Value) -> Result<Value, BadValue> {
    match setting.kind {
        Kind::Text => text(value),
        Kind::Secret => text(value).map_err(|_| BadValue::NotText(Value::str("***"))),
        Kind::UrlPath => url_path(value),
        Kind::FieldValue => field_value(value),
        Kind::Workers if value.as_str() == Some("auto") => {
            let count = i64::try_from(cpus::workers().count);
            Ok(Value::Int(count.unwrap_or(i64::MAX)))
        }
        Kind::Workers | Kind::Int | Kind::OctalInt => {
            not_negative(whole_number(value)?).map(Value::Int)
        }
        Kind::Seconds => seconds(value),
        Kind::IntWithin {
            min,
            max,
            complaint,
        } => {
            let number = whole_number(value)?;
            if (min..=max).contains(&number) {
                Ok(Value::Int(number))
            } else {
                Err(BadValue::OutOfBounds(complaint(number)))
            }
        }
        Kind::Bool { .. } => switch(value),
        Kind::Texts => texts(value),
        Kind::Paths => match value {
            Value::List(_) => texts(value),
            other => text(other),
        },
        Kind::Files => files(value),
        Kind::CommaTexts => comma_texts(value),
        Kind::TextsOrCommas => match value {
            Value::List(_) => texts(value),
            other => comma_texts(other),
        },
        Kind::Addresses => addresses(value),
        Kind::Mapping => match value {
            Value::Dict(_) => Ok(value.clone()),
            other => Err(BadValue::NotMapping(other.clone())),
        },
        Kind::Word { words, complaint } => word(value, setting, words, complaint),
        Kind::ProxyProtocol => proxy_protocol(value),
        Kind::HttpProtocols => http_protocols(value),
        Kind::Http2Cleartext => http2_cleartext(value),
        Kind::StatsdAddress => statsd_address(value),
        Kind::Hook { .. } | Kind::PostRequest | Kind::Anything => Ok(value.clone()),
        Kind::Class => match value {
            Value::Opaque(_) => Ok(value.clone()),
            other => text(other),
        },
        Kind::Directory => match text(value)? {
            Value::Str(typed) => host::directory(&typed).map(Value::Str),
            other => Err(BadValue::NotText(other)),
        },
        Kind::User => host::user(value),
        Kind::Group => host::group(value),
    }
}

fn text(value: &Value) -> Result<Value, BadValue> {
    match value {
        Value::None => Ok(Value::None),
        Value::Str(text) => Ok(Value::str(text.trim())),
        other => Err(BadValue::NotText(other.clone())),
    }
}

fn url_path(value: &Value) -> Result<Value, BadValue> {
    let value = text(value)?;
    match value.as_str() {
        Some(text) if !text.is_empty() && !is_url_path(text) => Err(BadValue::NotUrlPath(value)),
        _ => Ok(value),
    }
}

fn is_url_path(text: &str) -> bool {
    let is_sane = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    text.starts_with('/') && text.bytes().all(is_sane)
}

fn field_value(value: &Value) -> Result<Value, BadValue> {
    let value = text(value)?;
    match value.as_str() {
        Some(text) if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
            Err(BadValue::NotFieldValue(value))
        }
        _ => Ok(value),
    }
}

fn whole_number(value: &Value) -> Result<i64, BadValue> {
    match value {
        Value::Int(number) => Ok(*number),
        // A boolean is an int in Python.
        Value::Bool(on) => Ok(i64::from(*on)),
        Value::Str(text) => parse_int(text, 0).ok_or_else(|| BadValue::NotInt(text.clone())),
        _ => Err(BadValue::NotNumeric),
    }
}

fn not_negative(number: i64) -> Result<i64, BadValue> {
    if number < 0 {
        Err(BadValue::Negative(number.to_string()))
    } else {
        Ok(number)
    }
}

/// Whole seconds stay a number; others are kept as text that is known to be a number (`Resolved::time` reads it).
fn seconds(value: &Value) -> Result<Value, BadValue> {
    let (Value::Str(text) | Value::Opaque(text)) = value else {
        return not_negative(whole_number(value)?).map(Value::Int);
    };
    let text = text.trim();
    if let Some(whole) = parse_int(text, 10) {
        return not_negative(whole).map(Value::Int);
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(Value::Opaque(text.to_owned())),
        Ok(_) => Err(BadValue::Negative(text.to_owned())),
        Err(_) => Err(BadValue::NotSeconds(text.to_owned())),
    }
}

/// Python's `int(text, base)` for base 10 and for base 0, which looks at the prefix.
pub(super) fn parse_int(text: &str, base: u32) -> Option<i64> {
    let text = text.trim();
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixed = |prefix| {
        lower
            .strip_prefix(prefix)
            .map(|rest| rest.strip_prefix('_').unwrap_or(rest))
    };
    let (radix, digits) = match base {
        0 => {
            if let Some(rest) = prefixed("0x") {
                (16, rest)
            } else if let Some(rest) = prefixed("0o") {
                (8, rest)
            } else if let Some(rest) = prefixed("0b") {
                (2, rest)
            } else if lower.starts_with('0')
                && lower.bytes().any(|byte| (b'1'..=b'9').contains(&byte))
            {
                // "010" could mean 8 or 10, so Python takes neither.
                return None;
            } else {
                (10, lower.as_str())
            }
        }
        base => (base, lower.as_str()),
    };
    // Underscores are allowed between two digits only.
    if digits.is_empty() || digits.split('_').any(str::is_empty) || digits.contains(['+', '-']) {
        return None;
    }
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

/// The command line's reading of modes: `0022` is octal too.
pub(super) fn parse_octal_int(text: &str) -> Option<i64> {
    let old_octal = text.len() > 1 && text.starts_with('0') && text.as_bytes()[1].is_ascii_digit();
    if old_octal {
        parse_int(&format!("0o{}", &text[1..]), 0)
    } else {
        parse_int(text, 0)
    }
}

fn switch(value: &Value) -> Result<Value, BadValue> {
    match value {
        Value::None | Value::Bool(_) => Ok(value.clone()),
        Value::Str(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(BadValue::NotBool(text.clone())),
        },
        other => Err(BadValue::WrongType(other.clone())),
    }
}

fn texts(value: &Value) -> Result<Value, BadValue> {
    match value {
        Value::None | Value::Bool(false) | Value::Int(0) => Ok(Value::List(Vec::new())),
        Value::Str(one) if one.is_empty() => Ok(Value::List(Vec::new())),
        Value::Str(one) => Ok(Value::List(vec![Value::str(one.trim())])),
        Value::List(items) => items
            .iter()
            .map(|item| match item {
                Value::Str(text) => Ok(Value::str(text.trim())),
                other => Err(BadValue::NotText(other.clone())),
            })
            .collect::<Result<_, _>>()
            .map(Value::List),
        other => Err(BadValue::NotTexts(other.clone())),
    }
}

fn files(value: &Value) -> Result<Value, BadValue> {
    let list = texts(value)?;
    let start = host::start_directory();
    let mut absolute = Vec::new();
    for file in list.strings() {
        let is_pattern = file.contains(['*', '?', '[']);
        if !is_pattern && !Path::new(&file).exists() {
            return Err(BadValue::NoFile(file));
        }
        absolute.push(Value::str(start.join(&file).to_string_lossy()));
    }
    Ok(Value::List(absolute))
}

fn comma_texts(value: &Value) -> Result<Value, BadValue> {
    let Value::Str(joined) = text(value)? else {
        return Ok(Value::List(Vec::new()));
    };
    let items = joined.split(',').filter(|item| !item.is_empty());
    Ok(Value::List(
        items.map(|item| Value::str(item.trim())).collect(),
    ))
}

fn addresses(value: &Value) -> Result<Value, BadValue> {
    let list = comma_texts(value)?;
    for item in list.strings() {
        if item != "*" {
            Network::parse(&item)?;
        }
    }
    Ok(list)
}

fn word(
    value: &Value,
    setting: &Setting,
    words: &[&str],
    complaint: fn(&Value) -> String,
) -> Result<Value, BadValue> {
    let typed = match value {
        Value::None => return Ok(setting.default_value()),
        Value::Str(typed) => typed.trim().to_ascii_lowercase(),
        other => return Err(BadValue::OutOfBounds(complaint(other))),
    };
    if words.contains(&typed.as_str()) {
        Ok(Value::Str(typed))
    } else {
        Err(BadValue::OutOfBounds(complaint(value)))
    }
}

fn proxy_protocol(value: &Value) -> Result<Value, BadValue> {
    let typed = match value {
        Value::None => "off".to_owned(),
        Value::Bool(on) => on.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Str(typed) => typed.trim().to_ascii_lowercase(),
        _ => return Err(BadValue::ProxyProtocolType),
    };
    let mode = match typed.as_str() {
        "off" | "false" | "0" | "none" => "off",
        "auto" | "true" | "1" => "auto",
        "v1" => "v1",
        "v2" => "v2",
        _ => return Err(BadValue::ProxyProtocol),
    };
    Ok(Value::str(mode))
}

fn http_protocols(value: &Value) -> Result<Value, BadValue> {
    let typed = match value {
        Value::None => "",
        Value::Str(typed) => typed.as_str(),
        _ => return Err(BadValue::ProtocolsType),
    };
    let mut protocols: Vec<Value> = Vec::new();
    for protocol in typed
        .split(',')
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty())
    {
        let protocol = protocol.to_ascii_lowercase();
        if !["h1", "h2"].contains(&protocol.as_str()) {
            return Err(BadValue::Protocol(protocol));
        }
        let protocol = Value::Str(protocol);
        if protocols.contains(&protocol) {
            return Err(BadValue::DuplicateProtocol);
        }
        protocols.push(protocol);
    }
    if protocols.is_empty() {
        protocols.push(Value::str("h1"));
    }
    Ok(Value::List(protocols))
}

fn http2_cleartext(value: &Value) -> Result<Value, BadValue> {
    let mode = match value {
        Value::None | Value::Bool(false) => "off".to_owned(),
        Value::Bool(true) => "prior-knowledge".to_owned(),
        Value::Str(typed) => typed.trim().to_ascii_lowercase(),
        other => return Err(BadValue::WrongType(other.clone())),
    };
    if ["off", "prior-knowledge", "upgrade", "both"].contains(&mode.as_str()) {
        Ok(Value::Str(mode))
    } else {
        Err(BadValue::Cleartext(mode))
    }
}

/// The text stays as it is; `validate` splits it once this has let it through.
fn statsd_address(value: &Value) -> Result<Value, BadValue> {
    let checked = text(value)?;
    let Value::Str(address) = &checked else {
        return Ok(checked);
    };
    match split_statsd(address) {
        Some(_) => Ok(checked),
        None => Err(BadValue::StatsdAddress),
    }
}

/// `HOST[:PORT]` or `unix:PATH`; but `unix:8125` is a host of that name, as it always was.
pub(super) fn split_statsd(address: &str) -> Option<StatsdAddress> {
    if let Some(path) = address.strip_prefix("unix:") {
        if let Ok(port) = path.parse() {
            return Some(StatsdAddress::Udp {
                host: "unix".to_owned(),
                port,
            });
        }
        let path = path.strip_prefix("//").unwrap_or(path);
        return Some(StatsdAddress::Unix(PathBuf::from(path)));
    }
    let (host, port) = if let Some((host, rest)) = address
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        (host, rest.strip_prefix(':'))
    } else if let Some((host, port)) = address.split_once(':') {
        (host, Some(port))
    } else {
        (address, None)
    };
    let port = port.map_or(Ok(8125), str::parse).ok()?;
    Some(StatsdAddress::Udp {
        host: host.to_ascii_lowercase(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_as_python() {
        for (text, base, number) in [
            (" 12 ", 10, Some(12)),
            ("-1", 10, Some(-1)),
            ("+1_000", 10, Some(1000)),
            ("0x10", 10, None),
            ("0x10", 0, Some(16)),
            ("0o22", 0, Some(18)),
            ("0b_11", 0, Some(3)),
            ("010", 0, None),
            ("010", 10, Some(10)),
            ("00", 0, Some(0)),
            ("1__0", 0, None),
            ("--1", 0, None),
            ("", 0, None),
            ("1.5", 0, None),
        ] {
            assert_eq!(parse_int(text, base), number, "{text:?} in base {base}");
        }
    }

    #[test]
    fn seconds_may_be_parts_of_one() {
        for (given, kept) in [
            (Value::str("2"), Some("2")),
            (Value::str(" 0.25 "), Some("0.25")),
            (Value::Opaque("1.5".to_owned()), Some("1.5")),
            (Value::Int(3), Some("3")),
            (Value::str("-0.5"), None),
            (Value::str("nan"), None),
            (Value::str("inf"), None),
            (Value::str("soon"), None),
            (Value::None, None),
        ] {
            let read = seconds(&given).ok().map(|value| value.to_string());
            assert_eq!(read.as_deref(), kept, "{given:?}");
        }
    }

    #[test]
    fn reads_modes_in_every_notation() {
        for text in ["0022", "022", "0o22", "0x12", "18"] {
            assert_eq!(parse_octal_int(text), Some(18), "{text}");
        }
        assert_eq!(parse_octal_int("0"), Some(0));
        assert_eq!(parse_octal_int("09"), None);
    }
}
