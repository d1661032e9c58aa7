//! `AllowedPeers`: the IP addresses and networks that a setting trusts.

use std::net::IpAddr;

use super::bad_value::BadValue;

/// Which peers are trusted. Peers on a unix socket have no address; the caller decides about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedPeers {
    Any,
    Networks(Vec<Network>),
}

/// A network. A single address is a network with all bits fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// 0 <= prefix <= 32 (IPv4) or 128 (IPv6).
    prefix: u32,
}

impl AllowedPeers {
    /// From the items of a setting that was checked before; `*` anywhere means any peer.
    pub fn new<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<Self, BadValue> {
        let mut networks = Vec::new();
        for item in items {
            if item == "*" {
                return Ok(Self::Any);
            }
            networks.push(Network::parse(item)?);
        }
        Ok(Self::Networks(networks))
    }

    pub fn contains(&self, peer: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Networks(networks) => networks.iter().any(|network| network.contains(peer)),
        }
    }
}

impl Network {
    /// Strict as Python's `ip_network`, whose messages are used: bits below the prefix must be 0.
    pub fn parse(text: &str) -> Result<Self, BadValue> {
        let foreign = || BadValue::NotNetwork(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| foreign())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match length {
            None => bits,
            Some(length) => prefix_length(length, address).ok_or_else(foreign)?,
        };
        if prefix > bits {
            return Err(foreign());
        }
        let network = Self { address, prefix };
        if network.masked(address) != Some(number(address)) {
            return Err(BadValue::HostBits(text.to_owned()));
        }
        Ok(network)
    }

    fn contains(&self, peer: IpAddr) -> bool {
        // A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
        let peer = peer.to_canonical();
        self.masked(peer) == Some(number(self.address))
    }

    /// The network part of an address of the same family.
    fn masked(&self, address: IpAddr) -> Option<u128> {
        if address.is_ipv4() != self.address.is_ipv4() {
            return None;
        }
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let host_bits = bits - self.prefix;
        Some(
            number(address)
                .checked_shr(host_bits)
                .unwrap_or(0)
                .checked_shl(host_bits)
                .unwrap_or(0),
        )
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// `/8` or, for IPv4, a netmask such as `/255.0.0.0`.
fn prefix_length(text: &str, address: IpAddr) -> Option<u32> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let mask: std::net::Ipv4Addr = text.parse().ok().filter(|_| address.is_ipv4())?;
    let ones = mask.to_bits().leading_ones();
    (mask.to_bits().count_ones() == ones).then_some(ones)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn matches_addresses_and_networks() {
        let peers = AllowedPeers::new(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]).unwrap();
        for peer in ["127.0.0.1", "10.255.1.2", "2001:db8::5", "::ffff:127.0.0.1"] {
            assert!(peers.contains(peer.parse().unwrap()), "{peer}");
        }
        for peer in ["127.0.0.2", "11.0.0.1", "2001:db9::", "::1"] {
            assert!(!peers.contains(peer.parse().unwrap()), "{peer}");
        }
        assert!(
            AllowedPeers::new(["*"])
                .unwrap()
                .contains("1.2.3.4".parse().unwrap())
        );
        let all = AllowedPeers::new(["0.0.0.0/0", "::/0"]).unwrap();
        assert!(all.contains("1.2.3.4".parse().unwrap()) && all.contains("::1".parse().unwrap()));
        assert!(
            Network::parse("1.2.3.0/255.255.255.0")
                .unwrap()
                .contains("1.2.3.9".parse().unwrap())
        );
    }

    #[test]
    fn refuses_with_the_messages_of_python() {
        let message = |text| Network::parse(text).unwrap_err().to_string();
        assert_eq!(message("10.0.0.1/8"), "10.0.0.1/8 has host bits set");
        let foreign = "'x' does not appear to be an IPv4 or IPv6 network";
        assert_eq!(message("x"), foreign);
        for text in [
            "1.2.3.4/33",
            "::1/129",
            "1.2.3",
            "1.2.3.4/",
            "::/255.0.0.0",
            "1.2.3.4/-1",
        ] {
            assert!(message(text).ends_with("network"), "{text}");
        }
    }
}
