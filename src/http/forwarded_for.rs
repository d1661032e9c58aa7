//! The client's address as proxies pass it on: `X-Forwarded-For` and `Forwarded` (RFC 7239).
//!
//! Every proxy appends the address that connected to it. So only the elements on the right, one for each trusted
//! proxy, can be believed; the client may have invented those on the left. [`client`] reads exactly one element.
//! Nothing here refuses a request: if the element cannot be read, the peer's own address is kept.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::fields::{is_named, is_token, is_token_byte, trim_ows};
use super::head::RequestHead;

/// Which field is read (`proxy_headers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientField {
    XForwardedFor,
    Forwarded,
}

impl ClientField {
    /// As it is usually written.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "X-Forwarded-For",
            Self::Forwarded => "Forwarded",
        }
    }
}

/// The client, as a proxy saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddress {
    WithPort(SocketAddr),
    Ip(IpAddr),
}

/// Why there is no address to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientUnknown {
    /// Not logged: the request came past the proxies, or from one of them.
    #[error("the field is missing")]
    Missing,
    #[error("it has fewer elements than there are trusted proxies")]
    TooShort,
    #[error("it is malformed")]
    Malformed,
    #[error("the element is not an address")]
    NotAnAddress,
}

/// What the `hops`-th element from the right says. 1 is the last: the client of the proxy that is connected to the server.
///
/// # Errors
/// The field says nothing that can be believed.
pub fn client(
    head: &RequestHead,
    field: ClientField,
    hops: usize,
) -> Result<ClientAddress, ClientUnknown> {
    debug_assert!(hops > 0, "the setting is at least 1");
    match field {
        ClientField::XForwardedFor => from_x_forwarded_for(head, hops),
        ClientField::Forwarded => from_forwarded(head, hops),
    }
}

/// Values of a field, the last one first: repeated fields are one list (RFC 9110 section 5.3).
fn values_from_last<'a>(
    head: &'a RequestHead,
    lowercase: &'static [u8],
) -> impl Iterator<Item = &'a [u8]> {
    head.fields_from_last()
        .filter(move |(name, _)| is_named(name, lowercase))
        .map(|(_, value)| value)
}

fn from_x_forwarded_for(head: &RequestHead, hops: usize) -> Result<ClientAddress, ClientUnknown> {
    let mut elements = values_from_last(head, b"x-forwarded-for")
        .flat_map(|value| value.rsplit(|&byte| byte == b','))
        .peekable();
    elements.peek().ok_or(ClientUnknown::Missing)?;
    let element = elements.nth(hops - 1).ok_or(ClientUnknown::TooShort)?;
    address(trim_ows(element), Ipv6Form::Any).ok_or(ClientUnknown::NotAnAddress)
}

fn from_forwarded(head: &RequestHead, hops: usize) -> Result<ClientAddress, ClientUnknown> {
    let mut left = hops;
    let mut is_missing = true;
    for value in values_from_last(head, b"forwarded") {
        is_missing = false;
        // A value is read from its left end, because a quoted string may hold commas. One that a client has left
        // open swallows what a proxy appends to it; then nothing of the value is believed.
        let count = Elements(value).try_fold(0, |count, element| element.map(|_| count + 1));
        let count = count.map_err(|Malformed| ClientUnknown::Malformed)?;
        if count < left {
            left -= count;
            continue;
        }
        let node = match Elements(value).nth(count - left) {
            Some(Ok(element)) => element.node,
            _ => return Err(ClientUnknown::Malformed),
        };
        return node
            .and_then(|node| address(node, Ipv6Form::Brackets))
            .ok_or(ClientUnknown::NotAnAddress);
    }
    Err(match is_missing {
        true => ClientUnknown::Missing,
        false => ClientUnknown::TooShort,
    })
}

/// How IPv6 addresses are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ipv6Form {
    /// In brackets (RFC 7239 section 6).
    Brackets,
    /// With or without.
    Any,
}

