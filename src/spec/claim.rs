//! What a tenant holds exclusively: its name and its mounts.

use jiff::Timestamp;

use super::{Mount, TenantName};

/// A name and its mounts, as claimed or held.
#[derive(Debug, Clone, Copy)]
pub struct TenantClaim<'a> {
    /// The tenant's name.
    pub name: &'a TenantName,
    /// The places at which the tenant answers.
    pub mounts: &'a [Mount],
    /// Whether the operator lets other tenants use its hosts, if their operators do the same.
    pub shares_hosts: bool,
}

/// A stake that is held, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldClaim {
    /// The tenant's name.
    pub name: TenantName,
    /// The places at which the tenant answers.
    pub mounts: Vec<Mount>,
    /// Whether the operator lets other tenants use its hosts, if their operators do the same.
    pub shares_hosts: bool,
    /// When the stake was first held.
    pub since: Timestamp,
}

impl TenantClaim<'_> {
    /// Returns whether both are the same, regardless of the order of mounts.
    pub fn is_same_as(&self, other: &TenantClaim<'_>) -> bool {
        let alike = (self.name, self.shares_hosts, self.mounts.len())
            == (other.name, other.shares_hosts, other.mounts.len());
        alike && self.mounts.iter().all(|mount| other.mounts.contains(mount))
    }

    /// Converts the stake into the form that is stored.
    pub fn to_held(&self, since: Timestamp) -> HeldClaim {
        let (name, mounts) = (self.name.clone(), self.mounts.to_vec());
        HeldClaim { name, mounts, shares_hosts: self.shares_hosts, since }
    }
}

impl HeldClaim {
    /// Returns the stake that is held.
    pub fn claim(&self) -> TenantClaim<'_> {
        TenantClaim { name: &self.name, mounts: &self.mounts, shares_hosts: self.shares_hosts }
    }
}
