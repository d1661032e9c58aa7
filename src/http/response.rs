//! The head of a response: status and fields, checked and serialised as the application gives them.
//!
//! Filled by a pool thread that holds the GIL, so a field costs one check and one append; encoding is then one copy.

use std::ops::Range;

use super::error::{ResponseError, quoted};
use super::fields::{is_field_value, is_named, is_token, list_elements, trim_ows};
use super::limits::RESPONSE_HEAD_BYTES_MAX;

/// A response's head. Reusable: `clear` keeps the capacity.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    status: Vec<u8>,
    code: u16,
    /// `Name: value CRLF`, field after field.
    fields: Vec<u8>,
    /// The Content-Length and its line in `fields`.
    content_length: Option<(u64, Range<usize>)>,
    has_server: bool,
    has_date: bool,
    connection: Connection,
}

/// What the application said in Connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Connection {
    /// Nothing that matters: keep-alive is what happens anyway.
    #[default]
    Unsaid,
    Close,
    Upgrade,
    UpgradeAndClose,
}

impl ResponseHead {
    pub fn clear(&mut self) {
        self.status.clear();
        self.code = 0;
        self.fields.clear();
        self.content_length = None;
        self.has_server = false;
        self.has_date = false;
        self.connection = Connection::Unsaid;
    }

    /// Begins a head anew, with `200 OK`, or the code alone (RFC 9112 section 4). Latin-1 bytes.
    pub fn set_status(&mut self, status: &[u8]) -> Result<(), ResponseError> {
        self.clear();
        let code = match status {
            [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']
            | [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(ResponseError::Status(quoted(status))),
        };
        if !is_field_value(status) {
            return Err(ResponseError::Status(quoted(status)));
        }
        if status.len() > RESPONSE_HEAD_BYTES_MAX {
            return Err(ResponseError::TooLong(status.len()));
        }
        self.status.extend_from_slice(status);
        self.code = code;
        Ok(())
    }

    /// Adds a field. The application does not decide about the connection: `Connection` is noted and not
    /// kept, `Upgrade` is kept for WebSocket, and the other hop-by-hop fields are an error (PEP 3333, "Other HTTP
    /// Features").
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
        if !is_token(name) {
            return Err(ResponseError::FieldName(quoted(name)));
        }
        if !is_field_value(value) {
            return Err(ResponseError::FieldValue(quoted(name)));
        }
        let value = trim_ows(value);
        match name.len() {
            2 if is_named(name, b"te") => return hop_by_hop(name),
            4 if is_named(name, b"date") => self.has_date = true,
            6 if is_named(name, b"server") => self.has_server = true,
            7 if is_named(name, b"upgrade") && !value.eq_ignore_ascii_case(b"websocket") => {
                return Ok(());
            }
            8 if is_named(name, b"trailers") => return hop_by_hop(name),
            10 if is_named(name, b"connection") => return self.note_connection(name, value),
            10 if is_named(name, b"keep-alive") => return hop_by_hop(name),
            14 if is_named(name, b"content-length") => {
                return self.push_content_length(name, value);
            }
            17 if is_named(name, b"transfer-encoding") => return hop_by_hop(name),
            18 if is_named(name, b"proxy-authenticate") => return hop_by_hop(name),
            19 if is_named(name, b"proxy-authorization") => return hop_by_hop(name),
            _ => {}
        }
        self.append(name, value)
    }

    pub fn status_code(&self) -> u16 {
        self.code
    }

    /// The status as given.
    pub fn status(&self) -> &[u8] {
        &self.status
    }

    pub fn content_length(&self) -> Option<u64> {
        self.content_length.as_ref().map(|(length, _)| *length)
    }

    /// A status has been set.
    pub fn is_set(&self) -> bool {
        self.code != 0
    }

    /// The fields kept, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        // Names have no colon and values no LF: `push` saw to it.
        self.fields
            .split_inclusive(|&byte| byte == b'\n')
            .filter_map(|line| {
                let colon = memchr::memchr(b':', line)?;
                Some((
                    &line[..colon],
                    line[colon..].strip_prefix(b": ")?.strip_suffix(b"\r\n")?,
                ))
            })
    }

