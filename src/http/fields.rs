//! Field lines (RFC 9112 section 5): the character classes, list elements, and the table of a head's fields.

/// Where something lies in a head's buffer. A head is far smaller than 4 GiB (`limits.rs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    pub(super) fn start(self) -> usize {
        self.start as usize
    }

    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

/// One field: its name as sent and its value without surrounding white space.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldSpan {
    pub(super) name: Span,
    pub(super) value: Span,
}

/// `token` of RFC 9110 section 5.6.2.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all_are(bytes, TOKEN)
}

pub(super) fn is_token_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

/// A field value (RFC 9110 section 5.5): visible characters, space, tab and bytes above ASCII; no CR, LF or NUL.
pub(super) fn is_field_value(bytes: &[u8]) -> bool {
    all_are(bytes, VALUE)
}

pub(super) fn is_field_value_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & VALUE != 0
}

/// A byte of `reg-name` (RFC 3986 section 3.2.2) but for `%`: unreserved or a sub-delim.
pub(super) fn is_host_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & HOST != 0
}

/// Every byte is of the class. It looks at all of them: without a branch for each that is faster for what is valid.
fn all_are(bytes: &[u8], class: u8) -> bool {
    let common = (bytes.iter()).fold(class, |common, &byte| common & CLASSES[byte as usize]);
    common != 0
}

/// Without optional white space (RFC 9110 section 5.6.3) at both ends. Not `trim_ascii`: a form feed is no space.
pub(super) fn trim_ows(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [b' ' | b'\t', inner @ ..] = rest {
        rest = inner;
    }
    while let [inner @ .., b' ' | b'\t'] = rest {
        rest = inner;
    }
    rest
}

/// The elements of a comma-separated list, trimmed; empty ones are kept for the caller to look at.
pub(super) fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim_ows)
}

/// `lowercase` equals `name` in any case. The length decides most comparisons.
pub(super) fn is_named(name: &[u8], lowercase: &[u8]) -> bool {
    debug_assert!(!lowercase.iter().any(u8::is_ascii_uppercase));
    // As `all_are`: names that are compared are mostly equal.
    name.len() == lowercase.len()
        && (name.iter().zip(lowercase)).fold(0, |differences, (&byte, &lowercase)| {
            differences | (LOWERCASE[byte as usize] ^ lowercase)
        }) == 0
}

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const HOST: u8 = 4;

/// The classes of each byte; one load instead of a chain of comparisons.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let is_mark = matches!(
            byte as u8,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        );
        if is_mark || (byte as u8).is_ascii_alphanumeric() {
            classes[byte] |= TOKEN;
        }
        let is_host_mark = matches!(
            byte as u8,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        );
        if is_host_mark || (byte as u8).is_ascii_alphanumeric() {
            classes[byte] |= HOST;
        }
        if byte as u8 == b'\t' || (byte >= 0x20 && byte != 0x7f) {
            classes[byte] |= VALUE;
        }
        byte += 1;
    }
    classes
};

/// Each byte, letters in lower case.
const LOWERCASE: [u8; 256] = {
    let mut lowercase = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        lowercase[byte] = (byte as u8).to_ascii_lowercase();
        byte += 1;
    }
    lowercase
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_rfc() {
        let token: Vec<u8> = (0..=255).filter(|&byte| is_token_byte(byte)).collect();
        assert_eq!(
            token,
            b"!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~"
        );
        let not_value: Vec<u8> = (0..=255)
            .filter(|&byte| !is_field_value_byte(byte))
            .collect();
        let expected: Vec<u8> = (0..32).filter(|&byte| byte != b'\t').chain([127]).collect();
        assert_eq!(not_value, expected);
        let host: Vec<u8> = (0..=255).filter(|&byte| is_host_byte(byte)).collect();
        assert_eq!(
            host,
            b"!$&'()*+,-.0123456789;=ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
        );
        assert!(!is_token(b"") && is_token(b"Content-Length") && !is_token(b"Content Length"));
        assert!(is_field_value(b"") && is_field_value(b"text/plain") && !is_field_value(b"a\nb"));
    }

    #[test]
    fn names_are_compared_in_any_case() {
        assert!(is_named(b"Content-LENGTH", b"content-length") && is_named(b"", b""));
        assert!(!is_named(b"content_length", b"content-length") && !is_named(b"te", b"tea"));
        assert!(!is_named(b"content\x0dlength", b"content-length"));
    }

    #[test]
    fn only_space_and_tab_are_white_space() {
        assert_eq!(trim_ows(b" \ta \t b\t "), b"a \t b");
        assert_eq!(trim_ows(b" \t"), b"");
        assert_eq!(trim_ows(b"\x0ba\x0c"), b"\x0ba\x0c");
        let elements: Vec<&[u8]> = list_elements(b"a , b,,c ").collect();
        assert_eq!(elements, [&b"a"[..], b"b", b"", b"c"]);
    }
}
