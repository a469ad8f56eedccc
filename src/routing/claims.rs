//! Which tenant may have which prefix and host. All claims of a pass are judged together, so that
//! two tenants can swap.

use std::collections::HashMap;

use super::endpoint::is_own_segment;
use crate::spec::{HostName, Mount, TenantName};

/// The claim of one tenant to its mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The tenant that claims.
    pub tenant: TenantName,
    /// The mounts that it claims.
    pub mounts: Vec<Mount>,
    /// Whether its operator lets other tenants use its hosts, if theirs do the same.
    pub shares_hosts: bool,
    /// Whether it held these mounts before this pass. Incumbents win; among equals the order of
    /// `claims` decides.
    pub incumbent: bool,
}

/// A claim that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
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
pub fn judge(claims: &[Claim]) -> Vec<Conflict> {
    let mut held = Held::default();
    let (incumbents, newcomers): (Vec<_>, Vec<_>) = claims.iter().partition(|claim| claim.incumbent);
    incumbents.into_iter().chain(newcomers).filter_map(|claim| held.grant(claim).err()).collect()
}

/// Judges each of the `wanted` claims against those in `held`, but not against one another.
pub fn against<'c>(held: &'c [Claim], wanted: impl IntoIterator<Item = &'c Claim>) -> Vec<Option<Conflict>> {
    let mut standing = Held::default();
    held.iter().for_each(|claim| standing.hold(claim));
    wanted.into_iter().map(|claim| standing.check(claim).err()).collect()
}

/// A mount regardless of case: the host, and the prefix in lower case.
type Place = (Option<String>, String);

/// The claims granted so far.
#[derive(Default)]
struct Held<'c> {
    mounts: HashMap<Place, (&'c TenantName, &'c Mount)>,
    /// Places with an own path at or above a granted mount: `/a` if `/a/mcp/x` is granted.
    bereft: HashMap<Place, &'c TenantName>,
    hosts: HashMap<&'c HostName, Tenants<'c>>,
}

/// The tenants on a host: as many as are needed to find one other than a given tenant.
#[derive(Default)]
struct Tenants<'c> {
    /// The first tenant, and the first other one.
    some: Option<&'c TenantName>,
    other: Option<&'c TenantName>,
    /// A tenant that does not share the host. There can be two if one was there before the rule.
    alone: Option<&'c TenantName>,
}

impl<'c> Tenants<'c> {
    fn add(&mut self, claim: &'c Claim) {
        let some = *self.some.get_or_insert(&claim.tenant);
        if some != &claim.tenant {
            self.other.get_or_insert(&claim.tenant);
        }
        if !claim.shares_hosts {
            self.alone.get_or_insert(&claim.tenant);
        }
    }

    /// Returns a tenant that keeps this claim from the host.
    fn in_the_way_of(&self, claim: &Claim) -> Option<&'c TenantName> {
        let candidates = if claim.shares_hosts { [self.alone, None] } else { [self.some, self.other] };
        candidates.into_iter().flatten().find(|tenant| **tenant != claim.tenant)
    }
}

impl<'c> Held<'c> {
    fn grant(&mut self, claim: &'c Claim) -> Result<(), Conflict> {
        self.check(claim)?;
        self.hold(claim);
        Ok(())
    }

    fn hold(&mut self, claim: &'c Claim) {
        for mount in &claim.mounts {
            for owner in owners(mount) {
                self.bereft.entry(owner).or_insert(&claim.tenant);
            }
            self.mounts.insert(place(mount), (&claim.tenant, mount));
            if let Some(host) = &mount.host {
                self.hosts.entry(host).or_default().add(claim);
            }
        }
    }

    fn check(&self, claim: &Claim) -> Result<(), Conflict> {
        claim.mounts.iter().try_for_each(|mount| match self.conflict(claim, mount) {
            Some((holder, kind)) => {
                let (loser, mount) = (claim.tenant.clone(), mount.clone());
                Err(Conflict { loser, holder: holder.clone(), mount, kind })
            }
            None => Ok(()),
        })
    }