    /// How many bytes of memory it holds, about as many as it is sent as.
    pub fn byte_count(&self) -> usize {
        self.status.len() + self.fields.len()
    }

    /// How many bytes of memory it keeps when it is cleared.
    pub fn capacity(&self) -> usize {
        self.status.capacity() + self.fields.capacity()
    }

    /// The first field of this name.
    pub fn field(&self, lowercase_name: &[u8]) -> Option<&[u8]> {
        self.fields()
            .find(|(name, _)| is_named(name, lowercase_name))
            .map(|(_, value)| value)
    }

    pub(super) fn has_server(&self) -> bool {
        self.has_server
    }

    pub(super) fn has_date(&self) -> bool {
        self.has_date
    }

    /// The application said `Connection: close`.
    pub(super) fn closes(&self) -> bool {
        matches!(
            self.connection,
            Connection::Close | Connection::UpgradeAndClose
        )
    }

    /// The application said `Connection: upgrade`.
    pub(super) fn upgrades(&self) -> bool {
        matches!(
            self.connection,
            Connection::Upgrade | Connection::UpgradeAndClose
        )
    }

    pub(super) fn field_bytes(&self) -> &[u8] {
        &self.fields
    }

    /// Where the line of Content-Length is within `field_bytes`.
    pub(super) fn content_length_line(&self) -> Option<Range<usize>> {
        self.content_length.as_ref().map(|(_, line)| line.clone())
    }

    /// A head of more than `RESPONSE_HEAD_BYTES_MAX` bytes is not sent.
    fn append(&mut self, name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
        self.fields.reserve(name.len() + value.len() + 4);
        self.fields.extend_from_slice(name);
        self.fields.extend_from_slice(b": ");
        self.fields.extend_from_slice(value);
        self.fields.extend_from_slice(b"\r\n");
        match self.byte_count() {
            0..=RESPONSE_HEAD_BYTES_MAX => Ok(()),
            bytes => Err(ResponseError::TooLong(bytes)),
        }
    }

    fn note_connection(&mut self, name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
        for option in list_elements(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.connection = match self.upgrades() {
                    true => Connection::UpgradeAndClose,
                    false => Connection::Close,
                };
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.connection = match self.closes() {
                    true => Connection::UpgradeAndClose,
                    false => Connection::Upgrade,
                };
            } else if !option.eq_ignore_ascii_case(b"keep-alive") {
                // Many applications ask for keep-alive, which is the default anyway. Any other option would make a
                // field hop-by-hop that this server sends as end-to-end.
                return hop_by_hop(name);
            }
        }
        Ok(())
    }

    /// One length, in digits. The same once more is dropped; another would leave the body's end in doubt.
    fn push_content_length(&mut self, name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
        let digits_only = !value.is_empty()
            && value.len() <= LENGTH_DIGITS_MAX
            && value.iter().all(u8::is_ascii_digit);
        if !digits_only {
            return Err(ResponseError::ContentLength(quoted(value)));
        }
        let length = value
            .iter()
            .fold(0_u64, |length, digit| length * 10 + u64::from(digit - b'0'));
        match self.content_length() {
            None => {
                let start = self.fields.len();
                self.append(name, value)?;
                self.content_length = Some((length, start..self.fields.len()));
                Ok(())
            }
            Some(earlier) if earlier == length => Ok(()),
            Some(_) => Err(ResponseError::ContentLength(quoted(value))),
        }
    }
}

fn hop_by_hop(name: &[u8]) -> Result<(), ResponseError> {
    Err(ResponseError::HopByHop(quoted(name)))
}

/// 18 digits cannot overflow.
const LENGTH_DIGITS_MAX: usize = 18;

#[cfg(test)]
mod tests;
