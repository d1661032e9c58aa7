//! Which requests a worker accepts, and which peers it trusts about where they came from.
//!
//! The limits and leniencies are [`Limits`]. Two settings name the trusted peers (`forwarded_allow_ips`,
//! `proxy_allow_ips`), two what they are trusted about (`proxy_protocol`, `proxy_headers`); the rules about names and
//! schemes are [`HeaderPolicy`]'s.

use std::collections::HashSet;

use crate::config::{self, AllowedPeers, Config};
use crate::http::{
    ClientAddress, ClientField, ClientUnknown, HeaderPolicy, Limits, ParseError, ProxyMode,
    ProxyParse, Rules, Underscores, forwarded_client, parse_proxy_header,
};
use crate::pool::{Job, Peer};

use super::describe::PeerText;

/// How many dropped names are remembered; a client that invents more is not worth more lines.
const DROPPED_NAMES_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct RequestPolicy {
    limits: Limits,
    http2: config::Http2,
    /// Requests wait for their bodies (`request_buffering`).
    buffers_requests: bool,
    /// Peers whose fields are trusted (`forwarded_allow_ips`).
    forwarders: AllowedPeers,
    policy: HeaderPolicy,
    /// `proxy_headers`, and how many proxies stand in front (`proxy_headers_hops`).
    client_field: Option<(ClientField, usize)>,
    /// `proxy_protocol`.
    proxy_mode: Option<ProxyMode>,
    /// Peers that may send a PROXY header (`proxy_allow_ips`).
    proxies: AllowedPeers,
    /// Peers that may send uwsgi packets (`uwsgi_allow_ips`); `None` where `protocol` is HTTP.
    uwsgi_peers: Option<AllowedPeers>,
    /// Names of dropped fields that were logged, in upper case.
    dropped: HashSet<Box<[u8]>>,
}