/// An address, perhaps with a port. `unknown` and hidden identifiers (RFC 7239 section 6.3) are none.
fn address(text: &[u8], form: Ipv6Form) -> Option<ClientAddress> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, behind) = rest.split_once(']')?;
        let ip = IpAddr::V6(inside.parse::<Ipv6Addr>().ok()?);
        return match behind {
            "" => Some(ClientAddress::Ip(ip)),
            _ => with_port(ip, behind.strip_prefix(':')?),
        };
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) if form == Ipv6Form::Brackets => None,
        Ok(ip) => Some(ClientAddress::Ip(ip)),
        Err(_) => {
            let (ip, port) = text.split_once(':')?;
            with_port(IpAddr::V4(ip.parse().ok()?), port)
        }
    }
}

/// A port that is hidden (`_` and a name) is as good as none.
fn with_port(ip: IpAddr, port: &str) -> Option<ClientAddress> {
    if let Some(hidden) = port.strip_prefix('_') {
        let is_fine = !hidden.is_empty()
            && hidden
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        return is_fine.then_some(ClientAddress::Ip(ip));
    }
    let is_number = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| port.parse().ok())??;
    Some(ClientAddress::WithPort(SocketAddr::new(ip, number)))
}

/// The value breaks the grammar of RFC 7239 section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed;

/// `forwarded-element`, of which only the `for` parameter matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Element<'a> {
    /// Without its quotes.
    node: Option<&'a [u8]>,
}

/// `forwarded-pair`.
struct Pair<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

/// Elements of a `Forwarded` value, from its left end.
#[derive(Clone, Copy, Debug)]
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let element = self.read();
        if element.is_err() {
            self.0 = b"";
        }
        Some(element)
    }
}

impl<'a> Elements<'a> {
    /// `[ forwarded-pair ] *( ";" [ forwarded-pair ] )`, up to a comma or the end.
    fn read(&mut self) -> Result<Element<'a>, Malformed> {
        let mut element = Element::default();
        loop {
            self.skip_spaces();
            if let Some(pair) = self.pair()? {
                let is_node = is_named(pair.name, b"for");
                if is_node && element.node.replace(pair.value).is_some() {
                    // "Each parameter MUST NOT occur more than once per field-value".
                    return Err(Malformed);
                }
            }
            self.skip_spaces();
            match self.0 {
                [] => return Ok(element),
                [b';', rest @ ..] => self.0 = rest,
                [b',', rest @ ..] => {
                    self.0 = rest;
                    // A list may not end in a comma here: that would be one element more or less.
                    return match trim_ows(rest).is_empty() {
                        true => Err(Malformed),
                        false => Ok(element),
                    };
                }
                _ => return Err(Malformed),
            }
        }
    }

    /// `token "=" value`, or nothing.
    fn pair(&mut self) -> Result<Option<Pair<'a>>, Malformed> {
        if matches!(self.0, [] | [b';' | b',', ..]) {
            return Ok(None);
        }
        let equals = memchr::memchr(b'=', self.0).ok_or(Malformed)?;
        let name = &self.0[..equals];
        if !is_token(name) {
            return Err(Malformed);
        }
        self.0 = &self.0[equals + 1..];
        let value = match self.0 {
            [b'"', rest @ ..] => {
                self.0 = rest;
                self.quoted_string()?
            }
            bare => {
                // RFC 7239 wants quotes around a colon or brackets. Not all senders do, and here it is not ambiguous.
                let end = bare
                    .iter()
                    .position(|&byte| !is_token_byte(byte) && !b":[]".contains(&byte))
                    .unwrap_or(bare.len());
                self.0 = &bare[end..];
                &bare[..end]
            }
        };
        match value.is_empty() {
            true => Err(Malformed),
            false => Ok(Some(Pair { name, value })),
        }
    }

    /// The rest of a quoted string, up to its closing quote. Escapes stay as they are: no address needs one.
    fn quoted_string(&mut self) -> Result<&'a [u8], Malformed> {
        let mut at = 0;
        loop {
            match self.0.get(at) {
                None => return Err(Malformed),
                Some(b'"') => break,
                Some(b'\\') => at += 2,
                Some(_) => at += 1,
            }
        }
        let (inside, rest) = self.0.split_at(at);
        self.0 = &rest[1..];
        Ok(inside)
    }

    fn skip_spaces(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }
}

#[cfg(test)]
mod tests;
