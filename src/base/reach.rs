//! What an address reaches, what can reach it, and which addresses this machine has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Metadata and host services of clouds that don't live on link-local addresses: Azure, Alibaba, Oracle.
const CLOUD_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
/// AWS.
const CLOUD_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);

/// Nobody is there (RFC 5737, RFC 3849), and nothing is sent.
const ANYWHERE_V4: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
const ANYWHERE_V6: (Ipv6Addr, u16) = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9);

/// The address that a connection to this one leads to: the IPv4 address within IPv4-mapped and -compatible ones, NAT64
/// (RFC 6052, RFC 8215) and 6to4 (RFC 3056).
pub fn reached(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip.to_canonical() else { return ip.to_canonical() };
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into();
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, .., high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        _ => v6.into(),
    }
}

/// The part of an address that one party has: an IPv4 address, or the /64 of an IPv6 one.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        v4 => v4,
    }
}

/// Whether a cloud answers its own machines there.
pub fn is_cloud_service(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => CLOUD_V4.contains(&v4),
        IpAddr::V6(v6) => v6 == CLOUD_V6,
    }
}

/// Whether a connection to it goes to the internet and nowhere nearer, whatever it is spelled like.
pub fn leads_to_the_internet(ip: IpAddr) -> bool {
    let reached = reached(ip);
    is_global(reached) && !is_cloud_service(reached)
}

/// The address from which this machine would send to the internet; behind NAT a private one. Nothing is sent to find
/// out: a datagram socket is only asked from where it would.
pub fn own_address_v4() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ANYWHERE_V4).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// The same for IPv6.
pub fn own_address_v6() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ANYWHERE_V6).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Whether the whole internet can reach an address.
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
        // 2000::/3 is what is given out. Of it 2001::/23 is for protocols (Teredo among them), 2001:db8::/32 and
        // 3fff::/20 are for documents.
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
    fn no_spelling_of_a_near_address_leads_to_the_internet() {
        let leads = |text: &str| leads_to_the_internet(text.parse().expect("an address"));
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
