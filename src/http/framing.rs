//! What the head says about the rest of the connection: the body's length, keep-alive, `Expect`.
//!
//! This is where request smuggling would live. Every statement of a length that is doubtful, repeated or in
//! conflict with another is refused (RFC 9112 section 6.3); nothing is repaired.

use super::error::{ParseError, quoted};
use super::fields::{is_named, list_elements};
use super::head::Version;
use super::limits::Limits;
use super::target::is_host;

/// How long the body of a request is. A request's body never ends with the connection (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLength {
    #[default]
    Empty,
    Known(u64),
    Chunked,
}

/// What a valid head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    pub length: BodyLength,
    /// The peer is ready to send another request after this one.
    pub keep_alive: bool,
    /// The peer waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The peer would like to speak another protocol after this request.
    pub asks_for_upgrade: bool,
}

/// Collects the fields that matter here while the head is read once.
#[derive(Debug, Default)]
pub(super) struct FramingFields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    has_content_type: bool,
    has_transfer_encoding: bool,
    is_chunked: bool,
    /// The first fault of Transfer-Encoding. Kept back because a 1.0 request with the field at all is the graver one.
    transfer_fault: Option<ParseError>,
    says_close: bool,
    says_keep_alive: bool,
    says_upgrade: bool,
    has_upgrade: bool,
    expects_continue: bool,
}

impl<'a> FramingFields<'a> {
    /// Looks at one field. Refuses what is wrong whatever the rest of the head says.
    pub(super) fn note(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), ParseError> {
        match name.len() {
            4 if is_named(name, b"host") => {
                // RFC 9112 section 3.2: more than one Host, or an invalid one, must be answered 400.
                refuse_if(
                    self.host.replace(value).is_some() || !is_host(value),
                    "HOST",
                )?;
            }
            6 if is_named(name, b"expect") => {
                // RFC 9110 section 10.1.1: the value is case-insensitive; others may be answered 417.
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(ParseError::Expectation(quoted(value)));
                }
                self.expects_continue = true;
            }
            7 if is_named(name, b"upgrade") => {
                // RFC 9113 section 3.1: the upgrade to HTTP/2 is obsolete. Some clients offer it with every first
                // request, and no application wants it.
                self.has_upgrade = !value.is_empty() && !value.eq_ignore_ascii_case(b"h2c");
            }
            10 if is_named(name, b"connection") => self.note_connection(value),
            12 if is_named(name, b"content-type") => {
                // RFC 9110 section 5.3: not a list, so a second one makes the message ambiguous.
                refuse_if(self.has_content_type, "CONTENT-TYPE")?;
                self.has_content_type = true;
            }
            14 if is_named(name, b"content-length") => {
                // RFC 9112 section 6.3 item 5 would allow equal repeats; nobody honest sends them.
                refuse_if(
                    self.content_length.replace(value).is_some(),
                    "CONTENT-LENGTH",
                )?;
            }
            17 if is_named(name, b"transfer-encoding") => self.note_transfer_encoding(value),
            _ => {}
        }
        Ok(())
    }

    /// The verdict on the whole head.
    pub(super) fn decide(
        self,
        method: &[u8],
        version: Version,
        limits: &Limits,
    ) -> Result<Framing, ParseError> {
        // RFC 9112 section 3.2.
        if self.host.is_none() && version >= Version::HTTP_11 {
            return Err(ParseError::HostMissing);
        }
        let length = self.decide_length(version, limits)?;
        // RFC 9112 section 9.3. After CONNECT the bytes belong to a tunnel, whatever was answered.
        let by_default = version >= Version::HTTP_11 || self.says_keep_alive;
        Ok(Framing {
            length,
            keep_alive: by_default && !self.says_close && method != b"CONNECT",
            // RFC 9110 section 10.1.1: a 1.0 request's expectation is ignored; without a body nobody waits.
            expects_continue: self.expects_continue
                && version >= Version::HTTP_11
                && length != BodyLength::Empty
                && length != BodyLength::Known(0),
            // RFC 9110 section 7.8: the field counts only when Connection names it, and not from a 1.0 peer. With a
            // body on its way the connection is still HTTP's.
            asks_for_upgrade: self.says_upgrade
                && self.has_upgrade
                && version >= Version::HTTP_11
                && matches!(length, BodyLength::Empty | BodyLength::Known(0)),
        })
    }

    fn decide_length(&self, version: Version, limits: &Limits) -> Result<BodyLength, ParseError> {
        if self.has_transfer_encoding {
            // RFC 9112 section 6.1: a 1.0 message with Transfer-Encoding has faulty framing.
            if version < Version::HTTP_11 {
                return Err(invalid_field("TRANSFER-ENCODING"));
            }
            if let Some(fault) = &self.transfer_fault {
                return Err(fault.clone());
            }
            // RFC 9112 section 6.3 item 4: a request that does not end in chunked has no length.
            if !self.is_chunked {
                return Err(invalid_field("TRANSFER-ENCODING"));
            }
            // RFC 9112 section 6.3 item 3: both at once is how requests are smuggled.
            if self.content_length.is_some() {
                return Err(invalid_field("CONTENT-LENGTH"));
            }
            return Ok(BodyLength::Chunked);
        }
        let Some(value) = self.content_length else {
            return Ok(BodyLength::Empty);
        };
        let length = parse_length(value).ok_or_else(|| invalid_field("CONTENT-LENGTH"))?;
        match limits.body_bytes_max {
            Some(max) if length > max => Err(ParseError::BodyTooLarge { max }),
            _ => Ok(BodyLength::Known(length)),
        }
    }

    fn note_connection(&mut self, value: &[u8]) {
        for option in list_elements(value) {
            self.says_close |= option.eq_ignore_ascii_case(b"close");
            self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.says_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    /// Codings accumulate over repeated fields, in order (RFC 9110 section 5.3).
    fn note_transfer_encoding(&mut self, value: &[u8]) {
        self.has_transfer_encoding = true;
        for coding in list_elements(value) {
            let fault =
                if self.is_chunked || coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
                {
                    // RFC 9112 section 7.1: chunked comes once and last. "identity" and empty elements mean
                    // nothing, and have been used to hide a coding from the next reader.
                    invalid_field("TRANSFER-ENCODING")
                } else if coding.eq_ignore_ascii_case(b"chunked") {
                    self.is_chunked = true;
                    continue;
                } else {
                    // RFC 9112 section 6.1: 501 for a coding that is not understood. Compression belongs here too:
                    // an application cannot be handed bytes in a coding that WSGI has no place to name.
                    ParseError::TransferCoding(quoted(value))
                };
            self.transfer_fault.get_or_insert(fault);
        }
    }
}

/// `1*DIGIT` (RFC 9110 section 8.6), with neither sign nor padding: some readers take a leading zero for octal.
fn parse_length(value: &[u8]) -> Option<u64> {
    let is_padded = value.len() > 1 && value[0] == b'0';
    if value.is_empty() || value.len() > LENGTH_DIGITS_MAX || is_padded {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| {
        byte.is_ascii_digit()
            .then(|| length * 10 + u64::from(byte - b'0'))
    })
}

fn refuse_if(is_faulty: bool, name: &str) -> Result<(), ParseError> {
    match is_faulty {
        true => Err(invalid_field(name)),
        false => Ok(()),
    }
}

fn invalid_field(name: &str) -> ParseError {
    ParseError::Field(quoted(name.as_bytes()))
}

/// 18 digits are an exabyte, and cannot overflow.
const LENGTH_DIGITS_MAX: usize = 18;

#[cfg(test)]
mod tests;
