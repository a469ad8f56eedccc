//! Addresses to listen on, as settings and tenants' files write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

/// What follows an address whose connections begin with a PROXY protocol header, as in NGINX.
const PROXY_PROTOCOL: &str = "proxy_protocol";

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address.
    pub address: SocketAddr,
    /// Whether every connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
}

impl ListenAddress {
    /// Parses `ADDRESS` or `ADDRESS proxy_protocol`, where `ADDRESS` is `IP:PORT`, `:PORT` (all
    /// IPv4 addresses) or `localhost:PORT`.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, proxy_protocol) = split_proxy_protocol(text)?;
        Some(Self { address: parse_address(text)?, proxy_protocol })
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self { address, proxy_protocol: false }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        if self.proxy_protocol { write!(f, " {PROXY_PROTOCOL}") } else { Ok(()) }
    }
}

/// Addresses that tenants may have listeners on: one IP address and a range of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerRange {
    ip: IpAddr,
    ports: RangeInclusive<u16>,
    proxy_protocol: bool,
}

impl ListenerRange {
    /// Parses `IP:PORT` or `IP:FIRST-LAST`, with ` proxy_protocol` after it or without.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, proxy_protocol) = split_proxy_protocol(text)?;
        let (first, last) = match text.rsplit_once('-') {
            Some((first, last)) => (first, last.parse().ok()?),
            None => (text, parse_address(text)?.port()),
        };
        let first = parse_address(first)?;
        let ports = first.port()..=last;
        (first.port() > 0 && !ports.is_empty()).then_some(Self { ip: first.ip(), ports, proxy_protocol })
    }

    /// Whether this address is one of them.
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.ip == address.ip() && self.ports.contains(&address.port())
    }

    /// Whether a socket on `address` would be in the way of one of them.
    pub fn collides_with(&self, address: SocketAddr) -> bool {
        let is_everywhere = self.ip.is_unspecified() || address.ip().is_unspecified();
        self.ports.contains(&address.port()) && (is_everywhere || self.ip == address.ip())
    }
}

impl fmt::Display for ListenerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, *self.ports.start()).fmt(f)?;
        if self.ports.start() != self.ports.end() {
            write!(f, "-{}", self.ports.end())?;
        }
        if self.proxy_protocol { write!(f, " {PROXY_PROTOCOL}") } else { Ok(()) }
    }
}

/// All addresses that tenants may have listeners on; by default none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantListeners(Vec<ListenerRange>);

impl TenantListeners {
    /// Allows these.
    pub fn new(ranges: Vec<ListenerRange>) -> Self {
        Self(ranges)
    }

    /// Returns what is allowed.
    pub fn ranges(&self) -> &[ListenerRange] {
        &self.0
    }

    /// Returns the listener that a tenant's file means by a port alone: that of the first range
    /// that has it.
    pub fn find_port(&self, port: u16) -> Option<SocketAddr> {
        self.0.iter().map(|range| SocketAddr::new(range.ip, port)).find(|address| self.contains(*address))
    }

    /// Whether a tenant may have this listener.
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }

    /// Whether connections to this listener begin with a PROXY protocol header.
    pub fn has_proxy_protocol(&self, address: SocketAddr) -> bool {
        let range = self.0.iter().find(|range| range.contains(address));
        range.is_some_and(|range| range.proxy_protocol)
    }
}

fn split_proxy_protocol(text: &str) -> Option<(&str, bool)> {
    let mut words = text.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(address), None, _) => Some((address, false)),
        (Some(address), Some(PROXY_PROTOCOL), None) => Some((address, true)),
        _ => None,
    }
}

fn parse_address(text: &str) -> Option<SocketAddr> {
    let port = |text: &str| text.parse::<u16>().ok();
    if let Some(port) = text.strip_prefix(':').and_then(port) {
        return Some((Ipv4Addr::UNSPECIFIED, port).into());
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
        return Some((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_want_a_header() {
        let parse = |text| ListenAddress::parse(text).map(|it| it.to_string());
        assert_eq!(parse("0.0.0.0:443").as_deref(), Some("0.0.0.0:443"));
        assert_eq!(parse(":8443  proxy_protocol").as_deref(), Some("0.0.0.0:8443 proxy_protocol"));
        assert_eq!(parse("localhost:80 proxy_protocol").as_deref(), Some("127.0.0.1:80 proxy_protocol"));
        for bad in ["", "443", "0.0.0.0:443 proxy", "0.0.0.0:443 proxy_protocol x", "proxy_protocol"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_range_names_one_address_and_some_ports() {
        for (text, shown) in [
            ("0.0.0.0:8001-8099", Some("0.0.0.0:8001-8099")),
            ("[::]:8001-8002 proxy_protocol", Some("[::]:8001-8002 proxy_protocol")),
            (":8001", Some("0.0.0.0:8001")),
            ("127.0.0.1:8001-8001", Some("127.0.0.1:8001")),
            ("0.0.0.0:8099-8001", None),
            ("0.0.0.0:0-9", None),
            ("0.0.0.0:0", None),
            ("0.0.0.0:8001-", None),
            ("8001-8099", None),
            ("0.0.0.0:8001-99999", None),
        ] {
            assert_eq!(ListenerRange::parse(text).map(|it| it.to_string()).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn a_port_alone_means_the_first_range_that_has_it() {
        let range = |text| ListenerRange::parse(text).expect("a range");
        let allowed =
            TenantListeners::new(vec![range("127.0.0.1:8001-8009 proxy_protocol"), range(":8005-8020")]);
        let found = |port| allowed.find_port(port).map(|address| address.to_string());
        assert_eq!(found(8001).as_deref(), Some("127.0.0.1:8001"));
        assert_eq!(found(8005).as_deref(), Some("127.0.0.1:8005"));
        assert_eq!(found(8010).as_deref(), Some("0.0.0.0:8010"));
        assert_eq!(found(8021), None);
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert!(allowed.contains(at("0.0.0.0:8005")) && !allowed.contains(at("127.0.0.2:8005")));
        assert!(allowed.has_proxy_protocol(at("127.0.0.1:8005")));
        assert!(!allowed.has_proxy_protocol(at("0.0.0.0:8005")));
        assert!(range(":8001-8002").collides_with(at("127.0.0.1:8001")));
        assert!(!range("10.0.0.1:8001").collides_with(at("127.0.0.1:8001")));
    }
}
