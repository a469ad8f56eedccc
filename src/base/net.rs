//! Classifies IP addresses by what they reach, and finds the addresses of this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Metadata and host services of clouds outside of the link-local range: Azure, Alibaba, Oracle.
const CLOUD_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
/// The metadata service of AWS over IPv6.
const CLOUD_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);

/// Documentation addresses (RFC 5737, RFC 3849), used to ask for a route; nothing is sent to them.
const ANYWHERE_V4: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
const ANYWHERE_V6: (Ipv6Addr, u16) = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9);

/// Returns the address that a connection to `ip` really reaches.
///
/// That is the IPv4 address embedded in IPv4-mapped and IPv4-compatible addresses, NAT64 (RFC 6052,
/// RFC 8215) and 6to4 (RFC 3056), else `ip` itself.
pub fn effective_address(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip.to_canonical() else { return ip.to_canonical() };
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into();
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, .., high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        _ => v6.into(),
    }
}

/// Returns the network that counts as one client: an IPv4 address, or the /64 of an IPv6 address.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        v4 => v4,
    }
}

/// Whether a cloud provider serves its own machines at this address.
pub fn is_cloud_metadata(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => CLOUD_V4.contains(&v4),
        IpAddr::V6(v6) => v6 == CLOUD_V6,
    }
}

/// Whether a connection to `ip`, in whatever notation, reaches the public internet and nothing
/// nearer.
pub fn is_public_destination(ip: IpAddr) -> bool {
    let reached = effective_address(ip);
    is_global(reached) && !is_cloud_metadata(reached)
}

/// Returns the IPv4 address from which this machine reaches the internet; behind NAT it is private.
///
/// Nothing is sent: connecting a datagram socket only selects the source address.
pub fn outbound_ipv4() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ANYWHERE_V4).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Returns the IPv6 address from which this machine reaches the internet; see [`outbound_ipv4`].
pub fn outbound_ipv6() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ANYWHERE_V6).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Whether an address is globally reachable.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let protocols = matches!(ip.octets(), [192, 0, 0, _] | [192, 88, 99, _]);
            let reserved = a == 0 || a >= 240 || (a == 198 && (b == 18 || b == 19)) || protocols;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_documentation())
                && !(ip.is_multicast() || shared || reserved)
        }
        // Only 2000::/3 is allocated. Within it, 2001::/23 is for protocols (Teredo among them),
        // and 2001:db8::/32 and 3fff::/20 are for documentation.
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            let protocols = first == 0x2001 && second < 0x200;
            let documents = (first == 0x2001 && second == 0xdb8) || (first == 0x3fff && second < 0x1000);
            first & 0xe000 == 0x2000 && !protocols && !documents
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_only_some_can_reach_are_not_global() {
        let global = |text: &str| is_global(text.parse().expect("an address"));
        for good in ["8.8.8.8", "100.128.0.1", "2606:4700::1111"] {
            assert!(global(good), "{good}");
        }
        for bad in [
            "10.0.0.1",
            "127.0.0.1",
            "100.64.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "::1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(!global(bad), "{bad}");
        }
    }

    #[test]
    fn no_notation_of_a_private_address_is_public() {
        let leads = |text: &str| is_public_destination(text.parse().expect("an address"));
        for good in ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"] {
            assert!(leads(good), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "192.88.99.1",
            "0.0.0.0",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a00:1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2002:a83f:8110::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
        ] {
            assert!(!leads(bad), "{bad}");
        }
    }
}
