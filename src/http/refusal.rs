//! What is wrong with a head: the request line's rules, and the search for the fault that httparse only hints at.
//!
//! Off the usual path except for [`RequestLine::parse`].

use super::error::{ParseError, quoted};
use super::fields::{is_field_value, is_token, trim_ows};
use super::limits::{Limits, Rules};
use super::target::{TargetParts, split_target};
use super::version::Version;

/// The parts of a valid request line; the method starts at 0 and the target one byte after the method.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLine {
    pub(super) method_end: usize,
    pub(super) target_end: usize,
    pub(super) version: Version,
    /// Relative to the target.
    pub(super) parts: TargetParts,
}

impl RequestLine {
    pub(super) fn target_start(&self) -> usize {
        self.method_end + 1
    }

    /// `method SP request-target SP HTTP-version` (RFC 9112 section 3), with exactly these two spaces.
    pub(super) fn parse(line: &[u8], rules: &Rules) -> Result<Self, ParseError> {
        let invalid = || ParseError::RequestLine(quoted(line));
        // Methods are short: no search is worth a call.
        let method_end = (line.iter().position(|&byte| byte == b' ')).ok_or_else(invalid)?;
        let target_start = method_end + 1;
        let target_length = memchr::memchr(b' ', &line[target_start..]).ok_or_else(invalid)?;
        let target_end = target_start + target_length;
        let method = &line[..method_end];
        check_method(method, rules)?;
        let target = &line[target_start..target_end];
        let parts = if rules.casefold_method {
            split_target(&method.to_ascii_uppercase(), target)
        } else {
            split_target(method, target)
        };
        let version = parse_version(&line[target_end + 1..], rules)?;
        Ok(Self {
            method_end,
            target_end,
            version,
            parts: parts.ok_or_else(invalid)?,
        })
    }
}

/// A token (RFC 9110 section 9.1). By default also of the shape that every registered method has.
pub(super) fn check_method(method: &[u8], rules: &Rules) -> Result<(), ParseError> {
    let conventional = (3..=20).contains(&method.len())
        && !method
            .iter()
            .any(|byte| byte.is_ascii_lowercase() || *byte == b'#');
    if is_token(method) && (conventional || rules.permit_unconventional_method) {
        Ok(())
    } else {
        Err(ParseError::Method(quoted(method)))
    }
}

fn parse_version(text: &[u8], rules: &Rules) -> Result<Version, ParseError> {
    let &[
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        major @ b'0'..=b'9',
        b'.',
        minor @ b'0'..=b'9',
    ] = text
    else {
        return Err(ParseError::Version(quoted(text)));
    };
    let version = Version::new(major - b'0', minor - b'0');
    match version.major() {
        1 => Ok(version),
        _ if rules.permit_unconventional_version => Ok(version),
        0 => Err(ParseError::Version(
            "(0, 9)".replace('9', &version.minor().to_string()),
        )),
        // RFC 9110 section 15.6.6. The HTTP/2 preface ends here as well.
        major => Err(ParseError::VersionUnsupported(format!(
            "({major}, {})",
            version.minor()
        ))),
    }
}

/// The first fault in `bytes`, the start of a head or all of it. `None` when every line may stand as it is.
pub(super) fn find(bytes: &[u8], limits: &Limits) -> Option<ParseError> {
    let mut name: &[u8] = b"";
    for (number, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let whole = line.last() == Some(&b'\n');
        let content = match line.strip_suffix(b"\r\n") {
            Some(content) => content,
            None if whole => return Some(bare_line_feed(number as u32)),
            None => line.strip_suffix(b"\r").unwrap_or(line),
        };
        if number == 0 {
            if content.len() > limits.request_line_bytes_max {
                return Some(line_too_large(content.len(), limits));
            }
            if !whole {
                // Something in it made httparse give up; a version it does not know may still become one we do.
                return find_in_line_start(content, &limits.rules);
            }
            if let Err(error) = RequestLine::parse(content, &limits.rules) {
                return Some(error);
            }
            continue;
        }
        if content.is_empty() {
            return None;
        }
        if line.len() > limits.field_bytes_max {
            return Some(ParseError::FieldTooLarge);
        }
        if number > limits.fields_max {
            return Some(ParseError::TooManyFields);
        }
        match check_field_line(content, name, whole, &limits.rules) {
            Ok(found) => name = found,
            Err(error) => return Some(error),
        }
    }
    None
}

