//! From which networks a tenant may be called.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// The networks from which a tenant may be called; by default everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowFrom(Option<Arc<[IpNet]>>);

impl AllowFrom {
    /// Allows these networks only.
    pub fn only(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(Some(networks.into_iter().collect()))
    }

    /// Returns the networks, unless every address is allowed.
    pub fn networks(&self) -> Option<&[IpNet]> {
        self.0.as_deref()
    }

    /// Whether a caller at this address may call. An unknown address may only where all may.
    pub fn allows(&self, address: Option<IpAddr>) -> bool {
        let Some(networks) = &self.0 else { return true };
        let Some(address) = address.map(|address| address.to_canonical()) else { return false };
        networks.iter().any(|network| network.contains(&address))
    }

    /// Whether everybody who is allowed by `other` is allowed by this, too.
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(theirs)) => theirs.iter().all(|net| ours.iter().any(|our| our.contains(net))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(networks: &[&str]) -> AllowFrom {
        AllowFrom::only(networks.iter().map(|net| net.parse::<IpNet>().expect("a network")))
    }

    #[test]
    fn an_unknown_address_is_allowed_only_where_all_are() {
        assert!(AllowFrom::default().allows(None) && AllowFrom::default().allows("8.8.8.8".parse().ok()));
        let office = only(&["192.0.2.0/24", "2001:db8::/32"]);
        for (address, allowed) in [
            ("192.0.2.9", true),
            ("::ffff:192.0.2.9", true),
            ("2001:db8:1::1", true),
            ("192.0.3.1", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(office.allows(address.parse().ok()), allowed, "{address}");
        }
        assert!(!office.allows(None));
    }

    #[test]
    fn a_list_covers_what_it_contains_whole() {
        let (wide, narrow) = (only(&["10.0.0.0/8", "192.0.2.0/24"]), only(&["10.1.0.0/16"]));
        assert!(wide.covers(&narrow) && !narrow.covers(&wide) && wide.covers(&wide));
        assert!(AllowFrom::default().covers(&wide) && !wide.covers(&AllowFrom::default()));
    }
}
