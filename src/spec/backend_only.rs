//! The setting `backend_only`: an allowlist of backend hosts.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::HostName;
use crate::base::net;

/// The hosts, domains and networks of the setting `backend_only`. An empty list allows any backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendOnly(Vec<AllowedBackend>);

/// One item of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedBackend {
    /// Exactly this name.
    Host(HostName),
    /// Every name below this one, at any depth, but not the name itself.
    Subdomains(HostName),
    /// Every address of this network.
    Network(IpNet),
}

/// The verdict of the list on a URL's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostMatch {
    /// The list contains the host, or is empty.
    Listed,
    /// The name is not listed, but networks are: the address that it resolves to decides.
    DependsOnAddress,
    /// The list does not contain the host.
    Unlisted,
}

impl AllowedBackend {
    /// Parses `portal.example.com`, `*.example.com`, `10.0.0.0/8` or a single address.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(network) = text.parse::<IpNet>() {
            return Some(Self::Network(network.trunc()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Network(address.into()));
        }
        let name = |text: &str| HostName::parse(text).filter(|host| host.ip_address().is_none());
        match text.strip_prefix("*.") {
            Some(domain) => name(domain).map(Self::Subdomains),
            None => name(text).map(Self::Host),
        }
    }
}

/// Formats the item as it is written in the settings.
impl fmt::Display for AllowedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => name.fmt(f),
            Self::Subdomains(domain) => write!(f, "*.{domain}"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

impl BackendOnly {
    /// Creates the list; an empty one allows any backend.
    pub fn new(items: Vec<AllowedBackend>) -> Self {
        Self(items)
    }

    /// Returns the items of the list; none if any backend is allowed.
    pub fn items(&self) -> &[AllowedBackend] {
        &self.0
    }

    /// Judges the host of a URL before its name is resolved.
    pub fn match_host(&self, host: &str) -> HostMatch {
        let listed = |is_listed| if is_listed { HostMatch::Listed } else { HostMatch::Unlisted };
        if self.0.is_empty() {
            return HostMatch::Listed;
        }
        // The resolver passes IPv6 addresses without brackets, URLs have them in brackets.
        if let Ok(address) = host.parse::<IpAddr>() {
            return listed(self.lists_address(address));
        }
        let Some(host) = HostName::parse(host) else { return HostMatch::Unlisted };
        match host.ip_address() {
            Some(address) => listed(self.lists_address(address)),
            None if !self.lists_name(host.as_str()) && self.has_networks() => HostMatch::DependsOnAddress,
            None => listed(self.lists_name(host.as_str())),
        }
    }

    fn has_networks(&self) -> bool {
        self.0.iter().any(|item| matches!(item, AllowedBackend::Network(_)))
    }

    /// Whether a connection for this host may go to this address.
    pub fn allows(&self, host: &str, address: IpAddr) -> bool {
        match self.match_host(host) {
            HostMatch::Listed => true,
            HostMatch::DependsOnAddress => self.lists_address(address),
            HostMatch::Unlisted => false,
        }
    }

    fn lists_name(&self, host: &str) -> bool {
        let is_below = |domain: &HostName| {
            host.strip_suffix(domain.as_str()).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
        };
        self.0.iter().any(|item| match item {
            AllowedBackend::Host(name) => name.as_str() == host,
            AllowedBackend::Subdomains(domain) => is_below(domain),
            AllowedBackend::Network(_) => false,
        })
    }

    /// Whether a listed network contains the address, as written or as its effective address.
    fn lists_address(&self, address: IpAddr) -> bool {
        let (written, reached) = (address.to_canonical(), net::effective_address(address));
        self.0.iter().any(|item| {
            let AllowedBackend::Network(network) = item else { return false };
            network.contains(&written) || network.contains(&reached)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(items: &[&str]) -> BackendOnly {
        BackendOnly::new(items.iter().map(|text| AllowedBackend::parse(text).expect(text)).collect())
    }

    fn allows(only: &BackendOnly, host: &str, address: &str) -> bool {
        only.allows(host, address.parse().expect("an address"))
    }

    #[test]
    fn without_a_list_a_backend_may_be_anywhere() {
        let only = only(&[]);
        for host in ["portal.example.com", "10.1.2.3", "[fd00::1]", "a name that no certificate has"] {
            assert_eq!(only.match_host(host), HostMatch::Listed, "{host}");
        }
        assert!(allows(&only, "portal.example.com", "192.0.2.1"));
    }

    #[test]
    fn a_name_is_listed_as_itself_or_by_a_domain_above_it() {
        let only = only(&["Portal.example.com.", "*.apps.example.net"]);
        for host in
            ["portal.example.com", "PORTAL.example.com.", "a.apps.example.net", "a.b.apps.example.net"]
        {
            assert_eq!(only.match_host(host), HostMatch::Listed, "{host}");
            assert!(allows(&only, host, "10.1.2.3"), "a name that is listed leads where its zone says");
        }
        for host in [
            "example.com",
            "x.portal.example.com",
            "apps.example.net",
            ".apps.example.net",
            "evilapps.example.net",
            "portal.example.com.evil.test",
            "10.1.2.3",
            "[fd00::1]",
            "",
        ] {
            assert_eq!(only.match_host(host), HostMatch::Unlisted, "{host}");
            assert!(!allows(&only, host, "10.1.2.3"), "{host}");
        }
    }

    #[test]
    fn an_address_is_listed_by_its_network_and_a_name_by_where_it_leads() {
        let only = only(&["10.1.0.0/16", "192.0.2.7", "fd12::/16", "portal.example.com"]);
        for host in
            ["10.1.9.9", "192.0.2.7", "[fd12::5]", "fd12::5", "[::ffff:10.1.2.3]", "[64:ff9b::10.1.2.3]"]
        {
            assert_eq!(only.match_host(host), HostMatch::Listed, "{host}");
        }
        for host in ["10.2.0.1", "192.0.2.8", "[fd13::1]", "::1"] {
            assert_eq!(only.match_host(host), HostMatch::Unlisted, "{host}");
        }
        assert_eq!(only.match_host("other.example.com"), HostMatch::DependsOnAddress);
        assert!(allows(&only, "other.example.com", "10.1.2.3"));
        assert!(allows(&only, "other.example.com", "::ffff:10.1.2.3"));
        assert!(!allows(&only, "other.example.com", "10.2.0.1"));
        assert!(allows(&only, "portal.example.com", "10.2.0.1"));
    }

    #[test]
    fn items_are_names_domains_and_networks() {
        for (text, shown) in [
            ("Portal.example.com", "portal.example.com"),
            ("*.Example.com", "*.example.com"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("fd12::1", "fd12::1/128"),
        ] {
            assert_eq!(AllowedBackend::parse(text).expect(text).to_string(), shown);
        }
        for text in [
            "",
            "*",
            "*.",
            "*example.com",
            "a.*.example.com",
            "*.10.0.0.1",
            "https://portal.example.com",
            "portal.example.com:443",
            "portal.example.com/x",
            "10.0.0.0/40",
        ] {
            assert_eq!(AllowedBackend::parse(text), None, "{text}");
        }
    }
}