impl RequestPolicy {
    /// `script_name` is that of the environment.
    pub(super) fn new(config: &Config, script_name: &[u8]) -> Self {
        let underscores = match config.http.header_map {
            config::HeaderMap::Drop => Underscores::Drop,
            config::HeaderMap::Refuse => Underscores::Refuse,
            config::HeaderMap::Dangerous => Underscores::Map,
        };
        let client_field = match config.proxy.proxy_headers {
            config::ProxyHeaders::Off => None,
            config::ProxyHeaders::XForwardedFor => Some(ClientField::XForwardedFor),
            config::ProxyHeaders::Forwarded => Some(ClientField::Forwarded),
        };
        Self {
            limits: limits(config),
            http2: config.http2.clone(),
            buffers_requests: config.limits.request_buffering,
            forwarders: config.proxy.forwarded_allow_ips.clone(),
            policy: HeaderPolicy::new(
                underscores,
                &config.proxy.forwarder_headers,
                &config.proxy.secure_scheme_headers,
                script_name,
            ),
            client_field: client_field.map(|field| (field, config.proxy.proxy_headers_hops)),
            proxy_mode: match config.proxy.proxy_protocol {
                config::ProxyProtocol::Off => None,
                config::ProxyProtocol::V1 => Some(ProxyMode::V1),
                config::ProxyProtocol::V2 => Some(ProxyMode::V2),
                config::ProxyProtocol::Auto => Some(ProxyMode::Auto),
            },
            proxies: config.proxy.proxy_allow_ips.clone(),
            uwsgi_peers: (config.proxy.protocol == config::Protocol::Uwsgi)
                .then(|| config.proxy.uwsgi_allow_ips.clone()),
            dropped: HashSet::new(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn http2(&self) -> &config::Http2 {
        &self.http2
    }

    /// How a peer may begin to speak HTTP/2 without TLS: only a trusted one may, as in gunicorn.
    pub(super) fn http2_cleartext(&self, is_trusted: bool) -> config::Http2Cleartext {
        let is_enabled = self
            .http2
            .http_protocols
            .contains(&config::HttpProtocol::H2);
        match is_enabled && is_trusted {
            true => self.http2.http2_cleartext,
            false => config::Http2Cleartext::Off,
        }
    }

    /// Whether requests wait for their bodies.
    pub(super) fn buffers_requests(&self) -> bool {
        self.buffers_requests
    }

    /// Whether the peer's fields are trusted. Asked once per connection.
    pub(super) fn trusts(&self, peer: Peer) -> bool {
        is_among(&self.forwarders, peer)
    }

    /// Whether a connection may begin with a PROXY header.
    pub(super) fn expects_proxy_header(&self) -> bool {
        self.proxy_mode.is_some()
    }

    /// Whether connections carry packets of the uwsgi protocol.
    pub(super) fn speaks_uwsgi(&self) -> bool {
        self.uwsgi_peers.is_some()
    }

    /// # Errors
    /// `peer` may not send uwsgi packets (`uwsgi_allow_ips`).
    pub(super) fn check_uwsgi(&self, peer: Peer) -> Result<(), ParseError> {
        match &self.uwsgi_peers {
            Some(peers) if !is_among(peers, peer) => {
                Err(ParseError::UwsgiForbidden(PeerText(peer).to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Parse the PROXY header at the start of a connection's first bytes.
    ///
    /// # Errors
    /// It is malformed, or `peer` may not send one (`proxy_allow_ips`).
    pub(super) fn parse_proxy_header(
        &self,
        bytes: &[u8],
        peer: Peer,
    ) -> Result<ProxyParse, ParseError> {
        let Some(mode) = self.proxy_mode else {
            return Ok(ProxyParse::Absent);
        };
        let parsed = parse_proxy_header(bytes, mode);
        let is_header = !matches!(
            parsed,
            Ok(ProxyParse::Absent
                | ProxyParse::NeedData {
                    is_announced: false
                })
        );
        if is_header && !is_among(&self.proxies, peer) {
            return Err(ParseError::ProxyForbidden(PeerText(peer).to_string()));
        }
        parsed
    }

    /// Apply the header policy to the head of a request, and find out which client it is from. `job.peer` and
    /// `job.trusted` are the connection's.
    ///
    /// # Errors
    /// The policy refuses the request.
    pub(super) fn apply(&mut self, job: &mut Job) -> Result<(), ParseError> {
        let Self {
            policy, dropped, ..
        } = self;
        job.forwarded = policy.apply(&mut job.head, job.trusted, |name| {
            log_dropped(dropped, name);
        })?;
        // A gateway that says nothing of https may have come with TLS itself.
        if job.tls.is_some() && job.head.scheme_is_https() == Some(false) {
            job.forwarded.is_https = Some(true);
        }
        if let Some((field, hops)) = self.client_field
            && job.trusted
        {
            match forwarded_client(&job.head, field, hops) {
                Ok(ClientAddress::WithPort(address)) => job.peer = Peer::Tcp(address),
                Ok(ClientAddress::Ip(ip)) => job.peer = Peer::Ip(ip),
                Err(ClientUnknown::Missing) => {}
                Err(why) => log::debug!(
                    "Ignoring the client's address in {} from ip={}: {why}.",
                    field.name(),
                    PeerText(job.peer)
                ),
            }
        }
        Ok(())
    }
}

/// Peers on a unix socket are local and always trusted, as in gunicorn.
fn is_among(allowed: &AllowedPeers, peer: Peer) -> bool {
    match peer.ip() {
        Some(ip) => allowed.contains(ip),
        None => true,
    }
}

/// Once per name: an operator who misses a header finds out why, and a client cannot fill the log.
fn log_dropped(dropped: &mut HashSet<Box<[u8]>>, name: &[u8]) {
    let name = name.to_ascii_uppercase();
    if dropped.len() >= DROPPED_NAMES_MAX || dropped.contains(&name[..]) {
        return;
    }
    log::info!(
        "Dropping header {}: its name has an underscore (see header_map and forwarder_headers).",
        name.escape_ascii()
    );
    dropped.insert(name.into());
}

/// The bounds and leniencies that the settings ask for.
fn limits(config: &Config) -> Limits {
    Limits {
        rules: Rules {
            permit_unconventional_method: config.http.permit_unconventional_http_method,
            permit_unconventional_version: config.http.permit_unconventional_http_version,
            casefold_method: config.http.casefold_http_method,
            permit_obsolete_folding: config.http.permit_obsolete_folding,
            strip_header_spaces: config.http.strip_header_spaces,
        },
        ..Limits::new(
            config.limits.limit_request_line,
            config.limits.limit_request_fields,
            config.limits.limit_request_field_size,
            config.limits.limit_request_body,
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_proxy_header_is_taken_from_the_peers_that_may_send_one() {
        let mut config = Config::default();
        config.proxy.proxy_protocol = config::ProxyProtocol::Auto;
        let policy = RequestPolicy::new(&config, b"");
        assert!(policy.expects_proxy_header());
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 80\r\n";
        let parse = |ip: [u8; 4]| policy.parse_proxy_header(line, Peer::Tcp((ip, 1).into()));
        let parsed = parse([127, 0, 0, 1]);
        assert!(matches!(parsed, Ok(ProxyParse::Present { length, .. }) if length == line.len()));
        let refused = parse([198, 51, 100, 1]);
        assert!(matches!(refused, Err(ParseError::ProxyForbidden(_))));
    }

    #[test]
    fn peers_on_a_unix_socket_are_trusted() {
        let policy = RequestPolicy::new(&Config::default(), b"");
        assert!(policy.trusts(Peer::Unix) && !policy.expects_proxy_header());
        assert!(!policy.trusts(Peer::Tcp(([198, 51, 100, 1], 1).into())));
    }
}
