//! Who calls, for limits and the ledger.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::base::net::client_network;

/// What counts as one caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CallerKey {
    /// The holder of a static key, from any address.
    Label(Arc<str>),
    /// A person who logged in, by the subject of their tokens, from any address and with any
    /// client.
    User(Arc<str>),
    /// A program with a login of its own, by its client id.
    Machine(Arc<str>),
    /// An IPv4 address, or the /64 network of an IPv6 address, which is what one customer has.
    Network(IpAddr),
    /// Callers for whom there was no place of their own; the number is a keyed hash of theirs.
    Shared(u16),
}

impl CallerKey {
    /// Returns the key of the caller at an address.
    pub fn from_address(address: IpAddr) -> Self {
        Self::Network(client_network(address))
    }

    /// Whether the caller presented a credential.
    pub(super) fn is_identified(&self) -> bool {
        matches!(self, Self::Label(_) | Self::User(_) | Self::Machine(_))
    }

    /// Parses what `Display` writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "key" => Some(Self::Label(rest.into())),
            "user" => Some(Self::User(rest.into())),
            "client" => Some(Self::Machine(rest.into())),
            "network" => rest.parse().ok().map(Self::Network),
            "shared" => rest.parse().ok().map(Self::Shared),
            _ => None,
        }
    }
}

impl fmt::Display for CallerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "key:{label}"),
            Self::User(subject) => write!(f, "user:{subject}"),
            Self::Machine(id) => write!(f, "client:{id}"),
            Self::Network(network) => write!(f, "network:{network}"),
            Self::Shared(number) => write!(f, "shared:{number}"),
        }
    }
}

/// The caller of one call. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UsageCaller {
    /// What counts as this caller.
    pub key: CallerKey,
    /// The name by which people know the caller; none for anonymous ones.
    pub name: Option<Arc<str>>,
    /// The OAuth client that calls.
    pub client: Option<Arc<str>>,
}

impl UsageCaller {
    /// Returns the name by which people know the caller, or else what it counts as.
    pub(super) fn display_name(&self) -> Arc<str> {
        self.name.clone().unwrap_or_else(|| self.key.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let network = CallerKey::from_address("2001:db8::1".parse().expect("an address"));
        let keys = [
            CallerKey::Label("ci: night".into()),
            CallerKey::User("s".into()),
            CallerKey::Machine("m".into()),
            network,
            CallerKey::Shared(7),
        ];
        for key in keys {
            assert_eq!(CallerKey::parse(&key.to_string()), Some(key));
        }
        assert_eq!(CallerKey::parse("nobody"), None);
    }
}
