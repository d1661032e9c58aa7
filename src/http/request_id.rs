//! The request's id: `X-Request-ID`, `traceparent`, or one that the server makes.
//!
//! A client's name is taken only when it can stand in any log, header or shell without being quoted.

use super::head::RequestHead;

/// The client's own name for its request.
pub fn client_request_id(head: &RequestHead) -> Option<&[u8]> {
    head.field(b"x-request-id")
        .filter(|id| is_harmless(id))
        .or_else(|| trace_parent(head).map(|parent| parent.trace_id))
}

/// What `traceparent` says (W3C Trace Context, section 3.2), in lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent<'a> {
    /// 32 digits, not all zero.
    pub trace_id: &'a [u8],
    /// 16 digits, not all zero: the caller's span.
    pub span_id: &'a [u8],
}

/// The request's place in a trace. A second field of the name makes it doubtful, and then there is none.
pub fn trace_parent(head: &RequestHead) -> Option<TraceParent<'_>> {
    let mut values = head
        .fields()
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"traceparent"));
    let (_, value) = values.next()?;
    if values.next().is_some() {
        return None;
    }
    parse_trace_parent(value)
}

/// `version-traceid-parentid-flags`; later versions may add more behind another `-`.
fn parse_trace_parent(value: &[u8]) -> Option<TraceParent<'_>> {
    let (version, rest) = (value.get(..2)?, value.get(2..)?);
    let trace_id = rest.strip_prefix(b"-")?.get(..32)?;
    let span_id = rest[33..].strip_prefix(b"-")?.get(..16)?;
    let flags = rest[50..].strip_prefix(b"-")?.get(..2)?;
    let more = &rest[53..];
    let is_whole = more.is_empty() || version != b"00" && more[0] == b'-';
    let all_hex = [version, trace_id, span_id, flags]
        .iter()
        .all(|part| part.iter().all(is_hex));
    let is_valid = is_whole
        && all_hex
        && version != b"ff"
        && trace_id.iter().any(|digit| *digit != b'0')
        && span_id.iter().any(|digit| *digit != b'0');
    is_valid.then_some(TraceParent { trace_id, span_id })
}

/// An id that the server makes: unique for the `serial`th request of a worker with a random `seed`.
pub fn made_request_id(seed: u64, serial: u64) -> [u8; 32] {
    let mut id = [0; 32];
    let number = u128::from(seed) << 64 | u128::from(serial);
    for (place, digit) in id.iter_mut().rev().enumerate() {
        *digit = HEX[(number >> (4 * place)) as usize & 0xf];
    }
    id
}

fn is_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Letters, digits and marks that no shell, log or header treats specially.
fn is_harmless(id: &[u8]) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len())
        && id.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=' | b'@')
        })
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// A UUID has 36; what is much longer is no name.
const ID_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_parent_is_taken_apart() {
        let parent = parse_trace_parent(PARENT).unwrap();
        assert_eq!(parent.trace_id, b"0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.span_id, b"b7ad6b7169203331");
        let later = [b"cc", &PARENT[2..], b"-more"].concat();
        assert!(parse_trace_parent(&later).is_some());
    }

    #[test]
    fn a_doubtful_trace_parent_is_none() {
        for at in 0..PARENT.len() {
            assert_eq!(parse_trace_parent(&PARENT[..at]), None);
            let mut spoiled = PARENT.to_vec();
            spoiled[at] = b'G';
            assert_eq!(parse_trace_parent(&spoiled), None);
        }
        for wrong in [
            &[PARENT, b"-more"].concat()[..],
            &[b"ff", &PARENT[2..]].concat(),
            b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ] {
            assert_eq!(parse_trace_parent(wrong), None);
        }
    }

    #[test]
    fn only_harmless_names_are_taken() {
        for good in [&b"a"[..], b"f3c1-9.b_:/+=@", &[b'x'; ID_BYTES_MAX]] {
            assert!(is_harmless(good));
        }
        for bad in [
            &b""[..],
            b"a b",
            b"a\"",
            b"a\n",
            b"$(x)",
            b"\xc3\xa9",
            &[b'x'; 129],
        ] {
            assert!(!is_harmless(bad));
        }
    }

    #[test]
    fn made_names_count() {
        assert_eq!(
            &made_request_id(0xdead_beef, 0x1f),
            b"00000000deadbeef000000000000001f"
        );
    }
}
