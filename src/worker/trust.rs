//! Whom the worker believes about where a request came from, and what follows from it.
//!
//! Four settings name the believed (`forwarded_allow_ips`, `proxy_allow_ips`) and what is believed
//! (`proxy_protocol`, `proxy_headers`); the rules about names and schemes are [`HeaderPolicy`]'s. Asked by the
//! connections, on the event loop's thread.

use std::collections::HashSet;

use crate::config::{self, AllowedPeers, Config};
use crate::http::{
    ClientAddress, ClientField, ClientUnknown, HeaderPolicy, Limits, ParseError, ProxyHeader,
    ProxyMode, ProxyParse, ProxyRoute, Rules, Underscores, forwarded_client, parse_proxy_header,
};
use crate::pool::{Job, Peer};

use super::connection::{Connection, PeerText};
use super::core::Core;

/// So many dropped names are remembered; a client that invents more is not worth more lines.
const DROPPED_NAMES_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Trust {
    /// Peers whose fields are believed (`forwarded_allow_ips`).
    forwarders: AllowedPeers,
    policy: HeaderPolicy,
    /// `proxy_headers`, and how many proxies stand in front (`proxy_headers_hops`).
    client_field: Option<(ClientField, usize)>,
    /// `proxy_protocol`.
    proxy_mode: Option<ProxyMode>,
    /// Peers that may send a PROXY header (`proxy_allow_ips`).
    proxies: AllowedPeers,
    /// Names of dropped fields that were logged, in upper case.
    dropped: HashSet<Box<[u8]>>,
}

impl Trust {
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
            dropped: HashSet::new(),
        }
    }

    /// Whether the peer's fields are believed. Asked once per connection.
    pub(super) fn trusts(&self, peer: Peer) -> bool {
        is_among(&self.forwarders, peer)
    }

    /// Whether a connection may begin with a PROXY header.
    pub(super) fn expects_proxy_header(&self) -> bool {
        self.proxy_mode.is_some()
    }

    /// Judge the head of a request, and find out from whom it is. `job.peer` and `job.trusted` are the connection's.
    fn judge(&mut self, job: &mut Job) -> Result<(), ParseError> {
        let Self {
            policy, dropped, ..
        } = self;
        job.forwarded = policy.apply(&mut job.head, job.trusted, |name| {
            log_dropped(dropped, name);
        })?;
        if let Some((field, hops)) = self.client_field
            && job.trusted
        {
            match forwarded_client(&job.head, field, hops) {
                Ok(ClientAddress::WithPort(address)) => job.peer = Peer::Tcp(address),
                Ok(ClientAddress::Ip(ip)) => job.peer = Peer::Ip(ip),
                Err(ClientUnknown::Missing) => {}
                Err(why) => log::debug!(
                    "The client's address in {} from ip={} is not used: {why}.",
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
        "Header {} is dropped: its name has an underscore (see header_map and forwarder_headers).",
        name.escape_ascii()
    );
    dropped.insert(name.into());
}

/// The bounds and leniencies that the settings ask for.
pub(super) fn limits(config: &Config) -> Limits {
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

impl Connection {
    /// A job for the next request of this connection.
    pub(super) fn fresh_job(&self, core: &mut Core) -> Box<Job> {
        let mut job = core.fresh_job();
        job.conn = self.id();
        job.peer = self.peer;
        job.proxy = self.proxy_header;
        job.trusted = self.trusted;
        job.listener = self.listener;
        job.arrived = core.now;
        job.serial = core.next_serial();
        job
    }

    /// The head of `job` is whole.
    pub(super) fn judge_head(&self, job: &mut Job, core: &mut Core) -> Result<(), ParseError> {
        core.trust.judge(job)
    }

    /// Take the PROXY header from the start of the connection's first bytes. How many bytes it is, 0 when there is
    /// none; `None` while that is not known.
    pub(super) fn receive_proxy_header(
        &mut self,
        bytes: &[u8],
        core: &Core,
    ) -> Result<Option<usize>, ParseError> {
        let Some(mode) = core.trust.proxy_mode.filter(|_| self.awaits_proxy_header) else {
            return Ok(Some(0));
        };
        let parsed = parse_proxy_header(bytes, mode);
        let is_header = !matches!(
            parsed,
            Ok(ProxyParse::Absent
                | ProxyParse::NeedData {
                    is_announced: false
                })
        );
        if is_header && !is_among(&core.trust.proxies, self.peer) {
            return Err(ParseError::ProxyForbidden(PeerText(self.peer).to_string()));
        }
        Ok(match parsed? {
            ProxyParse::NeedData { .. } => None,
            ProxyParse::Absent => {
                self.awaits_proxy_header = false;
                Some(0)
            }
            ProxyParse::Present { length, header } => {
                self.awaits_proxy_header = false;
                self.take_proxy_header(header);
                Some(length)
            }
        })
    }

    /// Whether fields are trusted stays a question of who is connected, as in gunicorn: that is the proxy.
    fn take_proxy_header(&mut self, header: ProxyHeader) {
        self.proxy_header = Some(header);
        match header.route {
            ProxyRoute::Ip { client, .. } => self.peer = Peer::Tcp(client),
            ProxyRoute::Unix => self.peer = Peer::Unix,
            // A health check of the proxy itself, or a protocol it has no words for.
            ProxyRoute::Unknown => {}
        }
    }
}
