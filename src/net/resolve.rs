//! From the host of a TCP address to the address that is bound.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};

/// IPv4 first, as gunicorn: `localhost` means 127.0.0.1, and only a literal or a name that has nothing else
/// is IPv6.
pub(super) fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let found: Vec<_> = (host, port).to_socket_addrs()?.collect();
    found
        .iter()
        .find(|address| address.is_ipv4())
        .or(found.first())
        .copied()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
