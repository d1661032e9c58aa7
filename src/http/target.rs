//! The request target (RFC 9112 section 3.2): which form it has, and where its path and query are.

use super::fields::is_host_byte;

/// Where the parts of a target lie within it. Path and query may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TargetParts {
    pub(super) path: (usize, usize),
    pub(super) query: (usize, usize),
    /// Of the absolute form. The scheme ends three bytes before it.
    pub(super) authority: Option<(usize, usize)>,
}

/// Finds the parts, or `None` when the target does not fit the method.
///
/// Origin form starts with `/`; absolute form has a scheme and an authority; `*` goes with OPTIONS only and the
/// authority form with CONNECT only (sections 3.2.3 and 3.2.4).
pub(super) fn split_target(method: &[u8], target: &[u8]) -> Option<TargetParts> {
    // Section 3.2: the characters of RFC 3986; everything else must come percent-encoded.
    if target.is_empty() || !target.iter().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    if method == b"CONNECT" {
        return is_authority_with_port(target).then(TargetParts::default);
    }
    match target[0] {
        b'/' => Some(split_path(target, 0)),
        b'*' => (target == b"*" && method == b"OPTIONS").then_some(TargetParts {
            path: (0, 1),
            query: (1, 1),
            authority: None,
        }),
        _ => split_path_after_authority(target),
    }
}

