//! What can reach an address.

use std::net::IpAddr;

/// Whether the whole internet can reach an address.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let reserved = a == 0 || a >= 240 || (a == 198 && (b == 18 || b == 19));
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_documentation())
                && !(ip.is_multicast() || shared || reserved)
        }
        // 2000::/3 is what is given out, and 2001:db8::/32 is for documents.
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            first & 0xe000 == 0x2000 && !(first == 0x2001 && second == 0xdb8)
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
}
