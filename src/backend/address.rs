//! Which addresses a backend may have.
//!
//! Loopback, link-local (cloud metadata), unspecified and multicast addresses are refused unless the settings allow
//! their network; private networks are fine, since on-premises portals live there. Names are judged by what they
//! resolve to at the moment of connecting, so that a changed DNS answer opens nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The rule, shared by the resolver (names) and the client (literal addresses).
#[derive(Debug, Clone)]
pub(super) struct AddressRule {
    allow: Arc<[IpNet]>,
    /// Our own listeners: a backend there would be us.
    own: Arc<[SocketAddr]>,
}

/// A name resolved to refused addresses only.
#[derive(Debug, thiserror::Error)]
#[error("every address of {0} is refused; see --backend-allow")]
pub(super) struct AddressRefused(String);

impl AddressRule {
    pub(super) fn new(allow: Vec<IpNet>, own: Vec<SocketAddr>) -> Self {
        Self { allow: allow.into(), own: own.into() }
    }

    /// Whether a backend may be at this address.
    pub(super) fn permits(&self, ip: IpAddr) -> bool {
        let ip = embedded(ip);
        self.allow.iter().any(|net| net.contains(&ip)) || !is_special(ip)
    }

    /// Whether this is one of our own listeners.
    pub(super) fn is_own(&self, ip: IpAddr, port: u16) -> bool {
        let ip = embedded(ip);
        self.own.iter().any(|own| {
            own.port() == port && (own.ip() == ip || (own.ip().is_unspecified() && ip.is_loopback()))
        })
    }
}

impl Resolve for AddressRule {
    fn resolve(&self, name: Name) -> Resolving {
        let rule = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<_> = found.filter(|address| rule.permits(address.ip())).collect();
            if permitted.is_empty() {
                return Err(AddressRefused(name.as_str().to_owned()).into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

/// The IPv4 address inside an IPv6 one, in each form that a network stack or gateway takes apart
/// (mapped, RFC 6052 NAT64, RFC 3056 6to4).
fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match [a, b, c, d, e, f] {
        [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        [0x2002, high, low, ..] => v4(high, low),
        _ => ip,
    }
}

fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.octets()[0] == 0
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || is_metadata(ip)
        }
    }
}

/// The metadata service of a large cloud has a unique-local IPv6 address.
fn is_metadata(ip: Ipv6Addr) -> bool {
    ip == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: &[&str]) -> AddressRule {
        let allow = allow.iter().map(|net| net.parse().expect("a network")).collect();
        AddressRule::new(allow, vec!["0.0.0.0:443".parse().expect("an address")])
    }

    #[test]
    fn special_addresses_are_refused_in_every_spelling() {
        let spellings = [
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
        ];
        for spelling in spellings {
            assert!(!rule(&[]).permits(spelling.parse().expect("an address")), "{spelling}");
        }
    }

    #[test]
    fn private_and_public_addresses_are_permitted() {
        for spelling in ["10.1.2.3", "192.168.1.1", "172.16.0.1", "fd12::1", "8.8.8.8", "2606:4700::1"] {
            assert!(rule(&[]).permits(spelling.parse().expect("an address")), "{spelling}");
        }
    }

    #[test]
    fn an_allowed_network_is_permitted_however_it_is_spelled() {
        let rule = rule(&["127.0.0.0/8"]);
        assert!(rule.permits("127.0.0.1".parse().expect("an address")));
        assert!(rule.permits("::ffff:127.0.0.1".parse().expect("an address")));
        assert!(!rule.permits("::1".parse().expect("an address")));
    }

    #[test]
    fn our_own_listener_is_known_behind_loopback() {
        assert!(rule(&[]).is_own("127.0.0.1".parse().expect("an address"), 443));
        assert!(!rule(&[]).is_own("127.0.0.1".parse().expect("an address"), 8080));
    }
}