    fn conflict(&self, claim: &Claim, mount: &Mount) -> Option<(&'c TenantName, ConflictKind)> {
        let on_host = mount.host.as_ref().and_then(|host| self.hosts.get(host));
        if let Some(holder) = on_host.and_then(|tenants| tenants.in_the_way_of(claim)) {
            return Some((holder, ConflictKind::Host));
        }
        let place = place(mount);
        let is_other = |holder: &&TenantName| **holder != claim.tenant;
        if let Some((holder, held)) = self.mounts.get(&place).filter(|(holder, _)| is_other(holder)) {
            let kind = if *held == mount { ConflictKind::Same } else { ConflictKind::CaseOnly };
            return Some((holder, kind));
        }
        let at = |owner: Place| self.mounts.get(&owner).map(|(holder, _)| *holder).filter(is_other);
        let below = || owners(mount).find_map(at);
        let holder = self.bereft.get(&place).copied().filter(is_other).or_else(below)?;
        Some((holder, ConflictKind::TakesEndpoint))
    }
}

/// An index of the mounts held, kept up to date. It finds the few holders with which a new claim
/// may conflict.
#[derive(Debug)]
pub struct Places<K> {
    mounts: HashMap<Place, Vec<K>>,
    /// The holders of mounts at or below one of a place's own paths, by that place.
    bereft: HashMap<Place, Vec<K>>,
    /// The holders on a host that share it, and those that do not.
    sharing: HashMap<HostName, Vec<K>>,
    alone: HashMap<HostName, Vec<K>>,
}

impl<K: Clone + PartialEq> Places<K> {
    /// Returns an index without holders.
    pub fn new() -> Self {
        Self {
            mounts: HashMap::new(),
            bereft: HashMap::new(),
            sharing: HashMap::new(),
            alone: HashMap::new(),
        }
    }

    /// Records that `holder` has this mount, and whether it shares the host.
    pub fn hold(&mut self, mount: &Mount, shares_hosts: bool, holder: &K) {
        if let Some(host) = &mount.host {
            self.on_hosts(shares_hosts).entry(host.clone()).or_default().push(holder.clone());
        }
        // Most places have one holder.
        self.mounts.entry(place(mount)).or_insert_with(|| Vec::with_capacity(1)).push(holder.clone());
        for owner in owners(mount) {
            self.bereft.entry(owner).or_default().push(holder.clone());
        }
    }

    /// Records that `holder` no longer has this mount.
    pub fn release(&mut self, mount: &Mount, shares_hosts: bool, holder: &K) {
        if let Some(host) = &mount.host {
            forget(self.on_hosts(shares_hosts), host, holder);
        }
        forget(&mut self.mounts, &place(mount), holder);
        for owner in owners(mount) {
            forget(&mut self.bereft, &owner, holder);
        }
    }

    /// Returns every holder with which a claim to this mount may conflict, some of them twice.
    pub fn rivals(&self, mount: &Mount, shares_hosts: bool) -> impl Iterator<Item = &K> {
        let place = place(mount);
        let at = self.mounts.get(&place).into_iter().chain(self.bereft.get(&place));
        let above = owners(mount).filter_map(|owner| self.mounts.get(&owner));
        let host = mount.host.as_ref();
        let alone = host.and_then(|host| self.alone.get(host));
        let sharing = host.filter(|_| !shares_hosts).and_then(|host| self.sharing.get(host));
        at.chain(above).chain(alone).chain(sharing).flatten()
    }

    fn on_hosts(&mut self, shared: bool) -> &mut HashMap<HostName, Vec<K>> {
        if shared { &mut self.sharing } else { &mut self.alone }
    }
}

impl<K: Clone + PartialEq> Default for Places<K> {
    fn default() -> Self {
        Self::new()
    }
}

fn forget<P: Eq + std::hash::Hash, K: PartialEq>(places: &mut HashMap<P, Vec<K>>, place: &P, holder: &K) {
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

/// Returns the places, mounted or not, whose own paths this mount equals or is below.
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