/// Faults that show before the request line is whole.
fn find_in_line_start(content: &[u8], rules: &Rules) -> Option<ParseError> {
    let mut parts = content.splitn(3, |&byte| byte == b' ');
    let method = parts.next().unwrap_or_default();
    let target = parts.next();
    let version = parts.next();
    let method_fits = match target {
        Some(_) => check_method(method, rules),
        None if method.is_empty() || is_token(method) => Ok(()),
        None => Err(ParseError::Method(quoted(method))),
    };
    if let Err(error) = method_fits {
        return Some(error);
    }
    let target_fits = target.is_none_or(|target| target.iter().all(u8::is_ascii_graphic));
    let version_fits = version.is_none_or(|version| {
        version.len() <= 8 && version.iter().zip(b"HTTP/").all(|(a, b)| a == b)
    });
    (!target_fits || !version_fits).then(|| ParseError::RequestLine(quoted(content)))
}

/// Checks one field line; `previous` is the name of the field before it. Returns the line's field name.
fn check_field_line<'a>(
    content: &'a [u8],
    previous: &'a [u8],
    whole: bool,
    rules: &Rules,
) -> Result<&'a [u8], ParseError> {
    if let Some(b' ' | b'\t') = content.first() {
        // RFC 9112 section 5.2. White space before the first field (section 2.2) folds nothing.
        if previous.is_empty() || !rules.permit_obsolete_folding {
            return Err(ParseError::Folding(quoted(&previous.to_ascii_uppercase())));
        }
        return match is_field_value(content) {
            true => Ok(previous),
            false => Err(ParseError::Field(quoted(&previous.to_ascii_uppercase()))),
        };
    }
    let Some(colon) = memchr::memchr(b':', content) else {
        return match whole {
            true => Err(ParseError::Field(quoted(content))),
            false if rules.strip_header_spaces || is_token(content) => Ok(previous),
            false => Err(ParseError::FieldName(quoted(content))),
        };
    };
    let name = match rules.strip_header_spaces {
        true => trim_end_ows(&content[..colon]),
        // RFC 9112 section 5.1: white space before the colon must be refused.
        false => &content[..colon],
    };
    if !is_token(name) {
        return Err(ParseError::FieldName(quoted(name)));
    }
    if !is_field_value(&content[colon + 1..]) {
        return Err(ParseError::Field(quoted(&name.to_ascii_uppercase())));
    }
    Ok(name)
}

/// The head as it would have been sent by a careful peer: folded lines joined by one space, no space before colons.
/// Only for heads in which [`find`] finds nothing, which is what limits it to the leniencies switched on.
pub(super) fn mend(bytes: &[u8]) -> Vec<u8> {
    let mut mended = Vec::with_capacity(bytes.len());
    for (number, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let content = line.strip_suffix(b"\r\n").unwrap_or(line);
        match (content.first(), memchr::memchr(b':', content)) {
            (Some(b' ' | b'\t'), _) => {
                let kept = trim_end_ows(mended.strip_suffix(b"\r\n").unwrap_or(&mended)).len();
                mended.truncate(kept);
                mended.push(b' ');
                mended.extend_from_slice(trim_ows(content));
            }
            (Some(_), Some(colon)) if number > 0 => {
                mended.extend_from_slice(trim_end_ows(&content[..colon]));
                mended.extend_from_slice(&content[colon..]);
            }
            _ => mended.extend_from_slice(content),
        }
        mended.extend_from_slice(b"\r\n");
    }
    mended
}

fn trim_end_ows(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| !b" \t".contains(byte))
        .map_or(0, |at| at + 1);
    &bytes[..end]
}

/// A line that ends in LF alone; line 0 is the request line.
pub(super) fn bare_line_feed(line: u32) -> ParseError {
    let text = quoted(b"bare LF as line terminator");
    match line {
        0 => ParseError::RequestLine(text),
        _ => ParseError::Field(text),
    }
}

pub(super) fn line_too_large(size: usize, limits: &Limits) -> ParseError {
    ParseError::RequestLineTooLarge {
        size,
        max: limits.request_line_bytes_max,
    }
}

/// httparse refuses it and the search above does not know why: still refused.
pub(super) fn unreadable() -> ParseError {
    ParseError::Field(quoted(b"unreadable field section"))
}

#[cfg(test)]
mod tests;
