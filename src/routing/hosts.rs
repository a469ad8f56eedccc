//! Which hosts belong to the gateway itself. The server, which serves them, and the check of
//! tenants' files, which cannot claim them, both ask here.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

use crate::spec::HostName;

/// The hosts at which the gateway itself answers. A tenant cannot own any of them.
#[derive(Debug, Clone)]
pub struct GatewayHosts {
    names: HashSet<HostName>,
    /// Whether the gateway answers at every other name too.
    accepts_any_name: bool,
}

impl GatewayHosts {
    /// Returns the hosts of a gateway with these names; addresses and loopback names are always
    /// included.
    pub fn from_names(names: impl IntoIterator<Item = HostName>) -> Self {
        Self { names: names.into_iter().collect(), accepts_any_name: false }
    }

    /// Adds all other names that clients may send.
    pub fn allow_any(self) -> Self {
        Self { accepts_any_name: true, ..self }
    }

    /// Returns whether this is one of the names.
    pub fn has_name(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Returns whether the `host` of a request (lower case, no port) names the gateway on a
    /// connection to `local`: one of its names, the address that was connected to, or a loopback
    /// name on loopback.
    pub fn is_gateway_on(&self, host: &str, local: IpAddr) -> bool {
        self.accepts_any_name || self.names.contains(host) || is_local_address(host, local)
    }

    /// Returns whether there is any connection on which the gateway may answer at this host.
    pub fn may_be_gateway(&self, host: &HostName) -> bool {
        self.accepts_any_name
            || self.names.contains(host)
            || host.ip_address().is_some()
            || is_loopback_name(host.as_str())
    }
}

fn is_local_address(host: &str, local: IpAddr) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|address| local == IpAddr::V6(address)),
        None if host == "localhost" => local.is_loopback(),
        None => host.parse::<IpAddr>().is_ok_and(|address| local == address),
    }
}

/// RFC 6761 section 6.3.
fn is_loopback_name(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).expect("a host")
    }

    fn hosts() -> GatewayHosts {
        GatewayHosts::from_names([name("mcp.example.com"), name("lb.internal")])
    }

    #[test]
    fn configured_names_and_the_address_connected_to_belong_to_the_gateway() {
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
            let local = local.parse().expect("an address");
            assert_eq!(hosts().is_gateway_on(host, local), ours, "{host} on {local}");
        }
        assert!(hosts().allow_any().is_gateway_on("evil.example", "10.0.0.1".parse().expect("an address")));
    }

    #[test]
    fn no_tenant_can_have_a_name_of_the_gateway_an_address_or_a_loopback_name() {
        for ours in [
            "MCP.example.com",
            "lb.internal",
            "192.0.2.1",
            "127.1",
            "0x7f000001",
            "[::1]",
            "[2001:db8::1]",
            "localhost",
            "LOCALHOST",
            "a.localhost",
        ] {
            assert!(hosts().may_be_gateway(&name(ours)), "{ours}");
        }
        for free in ["mcp.acme.example", "notlocalhost", "localhost.example", "1.2.3.4.example"] {
            assert!(!hosts().may_be_gateway(&name(free)), "{free}");
            assert!(hosts().allow_any().may_be_gateway(&name(free)), "{free}");
        }
    }

    proptest! {
        #[test]
        fn a_host_that_the_gateway_answers_is_no_tenants(
            host in prop_oneof!["[a-z0-9.:\\[\\]-]{0,20}", "(mcp|lb|a)\\.(example\\.com|internal|localhost)",
                "127\\.0\\.0\\.[0-9]{1,3}", "\\[::[0-9a-f]{0,4}\\]", Just("localhost".to_owned())],
            local in proptest::sample::select(vec!["127.0.0.1", "127.0.0.7", "::1", "::", "10.0.0.1"]),
        ) {
            let local = local.parse().expect("an address");
            if hosts().is_gateway_on(&host, local) {
                let host = HostName::parse(&host);
                prop_assert!(host.is_some_and(|host| hosts().may_be_gateway(&host)));
            }
        }
    }
}
