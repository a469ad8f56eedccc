//! Which tenant may have which prefix and host. All claims of a pass are judged together, so that
//! two tenants can swap.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::mount_key::{MountKey, endpoint_owners};
use crate::spec::{HostName, Mount, TenantName};

/// The claim of one tenant to its mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountClaim {
    /// The tenant that claims.
    pub tenant: TenantName,
    /// The mounts that it claims.
    pub mounts: Vec<Mount>,
    /// Whether its operator lets other tenants use its hosts, if theirs do the same.
    pub shares_hosts: bool,
    /// Whether it held these mounts before this pass. Incumbents win; among equals the order of
    /// `claims` decides.
    pub is_incumbent: bool,
}

/// A claim that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountConflict {
    /// The tenant whose claim was refused.
    pub loser: TenantName,
    /// The tenant that holds what was claimed.
    pub holder: TenantName,
    /// The loser's mount.
    pub mount: Mount,
    /// Why both cannot have it.
    pub kind: ConflictKind,
}

/// The ways in which two mounts conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    /// Both have the same prefix on the same host.
    Same,
    /// The prefixes differ in case only.
    CaseOnly,
    /// One prefix is one of the other tenant's own paths or below it, e.g. `/a/mcp` and `/a`,
    /// regardless of case.
    TakesEndpoint,
    /// The host is the other tenant's, and not both operators share theirs.
    Host,
}

/// Judges all claims of a pass. Each loser is returned once, with its first conflict, and gets none
/// of its mounts.
///
/// A tenant never conflicts with itself, nor a prefix with one on another host.
pub fn find_conflicts(claims: &[MountClaim]) -> Vec<MountConflict> {
    let mut held = GrantedMounts::default();
    let (incumbents, newcomers): (Vec<_>, Vec<_>) = claims.iter().partition(|claim| claim.is_incumbent);
    incumbents.into_iter().chain(newcomers).filter_map(|claim| held.grant(claim).err()).collect()
}

/// Judges each of the `wanted` claims against those in `held`, but not against one another.
pub fn check_against<'c>(
    held: &'c [MountClaim],
    wanted: impl IntoIterator<Item = &'c MountClaim>,
) -> Vec<Option<MountConflict>> {
    let mut granted = GrantedMounts::default();
    held.iter().for_each(|claim| granted.insert(claim));
    wanted.into_iter().map(|claim| granted.check(claim).err()).collect()
}

/// The claims granted so far.
#[derive(Default)]
struct GrantedMounts<'c> {
    mounts: HashMap<MountKey, (&'c TenantName, &'c Mount)>,
    /// Places with an own path at or above a granted mount: `/a` if `/a/mcp/x` is granted.
    endpoint_taken_by: HashMap<MountKey, &'c TenantName>,
    hosts: HashMap<(Option<SocketAddr>, &'c HostName), HostTenants<'c>>,
}

/// The tenants on a host: as many as are needed to find one other than a given tenant.
#[derive(Default)]
struct HostTenants<'c> {
    /// The first tenant, and the first other one.
    first: Option<&'c TenantName>,
    other: Option<&'c TenantName>,
    /// A tenant that does not share the host. There can be two if one was there before the rule.
    exclusive: Option<&'c TenantName>,
}

impl<'c> HostTenants<'c> {
    fn add(&mut self, claim: &'c MountClaim) {
        let first = *self.first.get_or_insert(&claim.tenant);
        if first != &claim.tenant {
            self.other.get_or_insert(&claim.tenant);
        }
        if !claim.shares_hosts {
            self.exclusive.get_or_insert(&claim.tenant);
        }
    }

    /// Returns a tenant that keeps this claim from the host.
    fn conflicting_holder(&self, claim: &MountClaim) -> Option<&'c TenantName> {
        let candidates = if claim.shares_hosts { [self.exclusive, None] } else { [self.first, self.other] };
        candidates.into_iter().flatten().find(|tenant| **tenant != claim.tenant)
    }
}

impl<'c> GrantedMounts<'c> {
    fn grant(&mut self, claim: &'c MountClaim) -> Result<(), MountConflict> {
        self.check(claim)?;
        self.insert(claim);
        Ok(())
    }

    fn insert(&mut self, claim: &'c MountClaim) {
        for mount in &claim.mounts {
            for owner in endpoint_owners(mount) {
                self.endpoint_taken_by.entry(owner).or_insert(&claim.tenant);
            }
            self.mounts.insert(MountKey::of(mount), (&claim.tenant, mount));
            if let Some(host) = &mount.host {
                self.hosts.entry((mount.listener, host)).or_default().add(claim);
            }
        }
    }

    fn check(&self, claim: &MountClaim) -> Result<(), MountConflict> {
        claim.mounts.iter().try_for_each(|mount| match self.find_conflict(claim, mount) {
            Some((holder, kind)) => {
                let (loser, mount) = (claim.tenant.clone(), mount.clone());
                Err(MountConflict { loser, holder: holder.clone(), mount, kind })
            }
            None => Ok(()),
        })
    }

    fn find_conflict(&self, claim: &MountClaim, mount: &Mount) -> Option<(&'c TenantName, ConflictKind)> {
        let on_host = mount.host.as_ref().and_then(|host| self.hosts.get(&(mount.listener, host)));
        if let Some(holder) = on_host.and_then(|tenants| tenants.conflicting_holder(claim)) {
            return Some((holder, ConflictKind::Host));
        }
        let key = MountKey::of(mount);
        let is_other = |holder: &&TenantName| **holder != claim.tenant;
        if let Some((holder, held)) = self.mounts.get(&key).filter(|(holder, _)| is_other(holder)) {
            let kind = if *held == mount { ConflictKind::Same } else { ConflictKind::CaseOnly };
            return Some((holder, kind));
        }
        let at = |owner: MountKey| self.mounts.get(&owner).map(|(holder, _)| *holder).filter(is_other);
        let below = || endpoint_owners(mount).find_map(at);
        let holder = self.endpoint_taken_by.get(&key).copied().filter(is_other).or_else(below)?;
        Some((holder, ConflictKind::TakesEndpoint))
    }
}
