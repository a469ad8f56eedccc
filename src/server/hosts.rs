//! Which values of the Host header are ours. Others are answered 421, which also stops DNS rebinding.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

use super::context::Peer;
use crate::settings::ExtraHosts;
use crate::spec::HostName;

/// The gateway's own names. Tenants' own hosts are asked of the routing table.
#[derive(Debug)]
pub(super) struct Hosts {
    /// `None` accepts every name.
    names: Option<HashSet<Box<str>>>,
}

impl Hosts {
    pub(super) fn new(hosts: &[HostName], extra: &ExtraHosts) -> Self {
        let names = match extra {
            ExtraHosts::Any => None,
            ExtraHosts::These(extra) => {
                Some(hosts.iter().chain(extra).map(|host| host.as_str().into()).collect())
            }
        };
        Self { names }
    }

    /// Whether `host` (lower case, no port) names this gateway: configured, or the very address that was connected to,
    /// or a loopback name used on loopback.
    pub(super) fn include(&self, host: &str, peer: &Peer) -> bool {
        self.names.as_ref().is_none_or(|names| names.contains(host)) || names_address(host, peer.local)
    }
}

fn names_address(host: &str, local: IpAddr) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|address| local == IpAddr::V6(address)),
        None if host == "localhost" => local.is_loopback(),
        None => host.parse::<IpAddr>().is_ok_and(|address| local == address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(local: &str) -> Peer {
        let addr = "192.0.2.9:1".parse().expect("an address");
        Peer { addr, local: local.parse().expect("an address"), sni: None, stopgap: false }
    }

    #[test]
    fn configured_names_and_the_address_connected_to_are_ours() {
        let name = |text| HostName::parse(text).expect("a host");
        let hosts = Hosts::new(&[name("mcp.example.com")], &ExtraHosts::These(vec![name("lb.internal")]));
        for (host, local, ours) in [
            ("mcp.example.com", "10.0.0.1", true),
            ("lb.internal", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.2", "10.0.0.1", false),
            ("localhost", "127.0.0.1", true),
            ("localhost", "10.0.0.1", false),
            ("127.0.0.1", "10.0.0.1", false),
            ("[::1]", "::1", true),
            ("[::1]", "127.0.0.1", false),
            ("evil.example", "127.0.0.1", false),
            ("", "127.0.0.1", false),
        ] {
            assert_eq!(hosts.include(host, &peer(local)), ours, "{host} on {local}");
        }
        assert!(Hosts::new(&[], &ExtraHosts::Any).include("evil.example", &peer("10.0.0.1")));
    }
}
