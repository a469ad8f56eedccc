//! Who may have which prefix, judged over a whole pass so that two tenants can swap.

use std::collections::HashMap;

use super::endpoint::is_own_segment;
use crate::spec::{Mount, TenantName};

/// One tenant's claim to its mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub tenant: TenantName,
    pub mounts: Vec<Mount>,
    /// It held these mounts before this pass: incumbents win. Among equals the order of `claims` decides.
    pub incumbent: bool,
}

/// A claim that lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub loser: TenantName,
    pub holder: TenantName,
    /// The loser's mount.
    pub mount: Mount,
    pub kind: ConflictKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    /// The same prefix on the same host.
    Same,
    /// They differ in case only.
    CaseOnly,
    /// One prefix would take one of the other's own paths, e.g. `/a/mcp` of `/a`. Case is not looked at.
    TakesEndpoint,
}

/// Judges the claims of a whole pass. Every loser is named once, with its first conflict, and gets none of its mounts.
///
/// A tenant never conflicts with itself, and a prefix on one host never with a prefix on another.
pub fn judge(claims: &[Claim]) -> Vec<Conflict> {
    let mut held = Held::default();
    let (incumbents, newcomers): (Vec<_>, Vec<_>) = claims.iter().partition(|claim| claim.incumbent);
    incumbents.into_iter().chain(newcomers).filter_map(|claim| held.grant(claim).err()).collect()
}

/// A place without regard to case: host, and the prefix in small letters.
type Place = (Option<String>, String);

/// What has been granted so far.
#[derive(Default)]
struct Held<'c> {
    mounts: HashMap<Place, (&'c TenantName, &'c Mount)>,
    /// Places one of whose own paths is below a granted mount: `/a` when `/a/mcp/x` is granted.
    bereft: HashMap<Place, &'c TenantName>,
}

impl<'c> Held<'c> {
    fn grant(&mut self, claim: &'c Claim) -> Result<(), Conflict> {
        claim.mounts.iter().try_for_each(|mount| self.check(&claim.tenant, mount))?;
        for mount in &claim.mounts {
            for owner in owners(mount) {
                self.bereft.entry(owner).or_insert(&claim.tenant);
            }
            self.mounts.insert(place(mount), (&claim.tenant, mount));
        }
        Ok(())
    }

    fn check(&self, tenant: &TenantName, mount: &Mount) -> Result<(), Conflict> {
        match self.conflict(mount) {
            Some((holder, kind)) => {
                Err(Conflict { loser: tenant.clone(), holder: holder.clone(), mount: mount.clone(), kind })
            }
            None => Ok(()),
        }
    }

    fn conflict(&self, mount: &Mount) -> Option<(&'c TenantName, ConflictKind)> {
        let place = place(mount);
        if let Some((holder, held)) = self.mounts.get(&place) {
            let kind = if *held == mount { ConflictKind::Same } else { ConflictKind::CaseOnly };
            return Some((holder, kind));
        }
        let below = || owners(mount).find_map(|owner| self.mounts.get(&owner)).map(|(holder, _)| *holder);
        let holder = self.bereft.get(&place).copied().or_else(below)?;
        Some((holder, ConflictKind::TakesEndpoint))
    }
}

fn place(mount: &Mount) -> Place {
    let host = mount.host.as_ref().map(|host| host.as_str().to_owned());
    (host, mount.prefix.as_str().to_ascii_lowercase())
}

/// The places, mounted or not, one of whose own paths this mount is at or below.
fn owners(mount: &Mount) -> impl Iterator<Item = Place> {
    let (host, prefix) = place(mount);
    let ends: Vec<usize> = mount
        .prefix
        .segments()
        .scan(0, |end, segment| Some((std::mem::replace(end, *end + 1 + segment.len()), segment)))
        .filter(|(_, segment)| is_own_segment(segment))
        .map(|(end, _)| end)
        .collect();
    ends.into_iter().map(move |end| (host.clone(), prefix[..end].to_owned()))
}
