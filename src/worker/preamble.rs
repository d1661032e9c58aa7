//! What may stand before a connection's first request: a PROXY header, and the first message of a TLS handshake or the preface
//! of HTTP/2.
//!
//! A PROXY header is plain and comes first, as HAProxy and the load balancers send it. What follows it on a TLS connection
//! is a handshake, or is refused: plain HTTP with a page that can be read, everything else by the handshake itself.

use crate::config::Http2Cleartext;
use crate::http::ProxyParse;

use super::http1::{Client, Refusal};
use super::request_policy::RequestPolicy;

/// What a client of HTTP/2 sends first (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preamble {
    /// A PROXY header, perhaps. A handshake comes after it if `then_tls`.
    ProxyHeader { then_tls: bool },
    /// The first byte of a handshake.
    Hello,
    /// The preface of HTTP/2, or requests of HTTP/1 unless the former `is_required`.
    Preface { is_required: bool },
    /// A packet of the uwsgi protocol, from a peer that may send one. A handshake comes before it if `then_tls`.
    Uwsgi { then_tls: bool },
    /// Requests.
    Over,
}

/// What the first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// More bytes are needed; this many are done with.
    NeedData(usize),
    /// Requests begin after this many bytes, or whatever is awaited now.
    Rest(usize),
    /// A handshake does.
    Handshake(usize),
    /// HTTP/2 does.
    Http2(usize),
}

impl Preamble {
    /// `cleartext` is what the peer may do without TLS.
    pub(super) fn new(
        expects_proxy_header: bool,
        expects_tls: bool,
        cleartext: Http2Cleartext,
    ) -> Self {
        match (expects_proxy_header, expects_tls) {
            (true, then_tls) => Self::ProxyHeader { then_tls },
            (false, true) => Self::Hello,
            (false, false) if cleartext.allows_prior_knowledge() => Self::Preface {
                is_required: cleartext == Http2Cleartext::PriorKnowledge,
            },
            (false, false) => Self::Over,
        }
    }

    /// It was passed before, by another worker.
    pub(super) fn pass(&mut self) {
        *self = Self::Over;
    }

    /// Look at the first bytes of a connection, all that have come.
    ///
    /// # Errors
    /// They are not what may come.
    pub(super) fn find(
        &mut self,
        bytes: &[u8],
        client: &mut Client,
        policy: &RequestPolicy,
    ) -> Result<Found, Refusal> {
        let mut begin = 0;
        if let Self::Uwsgi { then_tls } = *self {
            policy
                .check_uwsgi(client.peer())
                .map_err(|error| Refusal::invalid(&error, client))?;
            *self = Self::new(false, then_tls, Http2Cleartext::Off);
        }
        if let Self::ProxyHeader { then_tls } = *self {
            match policy
                .parse_proxy_header(bytes, client.peer())
                .map_err(|error| Refusal::invalid(&error, client))?
            {
                ProxyParse::NeedData { .. } => return Ok(Found::NeedData(0)),
                ProxyParse::Absent => {}
                ProxyParse::Present { length, header } => {
                    client.apply_proxy_header(header);
                    begin = length;
                }
            }
            let cleartext = policy.http2_cleartext(client.is_trusted());
            *self = Self::new(false, then_tls, cleartext);
        }
        if let Self::Preface { is_required } = *self {
            return self.find_preface(bytes, begin, is_required, client);
        }
        let Some(first) = bytes.get(begin).filter(|_| *self == Self::Hello) else {
            return Ok(Found::Rest(begin));
        };
        *self = Self::Over;
        // A method begins with a letter, a handshake with the number of its content type (22).
        if first.is_ascii_alphabetic() {
            let message = "The plain HTTP request was sent to an HTTPS port";
            return Err(Refusal::other_protocol(message, "", client));
        }
        Ok(Found::Handshake(begin))
    }

    fn find_preface(
        &mut self,
        bytes: &[u8],
        begin: usize,
        is_required: bool,
        client: &Client,
    ) -> Result<Found, Refusal> {
        let shown = &bytes[begin..bytes.len().min(begin + PREFACE.len())];
        if *shown == PREFACE[..] {
            *self = Self::Over;
            return Ok(Found::Http2(begin));
        }
        if PREFACE.starts_with(shown) {
            return Ok(Found::NeedData(begin));
        }
        *self = Self::Over;
        if is_required {
            let shown = shown.escape_ascii();
            let message = format!("Expected HTTP/2 connection preface, got b'{shown}'");
            let remedy = " (http2_cleartext is prior-knowledge; with both, HTTP/1 is served too)";
            return Err(Refusal::other_protocol(message, remedy, client));
        }
        Ok(Found::Rest(begin))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Config, ProxyProtocol};
    use crate::pool::{ConnId, Peer};

    fn find(preamble: &mut Preamble, bytes: &[u8]) -> Result<Found, Refusal> {
        let mut config = Config::default();
        config.proxy.proxy_protocol = ProxyProtocol::Auto;
        let conn = ConnId::new(0, 0);
        let mut client = Client::new(conn, Peer::Unix, true, 0);
        preamble.find(bytes, &mut client, &RequestPolicy::new(&config, b""))
    }

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 80\r\n";

    #[test]
    fn a_proxy_header_stands_before_a_handshake_and_only_once() {
        let mut preamble = Preamble::new(true, true, Http2Cleartext::Off);
        assert_eq!(find(&mut preamble, &LINE[..9]).unwrap(), Found::NeedData(0));
        let found = find(&mut preamble, LINE).unwrap();
        assert_eq!(
            (found, preamble),
            (Found::Rest(LINE.len()), Preamble::Hello)
        );
        assert!(find(&mut preamble, LINE).is_err(), "it is plain text now");
    }

    #[test]
    fn a_handshake_may_come_with_the_header_or_without_one() {
        for header in [LINE, b""] {
            let mut preamble = Preamble::new(true, true, Http2Cleartext::Off);
            let found = find(&mut preamble, &[header, &[22, 3, 1]].concat()).unwrap();
            assert_eq!(
                (found, preamble),
                (Found::Handshake(header.len()), Preamble::Over)
            );
        }
    }

    #[test]
    fn a_preface_is_found_in_pieces_or_the_rest_is_http_1() {
        for (cleartext, is_required) in [
            (Http2Cleartext::PriorKnowledge, true),
            (Http2Cleartext::Both, false),
        ] {
            let new = || Preamble::new(false, false, cleartext);
            assert_eq!(new(), Preamble::Preface { is_required });
            let mut preamble = new();
            for end in 1..PREFACE.len() {
                let found = find(&mut preamble, &PREFACE[..end]).unwrap();
                assert_eq!(found, Found::NeedData(0));
            }
            let more = [&PREFACE[..], &[0; 9]].concat();
            assert_eq!(find(&mut preamble, &more).unwrap(), Found::Http2(0));
            assert_eq!(preamble, Preamble::Over);
            for other in [&b"GET / HTTP/1.1"[..], b"PRI * HTTP/1.1"] {
                assert_eq!(find(&mut new(), other).is_err(), is_required);
            }
        }
        let upgrade = Preamble::new(false, false, Http2Cleartext::Upgrade);
        assert_eq!(upgrade, Preamble::Over);
    }

    #[test]
    fn without_tls_the_rest_is_requests() {
        let mut preamble = Preamble::new(true, false, Http2Cleartext::Off);
        let found = find(&mut preamble, b"GET / HTTP/1.1\r\n").unwrap();
        assert_eq!((found, preamble), (Found::Rest(0), Preamble::Over));
    }
}
