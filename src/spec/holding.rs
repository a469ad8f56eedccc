//! What one tenant has and no other may have: its name and the places it answers at.

use jiff::Timestamp;

use super::{Mount, TenantName};

/// A name and the places that go with it, as somebody claims or holds them.
#[derive(Debug, Clone, Copy)]
pub struct Stake<'a> {
    pub name: &'a TenantName,
    pub mounts: &'a [Mount],
    /// Its operator lets other tenants onto its hosts, if theirs do the same.
    pub shares_hosts: bool,
}

/// A stake that somebody has, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub name: TenantName,
    pub mounts: Vec<Mount>,
    pub shares_hosts: bool,
    pub since: Timestamp,
}

impl Stake<'_> {
    /// Whether both are the same, in whatever order the mounts stand.
    pub fn equals(&self, other: &Stake<'_>) -> bool {
        let alike = (self.name, self.shares_hosts, self.mounts.len())
            == (other.name, other.shares_hosts, other.mounts.len());
        alike && self.mounts.iter().all(|mount| other.mounts.contains(mount))
    }

    /// The stake as it is kept.
    pub fn held_since(&self, since: Timestamp) -> Holding {
        let (name, mounts) = (self.name.clone(), self.mounts.to_vec());
        Holding { name, mounts, shares_hosts: self.shares_hosts, since }
    }
}

impl Holding {
    /// What is held.
    pub fn stake(&self) -> Stake<'_> {
        Stake { name: &self.name, mounts: &self.mounts, shares_hosts: self.shares_hosts }
    }
}
