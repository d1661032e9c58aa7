//! What the head says about the rest of the connection: the body's length, keep-alive, `Expect`.
//!
//! This is where request smuggling would live. Every statement of a length that is doubtful, repeated or in
//! conflict with another is refused (RFC 9112 section 6.3); nothing is repaired.

use super::error::{ParseError, quoted};
use super::fields::{is_named, list_elements};
use super::limits::Limits;
use super::target::is_host;
use super::version::Version;

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
    /// What the peer would like to speak after this request.
    pub upgrade: Upgrade,
}

/// Which protocol the peer would like to speak after a request, which has no body unless it is HTTP/2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    #[default]
    None,
    /// `h2c`, which some clients offer with every first request. No application wants it.
    Http2,
    Other,
}

/// Collects the fields that matter here while the head is read once.
#[derive(Debug, Default)]
pub(super) struct FramingFields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    has_content_type: bool,
    transfer: Transfer,
    persistence: Persistence,
    upgrade: UpgradeFields,
    expects_continue: bool,
}

/// What Transfer-Encoding says, as far as its codings were read.
#[derive(Debug, Default)]
enum Transfer {
    /// There is no such field.
    #[default]
    Absent,
    Chunked,
    /// A coding that is not understood, and chunked not behind it.
    Unknown(ParseError),
    UnknownThenChunked(ParseError),
    /// What no reader could understand. Kept back because a 1.0 request with the field at all is the graver fault.
    Invalid,
}

/// What Connection says of the time after the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Persistence {
    /// Nothing: the version decides.
    #[default]
    ByVersion,
    KeepAlive,
    /// This outweighs keep-alive.
    Close,
}

/// An upgrade takes two fields.
#[derive(Debug, Default)]
struct UpgradeFields {
    /// Connection names the field Upgrade.
    is_named: bool,
    /// What Upgrade names.
    protocol: Upgrade,
}

impl<'a> FramingFields<'a> {
    /// Looks at one field. Refuses what is wrong whatever the rest of the head says.
    // A call for each of a browser's 20 fields costs more than the look.
    #[inline(always)]
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
                self.upgrade.protocol = match value {
                    b"" => Upgrade::None,
                    _ if value.eq_ignore_ascii_case(b"h2c") => Upgrade::Http2,
                    _ => Upgrade::Other,
                };
            }
            10 if is_named(name, b"connection") => self.note_connection(value),
            12 if is_named(name, b"content-type") => {
                // RFC 9110 section 5.3: not a list, so a second one makes the message ambiguous.
                refuse_if(self.has_content_type, "CONTENT-TYPE")?;
                self.has_content_type = true;
            }
            14 if is_named(name, b"content-length") => {
                // RFC 9112 section 6.3 item 5 would allow equal repeats; no client sends them.
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

    /// Decides what the whole head says.
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
        let keeps_alive = match self.persistence {
            Persistence::ByVersion => version >= Version::HTTP_11,
            Persistence::KeepAlive => true,
            Persistence::Close => false,
        };
        Ok(Framing {
            length,
            keep_alive: keeps_alive && method != b"CONNECT",
            // RFC 9110 section 10.1.1: a 1.0 request's expectation is ignored, and so is one without a body.
            expects_continue: self.expects_continue
                && version >= Version::HTTP_11
                && length != BodyLength::Empty
                && length != BodyLength::Known(0),
            // RFC 9110 section 7.8: the field counts only when Connection names it, and not from a 1.0 peer. With a
            // body on its way the connection is still HTTP's, and HTTP/2 begins behind the body (RFC 7540 section 3.2).
            upgrade: match (length, self.upgrade.protocol) {
                _ if !self.upgrade.is_named || version < Version::HTTP_11 => Upgrade::None,
                (BodyLength::Empty | BodyLength::Known(0), protocol) => protocol,
                (_, Upgrade::Http2) => Upgrade::Http2,
                _ => Upgrade::None,
            },
        })
    }

    /// Decides for a request whose frames delimit its body (RFC 9113 section 8.1.1), so that only the declared length counts.
    pub(super) fn decide_framed(self, limits: &Limits) -> Result<Framing, ParseError> {
        Ok(Framing {
            length: self.decide_counted_length(limits)?,
            keep_alive: true,
            expects_continue: self.expects_continue,
            upgrade: Upgrade::None,
        })
    }

    fn decide_length(&self, version: Version, limits: &Limits) -> Result<BodyLength, ParseError> {
        match &self.transfer {
            Transfer::Absent => self.decide_counted_length(limits),
            // RFC 9112 section 6.1: a 1.0 message with Transfer-Encoding has faulty framing.
            _ if version < Version::HTTP_11 => Err(invalid_field("TRANSFER-ENCODING")),
            // RFC 9112 section 6.3 item 3: both at once is how requests are smuggled.
            Transfer::Chunked if self.content_length.is_some() => {
                Err(invalid_field("CONTENT-LENGTH"))
            }
            Transfer::Chunked => Ok(BodyLength::Chunked),
            // RFC 9112 section 6.1: 501 for a coding that is not understood.
            Transfer::UnknownThenChunked(unknown) => Err(unknown.clone()),
            // RFC 9112 section 6.3 item 4: a request that does not end in chunked has no length, and is answered 400.
            Transfer::Unknown(_) | Transfer::Invalid => Err(invalid_field("TRANSFER-ENCODING")),
        }
    }

    fn decide_counted_length(&self, limits: &Limits) -> Result<BodyLength, ParseError> {
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
            if option.eq_ignore_ascii_case(b"close") {
                self.persistence = Persistence::Close;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                if self.persistence == Persistence::ByVersion {
                    self.persistence = Persistence::KeepAlive;
                }
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade.is_named = true;
            }
        }
    }

    /// Codings accumulate over repeated fields, in order (RFC 9110 section 5.3).
    fn note_transfer_encoding(&mut self, value: &[u8]) {
        for coding in list_elements(value) {
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.transfer = match std::mem::take(&mut self.transfer) {
                // "identity" and empty elements mean nothing, and have been used to hide a coding from the next reader.
                _ if coding.is_empty() || coding.eq_ignore_ascii_case(b"identity") => {
                    Transfer::Invalid
                }
                Transfer::Absent if is_chunked => Transfer::Chunked,
                Transfer::Unknown(unknown) if is_chunked => Transfer::UnknownThenChunked(unknown),
                // Compression belongs here too: WSGI has no place to name a coding, so an application cannot be given
                // bytes in one.
                Transfer::Absent => Transfer::Unknown(ParseError::TransferCoding(quoted(value))),
                Transfer::Unknown(unknown) => Transfer::Unknown(unknown),
                // RFC 9112 section 7.1: chunked comes once and last.
                Transfer::Chunked | Transfer::UnknownThenChunked(_) | Transfer::Invalid => {
                    Transfer::Invalid
                }
            };
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
