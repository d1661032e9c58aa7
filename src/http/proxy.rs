//! The PROXY protocol, versions 1 and 2: a header before HTTP, in which a load balancer names the client.
//!
//! Pure and bounded. [`parse`] looks at what has arrived since the connection was accepted and says that it needs
//! more, that there is no header, or what the header says. It can be asked again with the same bytes and more: each
//! call costs at most one look at the bound of the version. The event loop asks it once per connection, before HTTP.
//! Sections are those of the specification of HAProxy, "The PROXY protocol, versions 1 & 2".

// This module does no I/O, so it takes addresses, which are values, from `core::net` and not from `std::net`.
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::{ParseError, quoted};

/// Which versions are looked for (`proxy_protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    V1,
    V2,
    /// Either.
    Auto,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyParse {
    /// They may become a header.
    NeedData {
        /// They have a signature already, so they will not become anything else.
        is_announced: bool,
    },
    /// They are not a header; HTTP begins with the first of them.
    Absent,
    /// A header of `length` bytes; HTTP begins behind it.
    Present { length: usize, header: ProxyHeader },
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// `TCP4`, `TCP6`, `UDP4`, `UDP6`, `UNIX`, or why there are no addresses: `UNKNOWN`, `UNSPEC`, `LOCAL`.
    pub protocol: &'static str,
    pub route: ProxyRoute,
}

/// Between whom the connection that is passed on was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyRoute {
    /// Not given: the connection is what it seems to be.
    Unknown,
    /// Over IP.
    Ip {
        client: SocketAddr,
        proxy: SocketAddr,
    },
    /// Over a unix socket of the proxy.
    Unix,
}

/// Section 2.1: the longest line a sender can make is 107 bytes with its CRLF.
const V1_BYTES_MAX: usize = 107;
const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const V2_FIXED_BYTES: usize = 16;
/// Addresses take 216 bytes at most (section 2.2); the rest is for extensions (certificates, request ids), which
/// real senders keep far below this.
const V2_BYTES_MAX: usize = 4096;

/// Looks at the first bytes of a connection.
///
/// A signature decides. As soon as the bytes cannot become one any more they are HTTP, so a request is never held
/// up, however short it is.
///
/// # Errors
/// There is a header and it is malformed or too long.
pub fn parse(bytes: &[u8], mode: ProxyMode) -> Result<ProxyParse, ParseError> {
    if mode != ProxyMode::V1 {
        match begins_with(bytes, V2_SIGNATURE) {
            Some(true) => return parse_v2(bytes),
            Some(false) => {}
            None => {
                return Ok(ProxyParse::NeedData {
                    is_announced: false,
                });
            }
        }
    }
    if mode != ProxyMode::V2 {
        match begins_with(bytes, V1_SIGNATURE) {
            Some(true) => return parse_v1(bytes),
            Some(false) => {}
            None => {
                return Ok(ProxyParse::NeedData {
                    is_announced: false,
                });
            }
        }
    }
    Ok(ProxyParse::Absent)
}

/// Whether `bytes` begin with `signature`; `None` while they are only a part of it.
fn begins_with(bytes: &[u8], signature: &[u8]) -> Option<bool> {
    let common = bytes.len().min(signature.len());
    match bytes[..common] == signature[..common] {
        false => Some(false),
        true if common == signature.len() => Some(true),
        true => None,
    }
}

/// Section 2.1: `PROXY` SP protocol SP client SP proxy SP client's port SP proxy's port CRLF.
fn parse_v1(bytes: &[u8]) -> Result<ProxyParse, ParseError> {
    let searched = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(line_feed) = memchr::memchr(b'\n', searched) else {
        return match bytes.len() < V1_BYTES_MAX {
            true => Ok(ProxyParse::NeedData { is_announced: true }),
            false => Err(invalid_line(searched)),
        };
    };
    let line = searched[..line_feed]
        .strip_suffix(b"\r")
        .ok_or_else(|| invalid_line(&searched[..line_feed]))?;
    let header = parse_v1_line(line).ok_or_else(|| invalid_line(line))?;
    Ok(ProxyParse::Present {
        length: line_feed + 1,
        header,
    })
}

fn parse_v1_line(line: &[u8]) -> Option<ProxyHeader> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let protocol = match words.next()? {
        // "the receiver must ignore anything presented before the CRLF".
        "UNKNOWN" => {
            return Some(ProxyHeader {
                protocol: "UNKNOWN",
                route: ProxyRoute::Unknown,
            });
        }
        "TCP4" => "TCP4",
        "TCP6" => "TCP6",
        _ => return None,
    };
    let address = |word: &str| -> Option<IpAddr> {
        match protocol {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            _ => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        }
    };
    let (client, proxy) = (address(words.next()?)?, address(words.next()?)?);
    let (client_port, proxy_port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then_some(ProxyHeader {
        protocol,
        route: ProxyRoute::Ip {
            client: SocketAddr::new(client, client_port),
            proxy: SocketAddr::new(proxy, proxy_port),
        },
    })
}

