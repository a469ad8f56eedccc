//! Decides which addresses a backend may have.
//!
//! Private networks are allowed, since on-premises portals are there, unless the settings list
//! where backends may be. An address is judged by what it reaches in whatever spelling: IPv4-mapped
//! and -compatible forms, NAT64 (RFC 6052, RFC 8215) and 6to4 (RFC 3056) included.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use ipnet::IpNet;

use super::proxies::parse_ip_literal;
use crate::base::net;
use crate::bundle;
use crate::spec::{BackendOnly, HostMatch};

/// The rules of the settings for backends' addresses.
#[derive(Debug, Clone, Default)]
pub struct AddressRules {
    /// Networks that are allowed although they are loopback or link-local.
    pub allow: Vec<IpNet>,
    /// Where backends may be at all.
    pub only: BackendOnly,
    /// Our listeners, as bound (port 0 matches nothing).
    pub own: Vec<SocketAddr>,
}

impl AddressRules {
    /// The rules by which tenants' files are judged.
    pub fn from_context(context: &bundle::LoadContext) -> Self {
        Self {
            allow: context.backend_allow.clone(),
            only: context.backend_only.clone(),
            own: context.own_addresses.clone(),
        }
    }
}

/// Judges addresses by the rules.
#[derive(Debug, Clone)]
pub(super) struct AddressGuard(AddressRules);

impl AddressGuard {
    pub(super) fn new(rules: AddressRules) -> Self {
        Self(rules)
    }

    /// Whether this host may be allowed, so that resolving its name is worthwhile.
    pub(super) fn may_permit(&self, host: &str) -> bool {
        self.0.only.match_host(host) != HostMatch::Unlisted
    }

    /// Whether the proxy may be asked for this host; the proxy then resolves it.
    pub(super) fn permits_proxying(&self, host: &str, port: u16) -> bool {
        self.0.only.match_host(host) == HostMatch::Listed
            && parse_ip_literal(host).is_none_or(|ip| self.permits(host, SocketAddr::new(ip, port)))
    }

    /// Whether this host's backend may have this address.
    pub(super) fn permits(&self, host: &str, address: SocketAddr) -> bool {
        self.0.only.allows(host, address.ip()) && self.permits_for_any_host(address)
    }

    fn permits_for_any_host(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let reached = net::effective_address(ip);
        if self.is_own(SocketAddr::new(reached, address.port())) || is_never_unicast_host(reached) {
            return false;
        }
        self.is_allowed(ip) || self.is_allowed(reached) || !needs_allowance(reached)
    }

    fn is_allowed(&self, ip: IpAddr) -> bool {
        self.0.allow.iter().any(|network| network.contains(&ip))
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        self.0.own.iter().filter(|own| own.port() == address.port()).any(|own| {
            let listening = own.ip().to_canonical();
            listening == address.ip() || (listening.is_unspecified() && is_local_address(address.ip()))
        })
    }
}

/// Whether an address can never belong to a single service, whatever the settings say.
fn is_never_unicast_host(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
    }
}

/// Whether an address is reachable only if the settings allow it.
fn needs_allowance(ip: IpAddr) -> bool {
    let is_near = match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    };
    is_near || net::is_cloud_metadata(ip)
}

/// Whether an address belongs to this machine. Only such an address can be bound; if binding fails
/// for another reason (no file descriptor left), the address is refused to be safe.
fn is_local_address(ip: IpAddr) -> bool {
    is_bindable(UdpSocket::bind((ip, 0)).err().as_ref())
}

fn is_bindable(refusal: Option<&io::Error>) -> bool {
    refusal.is_none_or(|error| error.kind() != io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::AllowedBackend;

    fn guard(allow: &[&str], own: &[&str]) -> AddressGuard {
        AddressGuard::new(AddressRules {
            allow: allow.iter().map(|net| net.parse().expect("a network")).collect(),
            own: own.iter().map(|at| at.parse().expect("an address")).collect(),
            only: BackendOnly::default(),
        })
    }

    fn permits(guard: &AddressGuard, ip: &str) -> bool {
        guard.permits("portal.test", SocketAddr::new(ip.parse().expect("an address"), 443))
    }

    #[test]
    fn public_and_private_networks_are_fine() {
        let guard = guard(&[], &[]);
        for ip in [
            "192.0.2.7",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "fd12::1",
            "2001:db8::1",
            "64:ff9b::c000:207",
        ] {
            assert!(permits(&guard, ip), "{ip}");
        }
    }

    #[test]
    fn every_spelling_of_an_internal_address_is_refused() {
        let guard = guard(&[], &[]);
        let refused = [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
        ];
        for ip in refused {
            assert!(!permits(&guard, ip), "{ip}");
        }
    }

    #[test]
    fn settings_open_loopback_but_never_the_unspecified_address() {
        let guard = guard(&["127.0.0.0/8", "0.0.0.0/0"], &[]);
        assert!(permits(&guard, "127.0.0.1"));
        assert!(permits(&guard, "::ffff:127.0.0.1"));
        assert!(!permits(&guard, "0.0.0.0"));
        assert!(!permits(&guard, "::1"), "another family is another network");
    }

    #[test]
    fn a_proxy_is_used_only_for_listed_external_hosts() {
        let listing = |items: &[&str]| {
            let items = items.iter().map(|item| AllowedBackend::parse(item).expect("an item"));
            let only = BackendOnly::new(items.collect());
            AddressGuard::new(AddressRules { only, ..AddressRules::default() })
        };
        let open = listing(&[]);
        assert!(open.permits_proxying("portal.test", 443), "where it is, the proxy decides");
        for host in ["127.0.0.1", "::1", "[::1]", "2130706433", "169.254.169.254"] {
            assert!(!open.permits_proxying(host, 443), "{host}");
        }
        let listed = listing(&["portal.test", "10.0.0.0/8"]);
        assert!(listed.permits_proxying("portal.test", 443));
        assert!(listed.permits_proxying("10.1.2.3", 443));
        assert!(!listed.permits_proxying("192.0.2.1", 443));
        assert!(!listed.permits_proxying("other.test", 443), "nobody here sees where it leads");
    }

    #[test]
    fn an_address_is_local_unless_the_system_denies_it() {
        let said = |kind: io::ErrorKind| is_bindable(Some(&kind.into()));
        assert!(is_bindable(None));
        assert!(!said(io::ErrorKind::AddrNotAvailable));
        let no_files = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert!(is_bindable(Some(&no_files)), "no file left to open says nothing of an address");
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::OutOfMemory, io::ErrorKind::Unsupported]
        {
            assert!(said(kind), "{kind}");
        }
    }

    #[test]
    fn the_gateways_own_listeners_are_refused_even_if_allowed() {
        let guard = guard(&["127.0.0.0/8"], &["127.0.0.1:443", "0.0.0.0:9443"]);
        let permits = |at: &str| guard.permits("portal.test", at.parse().expect("an address"));
        assert!(!permits("127.0.0.1:443"));
        assert!(!permits("[::ffff:127.0.0.1]:443"));
        assert!(permits("127.0.0.1:444"));
        assert!(permits("127.0.0.2:443"), "that listener is bound to one address");
        assert!(!permits("127.0.0.5:9443"), "a wildcard listens on every address of the machine");
        assert!(permits("192.0.2.1:9443"), "somebody else's port of the same number");
    }
}
