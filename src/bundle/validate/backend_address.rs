//! Addresses that no backend may have: this gateway, this machine, cloud metadata.
//!
//! Validates only the address in the file; a name that resolves to a forbidden address is refused
//! on connecting (`backend`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

use crate::base::net;
use crate::bundle::LoadContext;

/// Why a backend's address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ForbiddenAddress {
    #[error("points to this gateway itself")]
    Gateway,
    #[error("points to this machine (loopback), which the settings do not allow")]
    Loopback,
    #[error("points to a link-local or cloud metadata address")]
    LinkLocal,
    #[error("points to an address that no server can have")]
    NoHost,
}

/// Validates the host and port of a URL.
pub(super) fn check_address(url: &Url, context: &LoadContext) -> Result<(), ForbiddenAddress> {
    let port = url.port_or_known_default().unwrap_or(0);
    let (ip, name) = match url.host() {
        None => return Err(ForbiddenAddress::NoHost),
        Some(Host::Ipv4(ip)) => (Some(IpAddr::V4(ip)), None),
        Some(Host::Ipv6(ip)) => (Some(net::effective_address(ip.into())), None),
        Some(Host::Domain(name)) => (None, Some(name.trim_end_matches('.'))),
    };
    let loopback_name = name.is_some_and(|name| name == "localhost" || name.ends_with(".localhost"));
    if is_own(ip, name, loopback_name, port, context) {
        return Err(ForbiddenAddress::Gateway);
    }
    let allowed = |ip: IpAddr| context.backend_allow.iter().any(|net| net.contains(&ip));
    if loopback_name {
        let any = allowed(Ipv4Addr::LOCALHOST.into()) || allowed(Ipv6Addr::LOCALHOST.into());
        return if any { Ok(()) } else { Err(ForbiddenAddress::Loopback) };
    }
    if name.is_some_and(|name| name == "metadata.google.internal" || name == "instance-data") {
        return Err(ForbiddenAddress::LinkLocal);
    }
    match ip.and_then(|ip| fault(ip).map(|fault| (ip, fault))) {
        Some((_, ForbiddenAddress::NoHost)) => Err(ForbiddenAddress::NoHost),
        Some((ip, fault)) if !allowed(ip) => Err(fault),
        _ => Ok(()),
    }
}

fn fault(ip: IpAddr) -> Option<ForbiddenAddress> {
    match ip {
        IpAddr::V4(ip) if ip.is_loopback() => Some(ForbiddenAddress::Loopback),
        ip if net::is_cloud_metadata(ip) => Some(ForbiddenAddress::LinkLocal),
        IpAddr::V4(ip) if ip.is_link_local() => Some(ForbiddenAddress::LinkLocal),
        IpAddr::V4(ip) if ip.octets()[0] == 0 || ip.is_multicast() || ip.octets()[0] >= 240 => {
            Some(ForbiddenAddress::NoHost)
        }
        IpAddr::V6(ip) if ip.is_loopback() => Some(ForbiddenAddress::Loopback),
        IpAddr::V6(ip) if (ip.segments()[0] & 0xffc0) == 0xfe80 => Some(ForbiddenAddress::LinkLocal),
        IpAddr::V6(ip) if ip.is_unspecified() || ip.is_multicast() => Some(ForbiddenAddress::NoHost),
        _ => None,
    }
}

fn is_own(
    ip: Option<IpAddr>,
    name: Option<&str>,
    loopback_name: bool,
    port: u16,
    context: &LoadContext,
) -> bool {
    let listens = |own: &SocketAddr| {
        if own.port() != port {
            return false;
        }
        let local = loopback_name || ip.is_some_and(|ip| ip.is_loopback() || ip.is_unspecified());
        let ours = name.is_some_and(|name| context.hosts.has_name(name));
        ip == Some(own.ip()) || ours || (local && (own.ip().is_unspecified() || own.ip().is_loopback()))
    };
    context.own_addresses.iter().any(listens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::GatewayHosts;
    use crate::spec::HostName;

    fn context(allow: &[&str]) -> LoadContext {
        LoadContext {
            hosts: GatewayHosts::from_names(HostName::parse("mcp.test")),
            backend_allow: allow.iter().map(|net| net.parse().expect("a network")).collect(),
            own_addresses: vec!["0.0.0.0:8443".parse().expect("an address")],
            ..crate::bundle::sample::sample_context()
        }
    }

    fn judged(url: &str, allow: &[&str]) -> Result<(), ForbiddenAddress> {
        check_address(&Url::parse(url).expect("a URL"), &context(allow))
    }

    #[test]
    fn forbidden_addresses_are_known_in_every_spelling() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::127.0.0.1]/",
            "http://[2002:7f00:1::]/",
            "http://localhost/",
            "http://a.localhost./",
        ] {
            assert_eq!(judged(url, &[]), Err(ForbiddenAddress::Loopback), "{url}");
        }
        for url in [
            "http://169.254.169.254/",
            "http://[fe80::1]/",
            "http://[64:ff9b::169.254.169.254]/",
            "http://[64:ff9b:1::169.254.169.254]/",
            "http://metadata.google.internal/",
            "http://168.63.129.16/",
            "http://[fd00:ec2::254]/",
        ] {
            assert_eq!(judged(url, &[]), Err(ForbiddenAddress::LinkLocal), "{url}");
        }
        for url in [
            "http://0.0.0.0/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://[::]/",
            "http://[ff02::1]/",
        ] {
            assert_eq!(judged(url, &["0.0.0.0/0", "::/0"]), Err(ForbiddenAddress::NoHost), "{url}");
        }
        for url in [
            "http://10.0.0.5/",
            "http://192.168.1.1:9000/",
            "https://portal.example.com/",
            "http://[fd12::1]/",
        ] {
            assert_eq!(judged(url, &[]), Ok(()), "{url}");
        }
    }

    #[test]
    fn loopback_is_allowed_by_the_settings_but_never_our_own_listener() {
        assert_eq!(judged("http://127.0.0.1:18080/", &["127.0.0.0/8"]), Ok(()));
        assert_eq!(judged("http://localhost:18080/", &["127.0.0.0/8"]), Ok(()));
        for url in [
            "https://127.0.0.1:8443/",
            "https://localhost:8443/",
            "https://mcp.test:8443/",
            "http://0.0.0.0:8443/",
        ] {
            assert_eq!(judged(url, &["127.0.0.0/8"]), Err(ForbiddenAddress::Gateway), "{url}");
        }
    }
}