/// Appends `path` with every `%hh` replaced by its byte. A `%` without two digits stays as it is, as in Python's
/// `urllib.parse.unquote_to_bytes`.
pub fn percent_decode(path: &[u8], out: &mut Vec<u8>) {
    let mut rest = path;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        match rest[at..] {
            [_, high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex_digit(high) << 4 | hex_digit(low));
                rest = &rest[at + 3..];
            }
            _ => {
                out.push(b'%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.extend_from_slice(rest);
}

/// Is this a `Host` value: `uri-host [ ":" port ]`, or empty (RFC 9110 section 7.2)?
pub(super) fn is_host(value: &[u8]) -> bool {
    if value.is_empty() {
        return true;
    }
    let end = match value[0] {
        b'[' => ip_literal_end(value),
        _ => registered_name_end(value),
    };
    end.is_some_and(|end| is_port_suffix(&value[end..]))
}

/// Where the `IP-literal` of RFC 3986 section 3.2.2 ends that begins with a bracket, if it is one.
fn ip_literal_end(value: &[u8]) -> Option<usize> {
    let bracket = memchr::memchr(b']', value)?;
    let inside = &value[1..bracket];
    let is_literal =
        !inside.is_empty() && (inside.iter()).all(|&byte| byte == b':' || is_host_byte(byte));
    is_literal.then_some(bracket + 1)
}

/// Where the `reg-name` of RFC 3986 section 3.2.2 ends, which an IPv4 address satisfies too, if it is not empty.
fn registered_name_end(value: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        if is_host_byte(byte) {
            at += 1;
        } else if byte == b'%' {
            let digits = value.get(at + 1..at + 3)?;
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            at += 3;
        } else {
            break;
        }
    }
    (at > 0).then_some(at)
}

/// Nothing, `:` or `:` and a port number.
fn is_port_suffix(suffix: &[u8]) -> bool {
    match suffix {
        [] => true,
        [b':', digits @ ..] if digits.len() <= 5 => {
            let mut port = 0_u32;
            for digit in digits {
                if !digit.is_ascii_digit() {
                    return false;
                }
                port = port * 10 + u32::from(digit - b'0');
            }
            port <= u32::from(u16::MAX)
        }
        _ => false,
    }
}

fn is_authority_with_port(target: &[u8]) -> bool {
    // The port is not optional here (RFC 9110 section 9.3.6).
    let port_given = memchr::memrchr(b':', target)
        .is_some_and(|colon| target[colon..].len() > 1 && target.last() != Some(&b']'));
    port_given && is_host(target)
}

fn split_path_after_authority(target: &[u8]) -> Option<TargetParts> {
    let scheme_end = memchr::memmem::find(target, b"://")?;
    let scheme = &target[..scheme_end];
    let scheme_fits = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    if !scheme_fits {
        return None;
    }
    let authority_start = scheme_end + 3;
    let authority_end = target[authority_start..]
        .iter()
        .position(|byte| b"/?#".contains(byte))
        .map_or(target.len(), |length| authority_start + length);
    // An empty host is invalid in http and https (RFC 9110 section 4.2.1), and userinfo is an error there
    // (section 4.2.4): is_host refuses its "@".
    let authority = &target[authority_start..authority_end];
    if authority.is_empty() || !is_host(authority) {
        return None;
    }
    Some(TargetParts {
        authority: Some((authority_start, authority_end)),
        ..split_path(target, authority_end)
    })
}

/// Whether a valid authority of a target with this scheme and a valid `Host` name the same place.
pub(super) fn is_same_authority(scheme: &[u8], authority: &[u8], host: &[u8]) -> bool {
    let default: &[u8] = match scheme.len() {
        4 if scheme.eq_ignore_ascii_case(b"http") => b"80",
        5 if scheme.eq_ignore_ascii_case(b"https") => b"443",
        _ => b"",
    };
    let parts = |text| {
        let (name, port) = split_port(text);
        (name, if port.is_empty() { default } else { port })
    };
    let ((name, port), (host_name, host_port)) = (parts(authority), parts(host));
    name.eq_ignore_ascii_case(host_name) && port == host_port
}

/// Name and port of a valid `Host`; the port is empty if there is none.
fn split_port(host: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memrchr(b':', host) {
        Some(colon) if host.last() != Some(&b']') => (&host[..colon], &host[colon + 1..]),
        _ => (host, b""),
    }
}

/// Path from `start` to `?`, query from there to the end. A fragment is not for servers; it is kept apart from
/// both, as gunicorn does.
fn split_path(target: &[u8], start: usize) -> TargetParts {
    let mark = memchr::memchr2(b'?', b'#', &target[start..]).map(|length| start + length);
    let path_end = mark.unwrap_or(target.len());
    let query = match mark {
        Some(at) if target[at] == b'?' => {
            let query = &target[at + 1..];
            let length = memchr::memchr(b'#', query).unwrap_or(query.len());
            (at + 1, at + 1 + length)
        }
        _ => (path_end, path_end),
    };
    TargetParts {
        path: (start, path_end),
        query,
        authority: None,
    }
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(method: &str, target: &str) -> Option<(String, String)> {
        let parts = split_target(method.as_bytes(), target.as_bytes())?;
        Some((
            target[parts.path.0..parts.path.1].to_owned(),
            target[parts.query.0..parts.query.1].to_owned(),
        ))
    }

    #[test]
    fn each_form_goes_with_its_method() {
        let pair = |path: &str, query: &str| Some((path.to_owned(), query.to_owned()));
        assert_eq!(split("GET", "/a/b?c=d?e#f"), pair("/a/b", "c=d?e"));
        assert_eq!(split("GET", "//a//b"), pair("//a//b", ""));
        assert_eq!(split("GET", "/a#b?c"), pair("/a", ""));
        assert_eq!(split("GET", "/a;p=1?"), pair("/a;p=1", ""));
        assert_eq!(split("GET", "http://h:8080/a?b"), pair("/a", "b"));
        assert_eq!(split("GET", "http://h?b"), pair("", "b"));
        assert_eq!(split("GET", "http://[::1]"), pair("", ""));
        assert_eq!(split("OPTIONS", "*"), pair("*", ""));
        assert_eq!(split("CONNECT", "example.com:443"), pair("", ""));
        assert_eq!(split("CONNECT", "[::1]:443"), pair("", ""));
        for (method, target) in [
            ("GET", "*"),
            ("GET", ""),
            ("GET", "a"),
            ("GET", "?a"),
            ("OPTIONS", "*a"),
            ("CONNECT", "/"),
            ("CONNECT", "h"),
            ("CONNECT", "[::1]"),
            ("CONNECT", "h:"),
            ("CONNECT", "h:99999"),
            ("GET", "h:443"),
            ("GET", "://h/"),
            ("GET", "1x://h/"),
            ("GET", "http:///a"),
            ("GET", "http://u@h/"),
            ("GET", "http://h:x/"),
            ("GET", "/\u{e9}"),
            ("GET", "/\x7f"),
            ("GET", "http://[::1/"),
            ("GET", "http:/a"),
        ] {
            assert_eq!(split(method, target), None, "{method} {target:?}");
        }
    }

    #[test]
    fn the_same_place_may_be_spelt_differently() {
        let same = |target: &str, host: &str| {
            let (authority_start, end) = split_target(b"GET", target.as_bytes())
                .and_then(|parts| parts.authority)
                .expect("an absolute form");
            let scheme = &target.as_bytes()[..authority_start - 3];
            is_same_authority(
                scheme,
                &target.as_bytes()[authority_start..end],
                host.as_bytes(),
            )
        };
        assert!(same("http://h/", "h"));
        assert!(same("http://Example.COM/a", "example.com:80"));
        assert!(same("HTTPS://h:443?a", "h"));
        assert!(same("http://h:/", "h"));
        assert!(same("http://[::1]:8000/", "[::1]:8000"));
        assert!(same("ftp://h:21/", "h:21"));
        for (target, host) in [
            ("http://h/", "i"),
            ("http://h/", ""),
            ("http://h:8000/", "h"),
            ("http://h/", "h:443"),
            ("https://h/", "h:80"),
            ("ftp://h/", "h:21"),
            ("http://[::1]/", "[::2]"),
            ("http://[::1]/", "[:"),
        ] {
            assert!(!same(target, host), "{target} {host}");
        }
    }

    #[test]
    fn percent_decoding_is_that_of_python() {
        for (path, decoded) in [
            ("/a%20b", &b"/a b"[..]),
            ("%e2%82%AC", b"\xe2\x82\xac"),
            ("%", b"%"),
            ("%4", b"%4"),
            ("%zz%41", b"%zzA"),
            ("%%41", b"%A"),
            ("/%2F+%00", b"//+\0"),
            ("", b""),
        ] {
            let mut out = Vec::new();
            percent_decode(path.as_bytes(), &mut out);
            assert_eq!(out, decoded, "{path}");
        }
    }

    #[test]
    fn host_values() {
        for host in [
            "",
            "a",
            "a.b-c_d",
            "a:80",
            "a:",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:80",
            "%41b",
            "xn--a.example",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a b", "a/b", "a:b", "a:1:2", ":80", "[::1", "[]", "[::1]x", "a@b", "a:65536",
            "a:000080", "%4", "\u{e9}", "a,b c", "a?b", "a#b", "a\\b", "::1",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