/// 0 to 65535 in decimal, "heading zeroes are not permitted".
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = word.len() > 1 && word.starts_with('0');
    (is_plain && !is_padded).then(|| word.parse().ok())?
}

/// Section 2.2: the binary header.
fn parse_v2(bytes: &[u8]) -> Result<ProxyParse, ParseError> {
    let Some(&[version_command, family_transport, high, low]) =
        bytes.get(V2_SIGNATURE.len()..V2_FIXED_BYTES)
    else {
        return Ok(ProxyParse::NeedData { is_announced: true });
    };
    if version_command >> 4 != 2 {
        return Err(ParseError::ProxyHeader("unsupported version"));
    }
    let is_local = match version_command & 0x0f {
        0 => true,
        1 => false,
        _ => return Err(ParseError::ProxyHeader("unsupported command")),
    };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES_MAX {
        return Err(ParseError::ProxyHeader("too long"));
    }
    let Some(payload) = bytes.get(V2_FIXED_BYTES..length) else {
        return Ok(ProxyParse::NeedData { is_announced: true });
    };
    let header = if is_local {
        // "the receiver must accept this connection as valid and must use the real connection endpoints and discard
        // the protocol block including the family which is ignored".
        ProxyHeader {
            protocol: "LOCAL",
            route: ProxyRoute::Unknown,
        }
    } else {
        parse_v2_route(family_transport, payload)?
    };
    Ok(ProxyParse::Present { length, header })
}

/// The addresses of a `PROXY` command; what follows them in `payload` are extensions, which are not looked at.
fn parse_v2_route(family_transport: u8, payload: &[u8]) -> Result<ProxyHeader, ParseError> {
    let (family, transport) = (family_transport >> 4, family_transport & 0x0f);
    if transport > 2 {
        return Err(ParseError::ProxyHeader("unsupported transport protocol"));
    }
    let told = |protocol, route| Ok(ProxyHeader { protocol, route });
    match (family, transport) {
        // Nothing is said of the client.
        (0, _) | (1..=3, 0) => told("UNSPEC", ProxyRoute::Unknown),
        (1, _) => {
            let Some((fixed, _)) = payload.split_first_chunk::<12>() else {
                return Err(ParseError::ProxyHeader(
                    "insufficient address data for IPv4",
                ));
            };
            let [a, b, c, d, e, f, g, h, ports @ ..] = *fixed;
            let (client, proxy) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            // Datagrams are how the client came to the proxy (HTTP/3); they do not come further.
            let protocol = if transport == 1 { "TCP4" } else { "UDP4" };
            told(protocol, route(client.into(), proxy.into(), ports))
        }
        (2, _) => {
            let Some((client, rest)) = payload.split_first_chunk::<16>() else {
                return Err(ParseError::ProxyHeader(
                    "insufficient address data for IPv6",
                ));
            };
            let (Some((proxy, _)), Some(ports)) =
                (rest.split_first_chunk::<16>(), rest.get(16..20))
            else {
                return Err(ParseError::ProxyHeader(
                    "insufficient address data for IPv6",
                ));
            };
            let ports = [ports[0], ports[1], ports[2], ports[3]];
            let (client, proxy) = (Ipv6Addr::from(*client), Ipv6Addr::from(*proxy));
            let protocol = if transport == 1 { "TCP6" } else { "UDP6" };
            told(protocol, route(client.into(), proxy.into(), ports))
        }
        (3, _) if payload.len() < 216 => Err(ParseError::ProxyHeader(
            "insufficient address data for unix sockets",
        )),
        (3, _) => told("UNIX", ProxyRoute::Unix),
        _ => Err(ParseError::ProxyHeader("unsupported address family")),
    }
}

fn route(client: IpAddr, proxy: IpAddr, ports: [u8; 4]) -> ProxyRoute {
    let [a, b, c, d] = ports;
    ProxyRoute::Ip {
        client: SocketAddr::new(client, u16::from_be_bytes([a, b])),
        proxy: SocketAddr::new(proxy, u16::from_be_bytes([c, d])),
    }
}

fn invalid_line(line: &[u8]) -> ParseError {
    ParseError::ProxyLine(quoted(line))
}

#[cfg(test)]
mod tests;
