//! The setting `backend_only`: an allowlist of backend hosts.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::HostName;
use crate::base::net;

/// The hosts, domains and networks of the setting `backend_only`. An empty list allows any backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendOnly(Vec<BackendPlace>);

/// One item of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendPlace {
    /// Exactly this name.
    Host(HostName),
    /// Every name below this one, at any depth, but not the name itself.
    Below(HostName),
    /// Every address of this network.
    Network(IpNet),
}

/// The verdict of the list on a URL's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The list contains the host, or is empty.
    Listed,
    /// The name is not listed, but networks are: the address that it resolves to decides.
    ByAddress,
    /// The list does not contain the host.
    Unlisted,
}

impl BackendPlace {
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
            Some(domain) => name(domain).map(Self::Below),
            None => name(text).map(Self::Host),
        }
    }
}

/// Formats the item as it is written in the settings.
impl fmt::Display for BackendPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => name.fmt(f),
            Self::Below(domain) => write!(f, "*.{domain}"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

impl BackendOnly {
    /// Creates the list; an empty one allows any backend.
    pub fn new(places: Vec<BackendPlace>) -> Self {
        Self(places)
    }

    /// Returns the items of the list; none if any backend is allowed.
    pub fn places(&self) -> &[BackendPlace] {
        &self.0
    }

    /// Judges the host of a URL before its name is resolved.
    pub fn standing(&self, host: &str) -> Standing {
        let listed = |is_listed| if is_listed { Standing::Listed } else { Standing::Unlisted };
        if self.0.is_empty() {
            return Standing::Listed;
        }
        // The resolver passes IPv6 addresses without brackets, URLs have them in brackets.
        if let Ok(address) = host.parse::<IpAddr>() {
            return listed(self.lists(address));
        }
        let Some(host) = HostName::parse(host) else { return Standing::Unlisted };
        match host.ip_address() {
            Some(address) => listed(self.lists(address)),
            None if !self.names(host.as_str()) && self.has_networks() => Standing::ByAddress,
            None => listed(self.names(host.as_str())),
        }
    }

    fn has_networks(&self) -> bool {
        self.0.iter().any(|place| matches!(place, BackendPlace::Network(_)))
    }

    /// Whether a connection for this host may go to this address.
    pub fn admits(&self, host: &str, address: IpAddr) -> bool {
        match self.standing(host) {
            Standing::Listed => true,
            Standing::ByAddress => self.lists(address),
            Standing::Unlisted => false,
        }
    }

    fn names(&self, host: &str) -> bool {
        let is_below = |domain: &HostName| {
            host.strip_suffix(domain.as_str()).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
        };
        self.0.iter().any(|place| match place {
            BackendPlace::Host(name) => name.as_str() == host,
            BackendPlace::Below(domain) => is_below(domain),
            BackendPlace::Network(_) => false,
        })
    }

    /// Whether a listed network contains the address, as written or as its effective address.
    fn lists(&self, address: IpAddr) -> bool {
        let (written, reached) = (address.to_canonical(), net::effective_address(address));
        self.0.iter().any(|place| {
            let BackendPlace::Network(network) = place else { return false };
            network.contains(&written) || network.contains(&reached)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(places: &[&str]) -> BackendOnly {
        BackendOnly::new(places.iter().map(|text| BackendPlace::parse(text).expect(text)).collect())
    }

    fn admits(only: &BackendOnly, host: &str, address: &str) -> bool {
        only.admits(host, address.parse().expect("an address"))
    }

    #[test]
    fn without_a_list_a_backend_may_be_anywhere() {
        let only = only(&[]);
        for host in ["portal.example.com", "10.1.2.3", "[fd00::1]", "a name that no certificate has"] {
            assert_eq!(only.standing(host), Standing::Listed, "{host}");
        }
        assert!(admits(&only, "portal.example.com", "192.0.2.1"));
    }

    #[test]
    fn a_name_is_listed_as_itself_or_by_a_domain_above_it() {
        let only = only(&["Portal.example.com.", "*.apps.example.net"]);
        for host in
            ["portal.example.com", "PORTAL.example.com.", "a.apps.example.net", "a.b.apps.example.net"]
        {
            assert_eq!(only.standing(host), Standing::Listed, "{host}");
            assert!(admits(&only, host, "10.1.2.3"), "a name that is listed leads where its zone says");
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
            assert_eq!(only.standing(host), Standing::Unlisted, "{host}");
            assert!(!admits(&only, host, "10.1.2.3"), "{host}");
        }
    }

    #[test]
    fn an_address_is_listed_by_its_network_and_a_name_by_where_it_leads() {
        let only = only(&["10.1.0.0/16", "192.0.2.7", "fd12::/16", "portal.example.com"]);
        for host in
            ["10.1.9.9", "192.0.2.7", "[fd12::5]", "fd12::5", "[::ffff:10.1.2.3]", "[64:ff9b::10.1.2.3]"]
        {
            assert_eq!(only.standing(host), Standing::Listed, "{host}");
        }
        for host in ["10.2.0.1", "192.0.2.8", "[fd13::1]", "::1"] {
            assert_eq!(only.standing(host), Standing::Unlisted, "{host}");
        }
        assert_eq!(only.standing("other.example.com"), Standing::ByAddress);
        assert!(admits(&only, "other.example.com", "10.1.2.3"));
        assert!(admits(&only, "other.example.com", "::ffff:10.1.2.3"));
        assert!(!admits(&only, "other.example.com", "10.2.0.1"));
        assert!(admits(&only, "portal.example.com", "10.2.0.1"));
    }

    #[test]
    fn places_are_names_domains_and_networks() {
        for (text, shown) in [
            ("Portal.example.com", "portal.example.com"),
            ("*.Example.com", "*.example.com"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("fd12::1", "fd12::1/128"),
        ] {
            assert_eq!(BackendPlace::parse(text).expect(text).to_string(), shown);
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
            assert_eq!(BackendPlace::parse(text), None, "{text}");
        }
    }
}
