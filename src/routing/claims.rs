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

/// Who holds which mounts, kept up to date: of many holders, the few that a new claim may conflict with.
#[derive(Debug)]
pub struct Places<K> {
    mounts: HashMap<Place, Vec<K>>,
    /// By the places one of whose own paths is below a held mount.
    bereft: HashMap<Place, Vec<K>>,
}

impl<K: Clone + PartialEq> Places<K> {
    /// Nobody holds anything.
    pub fn new() -> Self {
        Self { mounts: HashMap::new(), bereft: HashMap::new() }
    }

    /// `holder` has this mount from now on.
    pub fn hold(&mut self, mount: &Mount, holder: &K) {
        // Most places have one holder.
        self.mounts.entry(place(mount)).or_insert_with(|| Vec::with_capacity(1)).push(holder.clone());
        for owner in owners(mount) {
            self.bereft.entry(owner).or_default().push(holder.clone());
        }
    }

    /// `holder` has this mount no longer.
    pub fn release(&mut self, mount: &Mount, holder: &K) {
        forget(&mut self.mounts, &place(mount), holder);
        for owner in owners(mount) {
            forget(&mut self.bereft, &owner, holder);
        }
    }

    /// Whoever a claim to this mount may conflict with, some twice.
    pub fn rivals(&self, mount: &Mount) -> impl Iterator<Item = &K> {
        let place = place(mount);
        let at = self.mounts.get(&place).into_iter().chain(self.bereft.get(&place));
        let above = owners(mount).filter_map(|owner| self.mounts.get(&owner));
        at.chain(above).flatten()
    }
}

impl<K: Clone + PartialEq> Default for Places<K> {
    fn default() -> Self {
        Self::new()
    }
}

fn forget<K: PartialEq>(places: &mut HashMap<Place, Vec<K>>, place: &Place, holder: &K) {
    let Some(holders) = places.get_mut(place) else { return };
    if let Some(at) = holders.iter().position(|one| one == holder) {
        holders.swap_remove(at);
    }
    if holders.is_empty() {
        places.remove(place);
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
